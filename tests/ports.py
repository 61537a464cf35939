"""Straight ports of the published feature code, vectorised within one image: ours must equal them and beat them."""

from itertools import pairwise

import numpy as np


def hog31(image, count, step=6, half=8):
    """Stacks of count × count 31-channel HOG cells every `step` pixels; computed at every pixel, as published."""
    from scipy.ndimage import convolve1d

    pixels = image.astype(np.float64)
    down, across = np.zeros_like(pixels), np.zeros_like(pixels)
    down[1:-1], across[:, 1:-1] = pixels[2:] - pixels[:-2], pixels[:, 2:] - pixels[:, :-2]
    strongest = (down**2 + across**2).argmax(axis=2)[..., None]
    y = np.take_along_axis(down, strongest, 2)[..., 0]
    x = np.take_along_axis(across, strongest, 2)[..., 0]
    angles = np.arange(9) * np.pi / 9
    along = x[..., None] * np.cos(angles).round(12) + y[..., None] * np.sin(angles).round(12)  # 80° and 100° tie
    orientation = np.concatenate([along, -along], axis=2).argmax(axis=2)
    strength = np.hypot(x, y)
    triangle = 1 - np.abs(np.arange(-half + 1, half)) / half
    planes = np.zeros((*strength.shape, 18))
    for turn in range(18):
        plane = np.where(orientation == turn, strength, 0)
        planes[..., turn] = convolve1d(convolve1d(plane, triangle, 0, mode="constant"), triangle, 1, mode="constant")
    both = planes[..., :9] + planes[..., 9:]
    energy = (both**2).sum(axis=2)
    height, width = energy.shape
    inner = slice(half, height - half), slice(half, width - half)

    def moved(array, dy, dx):
        return array[half + dy : height - half + dy, half + dx : width - half + dx]

    cells = np.zeros((height - 2 * half, width - 2 * half, 31))
    for at, (dy, dx) in enumerate(((half, half), (-half, half), (half, -half), (-half, -half))):
        block = moved(energy, 0, 0) + moved(energy, dy, 0) + moved(energy, 0, dx) + moved(energy, dy, dx)
        norm = (1 / np.sqrt(block + 1e-4))[..., None]
        signed = np.minimum(planes[inner] * norm, 0.2)
        cells[..., :18] += 0.5 * signed
        cells[..., 18:27] += 0.5 * np.minimum(both[inner] * norm, 0.2)
        cells[..., 27 + at] = 0.2357 * signed.sum(axis=2)
    reach = half * (count - 1)
    parts = [
        cells[half + dy : height - 3 * half - reach + dy : step, half + dx : width - 3 * half - reach + dx : step]
        for dy in range(0, reach + 1, half)
        for dx in range(0, reach + 1, half)
    ]
    return np.concatenate(parts, axis=2)


def llc(descriptors, words, neighbors=3, ridge=0.03):
    """Pooled codes of one image's descriptors (rows, columns, d): dense codes, the maximum over each pyramid cell."""
    height, width, d = descriptors.shape
    flat = descriptors.reshape(-1, d).astype(np.float64)
    distance = (
        (flat**2).sum(1)[:, None] - 2 * flat @ words.T.astype(np.float64) + (words.astype(np.float64) ** 2).sum(1)
    )
    nearest = np.argsort(distance, axis=1)[:, :neighbors]
    gaps = words[nearest].astype(np.float64) - flat[:, None]
    covariance = np.einsum("nid,njd->nij", gaps, gaps)
    trace = np.einsum("nii->n", covariance)
    covariance += np.where(trace > 0, ridge * trace, 1)[:, None, None] * np.eye(neighbors)
    weights = np.linalg.solve(covariance, np.ones((len(flat), neighbors, 1)))[..., 0]
    weights /= weights.sum(axis=1, keepdims=True)
    codes = np.zeros((len(flat), len(words)))
    np.put_along_axis(codes, nearest, weights, axis=1)
    codes = codes.reshape(height, width, -1)
    found = []
    for cells in (1, 2, 4):
        rows, columns = np.arange(height) * 4 // height * cells // 4, np.arange(width) * 4 // width * cells // 4
        for row in range(cells):
            for column in range(cells):
                part = codes[rows == row][:, columns == column]
                found.append(part.max(axis=(0, 1), initial=0))
    return np.concatenate(found)


def gist(grey, border, filters, blocks):
    """GIST of one whitened, square image: each filter applied by a complex FFT over a mirrored border."""
    size = len(grey)
    edged = np.pad(grey.astype(np.float64), border, mode="symmetric")
    spectrum = np.fft.fft2(edged)
    edges = np.linspace(0, size, blocks + 1).astype(int)
    found = []
    for one in filters:
        answer = np.abs(np.fft.ifft2(spectrum * one))[border : border + size, border : border + size]
        for top, bottom in pairwise(edges):
            for left, right in pairwise(edges):
                found.append(answer[top:bottom, left:right].mean())
    return np.array(found)
