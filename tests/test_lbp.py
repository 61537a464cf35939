"""lbp: patterns counted by hand and by scikit-image."""

import numpy as np
import pytest
from skimage.feature import local_binary_pattern
from test_features import drawn, extract

from rankbench_features.lbp import Lbp, bin_of_code, histograms, pattern_bins


def test_58_uniform_patterns_and_one_bin_for_the_rest():
    bins = bin_of_code()
    assert bins[0] == 0
    assert bins[255] == 57
    counts = np.bincount(bins)
    assert counts[:58].tolist() == [1] * 58
    assert counts[58] == 256 - 58
    assert bins[0b01010101] == 58


def test_the_same_pixels_share_a_bin_as_in_scikit_image():
    """Bins are numbered otherwise there, so that the numbering is matched, one to one.

    Only pixels unlike all eight neighbors: where one equals the middle, scikit-image's interpolation may round to
    just below it, and ours is exact.
    """
    levels = np.random.default_rng(0).integers(0, 256, (60, 70), dtype=np.uint8)
    ours = pattern_bins(levels[None].astype(np.int16))[0]
    theirs = local_binary_pattern(levels, 8, 1, "nri_uniform")[1:-1, 1:-1].astype(int)
    distinct = np.ones(ours.shape, bool)
    for down, right in np.ndindex(3, 3):
        if (down, right) != (1, 1):
            distinct &= levels[down : down + 58, right : right + 68] != levels[1:-1, 1:-1]
    assert distinct.mean() > 0.9
    met = set(zip(ours[distinct].tolist(), theirs[distinct].tolist(), strict=True))
    assert len(met) == len({one for one, _ in met}) == len({other for _, other in met}) > 20


def test_a_flat_image_has_one_pattern():
    bins = pattern_bins(np.full((1, 6, 6), 77, np.int16))
    assert (bins == 57).all()  # no neighbor is darker


def test_a_bright_point_by_hand():
    levels = np.zeros((1, 3, 3), np.int16)
    levels[0, 1, 1] = 9
    assert pattern_bins(levels)[0, 0, 0] == 0
    levels[0, 1, 2] = 9  # the right neighbor alone is as bright: bit 0; both right diagonals stay darker
    assert pattern_bins(levels)[0, 0, 0] == bin_of_code()[1]


def test_levels_sum_to_their_weights():
    row = extract(Lbp(), drawn([(64, 64)]))[0]
    assert [part.sum() for part in np.split(row, [59, 59 * 5])] == pytest.approx([1, 4, 32], rel=1e-5)


def test_cells_are_counted_where_they_lie():
    codes = np.zeros((1, 8, 8), np.uint8)
    codes[0, 4:, :4] = 5
    found = histograms(codes, 2).reshape(2, 2, 59)
    assert found[1, 0, 5] == 0.25
    assert found[..., 0].tolist() == [[0.25, 0.25], [0, 0.25]]


def test_a_brighter_image_has_the_same_patterns():
    levels = np.random.default_rng(0).integers(0, 100, (2, 30, 30)).astype(np.int16)
    assert np.array_equal(pattern_bins(levels), pattern_bins(levels * 2 + 50))
