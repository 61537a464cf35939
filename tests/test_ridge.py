"""ridge: closed-form values, and what it needs."""

import numpy as np
import pytest
from simple_run import SimpleRun

import rankbench
from rankbench.testing import check_ranker
from rankbench_rankers.ridge import Ridge

PAIR = rankbench.Pairs([0], [1], [1])


def numbered(scores):
    count = len(scores)
    pixels = [np.full((1, 1, 3), row, np.uint8) for row in range(count)]
    return rankbench.Images.from_arrays(pixels, columns={"score": scores})


def test_one_dimension_has_the_solution_one_can_write_down():
    x, y = np.array([[0.0], [1], [2], [3]]), np.array([1.0, 3, 2, 6])
    run = SimpleRun(vectors=x)
    scores = Ridge(alpha=0.5).fit(numbered(y), PAIR, run).score(numbered(y), run)
    slope = np.sum((x[:, 0] - 1.5) * (y - 3) / y.std()) / (5 + 0.5)
    assert scores == pytest.approx((x[:, 0] - 1.5) * slope)
    assert scores.dtype == np.float64


def test_unit_and_zero_of_the_score_do_not_matter():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 5)), rng.normal(size=20)
    run = SimpleRun(vectors=x)
    one, two = (Ridge().fit(numbered(t), PAIR, run).score(numbered(t), run) for t in (y, 1000 * y - 7))
    assert one == pytest.approx(two)


def test_uses_every_scored_image_and_skips_the_rest():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 3)), rng.normal(size=12)
    part = Ridge().fit(numbered(y[:9]), PAIR, SimpleRun(vectors=x[:9]))
    y[9:] = np.nan
    whole = Ridge().fit(numbered(y), PAIR, SimpleRun(vectors=x))
    assert whole.weights_ == pytest.approx(part.weights_)


def test_more_dimensions_than_images():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 50)), np.arange(6.0)
    run = SimpleRun(vectors=x)
    scores = Ridge(alpha=1e-6).fit(numbered(y), PAIR, run).score(numbered(y), run)
    assert (np.diff(scores) > 0).all()


def test_without_scores_it_does_not_apply():
    images = rankbench.Images.from_arrays([np.zeros((1, 1, 3), np.uint8)] * 2)
    with pytest.raises(rankbench.NotApplicable, match="score"):
        Ridge().fit(images, PAIR, SimpleRun(vectors=np.eye(2)))


def test_equal_scores_teach_nothing():
    with pytest.raises(rankbench.DataError, match="all equal"):
        Ridge().fit(numbered([2.0, 2.0]), PAIR, SimpleRun(vectors=np.eye(2)))


def test_features_that_are_not_finite_are_named():
    with pytest.raises(rankbench.DataError, match=r"not finite, of 1 of 2 images \(first: 1\)"):
        Ridge().fit(numbered([1.0, 2.0]), PAIR, SimpleRun(vectors=[[1.0], [np.nan]]))


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("inf")])
def test_the_penalty_is_above_0(alpha):
    with pytest.raises(rankbench.DataError, match="alpha"):
        Ridge(alpha=alpha).fit(numbered([1.0, 2.0]), PAIR, SimpleRun(vectors=np.eye(2)))


def test_conforms():
    check_ranker(Ridge())
