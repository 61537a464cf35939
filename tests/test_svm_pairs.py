"""svm-pairs and svm-deep-attributes: scikit-learn's decisions, exact antisymmetry, and no label in the sides."""

import numpy as np
import pytest
from simple_run import SimpleRun
from sklearn.svm import SVC

import rankbench
from rankbench.testing import check_ranker
from rankbench_rankers.deep_attributes import SVMDeepAttributes
from rankbench_rankers.pair_kernels import expansion_values, sampled
from rankbench_rankers.svm_pairs import SVMPairs


def numbered(count):
    return rankbench.Images.from_arrays([np.full((1, 1, 3), row, np.uint8) for row in range(count)])


def made(seed=0, images=40, d=4, count=200):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(images, d)).astype(np.float32)
    amount = x[:, 0] + np.abs(x[:, 1])
    left = rng.integers(0, images, count)
    right = (left + rng.integers(1, images, count)) % images
    return x, rankbench.Pairs(left, right, np.sign(amount[left] - amount[right]).astype(int))


def test_margins_are_those_of_scikit_learn():
    x, pairs = made()
    run, images = SimpleRun(vectors=x), numbered(40)
    ranker = SVMPairs(C=2.0, gamma=0.3).fit(images, pairs, run)
    gaps = (x[pairs.left] - x[pairs.right]).astype(np.float64)
    model = SVC(C=2.0, gamma=0.3).fit(np.concatenate([gaps, -gaps]), np.concatenate([pairs.label, -pairs.label]))
    expected = (model.decision_function(gaps) - model.decision_function(-gaps)) / 2
    assert ranker.compare(images, pairs, run) == pytest.approx(expected, abs=1e-3)
    assert (np.sign(ranker.compare(images, pairs, run)) == pairs.label).mean() > 0.9


@pytest.mark.parametrize("ranker", [SVMPairs(C=1.0, gamma=1.0), SVMDeepAttributes()])
def test_turned_pairs_give_exactly_negated_margins(ranker):
    x, pairs = made()
    votes = np.stack([pairs.label] * 5, axis=1) * np.random.default_rng(1).integers(0, 2, (200, 5))
    pairs = rankbench.Pairs(
        pairs.left, pairs.right, pairs.label, inputs={"attribute_votes": votes}, sided={"attribute_votes": "negate"}
    )
    run, images = SimpleRun(vectors=x), numbered(40)
    ranker = ranker.fit(images, pairs, run)
    mask = np.arange(200) % 2 == 0
    found, turned = (ranker.compare(images, one, run) for one in (pairs, pairs.swapped(mask)))
    assert np.array_equal(np.where(mask, -found, found), turned)


def test_blocks_of_pairs_do_not_matter(monkeypatch):
    rng = np.random.default_rng(0)
    x, gaps, coefficients = rng.normal(size=(30, 5)), rng.normal(size=(12, 5)), rng.normal(size=(12, 2))
    left, right = rng.integers(0, 30, (2, 500))
    whole = expansion_values(x, left, right, gaps, coefficients, 0.2)
    square = ((x[left] - x[right])[:, None] - gaps) ** 2
    assert whole == pytest.approx(np.exp(-0.2 * square.sum(axis=2)) @ coefficients, abs=1e-4)
    monkeypatch.setattr("rankbench_rankers.pair_kernels.BLOCK", 100)
    assert expansion_values(x, left, right, gaps, coefficients, 0.2) == pytest.approx(whole, abs=1e-5)


def test_c_and_gamma_are_chosen_on_held_out_pairs():
    x, pairs = made(images=60, count=600)
    run, images = SimpleRun(vectors=x), numbered(60)
    ranker = SVMPairs(grid=(0.01, 1.0, 100.0)).fit(images, pairs, run)
    tried = {(step["C"], step["gamma"]): step["holdout_accuracy"] for _, step in run.curves}
    assert len(tried) == 9
    assert (ranker.C_, ranker.gamma_) == max(tried, key=tried.get)
    fixed = SVMPairs(gamma=1.0, grid=(0.1, 1.0)).fit(images, pairs, SimpleRun(vectors=x))
    assert fixed.gamma_ == 1.0


def test_two_images_and_one_pair_suffice():
    run = SimpleRun(vectors=np.eye(2))
    ranker = SVMPairs().fit(numbered(2), rankbench.Pairs([0], [1], [1]), run)
    assert ranker.compare(numbered(2), rankbench.Pairs([0, 1], [1, 0], [1, 1]), run)[0] > 0


