"""One cell from data to stored result: records, unreadable images, changed data, the private folder."""

import json
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
import traced
from market import write_market
from PIL import Image
from tiny_runs import TESTS, TinyRuns, environment, grey_files, only

import rankbench
from rankbench.benchmark import Benchmark
from rankbench.cache import recalled, remember
from rankbench.cell import TestSet
from rankbench.runner import Options, Runner
from rankbench.seeding import seed_everything
from rankbench.supervisor import Slots
from rankbench.worker import BUSY, Workshop, execute, judge, single

FILES = {"name": "tiny-files"}
DECODER = {"decoder": {"name": "decoder"}}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    return TinyRuns(tmp_path, monkeypatch)


@pytest.fixture
def files(tiny):
    """A dataset of PNG files: 30 for training, 12 for testing."""
    grey_files(tiny.data / "tiny-files")
    return sorted((tiny.data / "tiny-files").glob("*.png"))


def truncate(path):
    path.write_bytes(path.read_bytes()[:40])


def test_a_record_says_all_there_is_to_know(tiny):
    before = time.time()
    cell = only(tiny.run({"good": {"name": "steady", "seconds": 0.05}}, seeds=(3,)))
    record = tiny.store.record(cell.key)
    assert (record["status"], record["seed"], record["threads"]) == ("done", 3, 1)
    assert (record["device"], record["gpu"], record["device_name"]) == ("cpu", None, None)
    assert record["ranker"] == {"name": "steady", "parameters": {"seconds": 0.05}}
    assert record["key_parts"] == cell.parts
    assert record["sources"].keys() == {"rankers/steady"}
    phases = record["phases"]
    assert phases.keys() >= {"load", "fit", "score"}
    for seconds in phases.values():
        assert seconds.keys() == {"wall_seconds", "cpu_seconds"}
        assert seconds["cpu_seconds"] >= 0
    assert 0.05 <= phases["fit"]["wall_seconds"] < 1
    assert phases["fit"]["cpu_seconds"] < 0.05
    assert sum(phase["wall_seconds"] for phase in phases.values()) <= record["wall_seconds"] + 0.001
    assert before <= record["began"] <= record["ended"] <= time.time()
    assert record["started"] == time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record["began"]))
    assert 10 * 2**20 < record["peak_memory_bytes"] < 2**31
    assert record["peak_memory_of"] == "cell"
    assert {"python", "rankbench", "numpy", "torch"} <= record["versions"].keys()
    assert record["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"git_commit", "git_dirty", "host", "machine", "cpus"} <= record.keys()
    assert record["lost"] == []
    assert record["images"] == 12
    assert record["tests"]["test"] == {"digest": cell.tests["test"], "kind": "scores", "pairs": 6, "tied": 0.0}


def test_the_commit_recorded_is_the_one_of_the_folder_one_stands_in(tiny, monkeypatch):
    repository = tiny.root / "repository"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q", str(repository)], ["-C", str(repository), "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run([*git, *words], check=True)
    answer = subprocess.run(
        ["git", "-C", str(repository), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    monkeypatch.chdir(repository)
    from rankbench import machine

    machine.git_provenance.cache_clear()
    try:
        cell = only(tiny.run({"good": {"name": "steady"}}, in_process=True))
    finally:
        machine.git_provenance.cache_clear()
    record = tiny.store.record(cell.key)
    assert (record["git_commit"], record["git_dirty"]) == (answer.stdout.strip(), False)


def test_peak_memory_is_the_cells_own(tiny):
    rows = {"large": {"name": "steady", "bytes": 80_000_000}, "small": {"name": "steady"}}
    result = tiny.run(rows, top={"keep": "scores"}.items())
    peak = {cell.row: tiny.store.record(cell.key)["peak_memory_bytes"] for cell in result.cells}
    assert len({note["pid"] for note in tiny.notes()}) == 1, "both ran in one process"
    assert peak["large"] > peak["small"] + 60_000_000


def test_every_image_is_scored_once_and_stored_as_float64(tiny):
    cell = only(tiny.run({"good": {"name": "steady"}}, in_process=True))
    outcome = tiny.store.outcome(cell.key, "test")
    assert outcome.scores.dtype == np.float64
    assert outcome.scores.shape == (4,)
    test = tiny.store.test(cell.tests["test"])
    assert len(test.digests) == 4


# ------------------------------------------------------------------------------------------------- unreadable images


@pytest.mark.parametrize("pixels", [False, True])
@pytest.mark.parametrize("which", ["training", "test"])
def test_an_unreadable_image_is_dropped_with_its_pairs_and_noted(tiny, files, pixels, which):
    bad = files[3] if which == "training" else files[-1]
    truncate(bad)
    cell = only(tiny.run({"decoder": {"name": "decoder", "pixels": pixels}}, dataset=FILES, in_process=True))
    assert cell.status == "done", cell.reason
    record = tiny.store.record(cell.key)
    assert record["lost"] == [str(bad)]
    note = tiny.notes()[-1]
    assert (note["images"], note["pairs"]) == ((29, 29 * 28 // 2) if which == "training" else (30, 30 * 29 // 2))
    scores = tiny.store.outcome(cell.key, "test").scores
    assert np.isnan(scores).sum() == (which == "test")
    outcome, test = tiny.store.outcome(cell.key, "test"), tiny.store.test(cell.tests["test"])
    assert len(outcome.judged(test).margins) == (66 if which == "training" else 55)


def test_the_table_notes_what_was_lost(tiny, files):
    truncate(files[3])
    table = tiny.run(DECODER, dataset=FILES, in_process=True).drawn()
    notes = [note for row in table.entries for entry in row for note in entry.notes]
    assert any(re.search("1 .*image", note) for note in [*notes, *table.notes]), (notes, table.notes)


def test_a_ranker_that_reads_no_pixels_loses_nothing(tiny, files):
    truncate(files[3])
    cell = only(tiny.run({"odd": {"name": "trouble", "how": "wrong-shape"}}, dataset=FILES, in_process=True))
    assert "must give (12,)" in cell.reason


def test_over_five_percent_lost_fails_the_cell(tiny, files):
    for path in files[:3]:
        truncate(path)
    cell = only(tiny.run(DECODER, dataset=FILES, in_process=True))
    assert cell.status == "failed"
    assert re.search(r"3 of 42 images cannot be read; at most 5% may be lost\. The first: .*a0[012]", cell.reason)


def test_strict_data_tolerates_no_unreadable_image(tiny, files):
    truncate(files[3])
    cell = only(tiny.run(DECODER, dataset=FILES, in_process=True, strict_data=True))
    assert cell.status == "failed"
    assert "1 of 42 images cannot be read; --strict-data allows none." in cell.reason
    assert str(files[3]) in cell.reason


def test_strict_data_does_not_pass_over_stored_cells_that_lost_images(tiny, files):
    truncate(files[3])
    steady = {"good": {"name": "steady"}}
    tiny.run(DECODER, dataset=FILES, in_process=True)
    tiny.run(steady, in_process=True)
    before = tiny.stored()
    result = tiny.run(DECODER, dataset=FILES, in_process=True, strict_data=True)
    assert (only(result).status, result.exit_code) == ("failed", 1)
    assert tiny.run(steady, in_process=True, strict_data=True).plan.fitted == 0
    assert tiny.stored() == before
    assert only(tiny.run(DECODER, dataset=FILES, in_process=True)).status == "done"


def test_unreadable_images_are_remembered_and_a_mended_file_is_another_problem(tiny, files):
    whole = files[3].read_bytes()
    truncate(files[3])
    first = only(tiny.run(DECODER, dataset=FILES, in_process=True))
    tiny.run({"other": {"name": "decoder", "pixels": True}}, dataset=FILES, in_process=True)
    assert len(list((tiny.cache / "unreadable").iterdir())) == 1
    files[3].write_bytes(whole)
    mended = only(tiny.run(DECODER, dataset=FILES, in_process=True))
    assert mended.key != first.key
    assert tiny.store.record(mended.key)["lost"] == []


def test_trouble_that_has_passed_is_not_taken_for_a_bad_file(tiny, files, monkeypatch):
    truncate(files[3])
    tiny.run(DECODER, dataset=FILES, in_process=True)
    (path,) = (tiny.cache / "unreadable").iterdir()
    remembered = recalled(path, list)
    assert len(remembered) == 1
    remember(path, [*remembered, (remembered[0] + 1) % 42])
    cell = only(tiny.run({"other": {"name": "decoder", "pixels": True}}, dataset=FILES, in_process=True))
    assert tiny.store.record(cell.key)["lost"] == [str(files[3])]
    assert recalled(path, list) == remembered


# ------------------------------------------------------------------------------------------------------- changed data


def test_data_that_changes_between_plan_and_fit_fails_the_cell(tiny, files):
    path = tiny.write(DECODER, dataset=FILES)
    runner = Runner(Options(**tiny.options(in_process=True)))
    plan = runner.plan(Benchmark.read(path))
    (cell,) = runner.due(plan)
    Image.new("RGB", (8, 8), (3, 4, 5)).save(files[0])
    task = runner._task(plan, cell, False)
    record = execute(Workshop.open(task["place"]), task)
    assert record["status"] == "failed"
    assert record["error"]["message"] == "dataset tiny-files changed since the run was planned; run it again."
    assert record["error"]["phase"] == "load"
    assert only(tiny.run(DECODER, dataset=FILES, in_process=True)).status == "done"


def test_data_that_goes_away_fails_the_cell_with_what_was_looked_for(tiny, files):
    path = tiny.write(DECODER, dataset=FILES)
    runner = Runner(Options(**tiny.options(in_process=True)))
    plan = runner.plan(Benchmark.read(path))
    task = runner._task(plan, *runner.due(plan), False)
    (tiny.data / "tiny-files").rename(tiny.data / "gone")
    record = execute(Workshop.open(task["place"]), task)
    assert record["status"] == "failed"
    assert str(tiny.data / "tiny-files") in record["error"]["message"]


def test_a_plugin_edited_between_plan_and_fit_fails_the_cell(tiny):
    runner = Runner(Options(**tiny.options(in_process=True)))
    plan = runner.plan(Benchmark.read(tiny.write({"good": {"name": "steady"}})))
    task = runner._task(plan, *runner.due(plan), False)
    edited = task["about"] | {"sources": {"rankers/steady": "0" * 64}}
    record = execute(Workshop.open(task["place"]), task | {"about": edited})
    assert (record["status"], record["error"]["phase"]) == ("failed", "load")
    assert record["error"]["message"] == (
        "ranker 'steady' of package misbehaving: its source changed since the run was planned; run again."
    )
    assert not tiny.notes()
    assert execute(Workshop.open(task["place"]), task)["status"] == "done"


# ----------------------------------------------------------------------------------------------------- private folder


def test_the_private_folder_survives_a_kill_and_is_removed_on_success(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("RANKBENCH_SCRATCH", str(tmp_path / "scratch"))
    rows = {"checkpoints": {"name": "trouble", "how": "keeps-checkpoints"}}
    first = only(tiny.run(rows))
    assert first.status == "failed"
    (folder,) = (tmp_path / "scratch").glob(f"{first.key}*")
    assert (folder / "checkpoints").read_text() == "x"
    second = only(tiny.run(rows))
    assert second.status == "done"
    assert tiny.notes("folder")[0]["path"] == str(folder)
    assert not folder.exists()


def test_an_attempt_after_unreadable_images_starts_without_checkpoints(tiny, files):
    truncate(files[3])
    cell = only(tiny.run({"decoder": {"name": "decoder", "checkpoint": True}}, dataset=FILES, in_process=True))
    assert cell.status == "done", cell.reason
    assert [note["checkpoint"] for note in tiny.notes()] == [False, False]


# ---------------------------------------------------------------------------------------------- claims between runners


@pytest.fixture
def task(tiny):
    """A shop and the task of one cell."""
    runner = Runner(Options(**tiny.options(in_process=True)))
    plan = runner.plan(Benchmark.read(tiny.write({"good": {"name": "steady"}, "bad": {"name": "trouble"}})))
    tasks = [runner._task(plan, cell, False) for cell in runner.due(plan)]
    return Workshop.open(tasks[0]["place"]), *tasks


def test_a_cell_that_another_runner_computes_is_busy_unless_one_waits(tiny, task):
    shop, good, _ = task
    claim = tiny.store.claim(good["key"])
    assert claim.take()
    assert execute(shop, good, wait=False) == {"status": BUSY}
    assert not tiny.notes()
    claim.release()
    assert execute(shop, good, wait=False)["status"] == "done"
    assert execute(shop, good, wait=False) == tiny.store.record(good["key"])
    assert len(tiny.notes()) == 1


def test_a_failure_of_another_runner_one_waited_for_is_not_repeated(tiny, task):
    from threading import Timer

    shop, _, bad = task
    claim = tiny.store.claim(bad["key"])
    assert claim.take()
    failure = {"status": "failed", "error": {"message": "over there"}}

    def fail():
        tiny.store.save_failure(bad["key"], failure | {"ended": time.time()})
        claim.release()

    timer = Timer(0.15, fail)
    timer.start()
    record = execute(shop, bad)
    timer.join()
    assert record["error"]["message"] == "over there"
    assert not tiny.notes()
    assert execute(shop, bad)["error"]["message"].startswith(
        "ValueError: the loss is a kangaroo (misbehaving.py, line "
    )


def test_a_full_disk_is_told_even_where_the_failure_cannot_be_stored(tiny, task, monkeypatch):
    shop, good, _ = task

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rankbench.files.os.rename", full)
    record = execute(shop, good)
    assert record["status"] == "failed"
    assert record["error"]["phase"] == "store" or record["error"]["phase"] == "load"
    assert record["error"]["message"].count("No space left on device") == 2
    monkeypatch.undo()
    assert list((tiny.results / "cells").glob("*")) == []


# ------------------------------------------------------------------------------------------------------- the program


def test_the_program_serves_cells_from_its_input_and_ends_with_it(tiny, task):
    _, good, bad = task
    lines = "".join(json.dumps(one) + "\n" for one in (good, bad, good))
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", "rankbench.serving", str(tiny.root)],
        env=environment(FITS_LOG=str(tiny.log)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    worker.stdin.write(lines)
    worker.stdin.flush()
    events = []
    while sum(event["event"] == "end" for event in events) < 3:
        events.append(json.loads(worker.stdout.readline()))
    _, error = worker.communicate(timeout=20)
    assert (worker.returncode, error) == (0, "")
    ends = [event for event in events if event["event"] == "end"]
    assert [end["status"] for end in ends] == ["done", "failed", "done"]
    assert re.fullmatch(r"ValueError: the loss is a kangaroo \(misbehaving\.py, line \d+\)", ends[1]["message"])
    assert [event["phase"] for event in events if event["event"] == "phase"] == [
        *("load", "fit", "score", "store"),
        *("load", "fit", "store"),
    ]
    assert sum(event["event"] == "begin" for event in events) == 2, "the third is stored already"
    assert [event["numbers"] for event in events if event["event"] == "log"] == [{"loss": 1.0}, {"loss": 0.5}]


def serve(tiny, rows, seconds=60):
    """Events of a worker that is given the cells of these rows, in their order."""
    runner = Runner(Options(**tiny.options(in_process=True)))
    plan = runner.plan(Benchmark.read(tiny.write(rows)))
    tasks = {cell.row: runner._task(plan, cell, False) for cell in runner.due(plan)}
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", "rankbench.serving", str(tiny.root)],
        env=environment(FITS_LOG=str(tiny.log)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    events = []
    for row in rows:
        worker.stdin.write(json.dumps(tasks[row]) + "\n")
        worker.stdin.flush()
        while not (events and events[-1]["event"] == "end" and events[-1]["key"] == tasks[row]["key"]):
            events.append(json.loads(worker.stdout.readline()))
    left, _ = worker.communicate(timeout=seconds)
    assert worker.returncode == 0
    return tasks, events + [json.loads(line) for line in left.splitlines()]


def test_the_child_of_a_ranker_that_forks_has_no_say(tiny):
    rows = {row: {"name": "trouble", "how": row} for row in ("forks", "forks-and-fails")}
    tasks, events = serve(tiny, rows | {"good": {"name": "steady"}})
    assert {note["child"] for note in tiny.notes("forked")} == {True, False}
    ends = [(event["key"], event["status"]) for event in events if event["event"] == "end"]
    assert ends == [(tasks[row]["key"], "done") for row in ("forks", "forks-and-fails", "good")]
    keys = [event["key"] for event in events]
    assert keys == sorted(keys, key=[task["key"] for task in tasks.values()].index), "every message says whose it is"
    assert [event["step"] for event in events if event["event"] == "log"] == [1.0, 0.0, 1.0]


def test_a_worker_survives_what_cannot_be_stored(tiny):
    troubles = ("no-state", "circular-state", "odd-words")
    rows = {row: {"name": "trouble", "how": row} for row in troubles} | {"good": {"name": "steady"}}
    tasks, events = serve(tiny, rows)
    ends = {event["key"]: event for event in events if event["event"] == "end"}
    assert [ends[task["key"]]["status"] for task in tasks.values()] == ["failed", "failed", "failed", "done"]
    said = {row: ends[tasks[row]["key"]]["message"] for row in troubles}
    assert said["no-state"] == ("ranker 'trouble' of package misbehaving: state must give a dict, not NoneType.")
    assert said["circular-state"].startswith("ValueError: Circular reference")
    assert said["odd-words"].startswith("ValueError: no such file: caf\udce9.png")
    assert tiny.store.failure(tasks["circular-state"]["key"])["error"]["phase"] == "store"


def test_margins_keep_order_and_sign_as_float32():
    cases = [[1.5, -2, 0], [1e-300, -1e-300, 0], [1e300, -1e300, 1], [1e-300, 1e300, -1e-320, 0], [5e-324], [0.0], []]
    for values in map(np.array, cases):
        found = single(values)
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
        assert np.array_equal(np.sign(found), np.sign(values))
        order = np.argsort(values)
        assert (np.diff(found[order]) >= 0).all()
    assert single(np.array([1.5, -2, 1e-40])).tolist() == np.array([1.5, -2, 1e-40], np.float32).tolist()
    assert single(np.array([1e-300, -2e-300])).tolist() == [0.5, -1]


@pytest.mark.parametrize("scale", [1e-300, 1, 1e300])
def test_tiny_and_huge_margins_are_no_ties(scale, tmp_path):
    class Extreme(rankbench.Ranker):
        def compare(self, images, pairs, run):
            brightness = np.array([image.mean() for image in images])
            return scale * (brightness[pairs.left] - brightness[pairs.right])

    problem = traced.toy()
    tests = {"test": TestSet.of(problem, "test")}
    margins = judge(Extreme(), problem, traced.cell_run(problem, tmp_path), None, tests)["test"].margins
    assert np.isfinite(margins).all()
    assert np.array_equal(np.sign(margins), problem.tests["test"].label)


@pytest.mark.parametrize("end", ["input", "output"])
def test_the_program_ends_amid_a_cell_when_its_runner_is_gone(tiny, end):
    runner = Runner(Options(**tiny.options()))
    ranker = {"name": "waiting", "file": "never"} if end == "input" else {"name": "steady", "seconds": 0.3}
    plan = runner.plan(Benchmark.read(tiny.write({"row": ranker})))
    task = runner._task(plan, *runner.due(plan), False)
    worker = subprocess.Popen(
        [sys.executable, "-P", "-m", "rankbench.serving", str(tiny.root)],
        env=environment(FITS_LOG=str(tiny.log)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=end == "input",
    )
    worker.stdin.write(json.dumps(task) + "\n")
    worker.stdin.flush()
    tiny.wait_for("fit")
    (worker.stdin if end == "input" else worker.stdout).close()
    assert worker.wait(timeout=10) == (-9 if end == "input" else 0)
    (worker.stdout if end == "input" else worker.stdin).close()
    assert not (tiny.results / "cells").exists()
    assert not (tiny.results / "failures").exists()


def test_global_generators_start_each_cell_alike():
    import random

    drawn = []
    for _ in range(2):
        seed_everything(5)
        drawn.append((random.random(), np.random.random()))  # noqa: NPY002
        np.random.random(10)  # noqa: NPY002
    assert drawn[0] == drawn[1]
    seed_everything(2**40 + 1)


FAKE_TORCH = """
import os
from random import Random

generator = Random(os.urandom(8))
manual_seed, rand = generator.seed, generator.random
"""
LATE_IMPORT = """
import sys
from importlib.util import find_spec
from rankbench.seeding import seed_everything

seed_everything(3)
seed_everything(7)
assert find_spec("torch").loader.get_source("torch")
assert "torch" not in sys.modules
import torch
first = torch.rand()
seed_everything(7)
print(first, torch.rand(), type(torch.__loader__).__name__)
seed_everything(3)
assert torch.rand() != first
"""


def test_torch_is_seeded_by_the_first_cell_that_imports_it_too(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(FAKE_TORCH)
    said = []
    for _ in range(2):
        command = [sys.executable, "-W", "error", "-c", LATE_IMPORT]
        paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        answer = subprocess.run(
            command, env=environment(PYTHONPATH=paths), capture_output=True, text=True, timeout=60, check=True
        )
        said.append(answer.stdout.split())
    (first, again, loader), other = said
    assert first == again
    assert other == said[0], "another process draws the same"
    assert loader == "SourceFileLoader"


def test_a_seeded_process_without_torch_has_none(tmp_path):
    code = "import sys; sys.path[:] = [p for p in sys.path if 'packages' not in p]\n"
    code = "from rankbench.seeding import seed_everything\n" + code
    code += "seed_everything(1)\ntry:\n    import torch\nexcept ModuleNotFoundError as error:\n    print(error.name)\n"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert answer.stdout == "torch\n"


def test_slots_in_process_close_their_progress(tiny, task):
    from rankbench.progress import Progress

    shop, good, bad = task
    slots = Slots([good, bad], 1, [], Progress([good["about"]["row"], bad["about"]["row"]], quiet=True), tiny.store)
    slots.run_here(shop)
    assert list(slots.failed) == [bad["key"]]
    assert slots.failed[bad["key"]].startswith("ValueError: the loss is a kangaroo")
    assert os.path.exists(tiny.store.cell(good["key"]))


# ------------------------------------------------------------------------------------ all of the contract, in process


MARKET = """
title = "Market"
dataset = "market"
metric = "pairwise-accuracy"
[[column]]
label = "Busy"
where = { attribute = "busy" }
test = "near"
[[row]]
label = "Votes"
ranker = "votes"
[[row]]
label = "Pair gap"
ranker = "pair-gap"
[[row]]
label = "Workbench"
ranker = "workbench"
[[row]]
label = "Palette"
[row.ranker]
name = "ranksvm"
features = [{ name = "palette", fit_on = { name = "market-categories" } }]
"""


@pytest.fixture
def market(tiny, monkeypatch):
    """The plugins of tests/thirdparty without installing them, and their data."""
    monkeypatch.syspath_prepend(str(TESTS / "thirdparty"))
    write_market(tiny.data / "market")
    (tiny.root / "market.toml").write_text(MARKET)

    def run(**options):
        plugins = ["rankbench_thirdparty"]
        result = rankbench.run(tiny.root / "market.toml", **tiny.options(in_process=True, plugins=plugins, **options))
        return {cell.row: cell for cell in result.cells}

    return run


def test_margins_are_stored_in_the_orientation_of_the_test_set(tiny, market):
    cells = market()
    assert {cell.status for cell in cells.values()} == {"done"}, [cell.reason for cell in cells.values()]
    votes = cells["Votes"]
    test = tiny.store.test(votes.tests["near"])
    outcome = tiny.store.outcome(votes.key, "near")
    assert (outcome.scores, outcome.margins.dtype) == (None, np.float32)
    assert outcome.margins.tolist() == test.pairs.columns["lead"].tolist()
    assert 0 < (outcome.margins > 0).mean() < 1


def test_every_test_set_of_a_problem_is_judged(tiny, market):
    cells = market()
    for label, kind in (("Votes", "margins"), ("Workbench", "scores")):
        record = tiny.store.record(cells[label].key)
        assert {name: test["kind"] for name, test in record["tests"].items()} == {"near": kind, "far": kind}
    record = tiny.store.record(cells["Workbench"].key)
    assert record["holdouts"][0].keys() == {"by", "fitted", "held", "dropped"}
    assert tiny.store.state(cells["Workbench"].key)["seen"] == 28
    curves = tiny.store.curves(cells["Workbench"].key)
    assert [sorted(point)[0] for point in curves] == ["palette: categories", "held_out", "held_out"]


def test_an_unreadable_image_a_feature_is_fitted_on_is_no_image_of_the_problem(tiny, market, monkeypatch):
    def draw(row):
        if row == 5:
            raise OSError("cut short")
        return np.full((8, 8, 3), 20 * row, np.uint8)

    def problems(self, root):
        digests = [bytes([row]) * 32 for row in range(12)]
        columns = {"category": ["reds", "greens"] * 6}
        yield rankbench.Problem(rankbench.Images.from_decoder(digests, draw, columns=columns))

    monkeypatch.setattr("rankbench_thirdparty.datasets.Categories.problems", problems)
    cell = market()["Palette"]
    assert cell.status == "failed"
    assert cell.reason.startswith("an image cannot be read, and it is none of this problem's")
    assert "(fit_on) needs every training image of that one. image 5: cannot be decoded (cut short)" in cell.reason


def test_pairs_of_an_unreadable_image_get_no_margin(tiny, market):
    votes = market()["Votes"]
    test = tiny.store.test(votes.tests["near"])
    truncate(tiny.data / "market" / "images" / test.names[4])
    cells = market()
    assert tiny.store.record(cells["Votes"].key)["lost"] == []
    cell = cells["Pair gap"]
    outcome, test = tiny.store.outcome(cell.key, "near"), tiny.store.test(cell.tests["near"])
    (lost,) = [row for row, name in enumerate(test.names) if tiny.store.record(cell.key)["lost"][0].endswith(name)]
    touched = (test.pairs.left == lost) | (test.pairs.right == lost)
    assert (np.isnan(outcome.margins) == touched).all()
    assert touched.sum() == 9
    assert tiny.store.record(cells["Workbench"].key)["lost"] == tiny.store.record(cell.key)["lost"]


def test_no_training_pair_can_be_read(tiny):
    grey_files(tiny.data / "tiny-files", train=2, test=40)
    truncate(sorted((tiny.data / "tiny-files").glob("a*"))[0])
    cell = only(tiny.run(DECODER, dataset=FILES, in_process=True))
    assert (cell.status, cell.reason) == ("failed", "every training pair has an image that cannot be read.")


@pytest.mark.parametrize("bad", [1, 2])
def test_no_test_pair_can_be_read(tiny, bad):
    grey_files(tiny.data / "tiny-files", train=40, test=2)
    for path in sorted((tiny.data / "tiny-files").glob("t*"))[:bad]:
        truncate(path)
    cell = only(tiny.run(DECODER, dataset=FILES, in_process=True))
    assert cell.status == "failed"
    assert "every pair of test 'test' has an image that cannot be read" in cell.reason


def test_a_plugin_that_decodes_otherwise_each_time_fails(tiny, files, monkeypatch):
    """An image that cannot be read only now and then: dropped images are settled once a cell."""
    truncate(files[3])
    monkeypatch.setattr("rankbench.worker.readable", lambda images, row: images.describe(row) != str(files[4]))
    cell = only(tiny.run(DECODER, dataset=FILES, in_process=True))
    assert cell.status == "failed"
    assert f"{files[3]}: cannot be decoded" in cell.reason
