"""Products with a matrix of features: in memory, in blocks over memory-mapped rows, or on a GPU."""

from __future__ import annotations

import numpy as np

IN_MEMORY = 2 * 2**30  # bytes up to which rows are read once and kept
BLOCK = 16 * 2**20  # bytes of a block of rows beyond that
BLOCK_ROWS = 1024  # rows copied at once into memory


def matrix(rows, dtype=np.float32, device="cpu"):
    """A matrix over a row view (shape, dtype, blocks, [rows]) or an array, wherever it fits best.

    Args: dtype, in which products are computed; sums over blocks are kept in float64. device, "cpu" or "cuda".
    """
    if device != "cpu":
        from rankbench_rankers.feature_matrix_torch import OnDevice

        return OnDevice(rows, dtype, device)
    size = rows.shape[0] * rows.shape[1] * np.dtype(dtype).itemsize
    return Blocks(rows, dtype) if size > IN_MEMORY else InMemory(gathered(rows, dtype))


def gathered(rows, dtype):
    """The rows as one array; an array of that type as it is."""
    if isinstance(rows, np.ndarray):
        return rows.astype(dtype, copy=False)
    array, begin = np.empty(rows.shape, dtype), 0
    for block in rows.blocks(BLOCK_ROWS):
        array[begin : begin + len(block)] = block
        begin += len(block)
    return array


class InMemory:
    """An (n, d) array."""

    def __init__(self, array):
        self.array, self.shape = np.ascontiguousarray(array), array.shape

    def times(self, weights):
        """(n,) float64, X w."""
        return (self.array @ weights.astype(self.array.dtype)).astype(np.float64)

    def transposed_times(self, values):
        """(d,) float64, Xᵀ v."""
        return (values.astype(self.array.dtype) @ self.array).astype(np.float64)


class Blocks:
    """Rows read block by block in each product: what they take in memory is one block."""

    def __init__(self, rows, dtype):
        self.rows, self.shape, self.dtype = rows, rows.shape, np.dtype(dtype)
        self.height = max(1, BLOCK // max(1, rows.shape[1] * self.dtype.itemsize))

    def _blocks(self):
        begin = 0
        for block in self.rows.blocks(self.height):
            yield slice(begin, begin + len(block)), block.astype(self.dtype, copy=False)
            begin += len(block)

    def times(self, weights):
        """(n,) float64, X w."""
        found, narrow = np.empty(self.shape[0]), weights.astype(self.dtype)
        for place, block in self._blocks():
            found[place] = block @ narrow
        return found

    def transposed_times(self, values):
        """(d,) float64, Xᵀ v."""
        found, narrow = np.zeros(self.shape[1]), values.astype(self.dtype)
        for place, block in self._blocks():
            found += narrow[place] @ block
        return found
