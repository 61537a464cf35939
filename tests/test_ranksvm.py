"""ranksvm: the optimum of the written-out objective, its symmetries, and messages for what cannot be learned."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.optimize import minimize as lbfgs
from simple_run import SimpleRows, SimpleRun

import rankbench
from rankbench.testing import check_ranker
from rankbench_rankers.feature_matrix import InMemory, matrix
from rankbench_rankers.kernel_maps import Mapped, fitted_map
from rankbench_rankers.ranking_newton import Judgements, minimize
from rankbench_rankers.ranksvm import RankSVM, accuracy


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
    images, parameters = numbered(len(vectors)), {"precision": "float64", **parameters}
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
    accuracies = {numbers["C"]: numbers["holdout_accuracy"] for _, numbers in run.curves if "C" in numbers}
    assert list(accuracies) == list(RankSVM().C_grid)
    assert max(accuracies, key=lambda cost: (accuracies[cost], -cost)) == chosen.C_
    assert chosen.weights_ == pytest.approx(solved(vectors, pairs, C=chosen.C_), abs=1e-4)
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


def test_says_where_steps_run_out():
    vectors, pairs = random_problem(0)
    solution = minimize(InMemory(vectors), Judgements(len(vectors), pairs, 1.0, 1.0), max_steps=1)
    assert (solution.converged, solution.steps) == (False, 1)
    assert solution.gradient > 1e-7


@pytest.mark.parametrize("parameters", [{}, {"C": "holdout"}, {"map": "nystroem"}, {"map": "random-fourier"}])
def test_conforms(parameters):
    check_ranker(RankSVM(**parameters))


def test_too_few_pairs_to_choose_c_by_take_the_published_one():
    vectors = np.eye(2, dtype=np.float32)
    run = SimpleRun(vectors=vectors)
    assert RankSVM(C="holdout").fit(numbered(2), rankbench.Pairs([0], [1], [1]), run).C_ == 0.1


# -------------------------------------------------------------------------------------------------- the same optimum


def test_pairs_in_any_order_and_number_of_threads_give_the_same_solution(monkeypatch):
    vectors, pairs = random_problem(6, images=200, dimensions=12, pairs=3000)
    some = Judgements(200, pairs, 0.5, 0.5)
    order = np.lexsort([np.maximum(pairs.left, pairs.right), np.minimum(pairs.left, pairs.right)])
    monkeypatch.setattr("rankbench_rankers.ranking_newton.CHUNK", 100)
    many = Judgements(200, pairs.take(order), 0.5, 0.5, threads=2)
    assert len(many._chunks) > 10
    x = InMemory(vectors.astype(np.float64))
    assert minimize(x, many).weights == pytest.approx(minimize(x, some).weights, abs=1e-8)


@pytest.mark.parametrize("seed", range(3))
def test_loss_slope_and_curvature_are_those_of_the_pairs(seed):
    vectors, pairs = random_problem(seed, images=20, pairs=150)
    scores, rng = vectors[:, 0].astype(np.float64), np.random.default_rng(seed)
    judgements = Judgements(20, pairs, 2.0, 0.3)
    loss, slope = judgements.evaluate(scores)
    value, gradient = written_out(scores, np.eye(20), pairs, 2.0, 0.3)
    assert loss == pytest.approx(value - scores @ scores / 2)
    assert slope == pytest.approx(gradient - scores)
    vector, step = rng.normal(size=20), 1e-6
    bent = judgements.curvature()(vector)
    beside = [judgements.evaluate(scores + sign * step * vector)[1] for sign in (1, -1)]
    assert bent == pytest.approx((beside[0] - beside[1]) / (2 * step), abs=1e-4)


def test_rows_in_blocks_on_a_device_and_in_memory_give_the_same_products(monkeypatch):
    from rankbench_rankers import feature_matrix
    from rankbench_rankers.feature_matrix_torch import OnDevice

    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 7)).astype(np.float32)
    monkeypatch.setattr(feature_matrix, "BLOCK", 7 * 8 * 11)
    monkeypatch.setattr(feature_matrix, "IN_MEMORY", 100)
    blocks = matrix(SimpleRows(vectors), "float64")
    assert (type(blocks).__name__, blocks.height) == ("Blocks", 11)
    weights, values = rng.normal(size=7), rng.normal(size=50)
    for one in (blocks, OnDevice(SimpleRows(vectors), "float64", "cpu"), InMemory(vectors.astype(np.float64))):
        assert one.times(weights) == pytest.approx(vectors.astype(np.float64) @ weights)
        assert one.transposed_times(values) == pytest.approx(values @ vectors.astype(np.float64))


def test_single_precision_reaches_the_same_scores():
    vectors, pairs = random_problem(2, images=80, dimensions=30, pairs=900)
    exact, single = solved(vectors, pairs, C=1.0), solved(vectors, pairs, C=1.0, precision="float32")
    assert single == pytest.approx(exact, abs=1e-4 * np.abs(exact).max())


# ------------------------------------------------------------------------------------------------------------- maps


@pytest.mark.parametrize("kind", ["nystroem", "random-fourier"])
def test_a_map_learns_what_no_linear_ranker_can(kind):
    rng = np.random.default_rng(0)
    vectors = rng.uniform(-1, 1, (200, 2)).astype(np.float32)
    amount = (vectors**2).sum(axis=1)  # how far from the middle
    left, right = np.triu_indices(200, 1)
    pairs = rankbench.Pairs(left, right, np.sign(amount[left] - amount[right]).astype(int))
    images, run = numbered(200), SimpleRun(vectors=vectors)
    right = {}
    for name in ("none", kind):
        ranker = RankSVM(map=name, components=100, C=1.0).fit(images, pairs, run)
        right[name] = accuracy(ranker.score(images, run), pairs)
        twin = RankSVM(map=name, components=100)
        twin.load(ranker.state())
        assert np.array_equal(twin.score(images, run), ranker.score(images, run))
    assert right["none"] < 0.65
    assert right[kind] > 0.95
    assert RankSVM(map=kind).seeded


def test_nystroem_with_every_image_is_the_kernel_itself():
    from sklearn.metrics.pairwise import rbf_kernel

    vectors, _ = random_problem(0)
    learned = fitted_map("nystroem", SimpleRows(vectors), 1000, 0.1, 0)
    rows = Mapped(SimpleRows(vectors), learned)
    assert rows.shape == (30, 30) == rows[:].shape
    assert rows[:] @ rows[:].T == pytest.approx(rbf_kernel(vectors, gamma=0.1), abs=1e-4)
    assert np.array_equal(np.concatenate(list(rows.blocks(7))), rows[:])
    assert fitted_map("nystroem", SimpleRows(vectors), 9, None, 0)["gamma"] == pytest.approx(1 / (8 * vectors.var()))


def test_the_square_root_keeps_the_sign():
    vectors, pairs = random_problem(0)
    roots = np.sign(vectors) * np.sqrt(np.abs(vectors))
    assert solved(vectors, pairs, map="sqrt") == pytest.approx(solved(roots, pairs), abs=1e-5)


# -------------------------------------------------------------------------------------------------------- bad input


def test_constant_columns_change_nothing():
    vectors, pairs = random_problem(1, tie_share=0)
    wide = np.concatenate([vectors, np.full((30, 2), 3, np.float32)], axis=1)
    found = solved(wide, pairs)
    assert found[:8] == pytest.approx(solved(vectors, pairs), abs=1e-6)
    assert found[8:] == pytest.approx([0, 0], abs=1e-6)


def test_contradictions_of_any_weight_rank_nothing():
    vectors, pairs = random_problem(1, tie_share=0, weighted=False)
    weight = np.random.default_rng(0).random(len(pairs))  # sums that cancel leave rounding behind
    left, right = np.concatenate([pairs.left, pairs.right]), np.concatenate([pairs.right, pairs.left])
    both = rankbench.Pairs(left, right, np.tile(pairs.label, 2), np.tile(weight, 2))
    assert not solved(vectors, both).any()


def test_features_too_large_to_be_added_up_are_refused():
    vectors, pairs = random_problem(1, weighted=False)
    with pytest.raises(rankbench.DataError, match="features are too large to be added up"):
        solved(vectors * np.float32(1e30), pairs, precision="float32")


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_largest_c_overflows_nowhere(precision):
    vectors, pairs = random_problem(1, tie_share=0)
    right = [accuracy(vectors @ solved(vectors, pairs, C=cost, precision=precision), pairs) for cost in (100.0, 1e12)]
    assert right[1] >= right[0] - 0.02


def test_a_fit_on_the_cpu_imports_no_torch():
    code = (
        "import sys, numpy as np, rankbench\n"
        "from rankbench_rankers.feature_matrix import matrix\n"
        "from rankbench_rankers.ranksvm import RankSVM\n"
        "from rankbench_rankers.ranking_newton import Judgements, minimize\n"
        "pairs = rankbench.Pairs([0], [1], [1])\n"
        "assert minimize(matrix(np.eye(2), 'float32'), Judgements(2, pairs, 0.1, 0.1)).converged\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_features_alike_in_all_images_rank_nothing():
    found = solved(np.ones((3, 4), np.float32), rankbench.Pairs([0, 1], [1, 2], [1, 1]))
    assert not found.any()


def test_fewer_images_than_dimensions():
    vectors, pairs = random_problem(1, images=6, dimensions=500, pairs=20, tie_share=0)
    _, value = optimum(vectors, pairs, 0.1, 0.1)
    assert written_out(solved(vectors, pairs), vectors, pairs, 0.1, 0.1)[0] == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_c_far_too_large_still_separates_or_says_how_far_it_came(precision):
    vectors, pairs = random_problem(4, images=40, dimensions=60, pairs=300, tie_share=0, weighted=False)
    images, run = numbered(40), SimpleRun(vectors=vectors)
    ranker = RankSVM(C=1e8, precision=precision).fit(images, pairs, run)
    assert np.isfinite(ranker.weights_).all()
    right = accuracy(ranker.score(images, run), pairs)
    assert right > 0.97
    assert right == 1.0 or ranker.notes  # 60 dimensions can order 40 images as they like


def test_an_unreached_optimum_is_said_in_every_table():
    ranker = RankSVM()
    ranker.load({"gradient_": 0.003, "converged_": False})
    assert ranker.notes == ("RankSVM stopped before its optimum: gradient 3e-03 of that at w = 0",)
    ranker.load({"converged_": True})
    assert ranker.notes == ()


def test_duplicate_and_contradicting_pairs_are_weighed():
    vectors, pairs = random_problem(1, weighted=False)
    both = rankbench.Pairs(
        np.concatenate([pairs.left, pairs.right, pairs.left]),
        np.concatenate([pairs.right, pairs.left, pairs.right]),
        np.concatenate([pairs.label, -pairs.label, -pairs.label]),  # twice one way, once the other
    )
    _, value = optimum(vectors, both, 0.1, 0.1)
    assert written_out(solved(vectors, both), vectors, both, 0.1, 0.1)[0] == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"C": -1.0}, "C is -1.0; a cost is at least 0 and at most 1e.12"),
        ({"C": float("nan")}, "C is nan"),
        ({"C": 1e20}, "C is 1e.20"),
        ({"C_similar": -0.5}, "C_similar is -0.5"),
        ({"C_grid": (1.0, 0.1)}, "smallest first"),
        ({"C_grid": ()}, "list different costs"),
        ({"gamma": 0.0}, "gamma is 0.0"),
        ({"components": 0}, "components is 0"),
        ({"holdouts": 0}, "holdouts is 0"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(parameters, message):
    with pytest.raises(rankbench.DataError, match=message):
        RankSVM(**parameters)


@pytest.mark.slow
@pytest.mark.realdata
def test_orders_outdoor_scenes(shared_data):
    """Mean accuracy over the six attributes of OSR from images of 64 pixels, C = 0.1; 88.6 and 89.0 on all pairs."""
    from rankbench_datasets.osr import Osr

    dataset, root, run = Osr(test_pairs=100_000), shared_data / "osr", SimpleRun()
    problems = [dataset.problem(root, facets) for facets in dataset.facets(root)]
    one = run.features(problems[0].images, "hog")[:]
    four = np.concatenate([one, run.features(problems[0].images, ["gist", "color-histogram", "lbp"])[:]], axis=1)
    assert np.mean([judged(one, problem) for problem in problems]) >= 0.88
    assert np.mean([judged(four, problem) for problem in problems]) >= 0.885


def judged(vectors, problem):
    """Pairwise accuracy on a problem's test of RankSVM at C = 0.1 on these vectors."""
    judgements = Judgements(len(vectors), problem.train, 0.1, 0.1)
    scores = vectors @ minimize(InMemory(vectors), judgements, tolerance=1e-5).weights
    return accuracy(scores, problem.tests["test"])
