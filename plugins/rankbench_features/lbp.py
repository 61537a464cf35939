"""LBP: uniform local binary patterns on a spatial pyramid, a texture descriptor."""

from dataclasses import dataclass
from functools import cache

import numpy as np

import rankbench

BINS = 59  # 58 circular patterns with at most two changes, and one bin for all others
LEVELS = ((1, 1.0), (2, 4.0), (4, 32.0))  # cells along a side, weight of the level


@dataclass(frozen=True)
class Lbp(rankbench.Feature):
    """Histograms of uniform local binary patterns over 1 + 4 + 16 cells: 21 × 59 = 1239 numbers.

    A pixel's pattern says which of eight neighbors, on a circle of radius 1 and interpolated between pixels, are not
    darker than itself. Each level of the pyramid has sum 1 before it is weighted by 1, 4 or 32.
    Source: Ojala, Pietikäinen & Mäenpää, PAMI 2002; pyramid and weights as in the feature extraction code of Khosla,
    Das Sarma & Hamid, WWW 2014. That code reads the red channel by accident on two levels; we use grey (Rec. 601).

    Args: size, side in pixels of the square the image is stretched to; at least 3.
    """

    size: int = 128

    def __post_init__(self):
        if self.size < 6:
            raise rankbench.DataError(f"lbp: size is {self.size}; four cells a side need at least 6 pixels.")

    def extract(self, images, run):
        codes = pattern_bins(grey(run.pixels(images, self.size)[:]))
        levels = [weight * histograms(codes, cells) for cells, weight in LEVELS]
        return np.concatenate(levels, axis=1, dtype=np.float32)


def grey(pixels):
    """(n, h, w) int16 grey levels, Rec. 601, rounded."""
    red, green, blue = (pixels[..., channel].astype(np.int32) for channel in range(3))
    return ((299 * red + 587 * green + 114 * blue + 500) // 1000).astype(np.int16)


def pattern_bins(levels):
    """(n, h - 2, w - 2) uint8 bin of each inner pixel's pattern, 0 to 58."""
    height, width = levels.shape[1] - 2, levels.shape[2] - 2
    middle = levels[:, 1:-1, 1:-1]

    def lead(down, right):
        return levels[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width] - middle

    across, along = [lead(0, 1), lead(0, -1)], [lead(-1, 0), lead(1, 0)]
    # Counter-clockwise from the right. A diagonal point lies r = √½ out both ways; over 1 − r its bilinear value leads
    # the middle by √2 + 1 times the corner's lead, plus the leads of the two sides. Whole numbers: 0 is exactly 0.
    slant = np.float32(np.sqrt(2) + 1)
    leads = [
        across[0], lead(-1, 1) * slant + (across[0] + along[0]),
        along[0], lead(-1, -1) * slant + (across[1] + along[0]),
        across[1], lead(1, -1) * slant + (across[1] + along[1]),
        along[1], lead(1, 1) * slant + (across[0] + along[1]),
    ]  # fmt: skip
    code = np.zeros(middle.shape, dtype=np.uint8)
    for bit, value in enumerate(leads):
        code |= (value >= 0).view(np.uint8) << np.uint8(bit)
    return bin_of_code()[code]


def histograms(codes, cells):
    """(n, cells² × 59) float64 share of each bin in each cell of a grid; the shares of an image sum to 1."""
    n, height, width = codes.shape
    rows, columns = np.arange(height) * cells // height, np.arange(width) * cells // width
    place = (np.arange(n)[:, None, None] * cells + rows[:, None]) * cells + columns
    counts = np.bincount((place * BINS + codes).ravel(), minlength=n * cells**2 * BINS)
    return counts.reshape(n, -1) / (height * width)


@cache
def bin_of_code():
    """(256,) uint8: uniform patterns get bins 0 to 57 in the order of their codes, all others bin 58."""
    codes = np.arange(256)
    changes = sum(((codes >> bit) ^ (codes >> (bit + 1) % 8)) & 1 for bit in range(8))
    bins = np.full(256, BINS - 1, dtype=np.uint8)
    bins[changes <= 2] = np.arange(BINS - 1)
    return bins
