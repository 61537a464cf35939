"""color-histogram: shares that sum to 1, and the colors they stand for."""

import numpy as np
import pytest
from test_features import drawn, extract

from rankbench_features.color_histogram import ColorHistogram, centers, color_table


def filled(*color, size=32):
    return np.full((size, size, 3), color, np.uint8)


def test_squares_sum_to_one_a_grid():
    row = extract(ColorHistogram(), drawn([(64, 64)]))[0]
    for level in np.split(row, [50, 250]):
        assert (level**2).sum() == pytest.approx(1, abs=1e-5)


def test_one_color_fills_one_bin():
    row = extract(ColorHistogram(grids=(1,)), [filled(250, 250, 250)])[0]
    assert np.flatnonzero(row).tolist() == [7]  # the lightest grey
    assert row[7] == pytest.approx(1)
    assert extract(ColorHistogram(grids=(1,)), [filled(0, 0, 0)])[0].argmax() == 0


def test_half_and_half():
    image = filled(0, 0, 0, size=64)
    image[:, 32:] = 255
    row = extract(ColorHistogram(grids=(1, 2)), [image])[0]
    assert row[[0, 7]] == pytest.approx([np.sqrt(0.5)] * 2)
    cells = row[50:].reshape(2, 2, 50)
    assert cells[:, 0, 0] == pytest.approx([0.5, 0.5])  # whole cells of black, each a quarter of the square sum
    assert cells[:, 1, 7] == pytest.approx([0.5, 0.5])


def test_place_matters_only_below_the_whole_image():
    left, right = filled(255, 0, 0, size=64), filled(255, 0, 0, size=64)
    left[:, :32] = right[:, 32:] = (0, 0, 255)
    rows = extract(ColorHistogram(), [left, right])
    assert rows[0, :50] == pytest.approx(rows[1, :50])
    assert not np.allclose(rows[0, 50:], rows[1, 50:])


def test_fifty_centers_all_reached():
    found = centers()
    assert found.shape == (50, 3)
    assert len(np.unique(np.round(found, 3), axis=0)) == 50
    assert (np.bincount(color_table(), minlength=50) > 0).all()
    assert color_table().shape == (32**3,)


@pytest.mark.parametrize("color", [(200, 30, 30), (30, 160, 60), (40, 60, 190), (230, 200, 60), (128, 128, 128)])
def test_a_color_gets_the_center_of_its_hue(color):
    from skimage.color import rgb2lab

    lab = rgb2lab(np.array([[color]]) / 255)[0, 0]
    chosen = centers()[extract(ColorHistogram(grids=(1,)), [filled(*color)])[0].argmax()]
    if np.hypot(*lab[1:]) < 5:
        assert np.hypot(*chosen[1:]) == 0
    else:
        turn = np.angle((lab[1] + 1j * lab[2]) / (chosen[1] + 1j * chosen[2]), deg=True)
        assert abs(turn) <= 31  # six hues on the outer ring
