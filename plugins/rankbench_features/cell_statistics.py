"""Cell statistics: how bright, dark, rough and striped the cells of an image are, whatever their places."""

from dataclasses import dataclass

import numpy as np

import rankbench

DARKEST = 0.02  # of the image's median grey: darker counts as this dark
FAINTEST = 0.01  # of the median grey: added to a deviation or difference before its logarithm
TYPICAL = 0.06  # of the median grey: a deviation or difference of this size counts as 0


@dataclass(frozen=True)
class CellStatistics(rankbench.Feature):
    """Order statistics, over the cells of several grids, of eight measures of a cell.

    Grey levels are divided by the image's median, so that exposure does not matter. Of each cell: the mean, darkest
    and brightest level; the standard deviation; the mean and largest gradient magnitude (central differences); the mean
    horizontal and vertical difference. All are logarithms. Each measure is sorted over the
    cells of a grid and read at `ranks` even places from least to most: a small dark or rough spot shows at the ends,
    wherever it lies. Our design, for defects and blemishes, which are few, local and anywhere.

    Args:
        size: side in pixels of the square the image is stretched to.
        grids: cells along a side, one number a grid; each divides size, into cells of 4 pixels or more.
        ranks: how many places of the sorted cells are read; at least 2.
    Dimensions: grids × ranks × 8.
    """

    size: int = 128
    grids: tuple[int, ...] = (8, 16, 32)
    ranks: int = 32

    def __post_init__(self):
        if not self.grids or any(cells < 1 or self.size % cells or self.size < 4 * cells for cells in self.grids):
            raise rankbench.DataError(
                f"cell-statistics: each of grids {list(self.grids)} must divide size {self.size} into cells of 4 "
                "pixels or more."
            )
        if self.ranks < 2:
            raise rankbench.DataError(f"cell-statistics: ranks is {self.ranks}; use at least 2.")

    def extract(self, images, run):
        rows = [self._one(image) for image in run.pixels(images, self.size)[:]]
        return np.array(rows, dtype=np.float32).reshape(len(rows), -1)

    def _one(self, image):
        grey = image.mean(axis=2, dtype=np.float32)
        grey /= max(float(np.median(grey)), 1.0)
        across, down = np.zeros_like(grey), np.zeros_like(grey)
        across[:, 1:-1] = np.abs(grey[:, 2:] - grey[:, :-2])
        down[1:-1] = np.abs(grey[2:] - grey[:-2])
        planes = (grey, across, down, np.hypot(across, down))
        return [sorted_at(measures(*planes, cells), self.ranks) for cells in self.grids]


def measures(grey, across, down, magnitude, cells):
    """(cells², 8) logarithms of a grid's measures, near 0 where an image is ordinary."""
    level, slope = by_cell(grey, cells), by_cell(magnitude, cells)
    levels = [level.mean(axis=1), level.min(axis=1), level.max(axis=1)]
    energies = [
        level.std(axis=1), slope.mean(axis=1), slope.max(axis=1),
        by_cell(across, cells).mean(axis=1), by_cell(down, cells).mean(axis=1),
    ]  # fmt: skip
    logs = [np.log(np.maximum(value, DARKEST)) for value in levels]
    logs += [np.log((value + FAINTEST) / TYPICAL) for value in energies]
    return np.stack(logs, axis=1)


def by_cell(plane, cells):
    """(cells², pixels) the values of each cell of a square plane."""
    side = len(plane) // cells
    return plane.reshape(cells, side, cells, side).swapaxes(1, 2).reshape(cells * cells, side * side)


def sorted_at(values, ranks):
    """(ranks, 8) each column sorted, at even places from the least to the most."""
    places = np.round(np.linspace(0, len(values) - 1, ranks)).astype(int)
    return np.sort(values, axis=0)[places]
