"""RankSVM on image features: the relative-attribute ranker of Parikh & Grauman, solved exactly.

Feature differences are never formed (see ranking_newton), features larger than memory are read in blocks (see
feature_matrix), and a kernel comes in as an explicit map of the features (see kernel_maps).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

import rankbench

HOLDOUT_SHARE = 0.2
LARGEST_C = 1e12  # sums of larger costs overflow in float32, and no data tell such costs apart
FALLBACK_C = 0.1  # Parikh & Grauman's, where there are too few pairs to hold some out
TOLERANCE = {"float32": 1e-5, "float64": 1e-7}  # of the gradient; products in float32 carry about 1e-6
BLOCK = 4096  # rows scored at once


@dataclass
class RankSVM(rankbench.Ranker):
    """Linear ranking SVM with squared hinge loss on ordered pairs and squared loss on similar ones (ties).

    Minimises over w, with no bias and features as they come,

        ½ |w|² + ½ Σ_ordered C max(0, 1 − w·(x_i − x_j))² + ½ Σ_similar C_similar (w·(x_i − x_j))²

    where image i shows more than j. A pair's weight, where pairs have weights, multiplies its C.
    Source: Parikh & Grauman, "Relative attributes", ICCV 2011, and the code released with it (C = 0.1). The objective
    is theirs to the letter; it is minimised to convergence, where theirs stops after ten Newton steps.
    What is learned: `weights_`, (d,) float64, of the features (of the mapped features where there is a map); `C_`.

    Args:
        features: what describes an image.
        C: cost of an ordered pair, or "holdout": the cost of `C_grid` whose model orders most pairs of
            `run.holdout(images, pairs, 0.2)`, the smaller of equals; then refitted on all pairs. 0.1 where that leaves
            no ordered pair on one of the sides.
        C_similar: cost of a tie; None for the same as C.
        C_grid: the costs to choose from, in rising order.
        holdouts: how many hold-outs the choice is averaged over.
        precision: of products with the features. "float32" stops where the gradient is 1e-5 of that at w = 0,
            "float64" at 1e-7.
        map: "nystroem" or "random-fourier" puts an approximate RBF kernel exp(−gamma |x − y|²) in front; "sqrt" the
            signed square root (the Hellinger kernel of histograms).
        components: dimensions of the map, at most the number of training images for "nystroem".
        gamma: of the kernel; None for 1 / (dimensions × variance of the features).
        gpu: whether products with the features are taken on a GPU where there is one.
    """

    features: rankbench.Features = field(default_factory=lambda: rankbench.Features("hog"))
    C: float | Literal["holdout"] = 0.1
    C_similar: float | None = None
    C_grid: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0, 100.0)
    holdouts: int = 1
    precision: Literal["float32", "float64"] = "float32"
    map: Literal["none", "nystroem", "random-fourier", "sqrt"] = "none"
    components: int = 500
    gamma: float | None = None
    gpu: bool = False

    def __post_init__(self):
        for name, cost in (("C", self.C), ("C_similar", self.C_similar), *(("C_grid", cost) for cost in self.C_grid)):
            if isinstance(cost, int | float) and not 0 <= cost <= LARGEST_C:
                raise rankbench.DataError(f"ranksvm: {name} is {cost}; a cost is at least 0 and at most {LARGEST_C:g}.")
        if not self.C_grid or list(self.C_grid) != sorted(set(self.C_grid)):
            raise rankbench.DataError(f"ranksvm: C_grid is {list(self.C_grid)}; list different costs, smallest first.")
        for name, count in (("components", self.components), ("holdouts", self.holdouts)):
            if count < 1:
                raise rankbench.DataError(f"ranksvm: {name} is {count}; use at least 1.")
        if self.gamma is not None and not (self.gamma > 0 and np.isfinite(self.gamma)):
            raise rankbench.DataError(f"ranksvm: gamma is {self.gamma}; it is finite and above 0, or not set.")

    @property
    def seeded(self) -> bool:
        """Only the choice of held-out pairs and the maps that sample depend on the seed."""
        return self.C == "holdout" or self.map in ("nystroem", "random-fourier")

    @property
    def notes(self):
        """A table says where the optimum was not reached."""
        if getattr(self, "converged_", True):
            return ()
        return (f"RankSVM stopped before its optimum: gradient {self.gradient_:.0e} of that at w = 0",)

    def resources(self):
        return rankbench.Resources(gpu=int(self.gpu))

    def state(self):
        """The map's arrays beside the weights: states are flat."""
        kept = {name: value for name, value in super().state().items() if name != "map_"}
        return kept | {f"map_{name}": value for name, value in self.map_.items()}

    def load(self, state):
        super().load({name: value for name, value in state.items() if not name.startswith("map_")})
        self.map_ = {name.removeprefix("map_"): value for name, value in state.items() if name.startswith("map_")}

    def needs_images(self):
        return "features"

    def fit(self, images, pairs, run):
        from rankbench_rankers.feature_matrix import matrix
        from rankbench_rankers.kernel_maps import fitted_map

        rows = run.features(images, self.features)
        self.map_ = fitted_map(self.map, rows, self.components, self.gamma, run.seed)
        x = matrix(self._mapped(rows), self.precision, run.device)
        self.C_ = float(self._chosen_cost(x, images, pairs, run) if self.C == "holdout" else self.C)
        solution = self._solved(x, pairs, self.C_, run, log=run.log)
        self.weights_, self.gradient_, self.converged_ = solution.weights, solution.gradient, solution.converged
        return self

    def score(self, images, run):
        rows = self._mapped(run.features(images, self.features))
        return np.concatenate(
            [np.zeros(0), *(block.astype(np.float64) @ self.weights_ for block in rows.blocks(BLOCK))]
        )

    def _mapped(self, rows):
        from rankbench_rankers.kernel_maps import Mapped

        return Mapped(rows, self.map_) if self.map_ else rows

    def _solved(self, x, pairs, cost, run, start=None, log=None):
        from rankbench_rankers.ranking_newton import Judgements, minimize

        similar = cost if self.C_similar is None else self.C_similar
        judgements = Judgements(x.shape[0], pairs, cost, similar, self.precision, run.threads)
        return minimize(x, judgements, start, log, TOLERANCE[self.precision])

    def _chosen_cost(self, x, images, pairs, run):
        """The cost of the grid that orders most held-out pairs, each fit starting from the last."""
        right = np.zeros(len(self.C_grid))
        for _ in range(self.holdouts):
            fitted, held = run.holdout(images, pairs, HOLDOUT_SHARE)
            if not counts(held).any() or not counts(fitted).any():
                return FALLBACK_C
            weights = None
            for at, cost in enumerate(self.C_grid):
                weights = self._solved(x, fitted, cost, run, weights).weights
                right[at] += accuracy(x.times(weights), held) / self.holdouts
        for at, (cost, share) in enumerate(zip(self.C_grid, right, strict=True)):
            run.log(at, C=cost, holdout_accuracy=share)
        return self.C_grid[int(np.argmax(right))]


def counts(pairs):
    """(n,) which pairs are ordered and have a weight."""
    return pairs.ordered if pairs.weight is None else pairs.ordered & (pairs.weight > 0)


def accuracy(scores, pairs):
    """Share of the ordered pairs that the scores put in order; a tie is half right."""
    right = np.sign(scores[pairs.left] - scores[pairs.right]) * pairs.label  # 1 right, -1 wrong, 0 no order
    return (1 + float(right[pairs.ordered].mean())) / 2
