"""ranksvm: the optimum of the written-out objective, its symmetries, and messages for what cannot be learned."""

import numpy as np
import pytest
from scipy.optimize import minimize as lbfgs
from simple_run import SimpleRun

import rankbench
import rankbench_rankers.ranksvm as ranksvm
from rankbench.testing import check_ranker
from rankbench_rankers.ranksvm import RankSVM, narrowed


def numbered(count):
    """Images that say their number, so that SimpleRun can look up their vectors."""
    return rankbench.Images.from_arrays([np.full((1, 1, 3), row, np.uint8) for row in range(count)])


def random_problem(seed, images=30, dimensions=8, pairs=120, tie_share=0.3, weighted=True):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(images, dimensions)).astype(np.float32)
    left = rng.integers(0, images, pairs)
    right = (left + rng.integers(1, images, pairs)) % images
    amount = vectors @ rng.normal(size=dimensions) + rng.normal(size=images)
    label = np.sign(amount[left] - amount[right]).astype(int)
    label[rng.random(pairs) < tie_share] = 0
    weight = rng.integers(0, 4, pairs) / 2 if weighted else None
    return vectors, rankbench.Pairs(left, right, label, weight)


def solved(vectors, pairs, **parameters):
    images = numbered(len(vectors))
    return RankSVM(**parameters).fit(images, pairs, SimpleRun(vectors=vectors)).weights_


def written_out(weights, vectors, pairs, cost, cost_similar):
    """The objective and its gradient, pair by pair."""
    x = vectors.astype(np.float64)
    gap = x[pairs.left] - x[pairs.right]
    weight = np.ones(len(pairs)) if pairs.weight is None else pairs.weight
    value, gradient = weights @ weights / 2, weights.copy()
    for row, label, share in zip(gap, pairs.label, weight, strict=True):
        if label:
            short = max(0.0, 1 - label * (weights @ row))
            value += cost * share * short**2 / 2
            gradient -= cost * share * short * label * row
        else:
            value += cost_similar * share * (weights @ row) ** 2 / 2
            gradient += cost_similar * share * (weights @ row) * row
    return value, gradient


def optimum(vectors, pairs, cost, cost_similar):
    found = lbfgs(
        written_out, np.zeros(vectors.shape[1]), (vectors, pairs, cost, cost_similar), "L-BFGS-B", jac=True,
        options={"maxiter": 5000, "ftol": 1e-16, "gtol": 1e-9},
    )  # fmt: skip
    return found.x, found.fun


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("cost", "cost_similar"), [(0.1, None), (5.0, 0.3), (100.0, 0.0)])
def test_reaches_the_optimum_of_the_written_out_objective(seed, cost, cost_similar):
    vectors, pairs = random_problem(seed, dimensions=(3, 8, 80)[seed % 3], weighted=seed % 2 == 0)
    similar = cost if cost_similar is None else cost_similar
    weights, value = optimum(vectors, pairs, cost, similar)
    found = solved(vectors, pairs, C=cost, C_similar=cost_similar)
    assert written_out(found, vectors, pairs, cost, similar)[0] <= value * (1 + 1e-9)
    assert np.linalg.norm(found - weights) <= 1e-5 * np.linalg.norm(weights)


def test_one_pair_has_the_solution_one_can_write_down():
    vectors = np.array([[3, 0], [0, 4]], np.float32)
    found = solved(vectors, rankbench.Pairs([0], [1], [-1]), C=0.1)
    gap = vectors[1] - vectors[0]
    assert found == pytest.approx(gap * 0.1 / (1 + 0.1 * 25), rel=1e-6)  # w = C g / (1 + C |g|²)


def test_flipped_pairs_leave_the_solution():
    vectors, pairs = random_problem(1)
    mask = np.random.default_rng(0).random(len(pairs)) < 0.5
    assert solved(vectors, pairs.swapped(mask)) == pytest.approx(solved(vectors, pairs), abs=1e-9)


def test_a_weight_of_two_is_a_pair_listed_twice():
    vectors, pairs = random_problem(2, weighted=False)
    twice = pairs.take(np.repeat(np.arange(len(pairs)), 2))
    doubled = rankbench.Pairs(pairs.left, pairs.right, pairs.label, np.full(len(pairs), 2.0))
    assert solved(vectors, twice) == pytest.approx(solved(vectors, doubled), abs=1e-9)
    assert solved(vectors, pairs, C=0.2) == pytest.approx(solved(vectors, doubled, C=0.1), abs=1e-9)


def test_a_pair_of_weight_0_is_no_pair():
    vectors, pairs = random_problem(3)
    assert solved(vectors, pairs) == pytest.approx(solved(vectors, pairs.take(pairs.weight > 0)), abs=1e-9)


def test_contradicting_judgements_cancel():
    vectors = np.eye(2, dtype=np.float32)
    assert solved(vectors, rankbench.Pairs([0, 0], [1, 1], [1, -1])) == pytest.approx([0, 0])


def test_ties_pull_scores_together():
    vectors = np.eye(3, dtype=np.float32)
    pairs = rankbench.Pairs([0, 1], [1, 2], [1, 0])
    apart = solved(vectors, pairs, C=1.0, C_similar=0.0)
    tied = solved(vectors, pairs, C=1.0, C_similar=1000.0)
    assert apart[2] == pytest.approx(0)
    assert tied[1] == pytest.approx(tied[2], abs=1e-3)


