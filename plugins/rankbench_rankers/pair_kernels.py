"""RBF kernels between differences of features, without forming the differences of the pairs to be judged."""

from __future__ import annotations

import numpy as np

BLOCK = 2**22  # kernel values computed at once


def expansion_values(x, left, right, gaps, coefficients, gamma):
    """(n, k) Σ_s coefficients[s] exp(−gamma |x_left − x_right − gaps_s|²) of each pair.

    With d = x_left − x_right: |d − g|² = |d|² − 2 (x_left·g − x_right·g) + |g|², so each image is multiplied with the
    gaps once and a pair costs a subtraction.

    Args: x, (images, d); left, right, (n,) rows; gaps, (s, d) support differences; coefficients, (s, k).
    """
    x, gaps = x.astype(np.float32), gaps.astype(np.float32)
    against = x @ gaps.T  # (images, s)
    lengths = np.einsum("ij,ij->i", gaps, gaps)
    out = np.empty((len(left), coefficients.shape[1]))
    step = max(1, BLOCK // max(1, len(gaps)))
    narrow = coefficients.astype(np.float32)
    for begin in range(0, len(left), step):
        i, j = left[begin : begin + step], right[begin : begin + step]
        difference = x[i] - x[j]
        square = np.einsum("ij,ij->i", difference, difference)
        power = against[i]
        power -= against[j]
        power *= 2 * gamma
        power -= gamma * (square[:, None] + lengths)
        np.minimum(power, 0, out=power)  # rounding must not make a kernel larger than 1
        out[begin : begin + step] = np.exp(power, out=power) @ narrow
    return out


def sampled(count, limit, rng):
    """Rows of at most `limit` out of `count`, drawn without repeats, in order."""
    return np.arange(count) if count <= limit else np.sort(rng.permutation(count)[:limit])
