"""Dense 31-channel HOG cells for batches of equally sized images.

A cell is a histogram of gradient orientations under a triangle of half-width 8 pixels, so a pixel counts for the four
cells of 8 pixels around it, as in the original. Here cells stand wherever they are asked for, not on one grid; what is
needed lies on even pixels alone, and smoothing is a matrix product with the triangles.
Source: Felzenszwalb, Girshick, McAllester & Ramanan, PAMI 32 (2010), section 6: 18 signed and 9 unsigned orientations,
each normalised by four blocks of 2 × 2 cells and clipped at 0.2, and four numbers of texture.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

CHANNELS = 31
SIGNED, UNSIGNED = 18, 9
CELL = 8  # pixels
CLIP = 0.2
TEXTURE = 0.2357  # 1 / √18, as in the published code
EPSILON = 1e-4
STEP = 6  # pixels between descriptors
MARGIN = 2 * CELL  # pixels from the border to the first cell: its neighbors, and half their triangles
EVEN = 2  # pixels between the places where smoothed planes are kept: all of STEP and CELL are even


def descriptors(images, cells):
    """2 × 2 (or 3 × 3, …) stacks of cells every 6 pixels, the first cell at the upper left.

    Args: images, (n, h, w, 3) uint8, each side at least `least_side(cells)`; cells, stacks to make, such as (2, 3).
    Returns: for each of `cells`, (n, rows, columns, cells² × 31) float32.
    """
    smoothed = smooth(*gradients(images))  # (n, h/2, w/2, 18)
    rows, columns = (cell_places(side, cells) for side in images.shape[1:3])
    dense = channels(smoothed, rows, columns)
    found = []
    for count in cells:
        down, across = (starts(side, count) for side in images.shape[1:3])
        parts = [
            dense[:, place(rows, down + CELL * below)][:, :, place(columns, across + CELL * beside)]
            for below in range(count)
            for beside in range(count)
        ]
        found.append(np.concatenate(parts, axis=3))
    return found


def least_side(count):
    """Pixels an image needs for one stack of count × count cells."""
    return 2 * MARGIN + CELL * (count - 1) + 1


def starts(side, count):
    """First cell centers of the stacks along a side."""
    return np.arange(MARGIN, side - MARGIN - CELL * (count - 1), STEP)


def cell_places(side, cells):
    """Pixels, in order, at which some stack needs a cell."""
    return np.unique(np.concatenate([starts(side, count) + CELL * k for count in cells for k in range(count)]))


def place(places, wanted):
    return np.searchsorted(places, wanted)


def gradients(images):
    """(n, h, w) strength and orientation, one of 18, of each pixel's color channel of strongest gradient."""
    pixels = images.astype(np.float32)
    down, across = np.zeros_like(pixels), np.zeros_like(pixels)
    down[:, 1:-1] = pixels[:, 2:] - pixels[:, :-2]
    across[:, :, 1:-1] = pixels[:, :, 2:] - pixels[:, :, :-2]
    square = down**2 + across**2
    y, x, best = down[..., 0], across[..., 0], square[..., 0]
    for channel in range(1, pixels.shape[3]):
        better = square[..., channel] > best
        y, x = np.where(better, down[..., channel], y), np.where(better, across[..., channel], x)
        best = np.maximum(best, square[..., channel])
    turn = np.rint(np.arctan2(y, x) * np.float32(UNSIGNED / np.pi)).astype(np.int8)
    turn[x == 0] = np.sign(y[x == 0]) * 4.5 - 0.5  # between two orientations: the lower one, as in the published code
    return np.sqrt(best), turn % np.int8(SIGNED)


def smooth(strength, orientation):
    """(n, ⌈h/2⌉, ⌈w/2⌉, 18) strength of each orientation under the triangle around every even pixel."""
    n, height, width = strength.shape
    planes = np.empty((n, SIGNED, height, width), np.float32)
    for turn in range(SIGNED):
        np.multiply(strength, orientation == turn, out=planes[:, turn])
    tall = np.matmul(planes, triangles(width).T)  # (n, 18, h, w/2)
    return np.moveaxis(np.matmul(triangles(height), tall), 1, 3)


@lru_cache(maxsize=16)
def triangles(length):
    """(⌈length/2⌉, length) weight of each pixel for the cell around each even one."""
    distance = np.abs(np.arange(0, length, EVEN)[:, None] - np.arange(length))
    return np.maximum(0, 1 - distance / CELL).astype(np.float32)


def channels(smoothed, rows, columns):
    """(n, rows, columns, 31) HOG of the cells around these pixels."""
    unsigned = smoothed[..., :UNSIGNED] + smoothed[..., UNSIGNED:]
    energy = np.einsum("nyxo,nyxo->nyx", unsigned, unsigned)
    apart = CELL // EVEN
    blocks = energy[:, apart:, apart:] + energy[:, apart:, :-apart] + energy[:, :-apart, apart:]
    blocks = 1 / np.sqrt(blocks + energy[:, :-apart, :-apart] + EPSILON)  # block from this even pixel on
    down, across = rows // EVEN, columns // EVEN
    signed = smoothed[:, down[:, None], across]  # (n, rows, columns, 18)
    both = signed[..., :UNSIGNED] + signed[..., UNSIGNED:]
    out = np.zeros((*signed.shape[:3], CHANNELS), np.float32)
    for at, (up, left) in enumerate(((0, 0), (apart, 0), (0, apart), (apart, apart))):
        norm = blocks[:, (down - up)[:, None], across - left][..., None]
        part = np.minimum(signed * norm, CLIP)
        out[..., :SIGNED] += part
        out[..., SIGNED + UNSIGNED + at] = part.sum(axis=3) * (TEXTURE / 0.5)
        out[..., SIGNED : SIGNED + UNSIGNED] += np.minimum(both * norm, CLIP)
    out *= 0.5
    return out
