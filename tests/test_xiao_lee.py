"""xiao-lee: dynamic programming against brute force, geometry of patches, and finding the part that matters."""

from itertools import pairwise, product

import numpy as np
import pytest
from simple_run import SimpleRun

import rankbench
from rankbench.testing import check_ranker
from rankbench_datasets.shapes import Shapes
from rankbench_rankers import visual_chains as vc
from rankbench_rankers.patch_maps import LENGTH, PatchMaps, cell_map, crops, overlap
from rankbench_rankers.ranksvm import RankSVM, accuracy
from rankbench_rankers.xiao_lee import SETTINGS, XiaoLee, on_grid

SMALL = {"setting": "fast", "first_chains": 3, "rounds": 1, "images": 12, "offsets": 1, "ensemble": 3, "keep": 20}


class FewPatches:
    """Stands for PatchMaps: a handful of vectors an image."""

    def __init__(self, images, positions, seed=0):
        rng = np.random.default_rng(seed)
        self.vectors = rng.normal(size=(images, positions, LENGTH)).astype(np.float32)
        at = np.arange(positions) / positions
        self.boxes = np.stack([at, at, at + 0.5 / positions, at + 0.5 / positions], axis=1)

    def patches(self, row):
        return self.vectors[row]


def steps_between(maps, rows):
    return [vc.relative(vc.distances(maps.patches(a), maps.patches(b))) for a, b in pairwise(rows)]


@pytest.mark.parametrize("seed", range(3))
def test_first_chains_are_the_cheapest_of_all(seed):
    maps, rows = FewPatches(4, 6, seed), [2, 0, 3, 1]
    steps = steps_between(maps, rows)
    for chain in vc.first_chains(maps, rows, [1, 4], 2):
        every = {
            path: sum(step[a, b] for step, a, b in zip(steps, path, path[1:], strict=False))
            for path in product([chain.positions[0]], *[range(6)] * 3)
        }
        best = min(every, key=every.get)
        assert tuple(chain.positions) == best
        assert chain.cost == pytest.approx(every[best], rel=1e-5)


def test_grown_chains_weigh_smoothness_against_the_detector():
    maps, rows = FewPatches(4, 6), [0, 1, 2, 3]
    detector = np.random.default_rng(1).normal(size=LENGTH).astype(np.float32) / 10
    steps = steps_between(maps, rows)
    liked = [0.5 * (maps.patches(row) @ detector) for row in rows]
    every = {
        path: sum(step[a, b] for step, a, b in zip(steps, path, path[1:], strict=False))
        - sum(own[at] for own, at in zip(liked, path, strict=True))
        for path in product(range(6), repeat=4)
    }
    chain = vc.grown(maps, rows, [vc.Chain(np.zeros(1, int), 0.0, detector)], 0.5, None)[0]
    assert tuple(chain.positions) == min(every, key=every.get)
    assert chain.cost == pytest.approx(min(every.values()), rel=1e-4)
    few = vc.grown(maps, rows, [vc.Chain(np.zeros(1, int), 0.0, detector)], 0.5, 1)[0]
    assert few.positions.tolist() == [int(own.argmax()) for own in liked]  # the detector alone decides


def test_chains_that_run_alike_are_one():
    boxes = np.array([[0, 0, 0.5, 0.5], [0.05, 0, 0.55, 0.5], [0.5, 0.5, 1, 1]])
    assert vc.alike(boxes, [0, 0], [1, 1])
    assert not vc.alike(boxes, [0, 0], [2, 2])


def test_boxes_lie_where_their_patches_do():
    image = np.zeros((64, 64, 3), np.uint8)
    image[16:32, 40:56] = 255
    maps = PatchMaps(rankbench.Images.from_arrays([image]), SimpleRun(), (0.25, 0.5))
    light = maps.patches(0).reshape(len(maps.boxes), -1)[:, -64:].sum(axis=1)
    box = maps.boxes[light.argmax()]
    assert overlap(box[None], np.array([40, 16, 56, 32]) / 64)[0] > 0.95
    assert maps.patches(0).shape == (len(maps.boxes), LENGTH)
    assert ((maps.boxes >= 0) & (maps.boxes <= 1 + 1e-9)).all()
    sizes = np.round(maps.boxes[:, 2] - maps.boxes[:, 0], 2)
    assert set(sizes) == {0.25, 0.5}


def test_cells_do_not_know_hue():
    patch = np.zeros((2, 32, 32, 3), np.uint8)
    patch[0, 8:24, 8:24, 0], patch[1, 8:24, 8:24, 2] = 200, 200
    assert np.array_equal(*cell_map(patch))


