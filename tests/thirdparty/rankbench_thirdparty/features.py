"""A feature that learns from categories, and one that matches released vectors by name."""

from __future__ import annotations

import csv
from dataclasses import dataclass

import numpy as np

import rankbench
from rankbench_thirdparty.colors import mean_colors


@dataclass
class Palette(rankbench.Feature):
    """Distance of the mean color to the mean color of each category."""

    softness: float = 0.5
    uses = ("category",)

    def fit(self, images, run):
        colors, category = mean_colors(images), images.columns["category"]
        self.centers_ = np.array([colors[category == name].mean(axis=0) for name in np.unique(category)])
        run.log(0, categories=len(self.centers_))
        return self

    def extract(self, images, run):
        gaps = mean_colors(images)[:, None, :] - self.centers_[None]
        return np.exp(-((gaps**2).sum(axis=2)) / self.softness**2).astype(np.float32)


@dataclass
class Released(rankbench.Feature):
    """Vectors the authors released: a file with a name and numbers a line."""

    vectors: rankbench.File
    by_name = True

    def extract(self, images, run):
        with open(self.vectors.path, newline="", encoding="utf-8") as file:
            known = {row[0]: [float(value) for value in row[1:]] for row in csv.reader(file)}
        unknown = [name for name in images.names if name not in known]
        if unknown:
            raise rankbench.NotApplicable(f"{self.vectors} has no vector for image {unknown[0]!r}")
        return np.array([known[name] for name in images.names], dtype=np.float32)
