"""Plugins whose every number goes through the cache: what the tests of damage in it run. Used by name."""

from dataclasses import dataclass, field

import numpy as np
from misbehaving import ordered

import rankbench


@dataclass(frozen=True)
class Halves(rankbench.Dataset):
    """PNG files named after their grey level; two problems, each of half of them."""

    get = "Draw them."

    def facets(self, root):
        return [{"half": 0}, {"half": 1}]

    def problem(self, root, facets):
        paths = sorted(root.glob("*.png"))[facets["half"] :: 2]
        levels = np.array([int(path.stem.split("-")[1]) for path in paths])
        first = len(paths) * 2 // 3
        return rankbench.Problem(
            rankbench.Images(paths), ordered(levels, 0, first), ordered(levels, first, len(paths)), facets
        )


class Centered(rankbench.Feature):
    """Left and right half of an image, less those of the training images."""

    def fit(self, images, run):
        self.center_ = sides(run.pixels(images, 4)).mean(axis=0)
        self.name_ = "centered"
        return self

    def extract(self, images, run):
        return (sides(np.stack([image[::2, ::2] for image in images])) - self.center_).astype(np.float32)


def sides(pixels):
    wide = np.asarray(pixels, dtype=np.float64).mean(axis=(1, 3))
    return np.stack([wide[:, :2].mean(axis=1), wide[:, 2:].mean(axis=1)], axis=1)


@dataclass
class Cached(rankbench.Ranker):
    """Sums a learned feature, weighted by a shared artefact, and pixels from the store."""

    features: rankbench.Features = field(
        default_factory=lambda: rankbench.Features({"name": "centered", "normalize": "none"})
    )
    seeded = False

    def fit(self, images, pairs, run):
        def build(inner):
            return {"gains": 1 + inner.rng.random(2), "offset": 0.25}

        shared = run.shared("gains", {}, build)
        self.gains_, self.offset_ = shared["gains"], float(shared["offset"])
        return self

    def score(self, images, run):
        rows = run.features(images, self.features)[:].astype(np.float64)
        pixels = run.pixels(images, 4)[:].astype(np.float64)
        return rows @ self.gains_ + self.offset_ + pixels.reshape(len(images), -1) @ np.linspace(0, 0.1, 48)


@rankbench.hookimpl
def rankbench_datasets():
    return {"halves": Halves}


@rankbench.hookimpl
def rankbench_features():
    return {"centered": Centered}


@rankbench.hookimpl
def rankbench_rankers():
    return {"cached": Cached}