def test_crops_are_the_pixels_of_their_boxes():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3), dtype=np.uint8)
    whole = crops(pixels, np.array([[0, 0, 1, 1.0]] * 2), 40)
    assert np.array_equal(whole, pixels)
    part = crops(pixels, np.array([[0.25, 0.5, 0.5, 0.75]] * 2), 10)
    assert np.array_equal(part, pixels[:, 20:30, 10:20])
    outside = crops(pixels, np.array([[-2, -2, -1, -1.0]] * 2), 4)
    assert np.array_equal(outside, np.broadcast_to(pixels[:, :1, :1], (2, 4, 4, 3)))


def test_moved_boxes_keep_their_center_and_shift_by_their_size():
    box = np.array([[0.2, 0.4, 0.6, 0.6]])
    assert vc.moved(box, (0, 0, 0.5)) == pytest.approx(np.array([[0.3, 0.45, 0.5, 0.55]]))
    assert vc.moved(box, (0.5, -0.5, 1)) == pytest.approx(np.array([[0.4, 0.3, 0.8, 0.5]]))


def test_starts_are_spread_over_the_image():
    maps = PatchMaps(rankbench.Images.from_arrays([np.zeros((64, 64, 3), np.uint8)]), SimpleRun(), (0.25,))
    corners = maps.boxes[on_grid(maps.boxes)][:, :2]
    assert len(corners) == 13 * 13
    assert corners.min() == 0
    assert corners.max() == pytest.approx(0.75)


# ------------------------------------------------------------------------------------------------------- the ranker


def outlined(images, seed):
    """Training images and pairs, test images and pairs, and the boxes that matter in the test."""
    problem = Shapes(cue="outline", images=images, train_pairs=2000, seed=seed).problem(None, {})
    rows = problem.training_rows()
    rest = np.setdiff1d(np.arange(images), rows)
    place = np.full(images, -1)
    place[rows], place[rest] = np.arange(len(rows)), np.arange(len(rest))
    boxes = problem.images.columns["box"][rest]
    view = [problem.images.take(some, columns=()) for some in (rows, rest)]
    return view[0], problem.train.reindexed(place), view[1], problem.tests["test"].reindexed(place), boxes


def test_the_best_chain_finds_the_disc_that_carries_the_attribute():
    images, pairs, tested, test, boxes = outlined(250, 0)
    run = SimpleRun()
    ranker = XiaoLee(setting="fast", offsets=1).fit(images, pairs, run)
    found = [row[0] for row in ranker.locate(tested, run)]
    assert {label for label, _ in found} == {"chain 1"}
    shared = np.array([overlap(np.array([box]), truth)[0] for (_, box), truth in zip(found, boxes, strict=True)])
    assert (shared >= 0.4).mean() >= 0.7
    right = accuracy(ranker.score(tested, run), test)
    whole = RankSVM(ranker.features, C=1.0).fit(images, pairs, run).score(tested, run)
    assert right > 0.85
    assert right > accuracy(whole, test) + 0.15


def test_state_restores_scores_and_boxes():
    images, pairs, tested, _, _ = outlined(40, 1)
    run = SimpleRun()
    ranker = XiaoLee(**SMALL).fit(images, pairs, run)
    twin = XiaoLee(**SMALL)
    twin.load(ranker.state())
    assert np.array_equal(twin.score(tested, run), ranker.score(tested, run))
    assert twin.locate(tested, run) == ranker.locate(tested, run)
    assert all(0 <= side <= 1 for row in ranker.locate(tested, run) for _, box in row for side in box)
    again = XiaoLee(**SMALL).fit(images, pairs, SimpleRun())
    assert np.array_equal(again.score(tested, run), ranker.score(tested, run))


def test_pool5_is_an_appearance_too():
    images, pairs, tested, _, _ = outlined(12, 1)
    run = SimpleRun()
    ranker = XiaoLee(**{**SMALL, "first_chains": 1, "ensemble": 1, "offsets": 0}, appearance="pool5", weights="random")
    assert ranker.notes == ("alexnet: weights are random, not trained",)
    assert ranker.resources().gpu == 1
    assert ranker.fit(images, pairs, run).weights_.shape == (9216,)
    assert np.isfinite(ranker.score(tested, run)).all()


def test_settings_are_the_published_numbers_and_can_be_replaced():
    faithful = XiaoLee()
    names = ("first_images", "first_chains", "rounds", "offsets", "ensemble", "appearance")
    assert [faithful.chosen(name) for name in names] == [5, 20, 3, 20, 60, "pool5"]
    assert XiaoLee(setting="fast", offsets=7).chosen("offsets") == 7
    assert XiaoLee(setting="fast").chosen("keep") == SETTINGS["fast"]["keep"]
    assert XiaoLee(setting="fast").notes == ()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"ensemble": 0}, "ensemble is 0"), ({"rounds": -1}, "rounds is -1"), ({"weights": "file"}, "go together")],
)
def test_parameters_that_make_no_sense_are_refused(parameters, message):
    with pytest.raises(rankbench.DataError, match=message):
        XiaoLee(**parameters)


def test_conforms():
    check_ranker(XiaoLee(**{**SMALL, "images": 30, "first_chains": 12, "ensemble": 8}))
