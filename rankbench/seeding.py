"""Global generators of random numbers start each cell alike, torch's too, which the core never imports itself."""

from __future__ import annotations

import importlib.abc
import random
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

import numpy as np


def seed_everything(seed: int) -> None:
    """No cell depends on the one before it in this process, nor on being the first to import torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (a plugin's library may draw from it)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)
        return
    LATE.seed = seed
    if LATE not in sys.meta_path:
        sys.meta_path.insert(0, LATE)


class LateSeed(importlib.abc.MetaPathFinder):
    """Seeds torch right after its import, with the seed of the cell that imports it: plugins do so within `fit`."""

    seed = 0

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """What the other finders find; its loader seeds."""
        if name != "torch":
            return None
        for finder in sys.meta_path:
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                break
        else:
            return None
        if spec.loader is not None:
            self._seeding(spec.loader)
        return spec

    def _seeding(self, loader: importlib.abc.Loader) -> None:
        """The loader stays what it was (others look at its type); only its last step does more."""
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            module.manual_seed(self.seed)

        loader.exec_module = exec_module  # type: ignore[method-assign]


LATE = LateSeed()
