"""Color histogram: shares of 50 fixed colors, over the whole image and by cell."""

from dataclasses import dataclass
from functools import cache

import numpy as np

import rankbench

COLORS = 50
LEVELS = 32  # the color table is looked up at 32 levels a channel


@dataclass(frozen=True)
class ColorHistogram(rankbench.Feature):
    """The square roots of the shares of 50 colors, on a pyramid of grids that weigh the same.

    Each pixel is given the nearest, in CIE Lab, of 50 fixed centers: 8 greys, and two rings of hues at three
    lightnesses (`centers`). No published table of centers comes with the method, so these are our choice. The root
    makes the dot product of two images the Bhattacharyya coefficient of their colors.

    Args: size, side in pixels of the square the image is stretched to; grids, cells along a side, one number a grid.
    Dimensions: 50 × Σ g².
    """

    size: int = 64
    grids: tuple[int, ...] = (1, 2, 4)

    def __post_init__(self):
        if not self.grids or not all(1 <= cells <= self.size for cells in self.grids):
            raise rankbench.DataError(f"color-histogram: grids {list(self.grids)} need 1 to {self.size} cells a side.")

    def extract(self, images, run):
        color = nearest_color(run.pixels(images, self.size)[:])
        return np.concatenate([np.sqrt(shares(color, cells)) / cells for cells in self.grids], axis=1)


def nearest_color(pixels):
    """(n, h, w) which of the 50 colors is nearest to each pixel of (n, h, w, 3) uint8."""
    level = pixels.astype(np.int32) * LEVELS // 256
    return color_table()[(level[..., 0] * LEVELS + level[..., 1]) * LEVELS + level[..., 2]]


def shares(color, cells):
    """(n, cells² × 50) share of each color in each cell of a grid, float32."""
    n, size, _ = color.shape
    row = np.arange(size) * cells // size
    place = (np.arange(n)[:, None, None] * cells + row[:, None]) * cells + row
    counts = np.bincount((place * COLORS + color).ravel(), minlength=n * cells**2 * COLORS).reshape(n, cells**2, COLORS)
    return (counts / counts.sum(axis=2, keepdims=True)).reshape(n, -1).astype(np.float32)


def centers():
    """(50, 3) CIE Lab: 8 greys; 8 hues of chroma 18 and 6 hues of chroma 40, each at lightness 30, 55 and 80."""
    greys = [(lightness, 0.0, 0.0) for lightness in np.linspace(5, 97, 8)]
    rings = [
        (lightness, chroma * np.cos(hue), chroma * np.sin(hue))
        for chroma, hues in ((18, 8), (40, 6))
        for lightness in (30, 55, 80)
        for hue in np.arange(hues) * 2 * np.pi / hues
    ]
    return np.array(greys + rings)


@cache
def color_table():
    """(32³,) which center is nearest to each color of the table, red slowest."""
    from skimage.color import rgb2lab

    level = (np.arange(LEVELS) + 0.5) / LEVELS
    rgb = np.stack(np.meshgrid(level, level, level, indexing="ij"), axis=-1).reshape(1, -1, 3)
    gaps = ((rgb2lab(rgb)[0][:, None] - centers()) ** 2).sum(axis=2)
    return gaps.argmin(axis=1)
