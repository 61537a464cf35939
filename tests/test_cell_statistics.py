"""cell-statistics: a spot tells, its place and the exposure do not."""

import numpy as np
import pytest
from test_features import drawn, extract

from rankbench_features.cell_statistics import CellStatistics, measures, sorted_at

MEASURES = 8


def scene(row=None, column=None, spot=40):
    image = np.full((256, 256, 3), 120, np.uint8)
    if row is not None:
        image[row : row + 32, column : column + 32] = spot
    return image


def test_a_flat_image_is_ordinary_in_level_and_has_the_least_energy():
    row = extract(CellStatistics(size=256, grids=(8,), ranks=4), [scene()])[0].reshape(4, MEASURES)
    assert row[:, :3] == pytest.approx(0)
    assert row[:, 3:] == pytest.approx(np.log(0.01 / 0.06), rel=1e-5)


def test_a_dark_spot_shows_at_the_lowest_rank():
    row = extract(CellStatistics(size=256, grids=(8,), ranks=64), [scene(64, 96)])[0].reshape(64, MEASURES)
    assert row[0, 0] == pytest.approx(np.log(40 / 120), rel=1e-5)  # the one dark cell of 64
    assert row[1:, 0] == pytest.approx(0, abs=1e-6)


def test_the_place_of_a_spot_does_not_matter():
    rows = extract(CellStatistics(size=256), [scene(64, 96), scene(160, 32)])
    assert rows[0] == pytest.approx(rows[1], abs=1e-6)


def test_exposure_does_not_matter():
    image = drawn([(256, 256)])[0] // 4 + 20
    rows = extract(CellStatistics(size=256), [image, image * 3])
    assert rows[0] == pytest.approx(rows[1], abs=1e-5)


def test_stripes_have_a_direction():
    image = np.repeat(np.where(np.arange(256) // 4 % 2, 200, 100)[None, :, None], 256, axis=0).repeat(3, axis=2)
    row = extract(CellStatistics(size=256, grids=(8,), ranks=2), [image.astype(np.uint8)])[0].reshape(2, MEASURES)
    assert (row[:, 6] > 0.5).all()  # across
    assert row[:, 7] == pytest.approx(np.log(0.01 / 0.06), rel=1e-5)  # down


def test_measures_of_one_cell_by_hand():
    grey = np.array([[1.0, 2], [3, 4]], np.float32)
    zero = np.zeros_like(grey)
    found = measures(grey, zero, zero + 0.05, zero + 0.11, 1)[0]
    energies = [np.sqrt(1.25), 0.11, 0.11, 0, 0.05]
    assert found == pytest.approx(
        [*np.log([2.5, 1, 4]), *np.log((np.array(energies) + 0.01) / 0.06)], rel=1e-5, abs=1e-6
    )


def test_ranks_run_from_least_to_most():
    values = np.arange(100.0).reshape(-1, 1)[::-1]
    assert sorted_at(values, 3).ravel().tolist() == [0, 50, 99]
