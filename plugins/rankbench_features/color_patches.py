"""color-patches: color histograms of small patches, coded with a dictionary and max-pooled over a pyramid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import rankbench
from rankbench_features import llc
from rankbench_features.color_histogram import COLORS, nearest_color
from rankbench_features.local_images import grouped, limited

STEP = 4  # pixels between patches
SIDES = (2, 3, 4)  # of the patches, in steps: 8, 12 and 16 pixels
PIXELS = 1 << 20


@dataclass
class ColorPatches(rankbench.Feature):
    """50-color histograms of patches of 8, 12 and 16 pixels every 4, 256 words, LLC, 1 + 4 + 16 cells: 5,376 numbers.

    The image is shrunk until its longer side has at most `size` pixels (never enlarged); one smaller than the largest
    patch is continued by its mirror image. Patches of all three sizes share one dictionary, learned and used as in
    hog2x2. A patch's shares of the 50 colors sum to 1.
    Source: feature extraction code of Khosla, Das Sarma & Hamid, WWW 2014. Ours: the 50 colors (see color-histogram;
    the published table of color names is not free to ship), and mini-batch k-means.

    Args: size, pixels of the longer side; words; samples, descriptors the words are learned from; seed, of the samples
        and of k-means.
    """

    size: int = 500
    words: int = 256
    samples: int = 500_000
    seed: int = 0

    images_sampled: ClassVar[int] = 500
    descriptors_sampled: ClassVar[int] = 2000

    def __post_init__(self):
        if self.size < STEP * SIDES[-1] or self.words < 1 or self.samples < 1:
            raise rankbench.DataError(
                f"color-patches: size is at least {STEP * SIDES[-1]}, words and samples at least 1; got {self}."
            )

    def fit(self, images, run):
        rng = np.random.default_rng(self.seed)
        chosen = np.sort(rng.permutation(len(images))[: self.images_sampled])
        share = max(1, min(self.descriptors_sampled, self.samples // len(chosen)))
        drawn = []
        for row in chosen:
            _, found = next(self._patches([images[int(row)]]))
            flat = np.concatenate([part.reshape(-1, COLORS) for part in found])
            drawn.append(flat[rng.permutation(len(flat))[:share]])
        self.words_ = llc.dictionary(np.concatenate(drawn), self.words, self.seed)
        return self

    def extract(self, images, run):
        out = np.zeros((len(images), llc.CELLS * self.words), np.float32)
        for rows, found in self._patches([images[row] for row in range(len(images))]):
            for part in found:  # the pooled maximum over all patches is that over the sizes
                out[rows] = np.maximum(out[rows], llc.encoded(part, self.words_))
        return llc.unit(out)

    def _patches(self, images):
        """For groups of equally sized images: their rows, and for each size of patch (n, rows, columns, 50) shares."""
        edged = [enlarged(limited(image, self.size), STEP * SIDES[-1]) for image in images]
        for rows, group in grouped(edged, PIXELS):
            counts = block_counts(nearest_color(group))
            yield rows, [window_sums(counts, side) / np.float32((STEP * side) ** 2) for side in SIDES]


def enlarged(image, least):
    """The image, mirrored beyond its lower and right border where a side is shorter than `least`."""
    lacking = [max(0, least - side) for side in image.shape[:2]]
    return np.pad(image, [(0, lack) for lack in lacking] + [(0, 0)], mode="symmetric") if any(lacking) else image


def block_counts(colors):
    """(n, ⌊h/4⌋, ⌊w/4⌋, 50) float32 pixels of each color in each block of 4 × 4 pixels."""
    n, height, width = colors.shape[0], colors.shape[1] // STEP, colors.shape[2] // STEP
    colors = colors[:, : height * STEP, : width * STEP]
    down, across = np.arange(height * STEP) // STEP, np.arange(width * STEP) // STEP
    block = (np.arange(n)[:, None, None] * height + down[:, None]) * width + across
    counts = np.bincount((block * COLORS + colors).ravel(), minlength=n * height * width * COLORS)
    return counts.reshape(n, height, width, COLORS).astype(np.float32)


def window_sums(counts, side):
    """Sums over windows of side × side blocks, at every block."""
    rows = sum(counts[:, k : counts.shape[1] - side + 1 + k] for k in range(side))
    return sum(rows[:, :, k : counts.shape[2] - side + 1 + k] for k in range(side))
