"""Minimises the RankSVM objective by Newton's method without ever forming a difference of features.

    ½ |w|² + ½ Σ_ordered c_p max(0, 1 − (s_i − s_j))² + ½ Σ_ties c_p (s_i − s_j)²,        s = X w

The loss is a function of one score an image. Its gradient by w is Xᵀ g with g = ∂loss/∂s, its Gauss-Newton matrix
Xᵀ L X with L the graph Laplacian of the pairs that fall short and of the ties: sᵀ L s = Σ c_p (s_i − s_j)².
So a step costs products with X (one row an image) and passes over the pairs, never pairs × dimensions.
Source: Chapelle & Keerthi, "Efficient algorithms for ranking with SVMs", Information Retrieval 13 (2010).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

import rankbench

CHUNK = 1 << 17  # pairs a pass treats at once: its scratch arrays stay in the processor's cache


@dataclass
class Solution:
    """weights, (d,) float64; gradient, its norm at them relative to that at 0; converged; steps taken."""

    weights: np.ndarray
    gradient: float
    converged: bool
    steps: int


class Judgements:
    """The pairs as the objective sees them: ordered ones grouped by their lower image, ties as a constant Laplacian.

    Args: images, how many; pairs, with `label` and perhaps `weight`; cost of an ordered pair and of a tie, each
        multiplied by the pair's weight; dtype of the costs, which decides how exact the curvature is; threads.
    Raises: DataError if no ordered pair has a weight.
    """

    def __init__(self, images, pairs, cost, cost_similar, dtype=np.float64, threads=1):
        self.images, self.dtype, self.threads = images, np.dtype(dtype), threads
        label, weight = pairs.label, pairs.weight
        counts = label != 0 if weight is None else (label != 0) & (weight > 0)
        if not counts.any():
            raise rankbench.DataError("ranksvm: there are no ordered pairs to learn from, only ties or zero weights.")
        self._group(pairs, slice(None) if counts.all() else np.flatnonzero(counts), cost)
        self.similar = self._ties(pairs, cost_similar)
        self._curvature = np.empty(len(self.upper), self.dtype)
        self._chunks = list(row_chunks(self.starts))

    def _group(self, pairs, rows, cost):
        """`upper`, the higher image of each ordered pair, those of one lower image side by side; `sign`, +1 where the
        lower image shows more; `cost`, one for all or one a pair."""
        left, right, label = pairs.left[rows], pairs.right[rows], pairs.label[rows]
        swapped = left > right
        lower = np.where(swapped, right, left).astype(np.int32)
        self.upper = np.where(swapped, left, right).astype(np.int32)
        self.sign = np.where(swapped, -label, label).astype(np.int8)
        self.cost = np.float64(cost) if pairs.weight is None else (cost * pairs.weight[rows]).astype(np.float64)
        if len(lower) > 1 and (lower[1:] < lower[:-1]).any():  # the core hands pairs over in order
            order = np.argsort(lower, kind="stable")
            lower, self.upper, self.sign = lower[order], self.upper[order], self.sign[order]
            self.cost = self.cost if self.cost.ndim == 0 else self.cost[order]
        index = np.int32 if len(lower) < 2**31 else np.int64
        self.starts = np.concatenate([[0], np.cumsum(np.bincount(lower, minlength=self.images))]).astype(index)

    def _ties(self, pairs, cost):
        weight = np.ones(len(pairs)) if pairs.weight is None else pairs.weight
        ties = np.flatnonzero((pairs.label == 0) & (weight > 0)) if cost > 0 else []
        if not len(ties):
            return None
        return laplacian(pairs.left[ties], pairs.right[ties], cost * weight[ties], self.images)

    def _each(self, work):
        """What `work` gives for each chunk, chunks spread over threads."""
        if self.threads == 1 or len(self._chunks) == 1:
            return [work(*chunk) for chunk in self._chunks]
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(lambda chunk: work(*chunk), self._chunks))

    def _lead(self, scores, first, last):
        """The lower image's lead in pairs of lower images first … last, as their sign sees it."""
        begin, end = self.starts[first], self.starts[last]
        runs = np.diff(self.starts[first : last + 1])
        lead = np.repeat(scores[first:last], runs)
        lead -= scores[self.upper[begin:end]]
        lead *= self.sign[begin:end]
        return lead, runs

    def _costs(self, begin, end):
        return self.cost if self.cost.ndim == 0 else self.cost[begin:end]

    def evaluate(self, scores):
        """Loss, its slope (images,) by the scores, and, kept for `curvature`, which pairs fall short."""

        def work(first, last):
            begin, end = self.starts[first], self.starts[last]
            slack, runs = self._lead(scores, first, last)
            np.subtract(1, slack, out=slack)
            short = slack > 0
            slack *= short
            np.multiply(short, self._costs(begin, end), out=self._curvature[begin:end], casting="unsafe")
            pull = slack * self._costs(begin, end)
            loss = 0.5 * float(pull @ slack)
            pull *= self.sign[begin:end]
            return loss, first, sums(pull, runs), np.bincount(self.upper[begin:end], pull, self.images)

        loss, slope = 0.0, np.zeros(self.images)
        for part, first, lower, upper in self._each(work):
            loss += part
            slope[first : first + len(lower)] -= lower
            slope += upper
        if self.similar is not None:
            pulled = self.similar @ scores
            loss, slope = loss + 0.5 * float(scores @ pulled), slope + pulled
        return loss, slope

    def curvature(self):
        """v ↦ L v for the pairs that fell short at the scores last evaluated, and the ties."""
        from scipy.sparse import csr_array

        shape = (self.images, self.images)
        edges = csr_array((self._curvature, self.upper, self.starts), shape=shape)
        flipped, one = edges.T, np.ones(self.images, self.dtype)
        degree = (edges @ one).astype(np.float64) + flipped @ one

        def product(vector):
            narrow = vector.astype(self.dtype)
            if self.threads == 1:
                there, back = edges @ narrow, flipped @ narrow
            else:
                with ThreadPoolExecutor(1) as pool:
                    other = pool.submit(flipped.__matmul__, narrow)
                    there, back = edges @ narrow, other.result()
            found = degree * vector - there - back
            return found if self.similar is None else found + self.similar @ vector

        return product


