"""Views of stored images: crops, turned over, in batches on the device. Hides how large an image is stored.

Images are stored a little larger than a network sees them (256 pixels for 227) and cropped. Augmentation draws a place
and a flip for each; scoring takes ten fixed crops, or the middle.
Source: Singh & Lee, ECCV 2016, released code: 226 of 256 pixels, enlarged to 227; scores summed over four corners and
the center, each plain and mirrored. Offsets here are 0 to 30, theirs 1 to 30.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from rankbench_rankers.image_supply import moved

FLIPS = {"none": (0,), "horizontal": (0, 1), "dihedral": (0, 1, 2, 3)}  # 1: left to right, 2: upside down, 3: both
FLIPPED = ((2, 1), (1, 2))  # bit of a flip, and the axis of (n, h, w, 3) that it turns
STORED, SEEN, CROP = 256, 227, 226
AREA = 0.9  # of the image, in a crop of a network of several scales


@dataclass(frozen=True)
class Framing:
    """How images are stored and seen.

    Args: size, pixels of the square a network sees; stored, of the one that is stored; side, of a crop; flips, how an
        image may be turned over without changing its order; crops, views of an image that the network takes.
    """

    size: int
    stored: int
    side: int
    flips: tuple[int, ...]
    crops: int = 1

    @classmethod
    def of(cls, size: int, flips: str, crops: int, cropped: bool) -> Framing:
        """For a network that takes so many crops of an image; without `cropped` the whole image is seen.

        One crop is as large as what is seen, 227 pixels alone are cut as 226 and enlarged, as published; several, each
        drawn apart, have 90 % of the area.
        """
        if not cropped:
            return cls(size, size, size, FLIPS[flips], crops)
        stored = round(size * STORED / SEEN)
        several = cls(size, stored, round(stored * AREA**0.5), FLIPS[flips], crops)
        return several.alone() if crops == 1 else several

    def alone(self) -> Framing:
        """What scoring sees of images that are stored for this: one crop for all views of a network."""
        return replace(self, side=CROP if self.size == SEEN else self.size) if self.room else self

    @property
    def room(self) -> int:
        """Largest offset of a crop."""
        return self.stored - self.side

    def drawn(self, images: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Offsets (images, crops, 2) of the crops' tops and lefts, and a flip (images,) for each image."""
        offsets = rng.integers(self.room + 1, size=(images, self.crops, 2))
        return offsets, rng.choice(np.array(self.flips), size=images)

    def fixed(self, many: bool) -> list[tuple[tuple[int, int], int]]:
        """Offset and flip of each view that a score is the mean of: ten with horizontal flips, or the middle alone."""
        low, middle, high = 0, self.room // 2, self.room
        if not many or self.room == 0:
            places = [(middle, middle)]
        else:
            places = [(low, low), (low, high), (high, low), (high, high), (middle, middle)]
        return [(place, flip) for place in places for flip in self.flips]

    def views(self, pixels: Tensor, offsets: np.ndarray, flips: np.ndarray) -> list[Tensor]:
        """Crops of (n, stored, stored, 3) uint8 pixels: for each of k one (n, 3, size, size) float in [0, 255].

        Args: offsets, (n, k, 2); flips, (n,), the same for every crop of an image.
        """
        cut = sliced if pixels.device.type == "cpu" else gathered
        places = [offsets[:, crop] for crop in range(offsets.shape[1])]
        return [self._sized(cut(pixels, place, flips, self.side)) for place in places]

    def view(self, pixels: Tensor, place: Sequence[int], flip: int) -> Tensor:
        """One view of all images: the crop at a place, turned over."""
        top, left = place
        crop = pixels[:, top : top + self.side, left : left + self.side]
        axes = [axis for bit, axis in FLIPPED if flip & bit]
        return self._sized(crop.flip(axes) if axes else crop)

    def _sized(self, crops: Tensor) -> Tensor:
        """(n, 3, size, size) float from (n, side, side, 3) uint8; channels lie last in memory."""
        crops = crops.permute(0, 3, 1, 2).float()
        if self.side == self.size:
            return crops
        return F.interpolate(crops, (self.size, self.size), mode="bilinear", align_corners=False)


def sliced(pixels: Tensor, place: np.ndarray, flips: np.ndarray, side: int) -> Tensor:
    """(n, side, side, 3) crops, one slice after the other: on a CPU many times as fast as gathering."""
    found = np.empty((len(pixels), side, side, 3), np.uint8)
    for crop, image, (top, left) in zip(found, pixels.numpy(), place.tolist(), strict=True):
        crop[...] = image[top : top + side, left : left + side]
    crops = torch.from_numpy(found)
    for row in np.flatnonzero(flips):  # by torch, whose flip is ten times as fast as NumPy's
        crops[row] = crops[row].flip([axis - 1 for bit, axis in FLIPPED if flips[row] & bit])
    return crops


def gathered(pixels: Tensor, place: np.ndarray, flips: np.ndarray, side: int) -> Tensor:
    """The same by one indexing of all images, for a GPU."""
    device = pixels.device
    inside = torch.arange(side, device=device)
    corner, flip = moved(place, device), moved(flips, device)[:, None]
    rows = corner[:, :1] + torch.where(flip & 2 > 0, inside.flip(0), inside)
    columns = corner[:, 1:] + torch.where(flip & 1 > 0, inside.flip(0), inside)
    images = torch.arange(len(pixels), device=device)[:, None, None]
    return pixels[images, rows[:, :, None], columns[:, None, :]]
