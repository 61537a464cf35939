"""kill -9 of the runner or of a worker at random moments: nothing finished is lost or fitted again."""

import os
import random
import signal
import time

import pytest
from tiny_runs import TinyRuns

SEEDS = range(14)
ROWS = {"good": {"name": "steady", "seconds": 0.04}}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Scores and table of a run that nobody disturbs, on one worker."""
    tiny = TinyRuns(tmp_path_factory.mktemp("undisturbed"))
    result = tiny.run(ROWS, SEEDS, jobs=1)
    assert result.exit_code == 0
    return tiny.scores(), result.table()


@pytest.mark.parametrize("kills", [8, pytest.param(50, marks=pytest.mark.slow)])
def test_kills_lose_nothing_and_repeat_nothing(tmp_path, undisturbed, kills, monkeypatch):
    rng = random.Random(kills)
    done = {"runner": 0, "worker": 0}
    experiment = 0
    while sum(done.values()) < kills:
        experiment += 1
        folder = tmp_path / str(experiment)
        folder.mkdir()
        tiny = TinyRuns(folder, monkeypatch)
        path = tiny.write(ROWS, SEEDS)
        for _ in range(rng.randint(1, 4)):
            victim = disturbed(tiny, path, rng)
            if victim:
                done[victim] += 1
        finished(tiny, path, undisturbed)
    assert min(done.values()) >= kills // 8, done


def disturbed(tiny, path, rng):
    """One run that is killed at some moment; which process it hit, or None if it was over by then."""
    stored, seeds, before = tiny.stored(), stored_seeds(tiny), len(tiny.notes())
    runner = tiny.start(path, jobs=2)
    victim = rng.choice(["runner", "worker"])
    if victim == "worker" or rng.random() < 0.7:
        wait_for_a_fit(tiny, runner, before)
    time.sleep(rng.uniform(0, 0.3))
    pid = runner.pid if victim == "runner" else rng.choice([note["pid"] for note in tiny.notes()[before:]] or [None])
    hit = pid is not None and runner.poll() is None
    if hit:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            hit = False
    _, error = runner.communicate(timeout=30)
    assert runner.returncode in ((-9, 0) if victim == "runner" else (0, 1)), error
    wait_for_quiet(tiny)
    unchanged(tiny, stored)
    refitted = {note["seed"] for note in tiny.notes()[before:]} & seeds
    assert not refitted, f"stored cells were fitted again: {refitted}"
    return victim if hit else None


def finished(tiny, path, undisturbed):
    """The same command, left alone, does the rest; the result is that of an undisturbed run."""
    stored, seeds, before = tiny.stored(), stored_seeds(tiny), len(tiny.notes())
    result = tiny.run(ROWS, SEEDS, jobs=2)
    assert result.exit_code == 0, [(cell.status, cell.reason) for cell in result.cells]
    unchanged(tiny, stored)
    assert not {note["seed"] for note in tiny.notes()[before:]} & seeds
    scores, table = undisturbed
    assert tiny.scores() == scores
    assert result.table().equals(table)
    assert tiny.run(ROWS, SEEDS, jobs=2).plan.fitted == 0


def unchanged(tiny, stored):
    now = tiny.stored()
    lost = [name for name, content in stored.items() if now.get(name) != content]
    assert not lost, f"stored files changed: {lost}"
    for key, record in tiny.store.records():
        assert record["status"] == "done"
        assert len(tiny.store.outcome(key, "test").scores) == 4


def stored_seeds(tiny):
    return {record["seed"] for _, record in tiny.store.records()}


def wait_for_a_fit(tiny, runner, before):
    while len(tiny.notes()) == before and runner.poll() is None:
        time.sleep(0.01)


def wait_for_quiet(tiny):
    """Workers of a killed runner end when their input does; until then they may store what they have just finished."""
    pids = {note["pid"] for note in tiny.notes()}
    deadline = time.time() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in pids):
        assert time.time() < deadline, "a worker outlived its runner"
        time.sleep(0.01)