def row_chunks(starts, size=CHUNK):
    """Consecutive runs of rows, (first, last), of about `size` pairs each; a row is never cut."""
    first, rows = 0, len(starts) - 1
    while first < rows:
        last = int(np.searchsorted(starts, starts[first] + size, side="right")) - 1
        last = min(max(last, first + 1), rows)
        if starts[last] > starts[first]:
            yield first, last
        first = last


def sums(values, runs):
    """(rows,) sum of each run of values, some of them empty."""
    found = np.zeros(len(runs))
    filled = runs > 0
    begins = np.concatenate([[0], np.cumsum(runs[filled])[:-1]]) if filled.any() else []
    if len(begins):
        found[filled] = np.add.reduceat(values, begins)
    return found


def laplacian(left, right, cost, images):
    """L with sᵀ L s = Σ cost (s_left − s_right)², sparse."""
    from scipy.sparse import coo_array, diags_array

    degree = np.bincount(left, cost, images) + np.bincount(right, cost, images)
    edges = coo_array((cost, (left, right)), shape=(images, images)).tocsr()
    return diags_array(degree, dtype=np.float64).tocsr() - edges - edges.T.tocsr()


def minimize(x, judgements, start=None, log=None, tolerance=1e-7, max_steps=100):
    """The weights that minimise the objective: Newton steps by conjugate gradients, with a line search.

    Args: x, a matrix of `feature_matrix`; start, (d,); tolerance, norm of the gradient relative to that at w = 0; log,
        called each step.
    Returns: Solution. It has not converged where steps run out or rounding allows no further descent.
    """
    weights, scores = np.zeros(x.shape[1]), np.zeros(x.shape[0])
    loss, slope = judgements.evaluate(scores)
    whole = np.linalg.norm(x.transposed_times(slope))
    finite(whole, x)
    if whole == 0:  # contradicting pairs, or features alike in all pairs: nothing pulls
        return Solution(weights, 0.0, True, 0)
    if start is not None:
        weights, scores = start, x.times(start)
        loss, slope = judgements.evaluate(scores)
    best = np.inf
    for step in range(max_steps + 1):
        gradient = weights + x.transposed_times(slope)
        size, objective = float(np.linalg.norm(gradient)) / whole, 0.5 * float(weights @ weights) + loss
        finite(size, x)
        if log:
            log(step, objective=objective, gradient=size)
        small = size <= tolerance
        # The curvature is at least 1, so the objective is at most ½ |g|² above its minimum. Where C is very large that
        # says little, though |g| is small beside that at w = 0: then the next step must promise little, too.
        certain = small and 0.5 * float(gradient @ gradient) <= 1e-4 * objective
        if certain or objective >= best * (1 - 1e-12) or step == max_steps:
            break
        best = objective
        # Far from the goal a rough direction will do; near it the exact one makes Newton's method converge at once.
        accuracy = 1e-4 if small else max(min(0.1, np.sqrt(size)), 0.3 * tolerance / size)
        direction = newton_direction(x, judgements.curvature(), gradient, accuracy)
        descent = float(gradient @ direction)
        certain = small and -0.5 * descent <= 1e-6 * objective
        if certain:
            break
        lead = x.times(direction)
        length, loss, slope = line_search(judgements, weights, direction, scores, lead, descent)
        weights, scores = weights + length * direction, scores + length * lead
    return Solution(weights, size, certain, step)


