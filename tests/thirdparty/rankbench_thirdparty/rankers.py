"""Rankers that are good for nothing but using the contract."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

import rankbench
from rankbench_thirdparty.colors import mean_colors, slope


@dataclass
class PairGap(rankbench.Ranker):
    """Sees both images of a pair: least squares on the difference of their mean colors."""

    shrink: float = 1e-3

    def fit(self, images, pairs, run):
        x = mean_colors(images)
        self.weights_ = slope(x[pairs.left] - x[pairs.right], pairs.judgement, self.shrink)
        return self

    def compare(self, images, pairs, run):
        x = mean_colors(images)
        return (x[pairs.left] - x[pairs.right]) @ self.weights_

    def score(self, images, run):
        raise rankbench.NotApplicable("pair-gap compares images and scores none")


@dataclass
class Workbench(rankbench.Ranker):
    """Uses every service a Run offers: features, pixels, a shared artefact, hold-out, curves, its own folder."""

    features: rankbench.Features = rankbench.Features("palette")  # noqa: RUF009  (a tuple)
    size: int = 12
    shares: tuple[float, ...] = (1e-4, 1e-2)
    inputs = ("released",)

    def fit(self, images, pairs, run):
        self.center_ = run.shared("mean-image", {"size": self.size}, lambda own: mean_image(images, self.size, own))
        x = self._vectors(images, run)
        fitted, held = run.holdout(images, pairs, 0.2)
        (run.folder / "begun.txt").write_text("a checkpoint would lie here")
        best = (-1.0, 0.0, np.zeros(x.shape[1]))
        for step, shrink in enumerate(self.shares):
            weights = slope(x[fitted.left] - x[fitted.right], fitted.judgement, shrink)
            right = float((np.sign((x[held.left] - x[held.right]) @ weights) == held.judgement).mean())
            run.log(step, held_out=right, shrink=shrink)
            best = max(best, (right, shrink, weights), key=lambda one: one[0])
        self.weights_ = best[2]
        return self

    def score(self, images, run):
        return self._vectors(images, run) @ self.weights_

    def embed(self, images, run):
        return self._vectors(images, run).astype(np.float32)

    def locate(self, images, run):
        pixels = run.pixels(images, self.size)
        return [[("brightest", box(pixels[row]))] for row in range(len(pixels))]

    def state(self):
        return {"weights": self.weights_, "center": self.center_["mean"], "seen": int(self.center_["seen"])}

    def load(self, state):
        self.weights_ = state["weights"]
        self.center_ = {"mean": state["center"], "seen": state["seen"]}

    def _vectors(self, images, run):
        pixels = run.pixels(images, self.size, "crop")
        small = [block.astype(np.float64).mean(axis=(1, 2)) / 255 for block in pixels.blocks(16)]
        parts = [run.features(images, self.features)[:], np.concatenate(small) - self.center_["mean"].mean(axis=(0, 1))]
        if "released" in images.inputs:
            parts.append(images.inputs["released"])
        return np.hstack([part.astype(np.float64) for part in parts])


def mean_image(images, size, run):
    total = np.zeros((size, size, 3))
    for block in run.pixels(images, size).blocks(32):
        total += block.sum(axis=0, dtype=np.float64)
    return {"mean": total / len(images) / 255, "seen": len(images)}


def box(pixels):
    row, column = np.unravel_index(int(pixels.sum(axis=2).argmax()), pixels.shape[:2])
    size = len(pixels)
    return (column / size, row / size, (column + 1) / size, (row + 1) / size)


@dataclass
class TimedGpu(rankbench.Ranker):
    """Asks for a GPU and says, in its curves, when it had one; mean brightness is its score."""

    seconds: float = 0.0

    def resources(self):
        return rankbench.Resources(gpu=1)

    def fit(self, images, pairs, run):
        run.log(0, began=time.time())
        time.sleep(self.seconds)
        x = mean_colors(images).mean(axis=1)
        self.sign_ = float(np.sign(np.sum((x[pairs.left] - x[pairs.right]) * pairs.judgement))) or 1.0
        self.device_ = run.device
        run.log(1, ended=time.time())
        return self

    def score(self, images, run):
        return self.sign_ * mean_colors(images).mean(axis=1)


class Votes(rankbench.Ranker):
    """Reads the votes cast for the pair at hand, and no image."""

    inputs = ("votes",)
    seeded = False

    def needs_images(self):
        return False

    def fit(self, images, pairs, run):
        if "votes" not in pairs.inputs:
            raise rankbench.NotApplicable("needs pairs.inputs['votes']")
        return self

    def compare(self, images, pairs, run):
        votes = pairs.inputs["votes"].astype(np.float64)
        return votes[:, 0] - votes[:, 1]


@dataclass
class GivenWeights(rankbench.Ranker):
    """Weights for red, green and blue from a file, one a line; nothing is learned."""

    weights: rankbench.File
    seeded = False
    learns = False

    def fit(self, images, pairs, run):
        self.weights_ = np.loadtxt(self.weights.path)
        return self

    def score(self, images, run):
        return mean_colors(images) @ self.weights_


class Never(rankbench.Ranker):
    """Suits no problem at all."""

    def fit(self, images, pairs, run):
        raise rankbench.NotApplicable("needs a market with more stalls")
