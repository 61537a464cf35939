"""hog: edges known by hand."""

import numpy as np
import pytest
from skimage.feature import hog as reference
from test_features import drawn, extract

from rankbench_features.hog import Hog, blocks, cell_sums, orientation_planes, strongest_gradient


def step(horizontal=True, size=64, color=(255, 255, 255)):
    image = np.zeros((size, size, 3), np.uint8)
    image[:, size // 2 :] = color
    return image if horizontal else image.swapaxes(0, 1).copy()


@pytest.mark.parametrize(("horizontal", "bins"), [(True, [0]), (False, [4, 5])])
def test_a_step_edge_has_one_orientation(horizontal, bins):
    """Nine bins over half a turn begin at 0°: a vertical edge falls on bin 0, a horizontal one between 4 and 5."""
    row = extract(Hog(size=64, grids=(1,)), [step(horizontal)])[0]
    assert np.flatnonzero(row > 1e-6).tolist() == bins
    assert np.linalg.norm(row) == pytest.approx(1, abs=1e-2)


def test_light_on_dark_equals_dark_on_light():
    rows = extract(Hog(size=64), [step(), 255 - step()])
    assert rows[0] == pytest.approx(rows[1], abs=1e-6)


def test_an_edge_between_colors_of_one_grey_is_seen():
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :32, 0] = image[:, 32:, 1] = 200
    assert extract(Hog(size=64, grids=(1,)), [image])[0, 0] > 0.9


def test_a_flat_image_is_zero():
    assert not extract(Hog(), [np.full((64, 64, 3), 90, np.uint8)]).any()


def test_contrast_does_not_matter():
    image = drawn([(64, 64)])[0] // 2
    rows = extract(Hog(size=64), [image, image * 2])
    assert rows[0] @ rows[1] / np.linalg.norm(rows[0]) / np.linalg.norm(rows[1]) > 0.999


def test_magnitude_is_shared_and_never_lost():
    pixels = drawn([(32, 32)])[0][None].astype(np.float32)
    x, y = strongest_gradient(pixels)
    planes = orientation_planes(x, y, 9)
    assert planes.sum(axis=3) == pytest.approx(np.hypot(x, y), abs=1e-3)
    inner = np.zeros_like(planes)
    inner[:, 8:24, 8:24] = planes[:, 8:24, 8:24]  # between the outer centers of 4 cells nothing fades
    assert cell_sums(inner, 4).sum(axis=(1, 2)) == pytest.approx(inner.sum(axis=(1, 2)), rel=1e-4)


def test_each_grid_weighs_the_same():
    image = drawn([(64, 64)])
    for grids in ((1,), (2,), (8,)):
        assert np.linalg.norm(extract(Hog(size=64, grids=grids), image)) == pytest.approx(1, abs=0.01)


def test_no_cell_dominates_a_block():
    sums = np.zeros((1, 2, 2, 9), np.float32)
    sums[0, 0, 0, 0], sums[0, 1, 1, 3] = 1000, 10
    row = blocks(sums)[0]
    assert row.max() / np.sort(row)[-2] == pytest.approx(20, rel=1e-3)  # 0.2 to 0.01, where it was 100 to 1


def test_ranks_orientations_as_scikit_image_does():
    """Theirs bins hard and at 20° steps from 0; the two agree on which orientation is strongest in a grating."""
    y, x = np.mgrid[:64, :64]
    for angle in (0, 40, 80, 120, 160):
        turn = np.deg2rad(angle + 10)
        wave = np.sin((x * np.cos(turn) + y * np.sin(turn)) / 3)
        image = np.repeat((127 + 100 * wave).astype(np.uint8)[:, :, None], 3, axis=2)
        ours = extract(Hog(size=64, grids=(1,)), [image])[0]
        theirs = reference(image[..., 0], 9, (64, 64), (1, 1), visualize=False)
        lower = angle // 20
        assert {lower, (lower + 1) % 9} == set(np.argsort(ours)[-2:].tolist())
        assert np.argmax(theirs) in (lower, 8 - lower)  # rows counted downward or upward


def test_golden_value():
    patches = np.kron(drawn([(4, 4)], seed=3)[0], np.ones((8, 8, 1), np.uint8))  # 4 × 4 flat squares
    row = extract(Hog(size=32, grids=(1, 2)), [patches])[0]
    assert row[9:15] == pytest.approx(GOLDEN, abs=1e-5)


GOLDEN = [0.286695, 0.00910838, 0.0296899, 0.0295647, 0.286695, 0.286695]
