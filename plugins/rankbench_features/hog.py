"""HOG: histograms of oriented gradients on a pyramid of grids, one vector for the whole image."""

from dataclasses import dataclass

import numpy as np

import rankbench

CLIP = 0.2  # Dalal & Triggs: no orientation of a normalised block counts for more


@dataclass(frozen=True)
class Hog(rankbench.Feature):
    """Gradient orientations by grid cell, each 2 × 2 block of cells normalised, over several grids.

    The image is stretched to a square. Each pixel takes the gradient of its strongest color channel (central
    differences, none at the border) and shares its magnitude between the two nearest of `orientations` unsigned
    orientations, and between the four nearest cells of each grid. Blocks are normalised as in Dalal & Triggs, CVPR
    2005 (L2, clipped at 0.2, L2 again); a grid of one cell is its own block. The grids, coarse and fine, and their
    equal weight are our choice: a global descriptor that tolerates shifts.

    Args:
        size: side of the square, in pixels.
        grids: cells along a side, one number a grid.
        orientations: bins over half a turn.
    Dimensions: Σ max(1, g − 1)² × (4, or 1 for a grid of one cell) × orientations.
    """

    size: int = 128
    grids: tuple[int, ...] = (1, 2, 4, 8)
    orientations: int = 9

    def __post_init__(self):
        if not self.grids or not all(1 <= cells <= self.size // 2 for cells in self.grids):
            raise rankbench.DataError(f"hog: grids {list(self.grids)} need 1 to {self.size // 2} cells a side.")
        if self.orientations < 1:
            raise rankbench.DataError(f"hog: orientations is {self.orientations}; use at least 1.")

    def extract(self, images, run):
        pixels = run.pixels(images, self.size)[:].astype(np.float32)  # (n, size, size, 3)
        oriented = orientation_planes(*strongest_gradient(pixels), self.orientations)
        return np.concatenate([blocks(cell_sums(oriented, cells)) for cells in self.grids], axis=1)


def strongest_gradient(pixels):
    """(n, h, w) horizontal and vertical differences of each pixel's channel of strongest gradient."""
    across, down = np.zeros_like(pixels), np.zeros_like(pixels)
    across[:, :, 1:-1] = pixels[:, :, 2:] - pixels[:, :, :-2]
    down[:, 1:-1] = pixels[:, 2:] - pixels[:, :-2]
    strength = across**2 + down**2
    x, y, best = across[..., 0], down[..., 0], strength[..., 0]
    for channel in range(1, pixels.shape[3]):
        better = strength[..., channel] > best
        x = np.where(better, across[..., channel], x)
        y = np.where(better, down[..., channel], y)
        best = np.maximum(best, strength[..., channel])
    return x, y


def orientation_planes(x, y, orientations):
    """(n, h, w, orientations): each pixel's magnitude, shared between the two orientations nearest to its own."""
    place = np.mod(np.arctan2(y, x) / np.float32(np.pi), np.float32(1)) * np.float32(orientations)
    lower = np.minimum(place.astype(np.int64), orientations - 1)
    share = place - lower
    magnitude = np.hypot(x, y)
    planes = np.zeros((magnitude.size, orientations), dtype=np.float32)
    pixel = np.arange(magnitude.size)
    planes[pixel, lower.ravel()] = (magnitude * (1 - share)).ravel()
    planes[pixel, ((lower + 1) % orientations).ravel()] += (magnitude * share).ravel()
    return planes.reshape(*magnitude.shape, orientations)


def cell_sums(planes, cells):
    """(n, cells, cells, bins): planes summed over a grid of cells, each pixel shared between the nearest centers."""
    n, height, width, bins = planes.shape
    rows, columns = cell_weights(height, cells), cell_weights(width, cells)
    tall = rows @ planes.reshape(n, height, width * bins)  # (n, cells, width × bins)
    return columns @ tall.reshape(n, cells, width, bins)


def cell_weights(length, cells):
    """(cells, length) linear weight of each pixel for each cell's center; beyond the outer centers it fades out."""
    distance = (np.arange(length) + 0.5) * cells / length - 0.5 - np.arange(cells)[:, None]
    return np.maximum(0, 1 - np.abs(distance)).astype(np.float32)


def blocks(sums):
    """(n, d) normalised 2 × 2 blocks of cells, side by side; all levels weigh the same, however many blocks."""
    if sums.shape[1] > 1:
        sums = np.concatenate([sums[:, :-1, :-1], sums[:, 1:, :-1], sums[:, :-1, 1:], sums[:, 1:, 1:]], axis=3)
    values = unit(np.minimum(unit(sums, 1), CLIP), 1e-4)
    return values.reshape(len(values), -1) / np.float32(np.sqrt(values.shape[1] * values.shape[2]))


def unit(vectors, faint):
    """The same vectors with length 1 along the last axis, but near 0 where the squared length is far below `faint`."""
    return vectors / np.sqrt((vectors**2).sum(axis=-1, keepdims=True) + np.float32(faint))
