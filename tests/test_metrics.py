"""Metrics: values worked out by hand, properties over seeded cases, and SciPy's answers."""

import numpy as np
import pytest
from scipy import stats

import rankbench
import rankbench.testing
from rankbench_metrics.accuracy import PairwiseAccuracy
from rankbench_metrics.correlation import KendallTau, PairTau, Spearman


def judged(margins, labels, weights=None, scores=None, targets=None):
    floats = [None if x is None else np.asarray(x, np.float64) for x in (margins, weights, scores, targets)]
    return rankbench.Judged(floats[0], np.asarray(labels, np.int8), *floats[1:])


def scored(scores, targets):
    return judged([1.0], [1], scores=scores, targets=targets)


def random_case(seed):
    """Margins with ties, labels, weights; from 2 pairs to some 200."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 200))
    labels = rng.integers(-1, 2, n)
    labels[0] = 1
    margins = rng.normal(size=n).round(int(rng.integers(0, 4)))
    return judged(margins, labels, rng.random(n) + 0.01)


seeds = pytest.mark.parametrize("seed", range(30))


# ---------------------------------------------------------------------------------------------- pairwise accuracy


def test_accuracy_by_hand():
    # right, wrong, right, predicted tie; the labelled tie does not count
    case = judged([2.0, -1.0, -0.5, 0.0, 3.0], [1, 1, -1, 1, 0], [1.0, 2.0, 3.0, 4.0, 100.0])
    assert PairwiseAccuracy()(case) == 2.5 / 4
    assert PairwiseAccuracy(ties="wrong")(case) == 2 / 4
    assert PairwiseAccuracy(weighted=True)(case) == 6 / 10
    assert PairwiseAccuracy(ties="wrong", weighted=True)(case) == 4 / 10


def test_accuracy_of_infinite_and_tiny_margins_goes_by_sign():
    assert PairwiseAccuracy()(judged([np.inf, -np.inf, 5e-324, -0.0], [1, 1, 1, 1])) == 2.5 / 4


def test_accuracy_shows_percent_and_higher_is_better():
    assert PairwiseAccuracy.percent
    assert PairwiseAccuracy.higher_is_better


@seeds
def test_accuracy_is_the_same_for_flipped_pairs(seed):
    case = random_case(seed)
    flip = np.where(np.random.default_rng(seed + 1000).random(len(case.labels)) < 0.5, -1, 1)
    flipped = judged(case.margins * flip, case.labels * flip, case.weights)
    for metric in (PairwiseAccuracy(), PairwiseAccuracy(ties="wrong"), PairwiseAccuracy(weighted=True)):
        assert metric(flipped) == metric(case)


@seeds
def test_a_rising_map_of_scores_keeps_the_accuracy(seed):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=20).round(1)
    left, right, labels = rng.integers(0, 20, 50), rng.integers(0, 20, 50), rng.choice([-1, 1], 50)
    mapped = np.exp(3 * scores) + scores
    before, after = (PairwiseAccuracy()(judged(s[left] - s[right], labels)) for s in (scores, mapped))
    assert before == after


@seeds
def test_weights_of_one_change_nothing(seed):
    case = random_case(seed)
    ones = judged(case.margins, case.labels, np.ones(len(case.labels)))
    assert PairwiseAccuracy(weighted=True)(ones) == PairwiseAccuracy()(ones) == PairwiseAccuracy()(case)


@seeds
def test_half_credit_lies_midway_between_wrong_and_right(seed):
    case = random_case(seed)
    tied = np.mean(case.margins[case.labels != 0] == 0)
    half, wrong = PairwiseAccuracy()(case), PairwiseAccuracy(ties="wrong")(case)
    assert half - wrong == pytest.approx(tied / 2)


def test_accuracy_where_it_is_not_defined():
    with pytest.raises(rankbench.NotApplicable, match="ordered pair"):
        PairwiseAccuracy()(judged([1.0, 2.0], [0, 0]))
    with pytest.raises(rankbench.NotApplicable, match="ordered pair"):
        PairwiseAccuracy()(judged([], []))
    with pytest.raises(rankbench.NotApplicable, match="weights"):
        PairwiseAccuracy(weighted=True)(judged([1.0], [1]))
    with pytest.raises(rankbench.NotApplicable, match="positive weight"):
        PairwiseAccuracy(weighted=True)(judged([1.0], [1], [0.0]))
    with pytest.raises(rankbench.DataError, match="pair 1 is not a number"):
        PairwiseAccuracy()(judged([1.0, np.nan], [1, 1]))


# -------------------------------------------------------------------------------------------------- correlations


def test_correlations_by_hand():
    assert KendallTau()(scored([1, 2, 3, 4], [1, 3, 2, 4])) == pytest.approx(4 / 6)  # 5 concordant, 1 discordant
    assert Spearman()(scored([1, 2, 3, 4], [1, 3, 2, 4])) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert KendallTau()(scored([1, 2, 3], [5, 5, 9])) == pytest.approx(2 / np.sqrt(3 * 2))  # one tie: tau-b


def test_pair_tau_by_hand():
    assert PairTau()(judged([2.0], [1])) == 1.0  # (2, +1) and (-2, -1)
    assert PairTau()(judged([2.0, 3.0, 0.0], [-1, 1, 0])) < 1.0
    assert PairTau()(judged([-2.0, 2.0, 0.0], [-1, 1, 0])) == pytest.approx(1.0)
    assert PairTau()(judged([2.0, -2.0, 0.0], [-1, 1, 0])) == pytest.approx(-1.0)
    # from both sides 3, -3, 1, -1 with +, -, -, +: of 4 couples with unlike labels 3 agree, of 6 margins none tie
    assert PairTau()(judged([3.0, 1.0], [1, -1])) == pytest.approx((3 - 1) / np.sqrt(6 * 4))


@seeds
def test_pair_tau_equals_scipys_over_both_sides_of_every_pair(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 400))
    labels = rng.choice([-1, 0, 1] if seed % 3 else [-1, 1], n)
    margins = (labels * rng.random() + rng.normal(size=n)).round(int(rng.integers(0, 5)))
    margins[0], labels[0] = -9, 1
    expected = stats.kendalltau(np.append(margins, -margins), np.append(labels, -labels)).statistic
    assert PairTau()(judged(margins, labels)) == pytest.approx(expected, abs=1e-12)
    flip = rng.choice([-1, 1], n)
    assert PairTau()(judged(margins * flip, labels * flip)) == pytest.approx(expected, abs=1e-12)


def test_pair_tau_does_not_overflow():
    n = 3_000_000  # 4.5e12 couples of pairs
    labels = np.tile(np.array([-1, 0, 1], np.int8), n // 3)
    assert PairTau()(judged(labels * 2.0, labels)) == pytest.approx(1.0)


@seeds
def test_image_correlations_equal_scipys(seed):
    rng = np.random.default_rng(seed)
    scores, targets = rng.normal(size=(2, 40)).round(1)
    assert KendallTau()(scored(scores, targets)) == stats.kendalltau(scores, targets).statistic
    assert Spearman()(scored(scores, targets)) == stats.spearmanr(scores, targets).statistic


@seeds
@pytest.mark.parametrize("metric", [KendallTau(), Spearman()])
def test_a_rising_map_of_scores_keeps_rank_correlations(metric, seed):
    scores, targets = np.random.default_rng(seed).normal(size=(2, 30)).round(1)
    assert metric(scored(np.exp(scores), targets)) == pytest.approx(metric(scored(scores, targets)))


@pytest.mark.parametrize("metric", [KendallTau(), Spearman()])
def test_image_correlations_where_they_are_not_defined(metric):
    with pytest.raises(rankbench.NotApplicable, match="compares pairs"):
        metric(scored(None, [1, 2]))
    with pytest.raises(rankbench.NotApplicable, match="needs a `score` column"):
        metric(scored([1, 2], None))
    with pytest.raises(rankbench.NotApplicable, match="image scores never vary"):
        metric(scored([1, 1], [1, 2]))
    with pytest.raises(rankbench.NotApplicable, match="`score` column never vary"):
        metric(scored([1, 2], [2, 2]))
    with pytest.raises(rankbench.DataError, match="row 1 of image scores is not a number"):
        metric(scored([1, np.nan], [1, 2]))


def test_pair_tau_where_it_is_not_defined():
    with pytest.raises(rankbench.NotApplicable, match="ordered pair"):
        PairTau()(judged([1.0, 2.0], [0, 0]))
    with pytest.raises(rankbench.NotApplicable, match="every margin is 0"):
        PairTau()(judged([0.0, -0.0], [1, -1]))
    with pytest.raises(rankbench.DataError, match="row 0 of margins"):
        PairTau()(judged([np.nan, 2.0], [1, -1]))


@pytest.mark.parametrize("metric", [PairwiseAccuracy(), KendallTau(), PairTau(), Spearman()])
def test_metrics_conform(metric):
    rankbench.testing.check_metric(metric)
