"""Regression of each image's score: learning the amount itself instead of the order of pairs."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

import rankbench
from rankbench_rankers.score_targets import standardised

HOLDOUT_SHARE = 0.2


@dataclass
class Regression(rankbench.Ranker):
    """Linear regression from features to the `score` column, ridge or support vector; the prediction ranks images.

    "ridge" minimises |y − Xw − b|² + alpha |w|²; "svr" minimises ½ |w|² + C Σ max(0, |y − Xw − b| − epsilon)² (linear
    SVR with L2 loss). y is the score standardised over the training images, or with target "rank" its rank, which takes
    out heavy tails. Every training image with a finite score counts once, whether or not a pair names it; the pairs are
    not used.
    Source of the rows of popularity tables: Khosla, Das Sarma & Hamid, WWW 2014 (SVR, C by cross-validation).

    Args:
        features: what describes an image.
        method: "ridge" or "svr".
        alpha: penalty of ridge; "holdout" chooses it from `grid`.
        C: cost of svr; "holdout" chooses it from `grid`.
        epsilon: of svr, in standard deviations of the target.
        grid: what "holdout" tries: the setting whose predictions correlate best, by rank, with the scores of a fifth of
            the training images, drawn by the seed; the first of equals.
        target: "score" or "rank".
    """

    features: rankbench.Features = field(default_factory=lambda: rankbench.Features("hog"))
    method: Literal["ridge", "svr"] = "ridge"
    alpha: float | Literal["holdout"] = 1.0
    C: float | Literal["holdout"] = 1.0
    epsilon: float = 0.1
    grid: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    target: Literal["score", "rank"] = "score"

    def __post_init__(self):
        for name, value in (("alpha", self.alpha), ("C", self.C), *(("grid", value) for value in self.grid)):
            if isinstance(value, int | float) and not (value > 0 and np.isfinite(value)):
                raise rankbench.DataError(f"regression: {name} is {value}; it is finite and above 0.")
        if not (self.epsilon >= 0 and np.isfinite(self.epsilon)) or not self.grid:
            raise rankbench.DataError("regression: epsilon is finite and at least 0, and grid holds a number or more.")

    @property
    def strength(self):
        """The setting in use, of whichever method."""
        return self.alpha if self.method == "ridge" else self.C

    @property
    def seeded(self):
        """Only the choice of held-out images depends on the seed."""
        return self.strength == "holdout"

    def needs_images(self):
        return "features"

    def fit(self, images, pairs, run):
        y, known = standardised(images, self.target, "regression")
        x = np.asarray(run.features(images, self.features)[:], dtype=np.float64)[known]
        bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
        if len(bad):
            raise rankbench.DataError(
                f"regression: features that are not finite, of {len(bad)} of {len(x)} images (first: {bad[0]})."
            )
        strength = self._chosen(x, y, run) if self.strength == "holdout" else self.strength
        self.weights_, self.intercept_ = self._fitted(x, y, strength)
        self.strength_ = float(strength)
        return self

    def score(self, images, run):
        rows = run.features(images, self.features)
        blocks = (block.astype(np.float64) @ self.weights_ + self.intercept_ for block in rows.blocks(4096))
        return np.concatenate([np.zeros(0), *blocks])

    def _fitted(self, x, y, strength):
        if self.method == "ridge":
            from sklearn.linear_model import Ridge

            model = Ridge(alpha=strength, solver="cholesky").fit(x, y)
        else:
            from sklearn.svm import LinearSVR

            model = LinearSVR(
                C=strength, epsilon=self.epsilon, loss="squared_epsilon_insensitive", dual=len(x) < x.shape[1],
                max_iter=20_000, random_state=0,
            ).fit(x, y)  # fmt: skip
        return np.ravel(model.coef_).astype(np.float64), float(np.ravel(model.intercept_)[0])

    def _chosen(self, x, y, run):
        from scipy.stats import spearmanr

        order = run.rng.permutation(len(y))
        held, rest = np.split(order, [max(1, round(HOLDOUT_SHARE * len(y)))])
        if len(np.unique(y[held])) < 2 or len(np.unique(y[rest])) < 2:
            return 1.0
        best, best_rank = self.grid[0], -np.inf
        for at, strength in enumerate(self.grid):
            weights, intercept = self._fitted(x[rest], y[rest], strength)
            predicted = x[held] @ weights + intercept
            rank = spearmanr(predicted, y[held]).statistic if np.ptp(predicted) > 0 else -1.0
            run.log(at, strength=strength, rank_correlation=rank)
            if rank > best_rank:
                best, best_rank = strength, rank
        return best
