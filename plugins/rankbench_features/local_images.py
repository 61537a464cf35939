"""Images for local descriptors: shrunk with their aspect kept, and grouped by size so that a group is one array."""

from __future__ import annotations

import numpy as np


def limited(image, longest):
    """The image shrunk, antialiased, until its longer side has at most `longest` pixels; never enlarged."""
    from PIL import Image

    height, width = image.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return np.asarray(image)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))


def grouped(images, pixels):
    """(rows, (n, h, w, 3) array) of images of one size, about `pixels` pixels at a time."""
    by_size = {}
    for row, image in enumerate(images):
        by_size.setdefault(image.shape[:2], []).append(row)
    for (height, width), rows in by_size.items():
        count = max(1, pixels // (height * width))
        for begin in range(0, len(rows), count):
            some = rows[begin : begin + count]
            yield some, np.stack([images[row] for row in some])
