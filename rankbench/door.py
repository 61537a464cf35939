"""Door: the Run a plugin gets. No attribute of it leads to what stands behind: names, columns, tests, the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from rankbench.features import Fit
from rankbench.images import Images
from rankbench.pairs import Pairs
from rankbench.plugin import Features, Rows, Run, State

if TYPE_CHECKING:
    from rankbench.services import CellRun

BEHIND: WeakKeyDictionary[Door, CellRun] = WeakKeyDictionary()  # here, as an attribute would lead there


class Door:
    """The Run a plugin gets: its services and nothing behind them, where names, columns and tests are."""

    __slots__ = ("__weakref__", "device", "seed", "threads")

    def __init__(self, run: CellRun) -> None:
        BEHIND[self] = run
        self.seed, self.device, self.threads = run.seed, run.device, run.threads

    @property
    def rng(self) -> np.random.Generator:
        """Generator seeded from the seed."""
        return BEHIND[self].rng

    @property
    def folder(self) -> Path:
        """Private folder, made when asked for."""
        return BEHIND[self].folder

    def features(self, images: Images, names: Features | Sequence[Any] | str) -> Rows:
        """(n, d) float32 rows of the named features."""
        return BEHIND[self].features(images, names)

    def pixels(self, images: Images, size: int, fit: Fit = "stretch") -> Rows:
        """(n, size, size, 3) uint8."""
        return BEHIND[self].pixels(images, size, fit)

    def log(self, step: float, **numbers: float) -> None:
        """Store a point of the curves."""
        BEHIND[self].log(step, **numbers)

    def expect(self, steps: float) -> None:
        """Say how many steps are to come."""
        BEHIND[self].expect(steps)

    def holdout(self, images: Images, pairs: Pairs, share: float) -> tuple[Pairs, Pairs]:
        """Pairs to fit and pairs held out."""
        return BEHIND[self].holdout(images, pairs, share)

    def shared(
        self, name: str, parameters: Mapping[str, Any], build: Callable[[Run], State], features: Features | None = None
    ) -> State:
        """An artefact several cells need, built once."""
        return BEHIND[self].shared(name, parameters, build, features)
