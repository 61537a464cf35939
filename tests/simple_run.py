"""A Run that lives in memory: what the tests of rankers and features use in place of the core's."""

from pathlib import Path

import numpy as np

import rankbench
from rankbench.pairs import hold_out


class SimpleRows:
    """Rows over an array, like the core's memory-mapped ones."""

    def __init__(self, array):
        self._array = array
        self.shape, self.dtype = array.shape, array.dtype

    def __len__(self):
        return len(self._array)

    def __getitem__(self, rows):
        return self._array[rows]

    def blocks(self, rows):
        for start in range(0, len(self._array), rows):
            yield self._array[start : start + rows]


class SimpleRun:
    """Seeded services without a cache. `vectors` gives features by name without extracting anything."""

    device = "cpu"
    threads = 1

    def __init__(self, seed=0, vectors=None, folder=None):
        self.seed = seed
        self.rng = np.random.default_rng(seed)
        self.folder = Path(folder) if folder else None
        self.vectors = vectors
        self.curves = []

    def features(self, images, names):
        if self.vectors is not None:
            return SimpleRows(np.asarray(self.vectors, dtype=np.float32)[[int(image[0, 0, 0]) for image in images]])
        return SimpleRows(np.concatenate([self._block(images, one) for one in rankbench.Features(names)], axis=1))

    def _block(self, images, choice):
        from rankbench_features import rankbench_features

        module, name = rankbench_features()[choice.name].split(":")
        feature = getattr(__import__(module, fromlist=[name]), name)(**dict(choice.parameters))
        size = feature.batch_size
        rows = np.concatenate([extracted(feature, images[k : k + size], self) for k in range(0, len(images), size)])
        if choice.normalize == "l2":
            rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return rows.astype(np.float32)

    def pixels(self, images, size, fit="stretch"):
        from PIL import Image

        assert fit == "stretch"
        resized = [Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR) for image in images]
        return SimpleRows(np.array([np.asarray(image) for image in resized]).reshape(-1, size, size, 3))

    def log(self, step, **numbers):
        self.curves.append((step, numbers))

    def expect(self, steps):
        self.expected = steps

    def holdout(self, images, pairs, share):
        return hold_out(pairs, len(images), share, np.random.default_rng(self.seed))[:2]


def extracted(feature, images, run):
    """The rows of one batch, which is filled up to its fixed size as the core does it."""
    padded = images.take(np.resize(np.arange(len(images)), feature.batch_size))
    return feature.extract(padded, run)[: len(images)]
