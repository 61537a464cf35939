"""The result store: whole cells, failures, test sets and plans, safe to open and to merge."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

import rankbench
from rankbench.cell import Outcome, TestSet
from rankbench.errors import DataError, StoreError
from rankbench.store import ResultStore, smallest
from rankbench.testing import bright_squares


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "results")


OUTCOMES = {
    "val/rare": Outcome(scores=np.array([0.1, np.nan, 1e-300])),
    "test": Outcome(margins=np.float32([0.25, -1, np.nan])),
}


def a_record(**more):
    """A record of a cell that succeeded, with all it must hold."""
    return {"status": "done", "tests": {}, "phases": {}, "device": "cpu", **more}


def a_failure(message="it failed"):
    return {"status": "failed", "error": {"message": message}, "ended": 1.0}


def a_plan(*cells, toml="", **more):
    """A plan whose cells are told apart by their rows."""
    empty = {"key": None, "error": "", "missing": "", "tests": {}, "notes": [], "overlap": None, "inputs": []}
    planned = [{"row": str(row), "description": {}, **empty} for row in cells]
    return {"number": 0, "toml": toml, "facets": {}, "cells": planned, **more}


def rows(plan):
    return [cell["row"] for cell in plan["cells"]]


# -------------------------------------------------------------------------------------------------------------- cells


def test_a_cell_comes_back_as_it_was(store):
    curves = [{"step": 0.0, "loss": 0.5}, {"step": 1.0, "loss": 0.25}]
    record = a_record(ranker={"name": "x"}, seed=0)
    state = {"weights_": np.arange(3.0), "names_": ["a"]}
    assert not store.has("k")
    assert store.record("k") is None
    assert store.save("k", record, OUTCOMES, state, curves=curves)
    assert store.has("k")
    assert store.record("k")["status"] == "done"
    assert store.record("k")["model"]["kept"] is True
    assert store.record("k")["model"]["bytes"] > 24
    assert store.curves("k") == curves
    assert store.state("k")["weights_"].tolist() == [0, 1, 2]
    for name, outcome in OUTCOMES.items():
        back = store.outcome("k", name)
        for part in ("scores", "margins"):
            mine, theirs = getattr(outcome, part), getattr(back, part)
            assert (mine is None) == (theirs is None)
            assert mine is None or (np.array_equal(mine, theirs, equal_nan=True) and mine.dtype == theirs.dtype)
    assert [key for key, _ in store.records()] == ["k"]


def test_a_cell_may_have_nothing_but_a_record(store):
    assert store.save("k", {"status": "not applicable", "error": {"message": "no"}})
    assert sorted(os.listdir(store.cell("k"))) == ["checksums.json", "record.json"]
    assert (store.curves("k"), store.state("k")) == ([], None)
    with pytest.raises(StoreError, match=r"scores\.npz: cannot be read"):
        store.outcome("k", "test")


def test_a_model_that_is_not_kept_leaves_its_size(store):
    sizes = []
    store.save(
        "k", a_record(ranker={"name": "x"}), state={"w_": np.zeros(1000)}, keep=lambda size: bool(sizes.append(size))
    )
    assert store.record("k")["model"] == {"kept": False, "bytes": sizes[0]}
    assert sizes[0] > 8000
    assert store.state("k") is None
    assert not (store.cell("k") / "model").exists()


def test_the_first_result_stays_unless_it_is_to_be_replaced(store):
    assert store.save("k", a_record(n=1), OUTCOMES)
    assert not store.save("k", a_record(n=2))
    assert store.record("k")["n"] == 1
    assert store.save("k", a_record(n=3), replace=True)
    assert store.record("k") == a_record(n=3, checksums=True)
    assert os.listdir(store.root / "cells") == ["k"]


def test_a_state_that_would_need_a_pickle_stores_nothing(store):
    with pytest.raises(DataError, match="x: state 'w_' is an array of Python objects"):
        store.save("k", {"ranker": {"name": "x"}}, OUTCOMES, {"w_": np.array([None])})
    assert not store.has("k")
    assert os.listdir(store.root / "cells") == []


def test_a_test_that_was_not_judged_and_a_torn_file_are_named(store):
    store.save("k", {}, OUTCOMES)
    with pytest.raises(StoreError, match=r"scores\.npz: holds nothing for test 'tset'"):
        store.outcome("k", "tset")
    path = store.cell("k") / "scores.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StoreError, match=r"scores\.npz: cannot be read \(.*Delete its folder and run again"):
        store.outcome("k", "test")


@pytest.mark.parametrize("torn", ["{", "", "[]", "{}"])
def test_a_damaged_record_counts_as_not_there_and_is_replaced(store, torn):
    store.save("k", a_record(take=1), OUTCOMES)
    (store.cell("k") / "record.json").write_text(torn)
    assert not store.has("k")
    assert store.record("k") is None
    assert list(store.records()) == []
    assert store.save("k", a_record(take=2), OUTCOMES)
    assert store.record("k")["take"] == 2
    (store.cell("k") / "record.json").unlink()
    assert store.save("k", a_record(take=3), OUTCOMES)
    assert store.record("k")["take"] == 3


def test_a_damaged_failure_or_plan_gives_way_to_the_one_before(store):
    store.save_failure("k", a_failure("first"))
    store.save_failure("k", a_failure("second"))
    newest = sorted((store.root / "failures" / "k").glob("*/record.json"))[-1]
    newest.write_bytes(b"")
    assert store.failure("k")["error"]["message"] == "first"
    assert store.save_plan("b", a_plan(toml="a")) == 1
    assert store.save_plan("b", a_plan(toml="b")) == 2
    (store.root / "plans" / "b" / "000002.json").write_bytes(b"")
    assert store.plan("b")["toml"] == "a"
    assert store.save_plan("b", a_plan(toml="c")) == 3
    assert store.benchmarks() == ["b"]
    (store.root / "plans" / "empty").mkdir()
    assert store.benchmarks() == ["b"]


def test_a_damaged_test_set_is_stored_again(store):
    problem = bright_squares(train=4, test=4, pairs=3).canonical()
    test = TestSet.of(problem, "test")[0]
    digest = store.save_test(test)
    assert store.has_test(digest)
    path = store.root / "tests" / digest / "test.npz"
    path.write_bytes(path.read_bytes()[:60])
    assert not store.has_test(digest)
    store.save_test(test)
    assert store.test(digest).digest == digest


def test_a_record_with_half_a_character_is_stored(store):
    store.save_failure("k", a_failure("folder roo\udce9: cannot be decoded"))
    assert store.failure("k")["error"]["message"] == "folder roo\udce9: cannot be decoded"


def test_an_edit_is_accepted_for_one_cell_and_one_source(store):
    store.save("k", a_record(n=1))
    store.accept("k", "digest")
    store.accept("k", "digest")
    assert store.accepted("k", "digest")
    assert not store.accepted("k", "other")
    assert not store.accepted("l", "digest")
    assert store.record("k")["n"] == 1


FULL = """
    import resource, sys
    import numpy as np
    from rankbench.cell import Outcome
    from rankbench.store import ResultStore
    store = ResultStore(sys.argv[1])
    big = {"test": Outcome(scores=np.random.default_rng(0).random(10_000))}
    record = {"status": "done", "tests": {}, "phases": {}, "device": "cpu"}
    free = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, free[1]))
    for key, more in (("new", {}), ("old", {"replace": True}), ("model", {"state": {"w_": np.zeros(9000)}})):
        try:
            print(store.save(key, dict(record), big if key != "model" else None, **more))
        except Exception as error:
            print(type(error).__name__, error)
    resource.setrlimit(resource.RLIMIT_FSIZE, free)
