"""RBF kernels between differences of features, without forming the differences of the pairs to be judged."""

from __future__ import annotations

import numpy as np

BLOCK = 2**22  # numbers held at once, of pairs against gaps or features
IMAGE_BLOCK = 2**26  # and of images against gaps


def expansion_values(x, left, right, gaps, coefficients, gamma):
    """(n, k) Σ_s coefficients[s] exp(−gamma |x_left − x_right − gaps_s|²) of each pair.

    With d = x_left − x_right: |d − g|² = |d|² − 2 (x_left·g − x_right·g) + |g|², so each image is multiplied with the
    gaps once and a pair costs a subtraction.

    Args: x, (images, d); left, right, (n,) rows; gaps, (s, d) support differences; coefficients, (s, k).
    """
    x, gaps, narrow = (np.asarray(one, dtype=np.float32) for one in (x, gaps, coefficients))
    lengths = np.einsum("ij,ij->i", gaps, gaps)
    square = squared_distances(x, left, right)
    out = np.zeros((len(left), coefficients.shape[1]))
    for some in blocks(len(gaps), IMAGE_BLOCK // max(1, len(x))):
        against = x @ gaps[some].T  # (images, some)
        for at in blocks(len(left), BLOCK // against.shape[1]):
            power = against[left[at]]
            power -= against[right[at]]
            power *= 2 * gamma
            power -= gamma * (square[at, None] + lengths[some])
            np.minimum(power, 0, out=power)  # rounding must not make a kernel larger than 1
            out[at] += np.exp(power, out=power) @ narrow[some]
    return out


def squared_distances(x, left, right):
    """(n,) float32 |x_left − x_right|²."""
    out = np.empty(len(left), np.float32)
    for at in blocks(len(left), BLOCK // max(1, x.shape[1])):
        difference = x[left[at]]
        difference -= x[right[at]]
        out[at] = np.einsum("ij,ij->i", difference, difference)
    return out


def blocks(count, size):
    """Slices of at most so many, at least one, that make up `count`."""
    size = max(1, size)
    return (slice(begin, begin + size) for begin in range(0, count, size))


def sampled(count, limit, rng):
    """Rows of at most `limit` out of `count`, drawn without repeats, in order."""
    return np.arange(count) if count <= limit else np.sort(rng.permutation(count)[:limit])
