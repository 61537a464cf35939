"""shapes: drawn images, where what is to be looked at, and how far it wanders, is known."""

import hashlib

import numpy as np
import pytest

import rankbench
from rankbench_datasets.shapes import SIZE, SPOTS, Shapes, color_of

WINDOW = 28


def best_constant_window(boxes):
    """Share of images on which the best fixed 28 px window covers at least 90 % of the box; every position tried."""
    pixels = boxes * SIZE
    starts = np.arange(SIZE - WINDOW + 1)[:, None]
    across = np.clip(np.minimum(pixels[:, 2], starts + WINDOW) - np.maximum(pixels[:, 0], starts), 0, None)
    down = np.clip(np.minimum(pixels[:, 3], starts + WINDOW) - np.maximum(pixels[:, 1], starts), 0, None)
    area = (pixels[:, 2] - pixels[:, 0]) * (pixels[:, 3] - pixels[:, 1])
    covered = across[:, None] * down[None] / area  # (37, 37, n)
    return (covered >= 0.9).mean(axis=2).max()


@pytest.mark.parametrize("cue", ["place", "outline"])
@pytest.mark.parametrize("seed", range(5))
def test_no_fixed_window_shows_the_disc_on_more_than_65_percent(cue, seed):
    problem = Shapes(cue=cue, seed=seed).problem(None, {})
    assert best_constant_window(problem.images.columns["box"]) <= 0.65


@pytest.mark.parametrize("cue", ["place", "outline"])
def test_discs_keep_apart_inside_the_image_and_near_their_spots(cue):
    shapes = Shapes(cue=cue, seed=3)
    for row in range(500):
        scene = shapes.scene(row)
        assert (scene.centers - scene.radii[:, None] >= 0).all()
        assert (scene.centers + scene.radii[:, None] <= SIZE).all()
        for a in range(4):
            assert np.abs(scene.centers[a] - SPOTS).max(axis=1).argmin() == a
            assert 14 <= 2 * scene.radii[a] <= 18
            for b in range(a):
                assert np.hypot(*(scene.centers[a] - scene.centers[b])) > scene.radii[a] + scene.radii[b]


def test_the_right_disc_is_the_known_one_or_the_outlined_one():
    assert {Shapes().scene(row).right for row in range(50)} == {0}
    rights = [Shapes(cue="outline").scene(row).right for row in range(400)]
    assert (np.bincount(rights) > 60).all()


@pytest.mark.parametrize("cue", ["place", "outline"])
def test_the_box_shows_the_hue_of_the_score(cue):
    problem = Shapes(images=40, cue=cue).problem(None, {})
    for image, box, score in zip(problem.images, *map(problem.images.columns.get, ("box", "score")), strict=True):
        left, top, right, bottom = box * SIZE
        x, y = int((left + right) / 2), int((top + bottom) / 2)
        shown = image[y - 3 : y + 4, x - 3 : x + 4].mean(axis=(0, 1))
        np.testing.assert_allclose(shown / shown.max(), color_of(score), atol=0.06)
        assert 14 <= right - left <= 18
        ring = image[y, int(left) : int(left) + 3].astype(int).sum(axis=1).min()
        assert (ring < 120) == (cue == "outline")


def test_hues_grow_with_the_amount_and_never_come_round_again():
    import colorsys

    hues = [colorsys.rgb_to_hsv(*color_of(amount))[0] for amount in np.linspace(0, 1, 101)]
    assert (np.diff(hues) > 0).all()
    assert hues[-1] == pytest.approx(0.66)


def linear_accuracy(x, problem):
    """Ordered test pairs got right by least squares on x (n, d), fitted on the training images' scores."""
    score, train = problem.images.columns["score"], problem.train_images
    x = np.column_stack([x, np.ones(len(x))])
    fitted = x @ np.linalg.lstsq(x[train].T @ x[train] + 1e-6 * np.eye(x.shape[1]), x[train].T @ score[train])[0]
    test = problem.tests["test"]
    return ((fitted[test.left] - fitted[test.right]) * test.label > 0).mean()


@pytest.mark.parametrize("cue", ["place", "outline"])
def test_color_over_the_whole_image_tells_a_little_the_disc_nearly_everything(cue):
    problem = Shapes(cue=cue).problem(None, {})
    images = np.stack(list(problem.images))
    bins = (images // 64).astype(int) @ [16, 4, 1]
    histogram = np.stack([np.bincount(row.ravel(), minlength=64) for row in bins]) / SIZE**2
    boxes = (problem.images.columns["box"] * SIZE).round().astype(int)
    inside = np.stack(
        [i[t + 4 : b - 4, x + 4 : r - 4].mean(axis=(0, 1)) / 255 for i, (x, t, r, b) in zip(images, boxes, strict=True)]
    )
    assert 0.55 < linear_accuracy(histogram, problem) < 0.75
    assert linear_accuracy(np.column_stack([inside, inside**2]), problem) > 0.9


def test_an_image_depends_on_its_number_and_seed_alone():
    few, many = Shapes(images=10).problem(None, {}), Shapes(images=300, train_share=0.5).problem(None, {})
    assert (few.images.digests == many.images.digests[:10]).all()
    assert (few.images[7] == many.images[7]).all()
    assert (many.images[250] == Shapes(images=300).problem(None, {}).images[250]).all()
    other = Shapes(images=10, seed=1).problem(None, {})
    assert not (few.images[7] == other.images[7]).all()
    digests = {d.tobytes() for p in (many, other, Shapes(cue="outline").problem(None, {})) for d in p.images.digests}
    assert len(digests) == 300 + 10 + 1000


def test_pixels_are_golden():
    """If this fails, images of old results are drawn no more: raise DRAWING, so that their cells are not taken up."""
    drawn = b"".join(Shapes(cue=cue).draw(row).tobytes() for cue in ("place", "outline") for row in range(5))
    digest = hashlib.sha256(drawn).hexdigest()
    assert digest == "87e73ee43d7536354e316719827565a2e735d3cf15a0fb92a00cea99b80eb528"


def test_sizes_and_pairs():
    problem = Shapes().problem(None, {})
    assert problem.images[0].shape == (64, 64, 3)
    assert (len(problem.images), len(problem.train), len(problem.train_images)) == (1000, 4000, 800)
    assert len(problem.tests["test"]) == 200 * 199 // 2
    small = Shapes(images=50, train_share=0.5, train_pairs=None, test_pairs=20).problem(None, {})
    assert (len(small.train), len(small.tests["test"])) == (25 * 24 // 2, 20)
    assert problem.canonical().fingerprint == Shapes().problem(None, {}).canonical().fingerprint
    assert Shapes().needs(None) == []
    assert Shapes().facets(None) == [{}]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"cue": "color"}, "cue is 'color'; use 'place' or 'outline'"),
        ({"images": 3}, "3 images with train_share 0.8 leave 2 for training"),
        ({"train_share": 1.0}, "train_share 1.0"),
        ({"train_pairs": -1}, "number of pairs to draw is -1"),
        ({"seed": -1}, "a seed is -1; give 0 or more"),
    ],
)
def test_bad_parameters_are_explained(parameters, message):
    with pytest.raises(rankbench.DataError, match=message):
        Shapes(**parameters).problem(None, {})
