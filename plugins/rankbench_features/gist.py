"""GIST: energy of oriented band-pass filters on a coarse grid, the spatial envelope of a scene."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np

import rankbench

CUTOFF = 4  # cycles an image: the prefilter removes what varies more slowly
PREFILTER_BORDER = 5  # pixels mirrored before the prefilter
FLOOR = 0.2  # added to the local standard deviation of the logarithm of the grey level
PEAK = 0.3  # cycles a pixel, center frequency of the finest scale
NOTHING = 1e-6  # what a filter passes of a frequency, below which it is left out; its peak is 1
PIXELS = 1 << 17  # filtered at once: their spectra stay in the processor's cache
RATIO = 1.85  # between the center frequencies of neighboring scales


@dataclass(frozen=True)
class Gist(rankbench.Feature):
    """Mean Gabor energy by scale, orientation and block: 4 scales × 8 orientations × 4 × 4 blocks = 512 numbers.

    Grey is the mean of the channels, the image is stretched to a square, scaled to 0…255, and locally whitened; the
    filters are the transfer functions of the published code, applied by FFT over a mirrored border.
    Source: Oliva & Torralba, "Modeling the shape of the scene", IJCV 2001; filters and prefilter as in the authors'
    LMgist. Ours: a square of 64 instead of 256 pixels (their border of 32 shrinks with it), because scenes are told
    apart by coarse structure and the cost grows with the area.

    Args: size, side of the square in pixels; scales; orientations, over half a turn; blocks, along a side.
    Dimensions: scales × orientations × blocks².
    """

    size: int = 64
    scales: int = 4
    orientations: int = 8
    blocks: int = 4

    def __post_init__(self):
        if min(self.scales, self.orientations, self.blocks) < 1 or self.size < max(16, self.blocks):
            raise rankbench.DataError(
                f"gist: scales, orientations and blocks are at least 1, size at least 16 and blocks; got {self}."
            )

    def extract(self, images, run):
        grey = run.pixels(images, self.size)[:].mean(axis=3, dtype=np.float32)  # (n, size, size)
        flat = whitened(stretched(grey))
        border = self.size // 8
        edged = np.pad(flat, [(0, 0), (border, border), (border, border)], mode="symmetric")
        some = max(1, PIXELS // edged[0].size)
        parts = [edged[at : at + some] for at in range(0, len(edged), some)]
        rest = (border, self.scales, self.orientations, self.blocks)
        return np.concatenate([gabor_energy(part, *rest).reshape(len(part), -1) for part in parts])


def stretched(grey):
    """Each image scaled to 0…255; one without contrast becomes 0."""
    lowest = grey.min(axis=(1, 2), keepdims=True)
    span = grey.max(axis=(1, 2), keepdims=True) - lowest
    return (grey - lowest) * (255 / np.where(span > 0, span, 1))


def whitened(grey):
    """(n, s, s) log grey less its local mean, over FLOOR plus its local standard deviation."""
    from scipy.fft import irfft2, rfft2

    edge = PREFILTER_BORDER
    level = np.pad(np.log1p(grey), [(0, 0), (edge, edge), (edge, edge)], mode="symmetric")
    side = level.shape[1] + level.shape[1] % 2
    level = np.pad(level, [(0, 0), (0, side - level.shape[1]), (0, side - level.shape[2])], mode="symmetric")
    across, down = np.fft.rfftfreq(side) * side, np.fft.fftfreq(side) * side
    smooth = np.exp(-(across**2 + down[:, None] ** 2) * (np.log(2) / CUTOFF**2)).astype(np.float32)
    level = level - irfft2(rfft2(level) * smooth, s=(side, side))
    deviation = np.sqrt(np.abs(irfft2(rfft2(level**2) * smooth, s=(side, side))))
    size = grey.shape[1]
    return (level / (FLOOR + deviation))[:, edge : edge + size, edge : edge + size].astype(np.float32)


def gabor_energy(edged, border, scales, orientations, blocks):
    """(n, scales × orientations, blocks²) mean magnitude of each filter's response by block, without the border."""
    from scipy.fft import fft2, ifft

    side = edged.shape[1]
    inner = slice(border, side - border)
    spectrum = fft2(edged)
    pooling = block_means(side - 2 * border, blocks)
    energies = []
    for (rows, columns), transfer in supports(side, scales, orientations):
        # Only the frequencies that the filter passes are carried to pixels, and only to those inside the border.
        passed = np.zeros((len(edged), side, len(columns)), spectrum.dtype)
        passed[:, rows] = spectrum[:, rows[:, None], columns] * transfer
        wide = np.zeros((len(edged), side - 2 * border, side), spectrum.dtype)
        wide[:, :, columns] = ifft(passed, axis=1, overwrite_x=True)[:, inner]
        response = np.abs(ifft(wide, axis=2, overwrite_x=True)[:, :, inner])
        energies.append((pooling @ response @ pooling.T).reshape(len(edged), -1))
    return np.stack(energies, axis=1)


def block_means(size, blocks):
    """(blocks, size) rows that average nearly equal runs of pixels."""
    edges = np.round(np.linspace(0, size, blocks + 1)).astype(int)
    rows = np.zeros((blocks, size), dtype=np.float32)
    for row, (start, stop) in enumerate(pairwise(edges)):
        rows[row, start:stop] = 1 / (stop - start)
    return rows


@lru_cache(maxsize=4)
def supports(side, scales, orientations):
    """For each filter: rows and columns of frequencies outside of which it is below NOTHING, and its values there."""
    found = []
    for transfer in transfers(side, scales, orientations):
        rows, columns = (np.flatnonzero(transfer.max(axis=axis) > NOTHING) for axis in (1, 0))
        found.append(((rows, columns), transfer[rows[:, None], columns]))
    return found


@lru_cache(maxsize=4)
def transfers(side, scales, orientations):
    """(scales × orientations, side, side) float32 Gabor transfer functions, finest scale first, DC at [0, 0]."""
    frequency = np.fft.fftfreq(side)
    radius = np.hypot(frequency, frequency[:, None])
    angle = np.angle(frequency + 1j * frequency[:, None])
    filters = []
    for scale in range(scales):
        band = np.exp(-3.5 * (radius / (PEAK / RATIO**scale) - 1) ** 2)
        for orientation in range(orientations):
            turn = angle + np.pi / orientations * orientation
            turn = np.mod(turn + np.pi, 2 * np.pi) - np.pi
            filters.append(band * np.exp(-2 * np.pi * (16 * orientations**2 / 32**2) * turn**2))
    return np.array(filters, dtype=np.float32)
