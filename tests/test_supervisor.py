"""Workers that die, hang, wait or share GPUs; runners that are interrupted, or work side by side."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from itertools import pairwise
from pathlib import Path

import pytest
from tiny_runs import TinyRuns, environment, only

import rankbench
from rankbench import supervisor
from rankbench.errors import RankbenchError
from rankbench.supervisor import Worker

HANG = 1.5  # seconds a hanging ranker is given
KILLED = {
    "kills-itself": r"killed by signal 9 \(SIGKILL\) in phase 'fit'\. The system may have run out of memory\.",
    "crashes": r"killed by signal 11 \(SIGSEGV\) in phase 'fit'\.",
    "leaves": r"exit code 7 in phase 'fit', before it had finished\. goodbye from the plugin",
    "leaves-children": r"killed by signal 9",
    "hangs": rf"stopped after its time limit of {HANG} s, in phase 'fit'\. Raise `timeout` in the benchmark file",
}
RAISED = {
    "raises": r"^ValueError: the loss is a kangaroo \(misbehaving\.py, line \d+\)$",
    "exits": r"^SystemExit: enough( \(misbehaving\.py, line \d+\))?$",
    "keeps-objects": r"state 'extra_' is an array of Python objects",
    "gives-nan": r"ranker 'trouble' of package misbehaving: score gave nan for 1 of 4, first for .*diverged",
    "gives-words": r"score must give \(4,\) float64, not \(4,\) <U",
    "wrong-shape": r"score must give \(4,\) float64, not \(3,\) float64",
    "returns-nothing": r"fit must return self, not NoneType",
}
FINE = ("prints", "reads-input")


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    return TinyRuns(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def troubled(tmp_path_factory):
    """One run of every misbehaving ranker beside a good one, on two workers."""
    with pytest.MonkeyPatch.context() as patch:
        tiny = TinyRuns(tmp_path_factory.mktemp("troubled"), patch)
        rows = {how: {"name": "trouble", "how": how} for how in (*KILLED, *RAISED, *FINE, "suits-nothing")}
        rows["hangs"]["timeout"] = HANG
        result = tiny.run({**rows, "good": {"name": "steady"}}, jobs=2)
        return tiny, result, {cell.row: cell for cell in result.cells}


def test_others_go_on_whatever_becomes_of_a_cell(troubled):
    _, result, cells = troubled
    good = {row for row, cell in cells.items() if cell.status == "done"}
    assert good == {"good", *FINE}
    assert cells["suits-nothing"].status == "not applicable"
    assert {row for row, cell in cells.items() if cell.status == "failed"} == {*KILLED, *RAISED}
    assert result.exit_code == 1
    assert result.table().loc["good", "Light"] > 50


@pytest.mark.parametrize(("how", "message"), [*KILLED.items(), *RAISED.items()])
def test_each_failure_says_what_happened(troubled, how, message):
    _, _, cells = troubled
    assert re.search(message, cells[how].reason), cells[how].reason


@pytest.mark.parametrize("how", [*KILLED, *RAISED])
def test_each_failure_is_stored_with_what_is_known(troubled, how):
    tiny, _, cells = troubled
    record = tiny.store.failure(cells[how].key)
    assert record["status"] == "failed"
    assert record["error"]["type"] == {"hangs": "timeout"}.get(how, "killed") if how in KILLED else True
    assert record["error"]["message"] == cells[how].reason
    assert record["error"]["phase"] == {"keeps-objects": "store"}.get(how, record["error"]["phase"])
    assert record["began"] <= record["ended"]
    assert record["wall_seconds"] == pytest.approx(record["ended"] - record["began"], abs=0.01)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", record["started"])
    assert {"phases", "peak_memory_bytes", "device", "seed", "versions", "git_commit", "host"} <= record.keys()
    assert not tiny.store.has(cells[how].key)


def test_a_crash_leaves_its_traceback_in_the_record(troubled):
    tiny, _, cells = troubled
    assert "in crashes" in tiny.store.failure(cells["crashes"].key)["error"]["traceback"]
    assert "kangaroo" in tiny.store.failure(cells["raises"].key)["error"]["traceback"]


def test_a_timeout_records_peak_memory_and_stops_near_its_limit(troubled):
    tiny, _, cells = troubled
    record = tiny.store.failure(cells["hangs"].key)
    assert HANG <= record["wall_seconds"] < HANG + 1
    assert record["peak_memory_bytes"] > 10 * 2**20


def test_a_dead_worker_takes_its_children_along(troubled):
    tiny, _, _ = troubled
    (child,) = tiny.notes("child")
    assert not alive(child["pid"])


def test_a_plugin_that_prints_or_reads_cannot_disturb_the_runner(troubled):
    tiny, _, cells = troubled
    assert tiny.store.record(cells["prints"].key)["status"] == "done"
    assert tiny.notes("read")[0]["text"] == ""


def test_what_suits_nothing_is_stored_with_its_reason(troubled):
    tiny, _, cells = troubled
    assert tiny.store.record(cells["suits-nothing"].key)["error"]["message"] == "needs a kangaroo"


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_runs_into_other_results_do_not_share_a_private_folder(tiny, tmp_path):
    rows = {"one": {"name": "trouble", "how": "tells-its-folder"}}
    for results in (tiny.results, tmp_path / "other", tmp_path / "again"):
        assert only(tiny.run(rows, results=results)).status == "done"
    folders = [note["path"] for note in tiny.notes("folder")]
    assert len(set(folders)) == 3
    assert {os.path.dirname(path) for path in folders} == {os.environ["RANKBENCH_SCRATCH"]}
    assert not any(os.path.exists(path) for path in folders)


def test_nothing_is_left_in_the_temporary_folder(tiny, monkeypatch, tmp_path):
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    tiny.run({"good": {"name": "steady"}})
    tiny.run({"other": {"name": "steady", "noise": 0.5}}, in_process=True)
    assert list(place.iterdir()) == []


def test_a_loss_that_cannot_be_stored_is_told(tiny, capsys):
    tiny.results.mkdir()
    (tiny.results / "failures").write_text("in the way")
    result = tiny.run({"dies": {"name": "trouble", "how": "kills-itself"}, "good": {"name": "steady"}})
    assert {cell.row: cell.status for cell in result.cells} == {"dies": "failed", "good": "done"}
    assert "killed by signal 9" in result.cells[0].reason
    assert result.exit_code == 1
    assert "cannot be stored" in capsys.readouterr().err


def test_no_worker_can_be_started(tiny, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tiny.root / "no-python"))
    with pytest.raises(RankbenchError, match=r"no worker process could be started.*run again"):
        tiny.run({"good": {"name": "steady"}})


def test_a_worker_that_died_while_idle_is_a_lost_one(tmp_path):
    from rankbench.supervisor import WorkerLost

    worker = Worker((1, None), tmp_path)
    worker.kill()
    with pytest.raises(WorkerLost, match=r"signal 9 .* in phase 'start'"):
        worker.work({"timeout": None}, None)


def test_a_worker_that_says_no_more_gets_no_other_cell(tmp_path):
    worker = Worker((1, None, ()), tmp_path)
    worker.messages.put({"key": "key", "event": "end", "status": "done", "message": ""})
    worker.messages.put(None)  # what the last cell made has ended it, and the system is not yet done with it
    assert worker.work({"key": "key", "timeout": None}, None) == ("done", "")
    assert worker.spent
    worker.kill()


def test_a_worker_that_hangs_in_the_system_gets_no_other_cell(tmp_path, monkeypatch):
    from rankbench.progress import Progress
    from rankbench.store import ResultStore

    class Hanging:
        kind, used, spent = (1, None, ()), False, False

        def work(self, task, progress):
            raise supervisor.WorkerLost("timeout", "stopped after its time limit", "fit", "", time.time(), None)

        def alive(self):
            return True

        def dismiss(self):
            pass

        kill = dismiss

    monkeypatch.setattr(supervisor, "Worker", lambda *_: Hanging())
    task = {"key": "0" * 64, "title": "row", "about": {"row": "row"}, "replace": False, "device": "cpu", "gpu": None}
    task |= {"threads": 1, "distributions": [], "provenance": {}}
    slots = supervisor.Slots([], 1, [], Progress(["row"], quiet=True), ResultStore(tmp_path))
    slots.logs = tmp_path
    slots._one(task)
    assert slots.failed == {"0" * 64: "stopped after its time limit"}
    assert slots.idle == []


def test_torch_finds_set_what_some_of_its_versions_set_when_they_meet_a_gpu():
    assert supervisor.environment(1, "0")["CUDA_MODULE_LOADING"] == "LAZY"


def test_modules_of_the_folder_one_stands_in_do_not_get_in_the_way(tiny, monkeypatch):
    (tiny.root / "queue.py").write_text("raise ImportError('not this one')\n")
    monkeypatch.chdir(tiny.root)
    assert only(tiny.run({"good": {"name": "steady"}})).status == "done"


# ------------------------------------------------------------------------------------------------- threads and GPUs


def test_threads_are_set_before_a_worker_starts_and_do_not_depend_on_jobs(tiny):
    rows = {"one": {"name": "steady"}, "three": {"name": "steady", "cores": 3}, "two": {"name": "steady", "threads": 2}}
    result = tiny.run(rows, jobs=2)
    assert [cell.status for cell in result.cells] == ["done"] * 3
    assert sorted(note["threads"] for note in tiny.notes("fitted")) == ["1", "2", "3"]
    again = tiny.run(rows, jobs=1)
    assert [cell.key for cell in again.cells] == [cell.key for cell in result.cells]
    assert len(tiny.notes("fitted")) == 3


def test_a_worker_keeps_freed_memory_unless_the_user_says_otherwise(monkeypatch, tmp_path):
    for name in supervisor.PREFERRED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    worker = Worker((3, "1,2"), tmp_path)
    try:
        given = Path(f"/proc/{worker.process.pid}/environ").read_bytes().decode().split("\0")
    finally:
        worker.kill()
    assert {"OMP_NUM_THREADS=3", "CUDA_VISIBLE_DEVICES=1,2", "OMP_WAIT_POLICY=PASSIVE", "GOMP_SPINCOUNT=7"} <= {*given}
    assert {"MALLOC_MMAP_THRESHOLD_=33554432", "MALLOC_TRIM_THRESHOLD_=268435456"} <= {*given}


def test_never_more_gpu_cells_than_gpus(tiny):
    rows = {"gpu": {"name": "steady", "gpu": 1, "seconds": 0.15}, "cpu": {"name": "steady", "seconds": 0.05}}
    result = tiny.run(rows, seeds=range(6), jobs=4, device="auto", gpus=["0", "1"])
    assert {cell.status for cell in result.cells} == {"done"}
    fitted = [note for note in tiny.notes("fitted") if note["gpu"]]
    assert len(fitted) == 6
    assert {note["gpu"] for note in fitted} == {"0", "1"}
    assert most_at_once(fitted) == 2
    for gpu in ("0", "1"):
        assert most_at_once([note for note in fitted if note["gpu"] == gpu]) == 1
    records = [tiny.store.record(cell.key) for cell in result.cells]
    assert {(r["row"], r["device"]) for r in records} == {("gpu", "cuda"), ("cpu", "cpu")}
    assert {r["gpu"] for r in records if r["row"] == "gpu"} == {"0", "1"}
    assert {note["gpu"] for note in tiny.notes("fitted") if not note["gpu"]} == {""}


def test_a_cell_gets_as_many_gpus_as_it_wants_and_there_are(tiny):
    rows = {"two": {"name": "steady", "gpu": 2, "seconds": 0.1}, "nine": {"name": "steady", "gpu": 9}}
    result = tiny.run(rows, seeds=range(2), jobs=4, device="auto", gpus=["0", "1", "2"])
    assert {cell.status for cell in result.cells} == {"done"}
    fitted = tiny.notes("fitted")
    assert sorted(len(note["gpu"].split(",")) for note in fitted) == [2, 2, 3, 3]
    assert most_at_once(fitted) == 1, "two and two are more than three"
    assert {record["gpu"] for _, record in tiny.store.records() if record["row"] == "nine"} == {"0,1,2"}
    with pytest.raises(rankbench.DataError, match="gpu is not negative"):
        rankbench.Resources(gpu=-1)


def test_a_gpu_cell_runs_on_the_cpu_where_there_is_none_under_the_same_key(tiny):
    rows = {"gpu": {"name": "steady", "gpu": 1}}
    here = only(tiny.run(rows, device="auto", gpus=[]))
    assert tiny.store.record(here.key)["device"] == "cpu"
    with_gpu = tiny.run(rows, device="auto", gpus=["0"], in_process=True)
    assert only(with_gpu).key == here.key
    assert len(tiny.notes("fitted")) == 1


def most_at_once(notes):
    events = sorted([(note["began"], 1) for note in notes] + [(note["ended"], -1) for note in notes])
    running = most = 0
    for _, step in events:
        running += step
        most = max(most, running)
    return most


# --------------------------------------------------------------------------------------------------------- two runners


def test_two_runners_share_the_work_and_compute_each_cell_once(tiny):
    path = tiny.write({"good": {"name": "steady", "seconds": 0.15}}, seeds=range(12))
    runners = [tiny.start(path, quiet=False) for _ in range(2)]
    answers = [runner.communicate(timeout=60) for runner in runners]
    for runner, (out, error) in zip(runners, answers, strict=True):
        assert runner.returncode == 0, error
        assert [status for _, status in json.loads(out.splitlines()[-1])] == ["done"] * 12
    fitted = tiny.notes("fitted")
    assert sorted(note["seed"] for note in fitted) == list(range(12))
    assert len({note["pid"] for note in fitted}) == 2, "one of the runners only waited"
    assert len(dict(tiny.store.records())) == 12
    assert not list((tiny.results / "failures").glob("*"))


def test_waiting_for_another_runner_does_not_count_against_the_time_limit(tiny):
    slow = tiny.write({"slow": {"name": "steady", "seconds": 1.2, "timeout": 2.0}})
    first = tiny.start(slow)
    tiny.wait_for("fit")
    second = tiny.start(slow.rename(tiny.root / "other.toml"))
    limited = (tiny.root / "other.toml").read_text().replace("timeout = 2.0", "timeout = 0.5")
    (tiny.root / "other.toml").write_text(limited)
    for runner in (first, second):
        _, error = runner.communicate(timeout=60)
        assert runner.returncode == 0, error
    assert len(tiny.notes("fitted")) == 1


# ------------------------------------------------------------------------------------------------------------- Ctrl-C


def test_one_interrupt_finishes_what_is_running_and_a_rerun_does_the_rest(tiny):
    path = tiny.write({"good": {"name": "steady", "seconds": 0.8}}, seeds=range(4))
    runner = tiny.start(path)
    tiny.wait_for("fit")
    runner.send_signal(signal.SIGINT)
    _, error = runner.communicate(timeout=30)
    assert "Stopping once what runs is finished (1 now). Ctrl-C again stops that too." in error
    assert "KeyboardInterrupt" in error
    assert len(tiny.notes("fitted")) == 1
    assert len(dict(tiny.store.records())) == 1
    again = tiny.run({"good": {"name": "steady", "seconds": 0.8}}, seeds=range(4), jobs=3)
    assert [cell.status for cell in again.cells] == ["done"] * 4
    assert len(tiny.notes("fitted")) == 4


def test_two_interrupts_stop_at_once_and_record_no_failure(tiny):
    path = tiny.write({"slow": {"name": "trouble", "how": "hangs"}}, seeds=range(2))
    runner = tiny.start(path, jobs=2)
    workers = {note["pid"] for note in tiny.wait_for("fit", 2)}
    runner.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert runner.poll() is None
    runner.send_signal(signal.SIGINT)
    runner.communicate(timeout=10)
    assert not any(map(alive, workers))
    assert not (tiny.results / "failures").exists()
    assert not (tiny.results / "cells").exists()


@pytest.mark.parametrize(
    ("signals", "code"), [([signal.SIGINT], 130), ([signal.SIGINT] * 2, 130), ([signal.SIGTERM], 143)]
)
def test_the_command_ends_with_the_right_exit_code(tiny, signals, code, tmp_path):
    go = tmp_path / "go"
    path = tiny.write({"slow": {"name": "waiting", "file": str(go)}})
    words = ["run", str(path), *(f"--{name}={getattr(tiny, name)}" for name in ("data", "results", "cache"))]
    runner = subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words],
        env=environment(FITS_LOG=str(tiny.log)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    tiny.wait_for("fit")
    for number, one in enumerate(signals, 1):
        runner.send_signal(one)
        time.sleep(0.2 if number < len(signals) else 0)
    if signals == [signal.SIGINT]:
        time.sleep(0.2)
        go.touch()
    _, error = runner.communicate(timeout=30)
    assert runner.returncode == code, error
    assert "Traceback" not in error
    assert ("Interrupted. What was finished is stored" in error) == (code == 130)
    assert len(dict(tiny.store.records())) == (len(signals) == 1 and code == 130)


COMMAND = """
from rankbench import runner
options = runner.Options.__init__
runner.Options.__init__ = lambda self, **given: options(self, **given, plugins=["misbehaving"], gpus=[])
from rankbench.cli import main
main()
"""


def test_workers_end_with_a_killed_runner(tiny):
    path = tiny.write({"slow": {"name": "trouble", "how": "hangs"}})
    runner = tiny.start(path)
    (note,) = tiny.wait_for("fit")
    runner.kill()
    runner.communicate()
    deadline = time.time() + 5
    while alive(note["pid"]):
        assert time.time() < deadline, "the worker outlived its runner"
        time.sleep(0.02)
    assert only(tiny.run({"good": {"name": "steady"}})).status == "done"


# ----------------------------------------------------------------------------------------------------------- progress


def test_progress_is_plain_lines_where_there_is_no_terminal(tiny):
    runner = tiny.start(tiny.write({"good": {"name": "steady"}, "bad": {"name": "trouble"}}, seeds=(0, 1)), quiet=False)
    _, error = runner.communicate(timeout=60)
    lines = error.splitlines()
    assert lines[0] == "4 cells to fit"
    assert len(lines) == 5
    assert all(re.match(rf"\[{number}/4\] ", line) for number, line in enumerate(lines[1:], 1))
    assert re.fullmatch(
        r"\[1/4\] done  good · tiny problem=0 · seed 0( \(at least \d s left\))?", lines[1]
    )  # by "good"
    assert re.search(r"\(\d+ s left\)$", lines[3])
    assert "bad · tiny problem=0 · seed 1: ValueError: the loss is a kangaroo" in lines[4]
    assert re.search(r"\(\d+ s in all\)$", lines[4])
    assert "\r" not in error
    assert "\x1b" not in error


def test_progress_is_a_bar_with_an_estimate_on_a_terminal(tiny):
    path = tiny.write({"good": {"name": "steady", "seconds": 0.2}, "bad": {"name": "trouble"}}, seeds=(0, 1))
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    script = "import sys, json, rankbench; rankbench.run(sys.argv[1], **json.loads(sys.argv[2]))"
    options = {k: str(v) if k in ("data", "results", "cache") else v for k, v in tiny.options(quiet=False).items()}
    runner = subprocess.Popen(
        [sys.executable, "-c", script, str(path), json.dumps(options)],
        env=environment(TERM="xterm"),
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # Linux: the other side has closed
            break
        if not chunk:
            break
        shown += chunk
    os.close(ours)
    assert runner.wait(timeout=30) == 0
    text = shown.decode()
    assert "4/4" in text
    assert ", good" in text
    assert " s left" in text, "no estimate"
    assert "good (step 0 loss 1)" in text
    assert "bad · tiny problem=0 · seed 0: ValueError: the loss is a kangaroo" in text


def test_cells_of_one_problem_are_fitted_side_by_side(tiny):
    rows = {name: {"name": "steady", "noise": noise} for name, noise in (("a", 0.1), ("b", 0.2), ("c", 0.3))}
    tiny.run(rows, count=3, in_process=True)
    problems = [note["problem"] for note in tiny.notes("fit")]
    assert sum(a != b for a, b in pairwise(problems)) == 2


@pytest.mark.parametrize("how", ["closed", "nobody reads"])
def test_a_lost_progress_stream_stops_nothing(tiny, how):
    path = tiny.write({"good": {"name": "steady"}}, seeds=range(3))
    close = "sys.stderr.close(); sys.stderr = None;" if how == "closed" else ""
    script = f"import sys, json, rankbench; {close} rankbench.run(sys.argv[1], **json.loads(sys.argv[2]))"
    options = {k: str(v) if k in ("data", "results", "cache") else v for k, v in tiny.options(quiet=False).items()}
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-c", script, str(path), json.dumps(options)]
    subprocess.run(command, env=environment(), stderr=theirs, check=False, timeout=60)
    os.close(theirs)
    assert len(dict(tiny.store.records())) == 3