def finite(norm, x):
    """DataError if a gradient is not finite: then a feature is not, and the first such row is named."""
    if not np.isfinite(norm):
        bad = np.flatnonzero(~np.isfinite(x.times(np.ones(x.shape[1]))))
        first = (
            f" of {len(bad)} images are not finite (first: {bad[0]})" if len(bad) else " are too large to be added up"
        )
        raise rankbench.DataError(f"ranksvm: the features{first}.")


def newton_direction(x, curvature, gradient, accuracy, max_products=500):
    """v with (I + Xᵀ L X) v ≈ −gradient, to the relative accuracy, by conjugate gradients."""
    direction = np.zeros_like(gradient)
    residual = -gradient
    search = residual.copy()
    square = float(residual @ residual)
    goal = accuracy**2 * square
    for _ in range(max_products):
        product = search + x.transposed_times(curvature(x.times(search)))
        bend = float(search @ product)
        if bend <= 0:  # rounding alone can do this: the matrix is positive definite
            break
        length = square / bend
        direction += length * search
        residual -= length * product
        square, last = float(residual @ residual), square
        if square <= goal:
            break
        search = residual + square / last * search
    return direction


def line_search(judgements, weights, direction, scores, lead, descent, max_steps=30):
    """Step length near the minimum along a direction, and loss and slope there, which the next step needs anyway.

    The derivative along the line is rising and piecewise linear: Newton's method, kept inside the bracket it finds.
    It stops where the derivative has fallen to a twentieth of `descent`, the derivative at 0: what a closer search
    would gain, the next direction gains too.
    """
    rise, rest = float(weights @ direction), float(direction @ direction)
    length, low, high = 1.0, 0.0, np.inf
    for _ in range(max_steps):
        loss, slope = judgements.evaluate(scores + length * lead)
        rate = rise + length * rest + float(slope @ lead)
        if abs(rate) <= 0.05 * abs(descent):
            break
        low, high = (length, high) if rate < 0 else (low, length)
        length -= rate / (rest + float(lead @ judgements.curvature()(lead)))
        if not low < length < high:
            length = (low + high) / 2 if np.isfinite(high) else 2 * low
    return length, loss, slope
