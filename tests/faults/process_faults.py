"""Signals to runner and workers at random moments, half of them in the middle of a fit."""

import os
import random
import signal
import time

from scene import Scene

FAULTS = (
    ("worker", ("SIGKILL",)),
    ("worker", ("SIGTERM",)),
    ("worker", ("SIGSEGV",)),
    ("worker", ("SIGINT",)),
    ("worker", ("SIGSTOP", "SIGCONT")),
    ("runner", ("SIGKILL",)),
    ("runner", ("SIGKILL",)),
    ("runner", ("SIGTERM",)),
    ("runner", ("SIGINT",)),
    ("runner", ("SIGINT", "SIGINT")),
    ("runner", ("SIGSTOP", "SIGCONT")),
    ("runner", ("SIGHUP",)),
)
ENDS = {  # exit codes of the disturbed run, as a shell gives them; 0 where all was done by then
    ("runner", "SIGKILL"): {137},
    ("runner", "SIGTERM"): {143},
    ("runner", "SIGINT"): {130},
    ("runner", "SIGSTOP"): {0},
    ("runner", "SIGHUP"): {129},
}
EACH = 4  # faults of one experiment, one after another, before the run that ends it


def experiment(number, root, undisturbed):
    """Four runs that are disturbed, and one that is not and ends with the undisturbed table. Gives what was hit."""
    rng = random.Random(number)
    scene = Scene(root)
    hits = [disturbed(scene, rng, middle=(number + turn) % 2 == 0) for turn in range(EACH)]
    before, count = scene.stored(), len(scene.notes())
    code, table, error = scene.run()
    assert code == 0, f"{hits}: exit code {code}\n{error}"
    assert table == undisturbed["table"], f"{hits}: another table\n{table}"
    assert scene.scores() == undisturbed["scores"], f"{hits}: other scores"
    unchanged(before, scene.stored(), hits)
    done = {key.split("/")[0] for key in before}
    fitted = len(scene.notes()) - count
    assert fitted <= len(undisturbed["scores"]) - len(done), f"{hits}: {fitted} fitted though {len(done)} were stored"
    scene.left_alone()
    return hits


def disturbed(scene, rng, middle):
    """One run that gets a signal at some moment; which one, and whether it hit."""
    victim, signals = rng.choice(FAULTS)
    before, count = scene.stored(), len(scene.notes("middle"))
    runner = scene.start("run", scene.file, "--jobs", "2", "--format", "csv")
    if middle:
        wanted = count + rng.randint(1, 3)
        while len(scene.notes("middle")) < wanted and runner.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.05))
    else:
        time.sleep(rng.uniform(0, 1.5))
    pid = target(scene, runner, victim, before_count=count)
    hit = pid is not None
    for name in signals if hit else ():
        try:
            os.kill(pid, getattr(signal, name))
        except ProcessLookupError:
            break
        time.sleep(rng.uniform(0.05, 0.4))
    code, _, error = scene.wait(runner)
    code = 128 - code if code < 0 else code  # by the signal itself: before Python has its handlers, or after
    what = (victim, signals, "in a fit" if middle else "any time", hit)
    allowed = ENDS.get((victim, signals[0]), {0, 1}) if hit else {0}
    assert code in allowed | {0}, f"{what}: exit code {code}, not one of {allowed}\n{error}"
    scene.left_alone()
    unchanged(before, scene.stored(), what)
    return what


def target(scene, runner, victim, before_count):
    """Process to hit; None where there is none."""
    if runner.poll() is not None:
        return None
    if victim == "runner":
        return runner.pid
    fits = [note["pid"] for note in scene.notes()]
    workers = [pid for pid, command in scene.alive() if b"rankbench.serving" in command]
    busy = [pid for pid in fits[-2:] if pid in workers]
    return (busy or workers or [None])[-1]


def unchanged(before, now, what):
    """AssertionError where a stored cell changed or has gone."""
    lost = [name for name, content in before.items() if now.get(name) != content]
    assert not lost, f"{what}: stored files changed or went: {lost}"
