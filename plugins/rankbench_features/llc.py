"""Dictionaries of local descriptors: learned by k-means, coded by locality-constrained linear coding, max-pooled.

Source: Wang et al., "Locality-constrained linear coding", CVPR 2010 (the approximated coding of section 3); pyramid of
Lazebnik, Schmid & Ponce, CVPR 2006; three neighbors and 256 words as in the feature extraction code of Khosla, Das
Sarma & Hamid, WWW 2014.
"""

from __future__ import annotations

import numpy as np

NEIGHBORS = 3
RIDGE = 0.03  # times the trace of the local covariance
CELLS = 1 + 4 + 16
BLOCK = 16_384  # descriptors coded at once: their distances to all words stay below 20 MB


def dictionary(samples, words, seed):
    """(words, d) float32 centers of the samples (n, d) by mini-batch k-means; samples repeat where they are few."""
    import warnings

    from sklearn.cluster import MiniBatchKMeans

    samples = np.ascontiguousarray(samples, dtype=np.float32)
    if len(samples) < words:
        samples = samples[np.arange(words) % len(samples)]
    if len(np.unique(samples[:: max(1, len(samples) // 1000)], axis=0)) == 1:  # flat images: k-means would only warn
        return samples[:words]
    model = MiniBatchKMeans(words, n_init=1, batch_size=max(1024, 4 * words), max_iter=50, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct samples than words, say: some words are then alike
        return model.fit(samples).cluster_centers_.astype(np.float32)


def encoded(descriptors, words):
    """(n, 21 × words) pooled codes of the descriptors (n, rows, columns, d) of n images of one size."""
    n, height, width, d = descriptors.shape
    nearest, weights = coded(descriptors.reshape(-1, d), words)
    nearest, weights = (values.reshape(n, height * width, -1) for values in (nearest, weights))
    down, across = (grid.ravel() for grid in np.meshgrid(range(height), range(width), indexing="ij"))
    pairs = zip(nearest, weights, strict=True)
    return np.stack([pooled(*pair, down, across, (height, width), len(words)) for pair in pairs])


def coded(descriptors, words):
    """Three nearest words of each descriptor and their weights, which sum to 1.

    With z_i = b_i − x, the weights solve (Z Zᵀ + 0.03 tr(Z Zᵀ) I) w = 1. The covariance needs no difference of vectors:
    2 z_i·z_j = |z_i|² + |z_j|² − |b_i − b_j|².

    Args: descriptors, (n, d) float32; words, (k, d) float32.
    Returns: (n, 3) indices, nearest first, and (n, 3) float32 weights.
    """
    count = min(NEIGHBORS, len(words))
    length = np.einsum("ij,ij->i", words, words)
    exact = words.astype(np.float64)
    squares = np.einsum("ij,ij->i", exact, exact)
    apart = np.maximum(squares[:, None] + squares - 2 * exact @ exact.T, 0)
    nearest = np.empty((len(descriptors), count), np.int64)
    weights = np.empty((len(descriptors), count), np.float32)
    for begin in range(0, len(descriptors), BLOCK):
        block = descriptors[begin : begin + BLOCK]
        gaps = block @ (-2 * words.T)
        gaps += length + np.einsum("ij,ij->i", block, block)[:, None]
        chosen = smallest(gaps, min(count + 1, len(words)))[0]
        # again from differences: what the product left in float32 is rough, and depends on the rows beside it
        steps = block[:, None] - words[chosen]
        distance = np.einsum("nkd,nkd->nk", steps, steps).astype(np.float64)
        order = np.argsort(distance, axis=1, kind="stable")
        chosen, distance = (np.take_along_axis(one, order, 1) for one in (chosen, distance))
        chosen, distance = chosen[:, :count], distance[:, :count]
        between = apart[chosen[:, :, None], chosen[:, None, :]]
        nearest[begin : begin + BLOCK] = chosen
        weights[begin : begin + BLOCK] = solved((distance[:, :, None] + distance[:, None, :] - between) / 2)
    return nearest, weights


def smallest(gaps, count):
    """The `count` smallest of each row in order: (n, count) places and float64 values. Overwrites its argument."""
    rows = np.arange(len(gaps))
    places, values = np.empty((len(gaps), count), np.int64), np.empty((len(gaps), count))
    for at in range(count):
        places[:, at] = gaps.argmin(axis=1)
        values[:, at] = gaps[rows, places[:, at]]
        gaps[rows, places[:, at]] = np.inf
    return places, values


def solved(covariance):
    """(n, k) weights, of sum 1, that solve the regularised covariance (n, k, k) against ones."""
    trace = np.einsum("nii->n", covariance)
    ridge = np.where(trace > 0, RIDGE * trace, 1)
    covariance = covariance + ridge[:, None, None] * np.eye(covariance.shape[1])
    found = np.linalg.solve(covariance, np.ones((*covariance.shape[:2], 1)))[..., 0]
    return (found / found.sum(axis=1, keepdims=True)).astype(np.float32)


def pooled(nearest, weights, rows, columns, size, words):
    """(21 × words,) largest weight of each word in the whole image, its quarters and sixteenths; at least 0.

    A word that a descriptor does not use weighs 0 there.

    Args: rows, columns, (n,) where the descriptors lie; size, (height, width) of that space.
    """
    fine = np.zeros((16, words), np.float32)
    cell = (rows * 4 // size[0]) * 4 + columns * 4 // size[1]
    np.maximum.at(fine.reshape(-1), (cell[:, None] * words + nearest).ravel(), weights.ravel())
    fine = fine.reshape(2, 2, 2, 2, words)
    coarse = fine.max(axis=(1, 3))  # (2, 2, words)
    return np.concatenate([coarse.max(axis=(0, 1)), coarse.ravel(), fine.reshape(4, 4, words).ravel()])


def unit(vectors):
    """Rows of length 1; a row of zeros stays."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)
