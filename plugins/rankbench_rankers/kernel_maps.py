"""Explicit feature maps in front of a linear ranker: approximate RBF kernels from scikit-learn, and the square root."""

from __future__ import annotations

import numpy as np

BLOCK = 4096  # rows mapped at once
SAMPLE = 20_000  # rows that gamma and the landmarks are taken from


def fitted_map(kind, rows, components, gamma, seed):
    """What a map learned, as a dict of arrays and JSON values that `mapped` understands; empty for "none".

    Args: rows, of the training images; gamma, None for 1 / (d × variance), scikit-learn's "scale".
    """
    if kind == "none":
        return {}
    if kind == "sqrt":
        return {"kind": "sqrt", "dimensions": rows.shape[1]}
    from sklearn.kernel_approximation import Nystroem, RBFSampler

    rng = np.random.default_rng(seed)
    chosen = np.arange(len(rows)) if len(rows) <= SAMPLE else np.sort(rng.permutation(len(rows))[:SAMPLE])
    sample = np.asarray(rows[chosen], dtype=np.float64)
    variance = float(sample.var())
    gamma = gamma or (1 / (sample.shape[1] * variance) if variance > 0 else 1.0)
    state = int(rng.integers(2**31))
    if kind == "nystroem":
        model = Nystroem(gamma=gamma, n_components=min(components, len(sample)), random_state=state).fit(sample)
        basis, projection = model.components_, model.normalization_.T
    else:
        model = RBFSampler(gamma=gamma, n_components=components, random_state=state).fit(sample)
        basis, projection = model.random_weights_, model.random_offset_
    found = {"basis": np.ascontiguousarray(basis), "projection": np.ascontiguousarray(projection)}
    return {"kind": kind, "gamma": float(gamma), "dimensions": int(projection.shape[-1])} | found


def mapped(block, learned):
    """(n, dimensions) float32 of a block of rows (n, d)."""
    if learned["kind"] == "sqrt":
        return (np.sign(block) * np.sqrt(np.abs(block))).astype(np.float32)
    block = block.astype(np.float64)
    if learned["kind"] == "nystroem":
        from sklearn.metrics.pairwise import rbf_kernel

        return (rbf_kernel(block, learned["basis"], gamma=learned["gamma"]) @ learned["projection"]).astype(np.float32)
    angles = block @ learned["basis"] + learned["projection"]
    return (np.cos(angles) * np.sqrt(2 / learned["dimensions"])).astype(np.float32)


class Mapped:
    """A view of rows that maps them whenever they are read."""

    def __init__(self, rows, learned):
        self._rows, self._learned = rows, learned
        self.shape, self.dtype = (rows.shape[0], learned["dimensions"]), np.dtype(np.float32)

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, rows):
        return mapped(self._rows[rows], self._learned)

    def blocks(self, rows):
        """Consecutive blocks of at most `rows` rows."""
        for block in self._rows.blocks(min(rows, BLOCK)):
            yield mapped(block, self._learned)
