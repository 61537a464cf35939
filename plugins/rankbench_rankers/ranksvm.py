"""RankSVM on image features: the relative-attribute ranker of Parikh & Grauman, solved exactly.

Feature differences are never formed. The solver works with one row an image and one score an image; pairs enter only
through sums over the scores, so that its cost grows with images × dimensions plus pairs, not with their product.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

import rankbench

HOLDOUT_SHARE = 0.2
HOLDOUT_C = tuple(10.0**power for power in range(-5, 3))  # tried in this order, each fit starting from the last
FALLBACK_C = 0.1  # Parikh & Grauman's, where there are too few pairs to hold some out


@dataclass
class RankSVM(rankbench.Ranker):
    """Linear ranking SVM with squared hinge loss on ordered pairs and squared loss on similar ones (ties).

    Minimises over w, with no bias and features as they come,

        ½ |w|² + ½ Σ_ordered C max(0, 1 − w·(x_i − x_j))² + ½ Σ_similar C_similar (w·(x_i − x_j))²

    where image i shows more than j. A pair's weight, where pairs have weights, multiplies its C.
    Source: Parikh & Grauman, "Relative attributes", ICCV 2011, and the code released with it (C = 0.1). The objective
    is theirs to the letter; it is minimised to convergence, where theirs stops after ten Newton steps.

    Args:
        features: what describes an image.
        C: cost of an ordered pair, or "holdout": the power of ten from 1e-5 to 100 whose model orders most pairs of
            `run.holdout(images, pairs, 0.2)`, the smaller of equals; then refitted on all pairs. 0.1 where that leaves
            no ordered pair on one of the sides.
        C_similar: cost of a tie; None for the same as C.
    """

    features: rankbench.Features = field(default_factory=lambda: rankbench.Features("hog"))
    C: float | Literal["holdout"] = 0.1
    C_similar: float | None = None

    @property
    def seeded(self) -> bool:
        """Only the choice of held-out pairs depends on the seed."""
        return self.C == "holdout"

    def fit(self, images, pairs, run):
        for name, cost in (("C", self.C), ("C_similar", self.C_similar)):
            if isinstance(cost, int | float) and not (cost >= 0 and np.isfinite(cost)):
                raise rankbench.DataError(f"ranksvm: {name} is {cost}; a cost is finite and at least 0.")
        x = np.asarray(run.features(images, self.features)[:], dtype=np.float64)  # (images, d)
        bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
        if len(bad):
            raise rankbench.DataError(f"ranksvm: the features of {len(bad)} images are not finite (first: {bad[0]}).")
        x, basis = narrowed(x)
        cost = self._chosen_cost(x, images, pairs, run) if self.C == "holdout" else self.C
        weights = minimize(x, self._judgements(len(x), pairs, cost), log=run.log)
        self.weights_ = weights if basis is None else basis @ weights  # (d,)
        self.C_ = float(cost)
        return self

    def score(self, images, run):
        rows = run.features(images, self.features)
        return np.concatenate([np.zeros(0), *(block.astype(np.float64) @ self.weights_ for block in rows.blocks(4096))])

    def _judgements(self, images, pairs, cost):
        return Judgements(images, pairs, cost, cost if self.C_similar is None else self.C_similar)

    def _chosen_cost(self, x, images, pairs, run):
        fitted, held = run.holdout(images, pairs, HOLDOUT_SHARE)
        if not held.ordered.any() or not fitted.ordered.any():
            return FALLBACK_C
        best, best_accuracy, weights = HOLDOUT_C[0], -1.0, None
        for cost in HOLDOUT_C:
            weights = minimize(x, self._judgements(len(x), fitted, cost), start=weights)
            scores = x @ weights
            right = np.sign(scores[held.left] - scores[held.right]) * held.judgement  # 1 right, -1 wrong, 0 no order
            accuracy = (1 + float(right[held.ordered].mean())) / 2
            run.log(np.log10(cost), holdout_accuracy=accuracy)
            if accuracy > best_accuracy:
                best, best_accuracy = cost, accuracy
        return best


def narrowed(x):
    """Coordinates of the images in the space they span, where that is much smaller than the space of features.

    The solution is a combination of the training images (representer theorem), so that nothing is lost.

    Returns: (n, k) coordinates, and the (d, k) orthonormal basis, or None if x was returned as it is.
    """
    n, d = x.shape
    if n > min(d / 2, 1000):  # beyond that the decomposition costs more than it saves
        return x, None
    basis, coordinates = np.linalg.qr(x.T)
    return np.ascontiguousarray(coordinates.T), basis


class Judgements:
    """The pairs as the objective sees them: a function of one score an image.

    Attributes: winner, loser, cost, (ordered pairs,); similar, (n, n) sparse Laplacian of the ties.
    """

    def __init__(self, images, pairs, cost, cost_similar):
        label = pairs.judgement
        weight = np.ones(len(pairs)) if pairs.weight is None else np.asarray(pairs.weight)
        ordered = (label != 0) & (weight > 0)
        if not ordered.any():
            raise rankbench.DataError("ranksvm: there are no ordered pairs to learn from, only ties or zero weights.")
        first, left, right = (label > 0)[ordered], pairs.left[ordered], pairs.right[ordered]
        self.images = images
        self.winner, self.loser, self.cost = merged(
            np.where(first, left, right), np.where(first, right, left), cost * weight[ordered], images
        )
        ties = (label == 0) & (weight > 0)
        self.similar = laplacian(pairs.left[ties], pairs.right[ties], cost_similar * weight[ties], images)

    def slack(self, scores):
        """(ordered pairs,) by how much each pair falls short of a lead of 1."""
        return np.maximum(0, 1 - (scores[self.winner] - scores[self.loser]))

    def loss(self, scores, slack):
        return 0.5 * float(self.cost @ slack**2) + 0.5 * float(scores @ (self.similar @ scores))

    def slope(self, scores, slack):
        """(images,) derivative of the loss by each score."""
        pull = self.cost * slack
        ordered = np.bincount(self.loser, pull, self.images) - np.bincount(self.winner, pull, self.images)
        return ordered + self.similar @ scores

    def curvature(self, slack):
        """(images, images) second derivative by the scores: a sparse Laplacian of the pairs that fall short."""
        short = slack > 0
        return laplacian(self.winner[short], self.loser[short], self.cost[short], self.images) + self.similar


def merged(winner, loser, cost, images):
    """The same costs with repeated pairs added up."""
    code = winner.astype(np.int64) * images + loser
    if len(code) > 1 and not (code[1:] > code[:-1]).all():
        code, place = np.unique(code, return_inverse=True)
        cost = np.bincount(place, cost)
    return code // images, code % images, cost


def laplacian(left, right, cost, images):
    """L with sᵀ L s = Σ cost (s_left − s_right)², sparse."""
    from scipy.sparse import coo_array, diags_array

    degree = np.bincount(left, cost, images) + np.bincount(right, cost, images)
    edges = coo_array((cost, (left, right)), shape=(images, images)).tocsr()
    return diags_array(degree, dtype=np.float64).tocsr() - edges - edges.T.tocsr()


def minimize(x, judgements, start=None, log=None, tolerance=1e-7, max_steps=200):
    """The weights that minimise the objective: Newton steps by conjugate gradients, exact line search.

    Args: x, (n, d); start, (d,); tolerance, norm of the gradient relative to that at w = 0; log, called each step.
    Returns: (d,) float64. Warns if max_steps did not reach the tolerance.
    """
    weights = np.zeros(x.shape[1]) if start is None else start
    scores = x @ weights
    at_zero = np.zeros(len(x))
    whole = np.linalg.norm(x.T @ judgements.slope(at_zero, judgements.slack(at_zero)))
    goal = tolerance * whole
    for step in range(max_steps + 1):
        slack = judgements.slack(scores)
        gradient = weights + x.T @ judgements.slope(scores, slack)
        size = np.linalg.norm(gradient)
        if log:
            objective = 0.5 * float(weights @ weights) + judgements.loss(scores, slack)
            log(step, objective=objective, gradient=float(size))
        if size <= goal:
            return weights
        if step == max_steps:
            break
        # Far from the goal a rough direction will do; near it the exact one makes Newton's method converge at once.
        rough = min(0.1, np.sqrt(size / whole))
        direction = newton_direction(x, judgements.curvature(slack), gradient, rough)
        lead = x @ direction
        length = line_search(weights, direction, scores, lead, judgements)
        weights, scores = weights + length * direction, scores + length * lead
    warnings.warn(f"ranksvm: gradient {size:.2g} after {max_steps} Newton steps, wanted {goal:.2g}.", stacklevel=2)
    return weights


def newton_direction(x, curvature, gradient, accuracy, max_products=2000):
    """v with (I + Xᵀ L X) v ≈ −gradient, to the relative accuracy, by conjugate gradients."""
    direction = np.zeros_like(gradient)
    residual = -gradient
    search = residual.copy()
    square = float(residual @ residual)
    goal = accuracy**2 * square
    for _ in range(max_products):
        product = search + x.T @ (curvature @ (x @ search))
        length = square / float(search @ product)
        direction += length * search
        residual -= length * product
        square, last = float(residual @ residual), square
        if square <= goal:
            break
        search = residual + square / last * search
    return direction


def line_search(weights, direction, scores, lead, judgements, max_steps=50):
    """The step length that minimises the objective along a direction: Newton's method on a piecewise parabola."""
    lead_gap = lead[judgements.winner] - lead[judgements.loser]
    gap = scores[judgements.winner] - scores[judgements.loser]
    similar = judgements.similar @ lead
    slope_at_zero = float(weights @ direction) + float(similar @ scores)
    bend_at_rest = float(direction @ direction) + float(similar @ lead)
    length = 1.0
    first = None
    for _ in range(max_steps):
        slack = 1 - gap - length * lead_gap
        pull = np.where(slack > 0, judgements.cost * lead_gap, 0)
        slope = slope_at_zero + length * bend_at_rest - float(pull @ slack)
        first = abs(slope) if first is None else first
        if abs(slope) <= 1e-10 * max(1.0, first):
            break
        length -= slope / (bend_at_rest + float(pull @ lead_gap))
    return length
