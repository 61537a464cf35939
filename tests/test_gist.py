"""gist: gratings excite their own filter; constant images nothing."""

import numpy as np
import pytest
from test_features import drawn, extract

from rankbench_features.gist import Gist, stretched, transfers, whitened


def grating(cycles, angle, size=64):
    y, x = np.mgrid[:size, :size]
    turn = np.deg2rad(angle)
    wave = np.sin(2 * np.pi * cycles * (x * np.cos(turn) + y * np.sin(turn)) / size)
    return np.repeat((127.5 + 100 * wave).astype(np.uint8)[:, :, None], 3, axis=2)


def test_a_constant_image_has_no_energy():
    assert extract(Gist(), [np.full((64, 64, 3), 200, np.uint8)]) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("scale", [0, 1, 2])
def test_a_grating_excites_its_scale(scale):
    rows = extract(Gist(), [grating(64 * 0.3 / 1.85**scale, 0)])[0].reshape(4, 8, 16)
    assert rows.mean(axis=(1, 2)).argmax() == scale


@pytest.mark.parametrize("orientation", range(8))
def test_a_grating_excites_its_orientation(orientation):
    rows = extract(Gist(), [grating(10, -22.5 * orientation)])[0].reshape(4, 8, 16)
    assert rows.mean(axis=(0, 2)).argmax() == orientation


def test_blocks_say_where():
    image = np.full((64, 64, 3), 128, np.uint8)
    image[48:, :16] = grating(16, 0)[48:, :16]
    energy = extract(Gist(), [image])[0].reshape(4, 8, 4, 4).sum(axis=(0, 1))
    assert np.unravel_index(energy.argmax(), (4, 4)) == (3, 0)


def test_brightness_and_contrast_are_taken_out():
    image = drawn([(64, 64)])[0] // 3
    rows = extract(Gist(), [image, image * 2 + 40])
    assert rows[0] == pytest.approx(rows[1], abs=2e-2)


def test_filters_pass_no_dc_and_repeat_in_steps():
    filters = transfers(96, 4, 8)
    assert filters.shape == (32, 96, 96)
    assert filters[:, 0, 0].max() < 0.05
    assert filters[3 * 8].max() == pytest.approx(1, abs=0.05)  # the peak lies between two frequencies
    # Orientation 4 of 8 is orientation 0 turned by a quarter.
    centered = np.fft.fftshift(filters, axes=(1, 2))[:, 1:, 1:]
    centered[:, 47, 47] = 0  # DC has no direction
    assert np.rot90(centered[4], -1) == pytest.approx(centered[0], abs=1e-5)


def test_the_prefilter_evens_out_local_contrast():
    grey = stretched(drawn([(64, 64)])[0].mean(axis=2, dtype=np.float32)[None])
    flat = whitened(grey)
    assert flat.shape == (1, 64, 64)
    assert abs(float(flat.mean())) < 0.1
    assert 0.5 < float(flat.std()) < 1


@pytest.mark.parametrize("size", [16, 65, 100])
def test_any_size_gives_512_numbers(size):
    assert extract(Gist(size=size), drawn([(30, 30)])).shape == (1, 512)


def test_golden_value():
    row = extract(Gist(), drawn([(64, 64)], seed=3))[0]
    assert row[:5] == pytest.approx(GOLDEN, rel=1e-4)


GOLDEN = [0.118715, 0.0976317, 0.122625, 0.094638, 0.0984862]
