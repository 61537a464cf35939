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

    Row i of the groups holds the pairs in which image i, the lower of the two, shows more; row images + i those in
    which it shows less. All pairs of a row have one sign, so that none needs a sign of its own.

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
        size = max(CHUNK, images // 2)  # a chunk adds up an array over all images
        self._chunks = [
            (half + first, half + last)
            for half in (0, images)
            for first, last in row_chunks(self.starts[half : half + images + 1], size)
        ]

    def _group(self, pairs, rows, cost):
        """`upper`, the higher image of each pair, those of one row side by side; `cost`, one for all or one a pair."""
        left, right = pairs.left[rows], pairs.right[rows]
        behind = (pairs.label[rows] > 0) == (left > right)  # whether the lower image shows less
        ahead = ~behind
        lower, upper = np.minimum(left, right).astype(np.int32), np.maximum(left, right).astype(np.int32)
        lower, self.upper = (np.concatenate([one[ahead], one[behind]]) for one in (lower, upper))
        self.cost = np.float64(cost)
        if pairs.weight is not None:
            weight = pairs.weight[rows]
            self.cost = cost * np.concatenate([weight[ahead], weight[behind]]).astype(np.float64)
        wins = int(np.count_nonzero(ahead))
        halves = slice(0, wins), slice(wins, None)
        if any((lower[half][1:] < lower[half][:-1]).any() for half in halves):  # the core hands pairs over in order
            order = np.lexsort([lower, np.arange(len(lower)) >= wins])
            lower, self.upper = lower[order], self.upper[order]
            self.cost = self.cost if self.cost.ndim == 0 else self.cost[order]
        counts = np.concatenate([np.bincount(lower[half], minlength=self.images) for half in halves])
        index = np.int32 if len(lower) < 2**31 else np.int64
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(index)

    def _ties(self, pairs, cost):
        weight = np.ones(len(pairs)) if pairs.weight is None else pairs.weight
        ties = np.flatnonzero((pairs.label == 0) & (weight > 0)) if cost > 0 else []
        if not len(ties):
            return None
        return laplacian(pairs.left[ties], pairs.right[ties], cost * weight[ties], self.images)

    def _each(self, work):
        """What `work` gives for each chunk, in order, chunks spread over threads."""
        if self.threads == 1 or len(self._chunks) == 1:
            for chunk in self._chunks:
                yield work(*chunk)
            return
        with ThreadPoolExecutor(self.threads) as pool:
            yield from pool.map(lambda chunk: work(*chunk), self._chunks)

    def evaluate(self, scores):
        """Loss, its slope (images,) by the scores, and, kept for `curvature`, which pairs fall short."""
        signed, alike = {1: scores, -1: -scores}, self.cost.ndim == 0

        def work(first, last):
            begin, end = self.starts[first], self.starts[last]
            sign, own = (1, first) if first < self.images else (-1, first - self.images)
            runs, upper = np.diff(self.starts[first : last + 1]), self.upper[begin:end]
            slack = np.repeat(1 - signed[sign][own : own + last - first], runs)
            slack += signed[sign].take(upper)
            np.maximum(slack, 0, out=slack)
            cost = self.cost if alike else self.cost[begin:end]
            np.multiply(slack > 0, cost, out=self._curvature[begin:end], casting="unsafe")
            pull, scale = (slack, float(cost)) if alike else (slack * cost, 1.0)
            lower, higher = sums(pull, runs), np.bincount(upper, pull, self.images)
            return 0.5 * scale * float(pull @ slack), own, sign * scale * lower, sign * scale * higher

        loss, slope = 0.0, np.zeros(self.images)
        for part, own, lower, higher in self._each(work):
            loss += part
            slope[own : own + len(lower)] -= lower
            slope += higher
        if self.similar is not None:
            pulled = self.similar @ scores
            loss, slope = loss + 0.5 * float(scores @ pulled), slope + pulled
        return loss, slope

    def curvature(self):
        """v ↦ L v for the pairs that fell short at the scores last evaluated, and the ties."""
        from scipy.sparse import csr_array

        edges = csr_array((self._curvature, self.upper, self.starts), shape=(2 * self.images, self.images))
        flipped, one = edges.T, np.ones(2 * self.images, self.dtype)

        def folded(rows):
            return rows[: self.images] + rows[self.images :]

        degree = folded(edges @ one[: self.images]).astype(np.float64) + flipped @ one

        def product(vector):
            narrow = vector.astype(self.dtype)
            twice = np.concatenate([narrow, narrow])
            if self.threads == 1:
                there, back = folded(edges @ narrow), flipped @ twice
            else:
                with ThreadPoolExecutor(1) as pool:
                    other = pool.submit(flipped.__matmul__, twice)
                    there, back = folded(edges @ narrow), other.result()
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


@np.errstate(over="ignore", invalid="ignore")  # what overflows ends in the error of `finite`
def minimize(x, judgements, start=None, log=None, tolerance=1e-7, max_steps=100):
    """The weights that minimise the objective: Newton steps by conjugate gradients, with a line search.

    Args: x, a matrix of `feature_matrix`; start, (d,); tolerance, norm of the gradient relative to that at w = 0; log,
        called each step.
    Returns: Solution. It has not converged where steps run out or rounding allows no further descent.
    """
    weights, scores = np.zeros(x.shape[1]), np.zeros(x.shape[0])
    loss, slope = judgements.evaluate(scores)
    pull = x.transposed_times(slope)
    whole = np.linalg.norm(pull)
    finite(whole, x)
    # Contradicting pairs (up to rounding), or features alike in all pairs: nothing pulls.
    if whole == 0 or np.abs(slope).max() <= 1e-14 * loss:
        return Solution(weights, 0.0, True, 0)
    if start is not None:
        weights, scores = start, x.times(start)
        loss, slope = judgements.evaluate(scores)
        pull = x.transposed_times(slope)
    best = np.inf
    for step in range(max_steps + 1):
        gradient = weights + pull
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
        direction, lead = newton_direction(x, judgements.curvature(), gradient, accuracy)
        descent = float(gradient @ direction)
        certain = small and -0.5 * descent <= 1e-6 * objective
        if certain:
            break
        length, loss, slope = line_search(judgements, weights, direction, scores, lead, descent)
        weights, scores = weights + length * direction, scores + length * lead
        pull = x.transposed_times(slope)
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
    """v with (I + Xᵀ L X) v ≈ −gradient, to the relative accuracy, by conjugate gradients; and X v, a by-product."""
    direction, lead = np.zeros_like(gradient), np.zeros(x.shape[0])
    residual = -gradient
    search = residual.copy()
    square = float(residual @ residual)
    goal = accuracy**2 * square
    for _ in range(max_products):
        seen = x.times(search)
        product = search + x.transposed_times(curvature(seen))
        bend = float(search @ product)
        if bend <= 0:  # rounding alone can do this: the matrix is positive definite
            break
        length = square / bend
        direction += length * search
        lead += length * seen
        residual -= length * product
        square, last = float(residual @ residual), square
        if square <= goal:
            break
        search = residual + square / last * search
    return direction, lead


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
