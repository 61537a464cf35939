"""regression: closed-form values, and what it needs."""

import numpy as np
import pytest
from simple_run import SimpleRun

import rankbench
from rankbench.testing import check_ranker
from rankbench_rankers.regression import Regression

PAIR = rankbench.Pairs([0], [1], [1])


def numbered(scores):
    count = len(scores)
    pixels = [np.full((1, 1, 3), row, np.uint8) for row in range(count)]
    return rankbench.Images.from_arrays(pixels, columns={"score": scores})


def test_one_dimension_has_the_solution_one_can_write_down():
    x, y = np.array([[0.0], [1], [2], [3]]), np.array([1.0, 3, 2, 6])
    run = SimpleRun(vectors=x)
    scores = Regression(alpha=0.5).fit(numbered(y), PAIR, run).score(numbered(y), run)
    slope = np.sum((x[:, 0] - 1.5) * (y - 3) / y.std()) / (5 + 0.5)
    assert scores == pytest.approx((x[:, 0] - 1.5) * slope)
    assert scores.dtype == np.float64


def test_unit_and_zero_of_the_score_do_not_matter():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 5)), rng.normal(size=20)
    run = SimpleRun(vectors=x)
    one, two = (Regression().fit(numbered(t), PAIR, run).score(numbered(t), run) for t in (y, 1000 * y - 7))
    assert one == pytest.approx(two)


def test_uses_every_scored_image_and_skips_the_rest():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 3)), rng.normal(size=12)
    part = Regression().fit(numbered(y[:9]), PAIR, SimpleRun(vectors=x[:9]))
    y[9:] = np.nan
    whole = Regression().fit(numbered(y), PAIR, SimpleRun(vectors=x))
    assert whole.weights_ == pytest.approx(part.weights_)


def test_more_dimensions_than_images():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 50)), np.arange(6.0)
    run = SimpleRun(vectors=x)
    scores = Regression(alpha=1e-6).fit(numbered(y), PAIR, run).score(numbered(y), run)
    assert (np.diff(scores) > 0).all()


def test_without_scores_it_does_not_apply():
    images = rankbench.Images.from_arrays([np.zeros((1, 1, 3), np.uint8)] * 2)
    with pytest.raises(rankbench.NotApplicable, match="score"):
        Regression().fit(images, PAIR, SimpleRun(vectors=np.eye(2)))


def test_equal_scores_teach_nothing():
    with pytest.raises(rankbench.DataError, match="all equal"):
        Regression().fit(numbered([2.0, 2.0]), PAIR, SimpleRun(vectors=np.eye(2)))


def test_features_that_are_not_finite_are_named():
    with pytest.raises(rankbench.DataError, match=r"not finite, of 1 of 2 images \(first: 1\)"):
        Regression().fit(numbered([1.0, 2.0]), PAIR, SimpleRun(vectors=[[1.0], [np.nan]]))


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("inf")])
def test_the_penalty_is_above_0(alpha):
    with pytest.raises(rankbench.DataError, match="alpha"):
        Regression(alpha=alpha).fit(numbered([1.0, 2.0]), PAIR, SimpleRun(vectors=np.eye(2)))


def test_conforms():
    check_ranker(Regression())


def made(seed=0, n=80, d=6):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    return x, x @ rng.normal(size=d) + rng.normal(size=n) / 3


def test_support_vector_regression_minimises_its_objective():
    from scipy.optimize import minimize

    x, y = made()
    run = SimpleRun(vectors=x)
    fitted = Regression(method="svr", C=2.0, epsilon=0.1).fit(numbered(y), PAIR, run)
    x, y = x.astype(np.float32).astype(np.float64), (y - y.mean()) / y.std()

    def objective(w):  # scikit-learn's solver penalises the bias too
        gap = np.maximum(0, np.abs(y - x @ w[:-1] - w[-1]) - 0.1)
        return w @ w / 2 + 2.0 * gap @ gap

    best = minimize(objective, np.zeros(7), method="BFGS", options={"gtol": 1e-8}).fun
    assert objective(np.append(fitted.weights_, fitted.intercept_)) <= best * (1 + 1e-4)


@pytest.mark.parametrize(("method", "name"), [("ridge", "alpha"), ("svr", "C")])
def test_the_held_out_images_choose_the_strength(method, name):
    x, y = made(n=120)
    run = SimpleRun(vectors=x)
    chosen = Regression(method=method, **{name: "holdout"})
    assert chosen.seeded
    chosen.fit(numbered(y), PAIR, run)
    ranks = {numbers["strength"]: numbers["rank_correlation"] for _, numbers in run.curves}
    assert list(ranks) == list(chosen.grid)
    assert chosen.strength_ == max(ranks, key=ranks.get)
    fixed = Regression(method=method, **{name: chosen.strength_}).fit(numbered(y), PAIR, run)
    assert fixed.weights_ == pytest.approx(chosen.weights_, rel=1e-6)
    assert not fixed.seeded


def test_ranks_take_out_heavy_tails():
    x, y = made()
    run = SimpleRun(vectors=x)
    one, two = (Regression(target="rank").fit(numbered(t), PAIR, run).weights_ for t in (y, np.exp(3 * y)))
    assert one == pytest.approx(two)


def test_too_few_images_to_choose_by_take_the_middle():
    run = SimpleRun(vectors=np.eye(2))
    assert Regression(alpha="holdout").fit(numbered([1.0, 2.0]), PAIR, run).strength_ == 1.0


@pytest.mark.parametrize("parameters", [{"C": 0.0}, {"grid": ()}, {"grid": (0.0,)}, {"epsilon": -1.0}])
def test_parameters_that_make_no_sense_are_refused(parameters):
    with pytest.raises(rankbench.DataError, match="regression"):
        Regression(**parameters)


def test_svr_conforms():
    check_ranker(Regression(method="svr", C="holdout"))