"""


def test_a_full_disk_harms_nothing_stored(store):
    store.save("old", a_record(n=1), OUTCOMES)
    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL), store.root], capture_output=True, text=True, timeout=60
    ).stdout.splitlines()
    assert len(said) == 3
    for key, line in zip(("new", "old", "model"), said, strict=True):
        assert line.startswith(f"StoreError {store.cell(key)}: cannot be stored (File too large). Nothing stored")
    assert store.record("old")["n"] == 1
    assert np.array_equal(store.outcome("old", "test").margins, OUTCOMES["test"].margins, equal_nan=True)
    assert os.listdir(store.root / "cells") == ["old"]


def test_a_claim_belongs_to_one_runner(store):
    first, second = store.claim("k"), store.claim("k")
    assert first.take()
    assert not second.take()
    first.release()
    assert second.take()
    second.release()


# ----------------------------------------------------------------------------------------------------------- failures


def test_failures_pile_up_and_the_last_one_counts(store):
    assert store.failure("k") is None
    for number in range(12):
        store.save_failure("k", a_failure(str(number)))
        assert store.failure("k")["error"]["message"] == str(number)
    assert len(os.listdir(store.root / "failures" / "k")) == 12
    assert not store.has("k")


# ---------------------------------------------------------------------------------------------------------- test sets


def a_test(seed=0, weights=True, names=True):
    rng = np.random.default_rng(seed)
    count = 30
    images = rankbench.Images.from_arrays(
        list(rng.integers(0, 256, (count, 2, 2, 3), dtype=np.uint8)),
        names=[f"é-{k}" for k in range(count)] if names else None,
        columns={"score": rng.random(count), "kind": rng.choice(["a", "bc"], count), "box": rng.random((count, 4))},
        inputs={"votes": rng.random(count)},
    )
    left = rng.integers(2, count, 200)  # many are judged several times
    right = 2 + (left - 2 + rng.integers(1, count - 2, 200)) % (count - 2)
    test = rankbench.Pairs(
        left,
        right,
        rng.integers(-1, 2, 200),
        rng.random(200) if weights else None,
        columns={"votes": rng.integers(-3, 3, 200), "who": rng.choice(["x", "y"], 200), "sure": rng.random(200) < 0.5},
        inputs={"others": rng.random((200, 2))},
        sided={"votes": "negate", "others": "swap"},
    )
    return TestSet.of(rankbench.Problem(images, rankbench.Pairs([0], [1], [1]), test).canonical(), "test")[0]


@pytest.mark.parametrize("weights", [True, False])
def test_a_test_set_comes_back_whole(store, weights):
    test = a_test(weights=weights, names=weights)
    digest = store.save_test(test)
    assert store.save_test(test) == digest == test.digest
    back = store.test(digest)
    assert back.digest == digest
    assert back.names == test.names
    assert np.array_equal(back.pairs.left, test.pairs.left)
    assert np.array_equal(back.pairs.label, test.pairs.label)
    assert (back.pairs.weight is None) == (not weights)
    assert dict(back.pairs.sided) == {"votes": "negate"}
    assert sorted(back.columns) == ["box", "kind", "score"]
    assert os.listdir(store.root / "tests") == [digest]


def test_a_test_set_is_stored_compactly(store):
    left, right = np.triu_indices(1000, 1)
    digests = np.random.default_rng(0).integers(0, 256, (1000, 32), dtype=np.uint8)
    digest = store.save_test(TestSet(rankbench.Pairs(left, right, np.ones(len(left))), digests))
    size = sum(path.stat().st_size for path in (store.root / "tests" / digest).iterdir())
    assert size < 50_000  # half a million pairs: the digests are most of it
    assert np.array_equal(store.test(digest).pairs.right, right)


def test_a_test_set_that_is_gone_or_torn_is_named(store):
    with pytest.raises(StoreError, match=r"absent/test\.json: cannot be read"):
        store.test("absent")
    digest = store.save_test(a_test())
    (store.root / "tests" / digest / "test.npz").write_bytes(b"PK")
    with pytest.raises(StoreError, match=r"test\.npz: is damaged: its checksum is not the one in checksums\.json"):
        store.test(digest)


def test_numbers_take_the_narrowest_type():
    assert [smallest(np.array(values)).dtype for values in ([], [255], [256], [2**16])] == [
        np.uint8,
        np.uint8,
        np.uint16,
        np.uint32,
    ]


# -------------------------------------------------------------------------------------------------------------- plans


def test_plans_are_numbered_and_an_equal_one_is_not_stored_again(store):
    assert store.plan("osr") is None
    assert store.benchmarks() == []
    assert [store.save_plan("osr", a_plan(row)) for row in (1, 1, 2, 1)] == [1, 1, 2, 3]
    assert (store.plan("osr")["number"], rows(store.plan("osr"))) == (3, ["1"])
    assert store.save_plan("quick start", a_plan()) == 1
    assert store.benchmarks() == ["osr", "quick start"]
    for number in range(4, 12):
        assert store.save_plan("osr", a_plan(number)) == number
    assert rows(store.plan("osr")) == ["11"]


def test_two_runners_never_take_one_number(store):
    start, numbers = threading.Barrier(6), []

    def plan(k):
        start.wait()
        numbers.append(store.save_plan("osr", a_plan(k)))

    threads = [threading.Thread(target=plan, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 7))
    stored = [int(*rows(json.loads(path.read_text()))) for path in (store.root / "plans" / "osr").glob("*.json")]
    assert sorted(stored) == list(range(6))


# ------------------------------------------------------------------------------------------------------------ merging


def test_merging_is_copying(store, tmp_path):
    other = ResultStore(tmp_path / "other")
    shared = a_test()
    for one, key in ((store, "mine"), (other, "theirs")):
        one.save(key, a_record(n=key), OUTCOMES)
        one.save("both", a_record(n=key))
        one.save_failure("failed", a_failure(key))
        one.save_test(shared)
    other.save_test(a_test(1))
    other.save_plan("osr", a_plan())
    shutil.copytree(other.root, store.root, dirs_exist_ok=True)
    assert sorted(key for key, _ in store.records()) == ["both", "mine", "theirs"]
    assert len(os.listdir(store.root / "failures" / "failed")) == 2
    assert store.test(a_test(1).digest).digest == a_test(1).digest
    assert store.plan("osr") is not None


def test_a_draft_that_a_kill_left_behind_is_no_cell(store):
    store.save("k", a_record(n=1))
    shutil.copytree(store.cell("k"), store.root / "cells" / ".k.0123abcd")
    store.save_failure("f", a_failure("once"))
    attempt = next((store.root / "failures" / "f").iterdir())
    shutil.copytree(attempt, attempt.with_name(".99999999"))
    assert [key for key, _ in store.records()] == ["k"]
    assert store.failure("f")["error"]["message"] == "once"
