"""A cell's key, its outcome and its test set."""

import json

import numpy as np
import pytest

import rankbench
from rankbench.cell import Outcome, TestSet, key_of, key_parts
from rankbench.plugin import Judged

PARTS = {
    "fingerprint": "f" * 64,
    "facets": {"attribute": "open", "fold": 3},
    "ranker": {
        "name": "ranksvm",
        "distribution": "rankbench",
        "version": "1",
        "parameters": {"c": 0.1, "features": [{"name": "hog", "normalize": "l2"}], "ties": None},
    },
    "features": ["a" * 64, "b" * 64],
    "files": {"weights": "c" * 64},
    "seed": 0,
    "threads": 1,
}


def places(value, path=()):
    """Every place in nested tables and lists that holds a value."""
    if not isinstance(value, dict | list):
        yield path
        return
    for key, one in value.items() if isinstance(value, dict) else enumerate(value):
        yield from places(one, (*path, key))


def changed(path, how):
    copy = json.loads(json.dumps(PARTS))
    place = copy
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = how(place[path[-1]])
    return copy


def test_the_key_never_changes():
    assert key_of(key_parts(**PARTS)) == "7efac16335c8e37585905ecc71ae6fbaa680d9a144052144f3b2cfaff528bf1a"


def test_any_changed_input_changes_the_key():
    keys = [key_of(key_parts(**PARTS))]
    keys += [key_of(key_parts(**changed(path, lambda value: [value, "changed"]))) for path in places(PARTS)]
    keys.append(key_of(key_parts(**{**PARTS, "seed": None})))
    keys.append(key_of(key_parts(**{**PARTS, "threads": None})))
    keys.append(key_of(key_parts(**{**PARTS, "features": PARTS["features"][::-1]})))
    keys.append(key_of({**key_parts(**PARTS), "core_results": 0}))
    assert len(set(keys)) == len(keys) > 15


def test_the_order_of_entries_leaves_the_key_alone():
    def turned(value):
        if isinstance(value, dict):
            return {key: turned(value[key]) for key in reversed(value)}
        return [turned(one) for one in value] if isinstance(value, list) else value

    assert key_of(key_parts(**turned(PARTS))) == key_of(key_parts(**PARTS))


# ----------------------------------------------------------------------------------------------------------- outcome


def toy_problem():
    rng = np.random.default_rng(0)
    arrays = rng.integers(0, 256, (8, 3, 3, 3), dtype=np.uint8)
    images = rankbench.Images.from_arrays(
        list(arrays), names=list("abcdefgh"), columns={"score": np.arange(8.0)}, inputs={"votes": np.arange(8)}
    )
    test = rankbench.Pairs(
        [4, 5, 6],
        [7, 6, 4],
        [-1, 0, 1],
        [1, 2, 3],
        columns={"seen": [7, 8, 9]},
        inputs={"asked": [1, 2, 3]},
        sided={"seen": "negate", "asked": "negate"},
    )
    return rankbench.Problem(images, rankbench.Pairs([0, 1], [1, 2], [1, -1]), test).canonical()


def test_a_test_set_has_its_own_images_and_no_evidence():
    problem = toy_problem()
    test, rows = TestSet.of(problem, "test")
    assert sorted(test.names) == ["e", "f", "g", "h"]
    assert test.names == tuple(problem.images.names[row] for row in rows)
    assert np.array_equal(test.digests, problem.images.digests[rows])
    assert np.array_equal(test.columns["score"], problem.images.columns["score"][rows])
    assert np.array_equal(rows[test.pairs.left], problem.tests["test"].left)
    assert (dict(test.pairs.inputs), list(test.pairs.columns), dict(test.pairs.sided)) == (
        {},
        ["seen"],
        {"seen": "negate"},
    )


def test_a_test_sets_digest_tells_all_but_names():
    test, _ = TestSet.of(toy_problem(), "test")

    def of(pairs=test.pairs, digests=test.digests, names=test.names, columns=test.columns):
        return TestSet(pairs, digests, names, columns).digest

    other = test.pairs.swapped(np.array([True, False, False]))
    found = [of(), of(other), of(digests=test.digests[::-1]), of(columns={}), of(columns={"s": test.columns["score"]})]
    assert len(set(found)) == len(found)
    assert of(names=None) == of()


def judged(outcome, **columns):
    pairs = rankbench.Pairs([0, 1, 2, 0], [1, 2, 3, 3], [1, -1, 0, 1], [1, 2, 3, 4])
    test = TestSet(pairs, np.zeros((4, 32), np.uint8), None, {k: np.asarray(v) for k, v in columns.items()})
    return outcome.judged(test), outcome.tied(test)


def test_a_metric_sees_score_differences():
    seen, tied = judged(Outcome(scores=np.array([3.0, 1.0, 1.0, 0.5])), score=[1, 2, 3, 4])
    assert isinstance(seen, Judged)
    assert seen.margins.tolist() == [2, 0, 0.5, 2.5]
    assert seen.labels.tolist() == [1, -1, 0, 1]
    assert seen.weights.tolist() == [1, 2, 3, 4]
    assert (seen.scores.tolist(), seen.targets.tolist()) == ([3, 1, 1, 0.5], [1, 2, 3, 4])
    assert seen.targets.dtype == np.float64
    assert tied == pytest.approx(1 / 3)


def test_unreadable_images_leave_with_their_pairs():
    seen, tied = judged(Outcome(scores=np.array([3.0, np.nan, 1.0, 3.0])), score=[1, 2, np.nan, 4])
    assert (seen.margins.tolist(), seen.labels.tolist(), seen.weights.tolist()) == ([-2, 0], [0, 1], [3, 4])
    assert (seen.scores.tolist(), seen.targets.tolist()) == ([3, 3], [1, 4])
    assert tied == 1  # of the one ordered pair that is left
    seen, _ = judged(Outcome(scores=np.array([3.0, np.nan, 1.0, 3.0])))
    assert (seen.scores.tolist(), seen.targets) == ([3, 1, 3], None)
    assert judged(Outcome(scores=np.array([np.nan, np.nan, 1.0, 3.0])))[1] == 0


def test_margins_have_no_scores():
    seen, tied = judged(Outcome(margins=np.float32([0.5, np.nan, 0, -1])), score=[1, 2, 3, 4])
    assert (seen.margins.tolist(), seen.scores, seen.targets.tolist()) == ([0.5, 0, -1], None, [1, 2, 3, 4])
    assert (seen.margins.dtype, tied) == (np.float64, 0)


@pytest.mark.parametrize("column", [["low", "high", "low", "high"], np.zeros((4, 2))])
def test_a_score_column_that_is_no_number_an_image_is_no_target(column):
    assert judged(Outcome(scores=np.arange(4.0)), score=column)[0].targets is None
