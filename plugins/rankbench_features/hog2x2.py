"""hog2x2 and gradient: dense HOG cells in stacks, coded with a dictionary and max-pooled over a pyramid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import rankbench
from rankbench_features import hog31, llc
from rankbench_features.local_images import grouped, limited

PAD = 20  # pixels mirrored around the image
PIXELS = 1 << 19  # of the images treated at once: their planes take about 40 MB


@dataclass
class Hog2x2(rankbench.Feature):
    """HOG 2×2: stacks of 2 × 2 HOG cells every 6 pixels, 256 words, LLC, 1 + 4 + 16 cells: 5,376 numbers.

    The image is shrunk until its longer side has at most `size` pixels (never enlarged) and mirrored 20 pixels beyond
    its border. A descriptor is four cells of 31 channels (124 numbers), 8 pixels apart. The words are k-means centers
    of at most `samples` descriptors, up to 2,000 from each of up to 500 training images. Each descriptor is coded by
    its three nearest words, each word's largest weight is taken in every cell of the pyramid, the whole has length 1.
    Source: Xiao et al., SUN database, CVPR 2010; parameters of the feature extraction code of Khosla, Das Sarma &
    Hamid, WWW 2014. Ours: mini-batch k-means.

    Args: size, pixels of the longer side; words; samples, descriptors the words are learned from; seed, of the samples
        and of k-means.
    """

    size: int = 400
    words: int = 256
    samples: int = 500_000
    seed: int = 0

    stacks: ClassVar[tuple[int, ...]] = (2,)
    images_sampled: ClassVar[int] = 500
    descriptors_sampled: ClassVar[int] = 2000

    def __post_init__(self):
        if self.size < 8 or self.words < 1 or self.samples < 1:
            raise rankbench.DataError(f"HOG dictionary: size is at least 8, words and samples at least 1; got {self}.")

    def fit(self, images, run):
        rng = np.random.default_rng(self.seed)
        chosen = np.sort(rng.permutation(len(images))[: self.images_sampled])
        share = max(1, min(self.descriptors_sampled, self.samples // len(chosen)))
        drawn = [[] for _ in self.stacks]
        for row in chosen:
            for at, found in enumerate(self._described([images[int(row)]])[0][1]):
                flat = found.reshape(-1, found.shape[3])
                drawn[at].append(flat[rng.permutation(len(flat))[:share]])
        self.words_ = np.concatenate(
            [llc.dictionary(np.concatenate(part), self.words, self.seed).ravel() for part in drawn]
        )
        return self

    def extract(self, images, run):
        out = np.empty((len(images), len(self.stacks), llc.CELLS * self.words), np.float32)
        dictionaries = self._dictionaries()
        for rows, described in self._described([images[row] for row in range(len(images))]):
            for at, found in enumerate(described):
                out[rows, at] = llc.encoded(found, dictionaries[at])
        return llc.unit(out.reshape(len(images), -1))

    def _dictionaries(self):
        widths = [count**2 * hog31.CHANNELS for count in self.stacks]
        parts = np.split(self.words_, np.cumsum([self.words * width for width in widths])[:-1])
        return [part.reshape(self.words, width) for part, width in zip(parts, widths, strict=True)]

    def _described(self, images):
        """For groups of equally sized images: their rows, and what `hog31.descriptors` gives."""
        least = max(map(hog31.least_side, self.stacks))
        edged = [mirrored(limited(image, self.size), least) for image in images]
        return [(rows, hog31.descriptors(group, self.stacks)) for rows, group in grouped(edged, PIXELS)]


@dataclass
class Gradient(Hog2x2):
    """HOG 2×2 and HOG 3×3 side by side: 10,752 numbers, the gradient feature of Khosla et al.

    The same cells serve both stacks; each has a dictionary of its own, and the whole has length 1.
    Source: Khosla, Das Sarma & Hamid, "What makes an image popular?", WWW 2014; otherwise as hog2x2.

    Args: size, pixels of the longer side; words, of each dictionary; samples, descriptors each is learned from; seed.
    """

    stacks: ClassVar[tuple[int, ...]] = (2, 3)


def mirrored(image, least):
    """The image continued by its mirror image, 20 pixels on each side, more where it is too small for one stack."""
    margins = [max(PAD, -(-(least - side) // 2)) for side in image.shape[:2]]
    return np.pad(image, [(margin, margin) for margin in margins] + [(0, 0)], mode="symmetric")
