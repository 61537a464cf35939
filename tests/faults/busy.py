"""A ranker that uses all that is kept in the cache and takes a while in the middle of its fit: faults have much to hit.

What a test wants to know of a fit, it reads from the file that $FITS_LOG names.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from misbehaving import Steady, TinyFiles, note

import rankbench


@dataclass
class Levels(rankbench.Feature):
    """Mean and spread of the grey levels, less those of the training images."""

    power: float = 1.0

    def fit(self, images, run):
        self.center_ = moments(images).mean(axis=0)
        return self

    def extract(self, images, run):
        return (np.sign(moments(images) - self.center_) * np.abs(moments(images) - self.center_) ** self.power).astype(
            np.float32
        )


def moments(images):
    return np.array([[image.mean() / 255, image.std() / 255, 1.0] for image in images])


@dataclass
class Busy(rankbench.Ranker):
    """Brightness by a learned feature, pixels and a shared artefact, with noise from the seed."""

    features: rankbench.Features = field(default_factory=lambda: rankbench.Features("levels"))
    seconds: float = 0.1

    def fit(self, images, pairs, run):
        note(event="fit", seed=run.seed)
        rows = run.features(images, self.features)[:]
        mean = run.shared("mean", {}, lambda own: {"mean": own.pixels(images, 6)[:].mean(axis=0)})["mean"]
        note(event="middle", seed=run.seed)
        for step in range(4):
            run.log(step, loss=1 / (step + 1))
            time.sleep(self.seconds / 4)
        (run.folder / "checkpoint").write_text("a checkpoint")
        self.weights_ = np.append(rows.std(axis=0).astype(np.float64), mean.mean() / 255)
        self.noise_ = 0.3 * run.rng.random(64)
        note(event="fitted", seed=run.seed)
        return self

    def score(self, images, run):
        rows = run.features(images, self.features)[:].astype(np.float64)
        light = run.pixels(images, 6)[:].mean(axis=(1, 2, 3)) / 255
        return rows @ self.weights_[:-1] + light * self.weights_[-1] + self.noise_[: len(images)]


@rankbench.hookimpl
def rankbench_datasets():
    return {"busy-files": TinyFiles}


@rankbench.hookimpl
def rankbench_features():
    return {"levels": Levels}


@rankbench.hookimpl
def rankbench_rankers():
    return {"busy": Busy, "busy-steady": Steady}
