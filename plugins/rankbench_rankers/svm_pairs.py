"""svm-pairs: an RBF SVM on the difference of two images' features."""

from dataclasses import dataclass, field
from itertools import product
from typing import Literal

import numpy as np

import rankbench

HOLDOUT_SHARE = 0.2
FALLBACK = (1.0, 1.0)  # C and gamma where there are too few pairs to hold some out


@dataclass
class SVMPairs(rankbench.Ranker):
    """An RBF SVM that sees the difference of two images' features and says which shows more.

    Row "SVM + Image Features" of the paper. Each ordered training pair is given in both orientations, and the margin is
    half the difference of the decision for a pair and for the pair turned round, so turning a pair negates its margin
    exactly. Ties teach nothing here.
    Source: Deza & Parikh, CVPR 2015: libsvm on differences of DeCAF6, C and gamma from {0.01 … 100}. Ours: both
    orientations, and C and gamma chosen on `run.holdout(images, pairs, 0.2)`; gamma counts per squared length of the
    features as they come.

    Args: features; C and gamma, numbers, or "holdout" for the best of `grid`, the first of equals; grid; max_pairs,
        ordered pairs it is trained on, drawn by the seed, because an SVM's time grows with their square.
    """

    features: rankbench.Features = field(default_factory=lambda: rankbench.Features("hog"))
    C: float | Literal["holdout"] = "holdout"
    gamma: float | Literal["holdout"] = "holdout"
    grid: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0, 100.0)
    max_pairs: int = 2000

    def __post_init__(self):
        for name, value in (("C", self.C), ("gamma", self.gamma), *(("grid", value) for value in self.grid)):
            if isinstance(value, int | float) and not (value > 0 and np.isfinite(value)):
                raise rankbench.DataError(f"svm-pairs: {name} is {value}; it is finite and above 0.")
        if self.max_pairs < 1 or not self.grid:
            raise rankbench.DataError("svm-pairs: max_pairs is at least 1, and grid holds a number or more.")

    def needs_images(self):
        return "features"

    def fit(self, images, pairs, run):
        from rankbench_rankers.pair_kernels import sampled

        x = np.asarray(run.features(images, self.features)[:], dtype=np.float64)
        ordered = pairs.take(np.flatnonzero(pairs.ordered))
        if not len(ordered):
            raise rankbench.DataError("svm-pairs: there are no ordered pairs to learn from, only ties.")
        chosen = ordered.take(sampled(len(ordered), self.max_pairs, run.rng))
        C, gamma = self.C, self.gamma
        if "holdout" in (C, gamma):
            C, gamma = self._chosen(x, images, chosen, run)
        self.gaps_, self.coefficients_ = expansion(x, chosen, C, gamma)
        self.C_, self.gamma_ = float(C), float(gamma)
        return self

    def compare(self, images, pairs, run):
        x = np.asarray(run.features(images, self.features)[:])
        return margins(x, pairs, self.gaps_, self.coefficients_, self.gamma_)

    def _chosen(self, x, images, pairs, run):
        """C and gamma that order most held-out pairs; a tie is wrong here, or a model of ties alone might be chosen."""
        fitted, held = run.holdout(images, pairs, HOLDOUT_SHARE)
        costs, gammas = (self.grid if value == "holdout" else (value,) for value in (self.C, self.gamma))
        if not len(fitted) or not len(held):
            return (costs[0] if len(costs) == 1 else FALLBACK[0]), (gammas[0] if len(gammas) == 1 else FALLBACK[1])
        best, best_right = (costs[0], gammas[0]), -1.0
        for step, (gamma, cost) in enumerate(product(gammas, costs)):
            lead = margins(x, held, *expansion(x, fitted, cost, gamma), gamma)
            right = float((np.sign(lead) == held.label).mean())
            run.log(step, C=cost, gamma=gamma, holdout_accuracy=right)
            if right > best_right:
                best, best_right = (cost, gamma), right
        return best


def expansion(x, pairs, C, gamma):
    """Support differences (s, d) and their coefficients (s, 1) of an SVM on the pairs in both orientations."""
    from sklearn.svm import SVC

    gaps = x[pairs.left] - x[pairs.right]
    label = np.asarray(pairs.label)
    weight = None if pairs.weight is None else np.concatenate([pairs.weight, pairs.weight])
    model = SVC(C=C, gamma=gamma, cache_size=500, random_state=0)
    model.fit(np.concatenate([gaps, -gaps]), np.concatenate([label, -label]), weight)
    return model.support_vectors_, model.dual_coef_.T  # classes −1 and +1: positive decisions are +1


def margins(x, pairs, gaps, coefficients, gamma):
    """(n,) half the difference of the decisions for a pair and for the pair turned round; the bias cancels."""
    from rankbench_rankers.pair_kernels import expansion_values

    there = expansion_values(x, pairs.left, pairs.right, gaps, coefficients, gamma)[:, 0]
    back = expansion_values(x, pairs.right, pairs.left, gaps, coefficients, gamma)[:, 0]
    return (there - back) / 2
