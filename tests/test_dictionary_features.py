"""hog2x2, gradient and color-patches: sizes, odd images, batches, and that they learn from training images alone."""

import numpy as np
import pytest
from test_features import drawn

import rankbench
from rankbench.testing import check_feature
from rankbench_features.color_patches import ColorPatches, block_counts, window_sums
from rankbench_features.hog2x2 import Gradient, Hog2x2
from rankbench_features.local_images import grouped, limited

every = pytest.mark.parametrize("kind", [Hog2x2, Gradient, ColorPatches])


def fitted(kind, arrays=None, **parameters):
    arrays = drawn([(64, 64)] * 6) if arrays is None else arrays
    return kind(**{"words": 16, **parameters}).fit(rankbench.Images.from_arrays(arrays), None)


def extract(feature, arrays):
    return feature.extract(rankbench.Images.from_arrays(arrays), None)


@pytest.mark.parametrize(("kind", "numbers"), [(Hog2x2, 5376), (Gradient, 10752), (ColorPatches, 5376)])
def test_published_sizes(kind, numbers):
    rows = extract(kind().fit(rankbench.Images.from_arrays(drawn([(64, 64)] * 3)), None), drawn([(90, 64), (64, 90)]))
    assert (rows.shape, rows.dtype) == ((2, numbers), np.float32)
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1], abs=1e-5)


@every
def test_odd_images(kind):
    odd = drawn([(1, 1), (1, 300), (300, 2), (600, 900)])
    odd += [np.zeros((50, 50, 3), np.uint8), np.full((50, 50, 3), 255, np.uint8)]
    assert np.isfinite(extract(fitted(kind), odd)).all()
    assert np.isfinite(extract(fitted(kind, [odd[4]]), odd)).all()  # a dictionary of one flat image


@every
def test_a_row_is_the_same_alone_and_among_others(kind):
    feature, arrays = fitted(kind), drawn([(48, 48), (64, 40), (48, 48), (40, 64), (48, 48)])
    together = extract(feature, arrays)
    for row, array in enumerate(arrays):
        assert extract(feature, [array])[0] == pytest.approx(together[row], abs=1e-5)


@every
def test_state_restores_the_rows_and_seeds_decide_the_dictionary(kind):
    feature, arrays = fitted(kind), drawn([(48, 48)] * 3)
    twin = kind(words=16)
    twin.load(feature.state())
    assert np.array_equal(extract(twin, arrays), extract(feature, arrays))
    assert np.array_equal(fitted(kind).words_, feature.words_)
    assert not np.array_equal(fitted(kind, seed=1, samples=100).words_, fitted(kind, samples=100).words_)


@every
def test_conforms(kind):
    check_feature(kind(words=8))


@every
@pytest.mark.parametrize("parameters", [{"size": 4}, {"words": 0}, {"samples": 0}])
def test_bad_parameters_are_named(kind, parameters):
    with pytest.raises(rankbench.DataError, match="at least"):
        kind(**parameters)


def test_a_patch_counts_its_colors():
    colors = np.zeros((1, 16, 20), np.int64)
    colors[0, :4, 4:8] = 7
    counts = block_counts(colors)
    assert counts.shape == (1, 4, 5, 50)
    assert counts[0, 0, 1, 7] == 16
    assert counts.sum() == 16 * 20
    pairs = window_sums(counts, 2)
    assert pairs.shape == (1, 3, 4, 50)
    assert pairs[0, 0, :, 7].tolist() == [16, 16, 0, 0]
    assert window_sums(counts, 4)[0, 0, :, 0].tolist() == [240, 240]


def test_images_are_shrunk_and_never_enlarged():
    assert limited(drawn([(100, 400)])[0], 200).shape == (50, 200, 3)
    small = drawn([(30, 20)])[0]
    assert np.array_equal(limited(small, 200), small)
    assert limited(drawn([(1, 999)])[0], 100).shape == (1, 100, 3)


def test_groups_hold_images_of_one_size_and_few_pixels():
    arrays = drawn([(10, 10), (10, 12), (10, 10), (10, 10)])
    found = list(grouped(arrays, 250))
    assert [(rows, group.shape) for rows, group in found] == [
        ([0, 2], (2, 10, 10, 3)),
        ([3], (1, 10, 10, 3)),
        ([1], (1, 10, 12, 3)),
    ]
    assert np.array_equal(found[0][1][1], arrays[2])
