"""Global generators of random numbers start each cell alike, torch's too, which the core never imports itself."""

from __future__ import annotations

import random
import sys

import numpy as np

from rankbench.imports import WATCH


def seed_everything(seed: int) -> None:
    """No cell depends on the one before it in this process, nor on being the first to import torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (a plugin's library may draw from it)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)
        return
    WATCH.after["torch"] = lambda torch: torch.manual_seed(seed)  # plugins import it within `fit`
    WATCH.begin()
