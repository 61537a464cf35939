"""Every patch of an image at several scales as a vector, and where it lies: what visual chains search through.

At scale s the image is resized so that a patch of side s (of the image's) is 8 × 8 cells of 4 pixels; patches start at
every cell, an eighth of their side apart. A patch is 9 gradient orientations and the brightness of each cell.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

CELLS = 8  # of a patch, along a side
PIXELS = 4  # of a cell
ORIENTATIONS = 9
CHANNELS = ORIENTATIONS + 1
LENGTH = CELLS * CELLS * CHANNELS


class PatchMaps:
    """Cell maps of images at every scale; patches are cut out when asked for.

    Attributes: boxes, (positions, 4) left, top, right and bottom of every patch, relative to the image.
    """

    def __init__(self, images, run, scales):
        self.scales = tuple(scales)
        self.maps = []
        for scale in self.scales:
            side = max(CELLS, round(CELLS / scale)) * PIXELS
            pixels = run.pixels(images, side)
            self.maps.append(np.concatenate([cell_map(block) for block in pixels.blocks(64)]))

    def __len__(self):
        return len(self.maps[0])

    @cached_property
    def boxes(self):
        found = []
        for cells in self.maps:
            grid = cells.shape[1]
            at = np.arange(grid - CELLS + 1) / grid
            top, left = (one.ravel() for one in np.meshgrid(at, at, indexing="ij"))
            found.append(np.stack([left, top, left + CELLS / grid, top + CELLS / grid], axis=1))
        return np.concatenate(found)

    def patches(self, row):
        """(positions, LENGTH) float32 vectors of one image's patches: gradients below 1, brightness alike."""
        parts = []
        for cells in self.maps:
            windows = np.lib.stride_tricks.sliding_window_view(cells[row], (CELLS, CELLS), axis=(0, 1))
            parts.append(np.moveaxis(windows, 2, -1).reshape(-1, CELLS * CELLS, CHANNELS))
        found = np.concatenate(parts)
        gradients = found[..., :ORIENTATIONS].reshape(len(found), -1)
        length = np.sqrt(np.einsum("ij,ij->i", gradients, gradients))[:, None]
        length += length.mean()  # an empty patch is short, not noise of length 1
        light = found[..., ORIENTATIONS:].reshape(len(found), -1)
        return np.concatenate([gradients / np.maximum(length, 1e-3), light], axis=1)


def cell_map(pixels):
    """(n, g, g, CHANNELS) float32: orientation histograms, contrast damped, and mean brightness of each cell.

    Brightness is that of the brightest color channel (V of HSV): a part keeps its outline and its light and dark while
    its hue changes along a chain.
    """
    values = pixels.max(axis=3).astype(np.float32) / 255
    x, y = np.zeros_like(values), np.zeros_like(values)
    x[:, :, 1:-1], y[:, 1:-1] = values[:, :, 2:] - values[:, :, :-2], values[:, 2:] - values[:, :-2]
    strength = np.hypot(x, y)
    turn = np.floor(np.arctan2(y, x) * np.float32(ORIENTATIONS / np.pi)).astype(np.int64) % ORIENTATIONS
    n, side = values.shape[:2]
    grid = side // PIXELS
    row = np.arange(side) // PIXELS
    place = ((np.arange(n)[:, None, None] * grid + row[:, None]) * grid + row) * ORIENTATIONS + turn
    counts = np.bincount(place.ravel(), strength.ravel(), n * grid * grid * ORIENTATIONS)
    oriented = np.sqrt(blurred(counts.reshape(n, grid, grid, ORIENTATIONS))) / PIXELS
    light = blurred(values.reshape(n, grid, PIXELS, grid, PIXELS).mean(axis=(2, 4))[..., None]) - 0.5
    # Over a patch the vector of brightness is then about as long as that of the gradients, which is 1.
    return np.concatenate([oriented, light / (0.3 * CELLS)], axis=3).astype(np.float32)


def blurred(cells):
    """Each cell shared with its neighbors (1, 2, 1 both ways), so that a shift by part of a cell changes little."""
    edged = np.pad(cells, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="edge")
    rows = (edged[:, :-2] + 2 * edged[:, 1:-1] + edged[:, 2:]) / 4
    return (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 4


def overlap(boxes, box):
    """(n,) intersection over union of boxes with one box."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    shared = np.prod(np.maximum(0, high - low), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    return shared / (areas - shared)


def crops(pixels, boxes, size):
    """(n, size, size, 3) uint8 patches, bilinear, of images (n, s, s, 3); what lies outside repeats the border."""
    side = pixels.shape[1]
    steps = (np.arange(size) + 0.5) / size
    x = (boxes[:, :1] + (boxes[:, 2:3] - boxes[:, :1]) * steps) * side - 0.5
    y = (boxes[:, 1:2] + (boxes[:, 3:4] - boxes[:, 1:2]) * steps) * side - 0.5
    x, y = np.clip(x, 0, side - 1), np.clip(y, 0, side - 1)
    left, top = np.minimum(x.astype(int), side - 2), np.minimum(y.astype(int), side - 2)
    right_share, lower_share = (x - left)[:, None, :, None], (y - top)[:, :, None, None]
    image = np.arange(len(boxes))[:, None, None]

    def at(down, across):
        return pixels[image, (top + down)[:, :, None], (left + across)[:, None, :]].astype(np.float32)

    upper = at(0, 0) * (1 - right_share) + at(0, 1) * right_share
    lower = at(1, 0) * (1 - right_share) + at(1, 1) * right_share
    return np.rint(upper * (1 - lower_share) + lower * lower_share).astype(np.uint8)
