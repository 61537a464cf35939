"""What a run shows: on a real terminal, where there is none, and while a cell takes long."""

import itertools
import os
import re
import sys
import threading
import time

import pytest
from terminals import shown_on_a_terminal

from rankbench.progress import Progress, Running, duration


class Clock:
    """Time as a test has it."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def seconds(outlook):
    """How many are left; None where that is not said."""
    found = re.search(r"(?:(\d+) h )?(?:(\d+) min ?)?(?:(\d+) s )?left", outlook)
    hours, minutes, rest = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    return 3600 * hours + 60 * minutes + rest if found else None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (42, "42 s"), (59.6, "1 min 0 s"), (185, "3 min 5 s"), (3600, "1 h 0 min"), (7810, "2 h 10 min")],
)
def test_durations_read_naturally(seconds, text):
    assert duration(seconds) == text


def test_lines_say_status_estimate_and_the_first_line_of_a_message(capsys):
    progress = Progress(["row", "row", "other"])
    progress.started("row · data", "row")
    progress.logged("row · data", 1, {"loss": 0.5})
    progress.started("other · data", "other")
    progress.logged("other · data", 7, {"loss": 0.25})
    progress.finished("row · data", "failed", "first\nsecond")
    progress.say("between")
    progress.finished("other · data", "done", "")
    progress.finished("row · more", "done", "")
    progress.close()
    out, error = capsys.readouterr()
    assert out == ""
    count, first, between, second, last = error.splitlines()
    assert count == "3 cells to fit"
    # nothing is known of the time that the row "other" takes
    assert first == "[1/3] failed row · data: first (running: other (step 7 loss 0.25))"
    assert between == "between"
    assert re.fullmatch(r"\[2/3\] done  other · data \(\d+ s left\)", second)
    assert re.fullmatch(r"\[3/3\] done  row · more \(\d+ s in all\)", last)


def test_the_estimate_weighs_each_row_by_its_own_time(clock):
    progress = Progress(["fast"] * 3 + ["slow"] * 2, quiet=True, clock=clock)
    for title, row, spent in (("a", "fast", 1), ("b", "slow", 100)):  # one after another
        progress.started(title, row)
        clock.now += spent
        progress.finished(title, "done", "")
    assert progress.outlook() == "1 min 42 s left"


def test_time_left_counts_down_inside_a_cell(clock):
    progress = Progress(["row"] * 3, quiet=True, clock=clock)
    progress.started("a", "row")
    clock.now += 100
    progress.finished("a", "done", "")
    progress.started("b", "row")
    assert progress.outlook() == "3 min 20 s left; running: row"
    clock.now += 30
    assert progress.outlook() == "2 min 50 s left; running: row"
    clock.now += 60
    assert seconds(progress.outlook()) == 110


def test_a_cell_that_takes_longer_than_believed_slows_it_down_but_never_turns_it(clock):
    progress = Progress(["row"] * 2, quiet=True, clock=clock)
    progress.started("a", "row")
    clock.now += 10
    progress.finished("a", "done", "")
    progress.started("b", "row")
    left = [seconds(progress.outlook())]
    for _ in range(200):
        clock.now += 1
        left.append(seconds(progress.outlook()))
    assert left == sorted(left, reverse=True)
    assert left[0] == 10
    assert left[5] == 5


def test_steps_tell_the_time_of_the_first_cell(clock):
    progress = Progress(["row"] * 2, quiet=True, clock=clock)
    progress.started("a", "row")
    clock.now += 20  # for features, say
    progress.expected("a", 1000)
    assert progress.outlook() == "running: row"
    left = []
    for step in range(10, 1001, 10):
        clock.now += 3
        progress.logged("a", step, {"loss": 1 / step})
        left.append(seconds(progress.outlook()))
    assert left[0] == 297 + 320, "another one like this"
    assert progress.outlook() == "5 min 20 s left; running: row (step 1000/1000 loss 0.001)"
    assert all(before - after == 3 for before, after in itertools.pairwise(left))
    clock.now += 5
    assert seconds(progress.outlook()) <= 320


def test_what_is_known_of_some_rows_is_the_least_that_is_left(clock):
    progress = Progress(["row", "row", "other"], quiet=True, clock=clock)
    progress.started("a", "row")
    clock.now += 60
    progress.finished("a", "done", "")
    progress.started("b", "row")
    clock.now += 20
    assert progress.outlook() == "at least 40 s left; running: row"
    progress.finished("b", "done", "")
    progress.started("c", "other")
    assert progress.outlook() == "running: other"


def test_noisy_steps_never_make_it_jump_up(clock):
    progress = Progress(["row"], quiet=True, clock=clock)
    progress.started("a", "row")
    progress.expected("a", 100)
    left = []
    for step in range(1, 101):
        clock.now += 10 if step % 10 else 30  # a validation now and then
        progress.logged("a", step, {"loss": 0.5})
        left.append(seconds(progress.outlook()))
    assert left == sorted(left, reverse=True)
    assert left[0] == 990
    assert left[-1] < 10


def test_a_promise_that_was_wrong_altogether_is_made_anew(clock):
    progress = Progress(["row"], quiet=True, clock=clock)
    progress.started("a", "row")
    progress.expected("a", 1000)
    for step in range(1, 200):
        clock.now += 1 if step < 5 else 10  # another program takes the processor
        progress.logged("a", step, {"loss": 0.5})
    assert 4000 < seconds(progress.outlook()) < 9000


def test_a_pause_between_two_points_does_not_use_up_the_rest(clock):
    progress = Progress(["row"], quiet=True, clock=clock)
    progress.started("a", "row")
    progress.expected("a", 100)
    for step in range(1, 11):
        clock.now += 10
        progress.logged("a", step, {"loss": 0.5})
    clock.now += 2000
    assert seconds(progress.outlook()) >= 890 - 10


def test_curves_of_an_earlier_try_are_no_pace(clock):
    cell = Running("row", clock())
    cell.expect(1000, clock())
    for step in range(5, 501, 5):
        clock.now += 0.0001
        cell.log(step, {"loss": 1.0}, clock())
    assert cell.left(clock()) is None
    clock.now += 10
    cell.log(510, {"loss": 1.0}, clock())
    assert cell.left(clock()) == pytest.approx(490)


def test_cells_side_by_side_share_the_time(clock):
    progress = Progress(["row"] * 6, quiet=True, clock=clock)
    for title in "ab":
        progress.started(title, "row")
    clock.now += 10
    for title in "ab":
        progress.finished(title, "done", "")
    for title in "cd":
        progress.started(title, "row")
    clock.now += 4
    assert seconds(progress.outlook()) == 16
    progress.postponed("d")  # another runner has it
    assert progress.outlook().count("row") == 1


def test_what_runs_is_shown_after_the_first_cell_too(clock):
    progress = Progress(["row"] * 9, quiet=True, clock=clock)
    progress.started("a", "row")
    clock.now += 10
    progress.finished("a", "done", "")
    for at in range(5):
        progress.started(f"{at}", "row")
        progress.expected(f"{at}", 20)
        progress.logged(f"{at}", at + 1, {"loss": 0.5})
        progress.logged(f"{at}", at + 1, {"validation": 0.75})
    shown = progress.outlook()
    assert (
        "left; running: row (step 1/20 loss 0.5), row (step 2/20 loss 0.5), row (step 3/20 loss 0.5) and 2 more"
        in shown
    )


def test_steps_that_are_none_are_left_alone(clock):
    progress = Progress(["row"], quiet=True, clock=clock)
    progress.started("a", "row")
    for steps in (float("nan"), float("inf"), 0, -3):
        progress.expected("a", steps)
        progress.logged("a", 1, {})
        assert progress.outlook() == "running: row (step 1)"


def test_quiet_says_only_what_is_said(capsys):
    progress = Progress(["row"], quiet=True)
    progress.finished("row", "done", "")
    progress.say("a disk is full")
    assert capsys.readouterr().err == "a disk is full\n"


def test_control_characters_and_long_messages_stay_out_of_lines(capsys):
    progress = Progress(["row"])
    progress.finished("row \x1b]0;x\x07", "failed", "\x1b[2J" + "x" * 100_000, "whole in results/failures/3f")
    progress.say("\x1b[31m")
    progress.close()
    _, failed, said = capsys.readouterr().err.splitlines()
    assert failed.startswith(r"[1/1] failed row \x1b]0;x\x07: \x1b[2Jxxx")
    assert failed.endswith("xxx … (100,007 characters; whole in results/failures/3f) (0 s in all)")
    assert len(failed) < 600
    assert said == r"\x1b[31m"


def test_a_long_cell_is_not_silent_where_there_is_no_terminal(capsys):
    progress = Progress(["row", "row"], silence=0.05)
    progress.started("row · data", "row")
    progress.expected("row · data", 100)
    time.sleep(0.02)
    progress.logged("row · data", 10, {"loss": 0.25})
    time.sleep(0.2)
    progress.close()
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines[1:]) <= 5
    assert lines[-1] == "[0/2] after 0 s: running: row (step 10/100 loss 0.25)"
    assert not [one for one in threading.enumerate() if one is progress.thread]


def test_a_closed_stream_stops_nothing(monkeypatch):
    stream = open(os.devnull, "w")  # noqa: SIM115
    monkeypatch.setattr(sys, "stderr", stream)
    progress = Progress(["row"], silence=0.01)
    stream.close()
    progress.started("a", "row")
    time.sleep(0.05)
    assert progress.thread.is_alive()
    progress.finished("a", "done", "")
    progress.close()


@pytest.mark.parametrize(("steps", "step"), [(100, float("nan")), (1e308, 1e-5)])
def test_steps_that_cannot_be_stop_nothing(clock, steps, step):
    progress = Progress(["row"], clock=clock)
    progress.started("a", "row")
    progress.expected("a", steps)
    for at in (step, 2 * step, 3 * step):
        clock.now += 10
        progress.logged("a", at, {})
    assert "left" not in progress.outlook()
    progress.finished("a", "done", "")
    progress.close()


ON_A_TERMINAL = """
import sys, time
from rankbench.progress import Progress
progress = Progress(["row", "row", "other"], refreshed=0.02)
progress.started("row · data", "row")
progress.expected("row · data", 1000)
progress.logged("row · data", 3, {"loss": 0.25})
time.sleep(0.2)
progress.finished("row · data", "failed", "why\\x1b[2J")
progress.started("row · more", "row")
progress.logged("row · more", 5, {"loss": 0.125})
time.sleep(0.1)
progress.say("between")
progress.finished("row · more", "not applicable", "no matter")
progress.finished("other", "done", "")
progress.close()
print("closed", file=sys.stderr)
"""


@pytest.mark.parametrize("columns", [60, 120])
def test_a_terminal_gets_a_bar_that_moves_by_itself(columns):
    shown, code = shown_on_a_terminal(["-c", ON_A_TERMINAL], columns)
    assert code == 0
    frames = re.split(r"[\r\n]+", shown)
    assert max(map(len, frames)) <= columns
    assert sum("row (step 3/1000" in frame for frame in frames) > 4, "though nothing is logged"
    assert ("row (step 3/1000 loss 0.25)" in shown) == (columns > 60)
    assert "row (step 5" in shown, "after the first cell too"
    assert "3/3" in shown
    assert r"failed row · data: why\x1b[2J" in shown
    assert "\x1b[2J" not in shown
    assert "no matter" not in shown
    assert "between" in frames
    assert frames[-2] == "closed"
