"""What is due, what is computed again, and what a run says of each cell; most of it in process, for speed."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from tiny_runs import TinyRuns, environment, only

from rankbench.errors import BenchmarkError
from rankbench.runner import Options, Runner

STEADY = {"good": {"name": "steady"}}
PLUGIN = '''
"""A plugin that tests edit."""

import numpy as np

import rankbench


class Edited(rankbench.Ranker):
    """Scores by brightness, times a number."""

    factor = 1.0  # which a test changes

    def fit(self, images, pairs, run):
        if self.factor < 0:
            raise ValueError("negative")
        return self

    def score(self, images, run):
        return self.factor * np.array([image.mean() for image in images])


@rankbench.hookimpl
def rankbench_rankers():
    return {"edited": Edited}
'''


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    return TinyRuns(tmp_path, monkeypatch)


@pytest.fixture
def here(tiny):
    """Run in this process."""
    return lambda rows, *args, **options: tiny.run(rows, *args, in_process=True, **options)


class Edited:
    """A plugin module in a folder of its own, and runs that see its present source, as a new process would."""

    def __init__(self, tiny, monkeypatch):
        self.tiny, self.path = tiny, tiny.root / "plugins" / "edited_plugin.py"
        self.path.parent.mkdir()
        self.path.write_text(PLUGIN)
        monkeypatch.syspath_prepend(str(self.path.parent))

    def replace(self, old, new):
        text = self.path.read_text()
        assert old in text
        self.path.write_text(text.replace(old, new))
        os.utime(self.path, ns=(time.time_ns(), time.time_ns() + 10**9))

    def run(self, **options):
        sys.modules.pop("edited_plugin", None)
        shutil.rmtree(self.path.parent / "__pycache__", ignore_errors=True)
        rows = {"edited": {"name": "edited"}}
        plugins = ["misbehaving", "edited_plugin"]
        return self.tiny.run(rows, seeds=(0, 1), **{"in_process": True, "plugins": plugins, **options})

    def scores(self):
        return sorted(float(self.tiny.store.outcome(key, "test").scores[0]) for key, _ in self.tiny.store.records())


@pytest.fixture
def edited(tiny, monkeypatch):
    yield Edited(tiny, monkeypatch)
    sys.modules.pop("edited_plugin", None)


# ------------------------------------------------------------------------------------------------------- what is due


def test_a_second_run_fits_nothing_and_changes_no_file(tiny, here):
    first = here(STEADY, seeds=(0, 1))
    before = tiny.stored()
    again = here(STEADY, seeds=(0, 1))
    assert (first.plan.fitted, again.plan.fitted) == (2, 0)
    assert [cell.status for cell in again.cells] == ["done", "done"]
    assert (first.exit_code, again.exit_code) == (0, 0)
    assert len(tiny.notes()) == 2
    assert tiny.stored() == before


def test_failed_cells_run_again_unless_told_not_to(tiny, here):
    rows = {"bad": {"name": "trouble"}}
    assert only(here(rows)).status == "failed"
    assert here(rows).exit_code == 1
    assert len(tiny.notes()) == 2
    kept = here(rows, retry=False)
    assert len(tiny.notes()) == 2
    assert kept.exit_code == 1
    assert re.fullmatch(r"ValueError: the loss is a kangaroo \(misbehaving\.py, line \d+\)", only(kept).reason)
    assert len(list((tiny.results / "failures" / only(kept).key).iterdir())) == 2


def test_only_runs_the_matching_rows_and_the_plan_stays_complete(tiny, here):
    rows = {"a good one": {"name": "steady"}, "a bad one": {"name": "trouble"}}
    result = here(rows, only="*good*")
    assert [cell.row for cell in result.cells] == ["a good one"]
    assert result.exit_code == 0
    assert {cell["row"] for cell in tiny.store.plan("tiny")["cells"]} == set(rows)
    with pytest.raises(BenchmarkError, match=r"--only 'x\*' matches no row\. The rows are:\n  a good one\n  a bad one"):
        here(rows, only="x*")


def test_rows_with_equal_cells_are_fitted_once(tiny, here):
    result = here({"one": {"name": "steady"}, "same": {"name": "steady", "noise": 0.01}})
    assert [cell.status for cell in result.cells] == ["done", "done"]
    assert len(tiny.notes()) == 1


def test_an_unseeded_ranker_is_fitted_once_for_all_seeds(tiny, here):
    result = here({"decoder": {"name": "decoder"}}, seeds=(0, 1, 2))
    assert only(result).seed is None
    assert tiny.store.record(only(result).key)["seed"] is None


def test_rerun_all_computes_stored_cells_again_and_gets_the_same(tiny, here):
    here(STEADY)
    before = tiny.scores()
    started = [record["began"] for _, record in tiny.store.records()]
    again = here(STEADY, rerun="all")
    assert again.plan.fitted == 1
    assert len(tiny.notes()) == 2
    assert tiny.scores() == before
    assert [record["began"] for _, record in tiny.store.records()] > started


def test_missing_data_is_said_and_the_others_run(tiny, tmp_path):
    path = tiny.write(STEADY)
    text = path.read_text() + '[[column]]\nlabel = "Files"\ndataset = "tiny-files"\n'
    path.write_text(text)
    runner = Runner(Options(**tiny.options(in_process=True)))
    from rankbench.api import Result
    from rankbench.benchmark import Benchmark

    result = Result(runner, runner.run(Benchmark.read(path)))
    assert {cell.dataset.name: cell.status for cell in result.cells} == {"tiny": "done", "tiny-files": "missing data"}
    assert result.exit_code == 3
    missing = next(cell for cell in result.cells if cell.status == "missing data")
    assert str(tiny.data / "tiny-files") in missing.reason
    assert "Draw them." in missing.reason


def test_a_failure_outweighs_missing_data_in_the_exit_code(tiny):
    from rankbench.plan import PlannedCell
    from rankbench.runner import exit_code

    def cells(*statuses):
        made = [PlannedCell("row", None, {}, {}, 0, None) for _ in statuses]
        for cell, status in zip(made, statuses, strict=True):
            cell.status = status
        return made

    assert exit_code(cells("done", "not applicable", "stale")) == 0
    assert exit_code(cells("done", "missing data")) == 3
    assert exit_code(cells("failed", "missing data")) == 1
    assert exit_code(cells("to do", "done")) == 1


def test_the_device_asked_for_must_be_there(tiny, here):
    with pytest.raises(BenchmarkError, match="--device cuda: no GPU was found"):
        here(STEADY, device="cuda", gpus=[])
    assert not tiny.results.exists()


def test_places_come_from_options_environment_or_defaults(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANKBENCH_DATA", raising=False)
    monkeypatch.delenv("RANKBENCH_CACHE", raising=False)
    assert (Options().data_root, Options().cache_root) == (tmp_path / "data", tmp_path / "cache")
    monkeypatch.setenv("RANKBENCH_DATA", "there")
    monkeypatch.setenv("RANKBENCH_CACHE", "/elsewhere")
    assert Options().data_root == tmp_path / "there"
    assert str(Options().cache_root) == "/elsewhere"
    assert Options(data="/given").data_root.as_posix() == "/given"


# ------------------------------------------------------------------------------------------------------- stale cells


def test_an_edit_makes_stored_cells_stale_and_a_comment_does_not(edited):
    assert edited.run().exit_code == 0
    edited.replace("# which a test changes", "# a comment, which changes nothing")
    edited.replace('"""Scores by brightness, times a number."""', '"""Another docstring."""')
    assert {cell.status for cell in edited.run().cells} == {"done"}
    edited.replace("factor = 1.0", "factor = 2.0")
    result = edited.run()
    assert {cell.status for cell in result.cells} == {"stale"}
    assert (result.exit_code, result.plan.fitted) == (0, 0)


def test_rerun_stale_computes_stale_cells_again(edited):
    edited.run()
    before = edited.scores()
    edited.replace("factor = 1.0", "factor = 2.0")
    result = edited.run(rerun="stale")
    assert {cell.status for cell in result.cells} == {"done"}
    assert edited.scores() == [2 * score for score in before]
    assert edited.run(rerun="stale").plan.fitted == 0


def test_an_accepted_edit_leaves_cells_good_and_the_next_edit_does_not(edited):
    edited.run()
    before = edited.scores()
    edited.replace("factor = 1.0", "factor = float('1')")
    result = edited.run(accept_stale=True)
    assert {cell.status for cell in result.cells} == {"done"}
    assert edited.scores() == before
    assert {cell.status for cell in edited.run().cells} == {"done"}
    edited.replace("float('1')", "float('3')")
    assert {cell.status for cell in edited.run().cells} == {"stale"}


def test_a_stale_cell_that_fails_when_run_again_has_failed_and_keeps_what_was_stored(edited):
    edited.run()
    before = edited.scores()
    edited.replace("factor = 1.0", "factor = -1.0")
    result = edited.run(rerun="stale")
    assert {(cell.status, cell.reason) for cell in result.cells} == {
        ("failed", "ValueError: negative (edited_plugin.py, line 16)")
    }
    assert result.exit_code == 1
    assert edited.scores() == before
    assert {cell.status for cell in edited.run().cells} == {"stale"}


def test_workers_import_the_edited_source(edited):
    edited.run(in_process=False, jobs=1)
    before = edited.scores()
    edited.replace("factor = 1.0", "factor = 3.0")
    edited.run(in_process=False, jobs=1, rerun="stale")
    assert edited.scores() == [3 * score for score in before]


# ---------------------------------------------------------------------------------- what must not make a difference


def test_the_number_of_jobs_changes_no_bit_of_a_result(tmp_path):
    found = []
    for name, options in (("one", {"jobs": 1}), ("two", {"jobs": 2}), ("here", {"in_process": True})):
        (tmp_path / name).mkdir()
        tiny = TinyRuns(tmp_path / name)
        result = tiny.run(
            {"good": {"name": "steady"}, "decoder": {"name": "decoder"}}, seeds=(0, 1), count=2, **options
        )
        assert result.exit_code == 0
        found.append((tiny.scores(), result.drawn()))
    assert found[0] == found[1] == found[2]
    assert len(found[0][0]) == 6


def test_a_cell_gives_the_same_alone_or_after_others(tmp_path):
    (tmp_path / "alone").mkdir()
    (tmp_path / "after").mkdir()
    alone, after = TinyRuns(tmp_path / "alone"), TinyRuns(tmp_path / "after")
    alone.run(STEADY, seeds=(3,), in_process=True)
    after.run({"first": {"name": "decoder"}, "bad": {"name": "trouble"}, **STEADY}, seeds=(5, 3), in_process=True)
    (name,) = alone.scores()
    assert after.scores()[name] == alone.scores()[name]


def test_two_runs_from_threads_of_one_process(tiny):
    results = []
    path = tiny.write({"good": {"name": "steady", "seconds": 0.05}}, seeds=range(4))

    def work():
        import rankbench

        results.append(rankbench.run(path, **tiny.options(in_process=True)))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.exit_code for result in results] == [0, 0]
    assert len(tiny.notes("fitted")) == 4


# ---------------------------------------------------------------------------------------------------------- full disk


def test_a_full_disk_fails_the_cell_harms_nothing_and_the_next_run_goes_on(tiny):
    rows = {"small": {"name": "steady"}, "large": {"name": "steady", "bytes": 3_000_000}}
    path = tiny.write(rows)
    tiny.run({"small": {"name": "steady"}}, in_process=True)
    before = tiny.stored()
    tiny.write(rows)
    script = (
        "import json, resource, signal, sys, rankbench\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))\n"
        "result = rankbench.run(sys.argv[1], **json.loads(sys.argv[2]))\n"
        "print(json.dumps([[cell.row, cell.status, cell.reason] for cell in result.cells]))\n"
    )
    options = {k: str(v) if k in ("data", "results", "cache") else v for k, v in tiny.options(in_process=True).items()}
    command = [sys.executable, "-c", script, str(path), json.dumps(options)]
    answer = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    cells = {row: (status, reason) for row, status, reason in json.loads(answer.stdout)}
    assert cells["small"][0] == "done"
    status, reason = cells["large"]
    assert status == "failed"
    assert "cannot be stored (File too large). Nothing stored was harmed; free some space and run again." in reason
    assert str(tiny.results / "cells") in reason
    assert tiny.stored() == before
    assert not [path for path in (tiny.results / "cells").iterdir() if path.name.startswith(".")]
    assert {cell.status for cell in tiny.run(rows, in_process=True).cells} == {"done"}


def test_a_full_disk_while_a_stale_cell_is_replaced_keeps_the_old_one_and_fails(edited, monkeypatch):
    edited.run()
    before = edited.tiny.stored()
    edited.replace("factor = 1.0", "factor = 2.0")
    monkeypatch.setattr("numpy.savez", full_disk)
    result = edited.run(rerun="stale")
    assert {cell.status for cell in result.cells} == {"failed"}
    assert "No space left on device" in result.cells[0].reason
    assert edited.tiny.stored() == before
    assert result.exit_code == 1


def full_disk(*args, **kwargs):
    raise OSError(28, "No space left on device")


# ----------------------------------------------------------------------------------------------------- what is kept


@pytest.mark.parametrize(("keep", "kept"), [("models", [True, True]), ("scores", [False, False]), (None, [True, True])])
def test_models_are_kept_as_the_benchmark_says(tiny, here, keep, kept):
    here(STEADY, seeds=(0, 1), top={"keep": keep}.items() if keep else ())
    records = sorted((record for _, record in tiny.store.records()), key=lambda record: record["seed"])
    assert [record["model"]["kept"] for record in records] == kept
    for key, record in tiny.store.records():
        state = tiny.store.state(key)
        assert (state is not None) == record["model"]["kept"]
        assert record["model"]["bytes"] > 0
        if state is not None:
            assert 0 <= state["noise_"] < 0.01


def test_large_models_are_kept_of_the_first_seed(tiny, here, monkeypatch):
    monkeypatch.setattr("rankbench.worker.SMALL_MODEL", 10_000)
    here({"large": {"name": "steady", "bytes": 20_000}}, seeds=(7, 1))
    assert {record["seed"]: record["model"]["kept"] for _, record in tiny.store.records()} == {7: True, 1: False}


def test_curves_are_stored(tiny, here):
    cell = only(here(STEADY))
    assert tiny.store.curves(cell.key) == [{"step": 0.0, "loss": 1.0}, {"step": 1.0, "loss": 0.5}]


def test_api_gives_table_cells_and_exit_code(here):
    result = here({**STEADY, "bad": {"name": "trouble"}})
    frame = result.table()
    assert list(frame.index) == ["good", "bad"]
    assert list(frame.columns) == ["Light"]
    assert 0 <= frame.loc["good", "Light"] <= 100
    assert np.isnan(frame.loc["bad", "Light"])
    assert [cell.status for cell in result.cells] == ["done", "failed"]
    assert result.exit_code == 1
    assert result.drawn().title == "Tiny"


def test_a_test_set_that_is_gone_is_stored_again_without_a_fit(tiny, here):
    rows = {"good": {"name": "steady"}}
    whole = here(rows).table()
    for path in (tiny.results / "tests").glob("*/test.npz"):
        path.write_bytes(path.read_bytes()[:50])
    again = here(rows)
    assert again.plan.fitted == 0
    assert again.exit_code == 0
    assert again.table().equals(whole)


def test_a_damaged_record_is_computed_again(tiny, here):
    rows = {"good": {"name": "steady"}}
    whole = here(rows).table()
    for path in (tiny.results / "cells").glob("*/record.json"):
        path.write_text("{")
    again = here(rows)
    assert again.plan.fitted == len(again.cells)
    assert again.exit_code == 0
    assert again.table().equals(whole)
    assert here(rows).plan.fitted == 0


def test_a_cell_whose_scores_are_damaged_or_whose_folder_is_deleted_is_computed_again(tiny, here):
    rows = {"good": {"name": "steady"}}
    here(rows)
    path = next((tiny.results / "cells").glob("*/scores.npz"))
    path.write_bytes(path.read_bytes()[:30])
    again = here(rows)
    assert (again.plan.fitted, again.exit_code) == (1, 0)
    shutil.rmtree(path.parent)
    again = here(rows)
    assert again.plan.fitted == 1
    assert again.exit_code == 0
