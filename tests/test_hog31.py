"""31-channel HOG cells: equal to a straight port of the published code."""

import numpy as np
import ports
import pytest

from rankbench_features import hog31


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(41, 41), (60, 71), (97, 50)])
def test_equals_the_port(shape):
    images = noise((3, *shape, 3))
    for count, found in zip((2, 3), hog31.descriptors(images, (2, 3)), strict=True):
        if min(shape) < hog31.least_side(count):
            assert 0 in found.shape
            continue
        for image, ours in zip(images, found, strict=True):
            port = ports.hog31(image, count)
            assert ours.shape == port.shape == (*ours.shape[:2], count**2 * 31)
            assert np.abs(ours - port).max() < 1e-5


def test_exact_ties_between_orientations_go_as_in_the_published_code():
    steps = np.zeros((1, 60, 60, 3), np.uint8)
    steps[:, 20:40] = 90  # edges from above and from below: 90°, between 80° and 100°
    found = hog31.descriptors(steps, (2,))[0][0]
    assert np.abs(found - ports.hog31(steps[0], 2)).max() < 1e-5
    assert found[..., 4].max() > 0.1 < found[..., 13].max()
    assert found[..., 5].max() < 1e-6 > found[..., 14].max()


def test_contrast_is_taken_out_and_a_flat_image_has_no_gradients():
    image = noise((1, 60, 60, 3)) // 4
    weak, strong = hog31.descriptors(image, (2,))[0], hog31.descriptors(image * 4, (2,))[0]
    assert np.abs(weak - strong).max() < 1e-4
    assert not hog31.descriptors(np.full((1, 60, 60, 3), 77, np.uint8), (2,))[0].any()


def test_a_mirrored_image_has_mirrored_orientations():
    image = noise((1, 59, 59, 3))  # an odd side: the middle pixel stays, so cells fall on cells
    found, flipped = hog31.descriptors(image, (2,))[0], hog31.descriptors(image[:, :, ::-1], (2,))[0]
    signed = (9 - np.arange(18)) % 18
    first, second = flipped[..., :18], found[:, :, ::-1, 31 : 31 + 18][..., signed]
    middle = hog31.starts(59, 2)
    assert (58 - (middle + 8))[::-1].tolist() == middle.tolist()
    assert np.median(np.abs(first - second)) < 1e-5  # all but exact ties, whose rule knows a side