@pytest.mark.parametrize(("count", "dimensions"), [(5, 40), (5, 5), (40, 5)])
def test_narrowed_keeps_every_dot_product(count, dimensions):
    x = np.random.default_rng(0).normal(size=(count, dimensions))
    x[-1] = x[0]  # the images may span less than their number
    coordinates, basis = narrowed(x)
    assert coordinates @ coordinates.T == pytest.approx(x @ x.T)
    if basis is not None:
        assert coordinates @ basis.T == pytest.approx(x)


def test_many_pairs_share_few_images():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 30)).astype(np.float32)
    amount = vectors @ rng.normal(size=30)
    left, right = np.triu_indices(200, 1)
    pairs = rankbench.Pairs(left, right, np.sign(amount[left] - amount[right]).astype(int))
    found = solved(vectors, pairs)
    assert (np.sign((vectors[left] - vectors[right]) @ found) == pairs.label).mean() > 0.98


def test_the_held_out_pairs_choose_c():
    vectors, pairs = random_problem(0, images=60, dimensions=40, pairs=800, tie_share=0.1)
    images, run = numbered(60), SimpleRun(vectors=vectors)
    chosen = RankSVM(C="holdout").fit(images, pairs, run)
    accuracies = {round(step): numbers["holdout_accuracy"] for step, numbers in run.curves if len(numbers) == 1}
    best = max(accuracies, key=lambda power: (accuracies[power], -power))
    assert pytest.approx(10.0**best) == chosen.C_
    assert chosen.weights_ == pytest.approx(solved(vectors, pairs, C=chosen.C_), abs=1e-6)
    assert RankSVM(C="holdout").seeded
    assert not RankSVM().seeded


def test_logs_an_objective_that_only_falls():
    vectors, pairs = random_problem(4)
    run = SimpleRun(vectors=vectors)
    RankSVM(C=10.0).fit(numbered(len(vectors)), pairs, run)
    values = [numbers["objective"] for _, numbers in run.curves]
    assert len(values) > 2
    assert (np.diff(values) <= 1e-9 * np.abs(values[1:])).all()


def test_state_restores_the_scores():
    vectors, pairs = random_problem(5)
    images, run = numbered(len(vectors)), SimpleRun(vectors=vectors)
    fitted = RankSVM().fit(images, pairs, run)
    twin = RankSVM()
    twin.load(fitted.state())
    assert np.array_equal(twin.score(images, run), fitted.score(images, run))
    assert fitted.score(images, run).dtype == np.float64
    assert twin.score(images[:0], run).shape == (0,)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_named(value):
    vectors, pairs = random_problem(0)
    vectors[7, 2] = value
    with pytest.raises(rankbench.DataError, match=r"1 images are not finite \(first: 7\)"):
        solved(vectors, pairs)


def test_ties_alone_teach_nothing():
    with pytest.raises(rankbench.DataError, match="no ordered pairs to learn from"):
        solved(np.eye(2, dtype=np.float32), rankbench.Pairs([0], [1], [0]))


@pytest.mark.parametrize("parameters", [{"C": -1.0}, {"C": float("nan")}, {"C_similar": -0.5}])
def test_a_cost_is_at_least_0(parameters):
    vectors, pairs = random_problem(0)
    with pytest.raises(rankbench.DataError, match="a cost is finite and at least 0"):
        solved(vectors, pairs, **parameters)


def test_warns_where_steps_run_out():
    vectors, pairs = random_problem(0)
    judgements = ranksvm.Judgements(len(vectors), pairs, 1.0, 1.0)
    with pytest.warns(UserWarning, match="after 1 Newton steps"):
        ranksvm.minimize(vectors.astype(np.float64), judgements, max_steps=1)


@pytest.mark.parametrize("cost", [0.1, "holdout"])
def test_conforms(cost):
    check_ranker(RankSVM(C=cost))


def test_too_few_pairs_to_choose_c_by_take_the_published_one():
    vectors = np.eye(2, dtype=np.float32)
    run = SimpleRun(vectors=vectors)
    assert RankSVM(C="holdout").fit(numbered(2), rankbench.Pairs([0], [1], [1]), run).C_ == 0.1


@pytest.mark.realdata
def test_orders_outdoor_scenes(shared_data):
    """Mean accuracy over the six attributes of OSR from images of 64 pixels, C = 0.1; 88.6 and 89.0 on all pairs."""
    from rankbench_datasets.osr import Osr

    dataset, root, run = Osr(test_pairs=100_000), shared_data / "osr", SimpleRun()
    problems = [dataset.problem(root, facets) for facets in dataset.facets(root)]
    one = run.features(problems[0].images, "hog")[:]
    four = np.concatenate([one, run.features(problems[0].images, ["gist", "color-histogram", "lbp"])[:]], axis=1)
    assert np.mean([accuracy(one, problem) for problem in problems]) >= 0.88
    assert np.mean([accuracy(four, problem) for problem in problems]) >= 0.885


def accuracy(vectors, problem):
    """Share of a problem's ordered test pairs that the default RankSVM on these vectors puts in order."""
    used, rows = np.unique([problem.train.left, problem.train.right], return_inverse=True)
    x, basis = narrowed(vectors[used].astype(np.float64))
    pairs = rankbench.Pairs(*rows.reshape(2, -1), problem.train.label)
    scores = vectors @ (basis @ ranksvm.minimize(x, ranksvm.Judgements(len(used), pairs, 0.1, 0.1)))
    test = problem.tests["test"]
    return (1 + (np.sign(scores[test.left] - scores[test.right]) * test.label).mean()) / 2
