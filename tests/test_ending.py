"""A run ends when it is told to and never hangs, whatever plugins do with processes, children and signals."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from dots import install
from tiny_runs import TESTS, TinyRuns, environment

from rankbench import claims
from rankbench.answers import understood
from rankbench.benchmark import Benchmark
from rankbench.limit import Limit
from rankbench.progress import Progress
from rankbench.runner import Options, Runner
from rankbench.runner_folder import runner_folder
from rankbench.supervisor import Slots

PLUGINS = {"plugins": ["misbehaving", "stubborn"]}
BOUND = 2.0  # seconds in which SIGTERM has to end a run
SILENCE = 0.4  # seconds after which the tests' runners take a claim over


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    return TinyRuns(tmp_path, monkeypatch)


def stubborn(how, **more):
    return {"name": "stubborn", "how": how, **more}


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def gone(pid, seconds=2.0):
    """Whether a process ends within a moment."""
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not alive(pid)


# ------------------------------------------------------------------------------------------------- without time limits


ENDS = {  # status and what the user reads
    "interrupts-and-stays": ("failed", r"ended with exit code 1 in phase 'fit', .* KeyboardInterrupt$"),
    "whim-in-score": ("failed", r"^Whim: not now \(stubborn\.py, line \d+\)$"),
    "whim-in-state": ("failed", r"^GeneratorExit: not now \(stubborn\.py, line \d+\)$"),
    "stays": ("done", "^$"),
    "clings": ("done", "^$"),
    "writes-a-line": ("failed", r"something in its process wrote to a descriptor that .* 'fit': b'Intel MKL WARNING"),
    "writes-half-a-line": ("failed", r"something in its process wrote to a descriptor that .*: b'half a line\{"),
    "writes-without-end": ("failed", r"something in its process wrote to a descriptor that .*: b'\\x00\\xff"),
    "writes-another-end": ("done", "^$"),
    "closes-all": ("failed", r"ended with exit code 0 .* The worker's answers go nowhere \(Bad file descriptor\)\.$"),
    "mutes": ("failed", r"a plugin closed the descriptor through which its process answers, in phase 'fit'\.$"),
    "leaves-a-daemon": ("failed", r"killed by signal 9 \(SIGKILL\) in phase 'fit'\."),
    "starts-a-daemon": ("done", "^$"),
}


@pytest.fixture(scope="module")
def troubled(tmp_path_factory):
    """One run of all of them, without a time limit: rows as status and reason."""
    tiny = TinyRuns(tmp_path_factory.mktemp("stubborn"))
    path = tiny.write({how: stubborn(how, file=str(tiny.data)) for how in ENDS} | {"good": {"name": "steady"}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUBBORN_GRACE", "0.5")
        runner = tiny.start(path, jobs=2, **PLUGINS)
    try:
        out, error = runner.communicate(timeout=60)
    finally:
        runner.kill()
    assert runner.returncode == 1, error
    records = {record["row"]: record for _, record in tiny.store.records()}
    records |= {
        r["row"]: r for r in map(json.loads, map(Path.read_text, tiny.results.glob("failures/*/*/record.json")))
    }
    return tiny, records, dict(json.loads(out))


@pytest.mark.parametrize("how", [*ENDS, "good"])
def test_a_run_without_time_limits_ends_whatever_a_plugin_does_with_its_process(troubled, how):
    _, records, statuses = troubled
    status, message = ENDS.get(how, ("done", "^$"))
    assert records[how]["status"] == status
    assert re.search(message, records[how].get("error", {}).get("message", "")), records[how]["error"]
    assert statuses[next(title for title in statuses if title.startswith(how + " "))] == status


def test_a_plugins_daemons_end_with_their_worker_though_they_hold_its_pipes(troubled):
    tiny, _, _ = troubled
    assert len(tiny.notes("daemon")) == 2
    assert all(gone(daemon["pid"]) for daemon in tiny.notes("daemon"))


def test_a_cell_does_not_fail_for_a_process_that_an_earlier_one_left_dying(tiny):
    progress = Progress(["dies", "good"], quiet=True)
    slots = Slots(tasks(tiny, {"dies": stubborn("dies-later"), "good": stubborn("")}), 1, [], progress, tiny.store)
    hand_over, worker = slots._worker, []

    def late(task):  # the next cell is handed over at the moment the process dies
        worker.append(hand_over(task))
        if len(worker) == 2 and worker[0] is worker[1]:
            worker[0].process.wait()
        return worker[-1]

    slots._worker = late
    slots.run()
    assert not slots.failed
    assert worker[0] is not worker[-1]
    assert sorted(record["row"] for _, record in tiny.store.records()) == ["dies", "good"]


def tasks(tiny, rows):
    runner = Runner(Options(**tiny.options(**PLUGINS)))
    plan = runner.plan(Benchmark.read(tiny.write(rows)))
    return [runner._task(plan, cell, False) for cell in runner.due(plan)]


def test_only_messages_are_understood():
    log = {"key": "k", "event": "log", "step": 1, "numbers": {"loss": float("nan")}}
    assert understood(json.dumps(log).encode())["step"] == 1
    assert understood(b'{"key": "k", "event": "begin"}')
    for line in (
        *(b"", b"\n", b"[1]\n", b"null", b"\0\xff", b'"end"', b"[" * 10**6, b"1" * 5000, b'{"key": 1, "event": "end"}'),
        *(b'{"key": "k"}', b'{"key": "k", "event": "end"}', b'{"key": "k", "event": "phase", "phase": 3}'),
        b'{"key": "k", "event": "end", "status": 5, "message": []}',
        json.dumps({**log, "numbers": [1]}).encode(),
        json.dumps({**log, "numbers": {"loss": "low"}}).encode(),
        json.dumps({**log, "step": 10**400}).encode(),
    ):
        assert understood(line) is None, line[:60]


# ------------------------------------------------------------------------------------------------------- time limits


def test_a_time_limit_holds_while_plugins_are_loaded(tiny, monkeypatch):
    (tiny.root / "slow_to_import.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.syspath_prepend(str(tiny.root))
    (task,) = tasks(tiny, {"row": {"name": "steady", "timeout": 0.5}})
    task["place"]["plugins"] = ["slow_to_import"]
    slots = Slots([task], 1, [], Progress(["row"], quiet=True), tiny.store)
    running = threading.Thread(target=slots.run, daemon=True)
    running.start()
    running.join(timeout=10)
    assert slots.failed[task["key"]].startswith("stopped after its time limit of 0.5 s, in phase 'start'.")


def test_time_spent_waiting_for_another_process_does_not_count():
    limit = Limit(50.0)
    assert 50 < limit.left() <= 60, "a process has a while to start"
    limit.heard("taken")
    limit.heard("wait")
    assert limit.left() == float("inf")
    time.sleep(0.05)
    limit.heard("go")
    assert 49.9 < limit.left() <= 50.05
    assert Limit(None).left() == float("inf")


def test_whoever_waits_for_another_process_says_so(tmp_path, monkeypatch):
    said, there = [], []
    monkeypatch.setattr(claims.WAITS, "tell", said.append)
    claim = claims.Claim(tmp_path / "claim")
    assert claim.take()
    threading.Timer(0.12, claim.release).start()
    claims.once(tmp_path / "claim", lambda: bool(there), lambda: there.append(1))
    assert said[:2] == [True, False]
    assert said == [True, False] * (len(said) // 2)


def test_nobody_waits_for_one_that_stands_still_amid_taking_a_claim(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "SILENCE", 0.2)
    with claims.alone(tmp_path):
        taken = []
        taking = threading.Thread(target=lambda: taken.append(claims.Claim(tmp_path / "claim").take()), daemon=True)
        taking.start()
        taking.join(timeout=5)
        assert taken == [True]


@pytest.mark.slow
def test_time_that_the_runner_itself_stood_still_does_not_count(tiny):
    path = tiny.write({"slow": stubborn("waits", file=str(tiny.root / "go"), timeout=4.0)})
    runner = tiny.start(path, **PLUGINS)
    (note,) = tiny.wait_for("fit")
    for pid in (runner.pid, note["pid"]):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(5)
    for pid in (note["pid"], runner.pid):
        os.kill(pid, signal.SIGCONT)
    time.sleep(0.2)
    (tiny.root / "go").touch()
    _, error = runner.communicate(timeout=20)
    assert runner.returncode == 0, error


def test_a_runner_that_stood_still_while_another_took_over_sees_what_that_one_stored(tiny, monkeypatch):
    monkeypatch.setenv("STUBBORN_SILENCE", str(SILENCE))
    path = tiny.write({"slow": stubborn("waits", file=str(tiny.root / "go"))})
    first = tiny.start(path, **PLUGINS)
    (note,) = tiny.wait_for("fit")
    stopped = (first.pid, note["pid"])
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(1.5 * SILENCE)
    second = tiny.start(path, **PLUGINS)
    tiny.wait_for("fit", 2)
    (tiny.root / "go").touch()
    _, error = second.communicate(timeout=20)
    assert second.returncode == 0, error
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    out, error = first.communicate(timeout=20)
    assert first.returncode == 0, error
    assert [status for _, status in json.loads(out)] == ["done"]
    assert len(tiny.notes("goes-on")) == 2, "the first did not find its folder swept away"


# ----------------------------------------------------------------------------------------------------------- SIGTERM


def told_to_end(tiny, words, event, count=1, in_process=False, workers_first=False):
    """The command is run until that event, told to end, and has to within the bound."""
    site, place = tiny.root / "site", tiny.root / "temporary"
    place.mkdir()
    install(site, "stubborn", "1", {"one": "misbehaving", "two": "stubborn"}, {})
    paths = os.pathsep.join([str(site), str(TESTS), os.environ.get("PYTHONPATH", "")])
    places = [f"--{name}={getattr(tiny, name)}" for name in ("data", "results", "cache")]
    script = f"{HERE if in_process else ''}\nfrom rankbench.cli import main\nmain()"
    runner = subprocess.Popen(
        [sys.executable, "-c", script, *words, *places],
        env=environment(FITS_LOG=str(tiny.log), TMPDIR=str(place), PYTHONPATH=paths),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tiny.root,
    )
    try:
        tiny.wait_for(event, count)
        for fit in tiny.notes("fit") if workers_first else ():  # as where a cluster ends a job
            os.kill(fit["pid"], signal.SIGTERM)
        time.sleep(0.1 * workers_first)
        runner.terminate()
        began = time.monotonic()
        out, error = runner.communicate(timeout=10)
        assert time.monotonic() - began < BOUND
    finally:
        runner.kill()
    assert runner.returncode == 143, error
    assert out == ""
    assert "Traceback" not in error
    assert "failed" not in error
    assert list(place.iterdir()) == []
    assert not (tiny.results / "failures").exists()


def test_a_runner_told_to_end_leaves_no_folder_though_its_workers_had_theirs(tmp_path):
    slots = Slots([], 1, [], Progress([], quiet=True), None)
    slots.logs = tmp_path / "rankbench-run-1"
    (slots.logs / "worker" / "of a plugin").mkdir(parents=True)
    (slots.logs / "runner.lock").touch()
    slots._abandon()
    assert list(tmp_path.iterdir()) == []


HERE = """
from rankbench import runner
made = runner.Options.__init__
runner.Options.__init__ = lambda self, **given: made(self, **given, in_process=True)
"""


@pytest.mark.parametrize("how", ["swallows", "computes"])
def test_sigterm_ends_a_command_that_reads_data(tiny, how):
    path = tiny.write({"row": {"name": "steady"}}, dataset={"name": "slow-to-read", "how": how})
    told_to_end(tiny, ["run" if how == "swallows" else "why", str(path)], "reading")


def test_sigterm_ends_a_command_that_draws(tiny):
    path = tiny.write({"row": {"name": "steady"}})
    path.write_text(path.read_text().replace("pairwise-accuracy", "slow-to-judge"))
    import rankbench

    rankbench.run(path, **tiny.options(in_process=True, **PLUGINS))
    stored = tiny.stored()
    told_to_end(tiny, ["table", str(path)], "judging")
    assert tiny.stored() == stored


def test_sigterm_ends_a_fit_in_the_same_process(tiny):
    told_to_end(tiny, ["run", str(tiny.write({"row": stubborn("swallows")}))], "swallows", in_process=True)


def test_sigterm_ends_a_plugins_daemons_too(tiny):
    rows = {how: stubborn(how, file="never") for how in ("starts-a-daemon", "starts-a-clean-daemon")}
    told_to_end(tiny, ["run", str(tiny.write(rows)), "--jobs=2"], "daemon", count=2, workers_first=True)
    assert all(gone(one["pid"]) for one in tiny.notes("daemon") + tiny.notes("fit"))


# ------------------------------------------------------------------------------------------------- other ways to end


@pytest.mark.parametrize("end", ["killed", pytest.param("interrupted", marks=pytest.mark.slow)])
def test_a_plugins_daemon_and_the_runners_folder_do_not_outlive_the_run(tiny, monkeypatch, end):
    place = tiny.root / "temporary"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr("tempfile.tempdir", str(place))
    with runner_folder("a") as living:
        runner = tiny.start(tiny.write({"row": stubborn("starts-a-daemon", file="never")}), **PLUGINS)
        (daemon,) = tiny.wait_for("daemon")
        assert len(list(place.iterdir())) == 2
        if end == "killed":
            runner.kill()
        else:
            runner.send_signal(signal.SIGINT)
            time.sleep(0.3)
            runner.send_signal(signal.SIGINT)
        runner.communicate(timeout=20)
        assert gone(daemon["pid"])
        (place / "rankbench-run-of-somebody").mkdir()
        with runner_folder("b") as ours:
            assert {*place.iterdir()} == {living, ours, place / "rankbench-run-of-somebody"}
    assert [path.name for path in place.iterdir()] == ["rankbench-run-of-somebody"]


def test_a_worker_that_could_not_notice_its_runners_death_ends_with_the_next_run(tiny, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tiny.data))
    monkeypatch.setattr("tempfile.tempdir", str(tiny.data))
    runner = tiny.start(tiny.write({"row": stubborn("stands-in-c")}), **PLUGINS)
    (fit,) = tiny.wait_for("stands")
    runner.kill()
    runner.communicate()
    assert alive(fit["pid"])
    with runner_folder("a" * 32):
        assert gone(fit["pid"])


def test_a_plugins_thread_does_not_hold_the_command_up(tiny, monkeypatch):
    script = (
        "import atexit, threading, time, sys\nfrom rankbench import ending\nending.LINGERING = 0.3\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\natexit.register(time.sleep, 600)\n"
        "from rankbench.cli import main\nmain()"
    )
    ran = subprocess.run([sys.executable, "-c", script, "--version"], capture_output=True, text=True, timeout=20)
    assert ran.returncode == 0
    assert "version" in ran.stdout
