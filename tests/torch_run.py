"""A Run in memory, for testing rankers that read pixels: no store, no cell."""

from __future__ import annotations

import numpy as np
from PIL import Image


class TorchRun:
    """What `rankbench.Run` promises, as far as a network needs it. `curve` keeps what was logged."""

    def __init__(self, seed=0, threads=1, device="cpu"):
        self.seed, self.threads, self.device = seed, threads, device
        self.rng = np.random.default_rng(seed)
        self.curve = []

    def pixels(self, images, size, fit="stretch"):
        assert fit == "stretch"
        squares = [Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR) for image in images]
        rows = np.stack([np.asarray(square) for square in squares])
        rows.flags.writeable = False  # as a memory map opened for reading
        return rows

    def log(self, step, **numbers):
        self.curve.append((step, numbers))
