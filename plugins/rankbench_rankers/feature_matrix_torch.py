"""Products with a matrix of features on a GPU."""

from __future__ import annotations

import numpy as np
import torch

BLOCK = 65_536  # rows moved to the device at once


class OnDevice:
    """An (n, d) matrix in the memory of a torch device."""

    def __init__(self, rows, dtype, device):
        self.shape, self.device = rows.shape, device
        self.matrix = torch.empty(rows.shape, dtype=getattr(torch, np.dtype(dtype).name), device=device)
        begin = 0
        for block in rows.blocks(BLOCK):
            self.matrix[begin : begin + len(block)] = torch.from_numpy(np.array(block))
            begin += len(block)

    def _there(self, vector):
        return torch.from_numpy(vector).to(self.device, self.matrix.dtype)

    def times(self, weights):
        """(n,) float64, X w."""
        return (self.matrix @ self._there(weights)).double().cpu().numpy()

    def transposed_times(self, values):
        """(d,) float64, Xᵀ v."""
        return (self._there(values) @ self.matrix).double().cpu().numpy()
