"""siamese-small: repeatable, learns the size of a bright square, and survives the smallest problems."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from simple_run import SimpleRun

import rankbench
import rankbench.testing
from rankbench.testing import bright_squares
from rankbench_rankers.siamese_small import SiameseSmall
from rankbench_rankers.siamese_small_network import FLIPS, Partners, turn

QUICK = SiameseSmall(size=32, width=4, epochs=1, minimum_steps=12)


def quick(**changes):
    return SiameseSmall(**{**vars(QUICK), **changes})


@pytest.fixture(scope="module")
def squares():
    return bright_squares(train=30, test=10, pairs=100)


@pytest.fixture(scope="module")
def fitted(squares):
    return quick().fit(squares.images, squares.train, SimpleRun())


def test_conforms():
    rankbench.testing.check_ranker(SiameseSmall(size=32, minimum_steps=80))


def test_the_module_of_the_class_imports_no_torch():
    code = "import sys, rankbench_rankers.siamese_small; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_same_seed_same_scores_another_seed_others(squares, fitted):
    torch.manual_seed(99)  # nothing may hang on the global generator
    again = quick().fit(squares.images, squares.train, SimpleRun())
    other = quick().fit(squares.images, squares.train, SimpleRun(seed=1))
    scores = [one.score(squares.images, SimpleRun()) for one in (fitted, again, other)]
    assert scores[0].dtype == np.float64
    assert np.array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


def test_global_random_state_is_left_alone(squares):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    quick(dropout=0.5).fit(squares.images, squares.train, SimpleRun()).score(squares.images, SimpleRun())
    assert torch.equal(torch.rand(3), expected)


def test_dropout_is_repeatable(squares):
    one, two = (quick(dropout=0.5).fit(squares.images, squares.train, SimpleRun()) for _ in range(2))
    assert np.array_equal(one.score(squares.images, SimpleRun()), two.score(squares.images, SimpleRun()))


def test_a_loaded_state_gives_the_same_scores_and_embedding(squares, fitted):
    state = {name: np.array(value) for name, value in fitted.state().items()}
    twin = quick()
    twin.load(state)
    for what in ("score", "embed"):
        one, two = (getattr(ranker, what)(squares.images, SimpleRun()) for ranker in (fitted, twin))
        assert np.array_equal(one, two)
    assert two.shape == (len(squares.images), 16 * 4)
    assert two.dtype == np.float32


def test_flipped_pairs_negate_the_margins(squares, fitted):
    pairs = squares.tests["test"]
    turned = pairs.swapped(np.ones(len(pairs), bool))
    margins = [fitted.compare(squares.images, p.without_labels(()), SimpleRun()) for p in (pairs, turned)]
    assert np.array_equal(margins[0], -margins[1])
    assert np.ptp(margins[0]) > 0


def test_a_score_does_not_depend_on_which_images_are_scored_with_it(squares, fitted):
    whole = fitted.score(squares.images, SimpleRun())
    some = np.array([7, 3, 21])
    np.testing.assert_allclose(fitted.score(squares.images.take(some), SimpleRun()), whole[some], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("augment", ["flip", "dihedral"])
def test_scores_are_the_same_for_images_turned_over_as_augment_says(squares, augment):
    ranker = quick(augment=augment).fit(squares.images, squares.train, SimpleRun())
    mirrored = rankbench.Images.from_arrays([image[:, ::-1] for image in squares.images])
    scores = [ranker.score(images, SimpleRun()) for images in (squares.images, mirrored)]
    np.testing.assert_allclose(*scores, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 90, 3)])
def test_two_images_and_one_pair_of_any_shape(shape):
    images = rankbench.Images.from_arrays([np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8)])
    scores = quick().fit(images, rankbench.Pairs([0], [1], [-1]), SimpleRun()).score(images, SimpleRun())
    assert np.isfinite(scores).all()


def test_ties_alone_leave_scores_together(squares):
    ties = rankbench.Pairs(squares.train.left, squares.train.right, np.zeros(len(squares.train), int))
    assert np.array_equal(np.ptp(quick().fit(squares.images, ties, SimpleRun()).score(squares.images, SimpleRun())), 0)


def test_pairs_of_weight_zero_teach_nothing(squares):
    pairs = squares.train
    wrong = rankbench.Pairs(
        np.append(pairs.left, pairs.left),
        np.append(pairs.right, pairs.right),
        np.append(pairs.label, -pairs.label),
        np.repeat([1.0, 0.0], len(pairs)),
    )
    one, two = (quick().fit(squares.images, p, SimpleRun()) for p in (pairs, wrong))
    np.testing.assert_allclose(*(r.score(squares.images, SimpleRun()) for r in (one, two)), rtol=1e-3, atol=1e-3)
    nothing = rankbench.Pairs(pairs.left, pairs.right, pairs.label, np.zeros(len(pairs)))
    with pytest.raises(rankbench.NotApplicable, match="positive weight"):
        quick().fit(squares.images, nothing, SimpleRun())


def test_no_pairs_is_not_applicable(squares):
    with pytest.raises(rankbench.NotApplicable, match="training pairs"):
        quick().fit(squares.images, rankbench.Pairs([], [], []), SimpleRun())


def test_a_loss_that_is_no_number_says_where_and_what_to_do(squares):
    with pytest.raises(rankbench.RankbenchError, match=r"step \d+, at learning rate .*Lower `learning_rate`"):
        quick(learning_rate=1e38, minimum_steps=50).fit(squares.images, squares.train, SimpleRun())


def test_curves_count_steps_and_fall(squares):
    run = SimpleRun()
    quick(minimum_steps=60).fit(squares.images, squares.train, run)
    steps, losses = zip(*((step, numbers["loss"]) for step, numbers in run.curves), strict=True)
    assert steps[-1] == 60
    assert losses[0] == pytest.approx(np.log(2), abs=0.1)
    assert losses[-1] < losses[0]


def test_partners_list_every_pair_from_both_sides():
    partners = Partners(rankbench.Pairs([4, 1, 4], [1, 7, 7], [1, -1, 0], [1.0, 2.0, 3.0]))
    assert partners.images.tolist() == [1, 4, 7]
    own, at = partners.of(np.array([2, 0]))
    images = partners.images[np.array([2, 0])][own]
    seen = zip(images, partners.other[at], partners.label[at], partners.weight[at], strict=True)
    assert sorted(seen) == [(1, 4, -1, 1.0), (1, 7, -1, 2.0), (7, 1, 1, 2.0), (7, 4, 0, 3.0)]


def test_turning_keeps_each_image_up_to_the_drawn_flip():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 6, 6, 3), dtype=np.uint8)
    turned = turn(torch.from_numpy(pixels.copy()), FLIPS["dihedral"], np.random.default_rng(0)).numpy()
    kinds = [pixels, pixels[:, :, ::-1], pixels[:, ::-1], pixels[:, ::-1, ::-1]]
    matches = np.array([[(turned[k] == kind[k]).all() for kind in kinds] for k in range(40)])
    assert (matches.sum(axis=1) == 1).all()
    assert (matches.sum(axis=0) > 0).all()