def test_at_most_so_many_pairs_are_drawn():
    assert sampled(5, 9, None).tolist() == list(range(5))
    some = sampled(100, 9, np.random.default_rng(0))
    assert len(set(some.tolist())) == 9
    assert (np.diff(some) > 0).all()
    x, pairs = made(count=300)
    ranker = SVMPairs(C=1.0, gamma=1.0, max_pairs=20).fit(numbered(40), pairs, SimpleRun(vectors=x))
    assert len(ranker.gaps_) <= 40


@pytest.mark.parametrize("parameters", [{"C": 0.0}, {"gamma": -1.0}, {"grid": ()}, {"grid": (0.0,)}, {"max_pairs": 0}])
def test_parameters_that_make_no_sense_are_refused(parameters):
    with pytest.raises(rankbench.DataError, match="svm-pairs"):
        SVMPairs(**parameters)


def test_ties_alone_teach_nothing():
    with pytest.raises(rankbench.DataError, match="no ordered pairs"):
        SVMPairs().fit(numbered(2), rankbench.Pairs([0], [1], [0]), SimpleRun(vectors=np.eye(2)))


# -------------------------------------------------------------------------------------------------- deep attributes


def with_votes(x, seed=0, count=400):
    """Votes that follow the first five features, with ties; the label is their signed sum."""
    rng = np.random.default_rng(seed)
    left = rng.integers(0, len(x), count)
    right = (left + rng.integers(1, len(x), count)) % len(x)
    gap = x[left] - x[right]
    votes = np.where(np.abs(gap) > 0.3, np.sign(gap), 0).astype(int)
    label = np.sign(gap @ np.array([1, 1, -1, 1, -1])).astype(int)
    return rankbench.Pairs(left, right, label, inputs={"attribute_votes": votes}, sided={"attribute_votes": "negate"})


def test_predicted_votes_rank():
    x = np.random.default_rng(0).normal(size=(80, 5)).astype(np.float32)
    run, images = SimpleRun(vectors=x), numbered(80)
    ranker = SVMDeepAttributes(C=(10.0,) * 5, gamma=(0.1,) * 5).fit(images, with_votes(x), run)
    test = with_votes(x, seed=1)
    found = ranker.compare(images, test, run)
    assert (np.sign(found) == test.label).mean() > 0.7
    assert set(np.unique(found)) <= set(range(-5, 6))


def test_the_side_tells_nothing():
    """Every training pair has the winner on the left: a class bias would then call left the winner of any pair."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 5)).astype(np.float32)
    one_sided = rankbench.Pairs(
        rng.integers(0, 30, 300), rng.integers(30, 60, 300), np.ones(300, int),
        inputs={"attribute_votes": np.ones((300, 5), int)}, sided={"attribute_votes": "negate"},
    )  # fmt: skip
    same = np.ones((60, 5), np.float32)
    run, images = SimpleRun(vectors=same), numbered(60)
    ranker = SVMDeepAttributes().fit(images, one_sided, run)
    assert not ranker.compare(images, with_votes(x), run).any()


def test_votes_are_needed():
    x, pairs = made()
    with pytest.raises(rankbench.NotApplicable, match="attribute_votes"):
        SVMDeepAttributes().fit(numbered(40), pairs, SimpleRun(vectors=x))


def test_attributes_that_are_always_alike_vote_for_it():
    x = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    left, right = np.arange(15), np.arange(15, 30)
    pairs = rankbench.Pairs(left, right, np.ones(15), inputs={"attribute_votes": np.zeros((15, 5), int)})
    run = SimpleRun(vectors=x)
    assert not SVMDeepAttributes().fit(numbered(30), pairs, run).compare(numbered(30), pairs, run).any()


@pytest.mark.parametrize("parameters", [{"C": (1.0,)}, {"signs": (1, 1)}, {"max_pairs": 0}, {"gamma": (0.0,) * 5}])
def test_deep_attributes_refuse_what_makes_no_sense(parameters):
    with pytest.raises(rankbench.DataError, match="svm-deep-attributes"):
        SVMDeepAttributes(**parameters)


def test_svm_pairs_conforms():
    check_ranker(SVMPairs(C=1.0, gamma=1.0))


def test_deep_attributes_conform():
    check_ranker(SVMDeepAttributes(features=rankbench.Features("hog")))
