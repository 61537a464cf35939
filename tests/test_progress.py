"""Progress lines where there is no terminal."""

import re

import pytest

from rankbench.progress import Progress, duration


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
    progress.finished("row · data", "failed", "first\nsecond")
    progress.say("between")
    progress.started("other · data", "other")
    progress.finished("other · data", "done", "")
    progress.finished("row · more", "done", "")
    progress.close()
    out, error = capsys.readouterr()
    assert out == ""
    count, first, between, second, last = error.splitlines()
    assert count == "3 cells to fit"
    assert first == "[1/3] failed row · data: first (running: row)"  # nothing is known yet of the row "other"
    assert between == "between"
    assert re.fullmatch(r"\[2/3\] done  other · data \(\d+ s left\)", second)
    assert re.fullmatch(r"\[3/3\] done  row · more \(\d+ s in all\)", last)


def test_the_estimate_weighs_each_row_by_its_own_time(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("rankbench.progress.time.time", lambda: now[0])
    progress = Progress(["fast"] * 3 + ["slow"] * 2, quiet=True)
    for title, row, seconds in (("a", "fast", 1), ("b", "slow", 100)):  # one after another
        progress.started(title, row)
        now[0] += seconds
        progress.finished(title, "done", "")
    assert progress.outlook() == "1 min 42 s left"


def test_quiet_says_only_what_is_said(capsys):
    progress = Progress(["row"], quiet=True)
    progress.finished("row", "done", "")
    progress.say("a disk is full")
    assert capsys.readouterr().err == "a disk is full\n"


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    progress = Progress(["row", "other"])
    progress.started("row · data", "row")
    progress.logged("row · data", 3, {"loss": 0.25})
    progress.finished("row · data", "failed", "why")
    progress.finished("other", "not applicable", "no matter")
    progress.say("between")
    progress.close()
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert "row (step 3 loss 0.25)" in shown
    assert "failed row · data: why" in shown
    assert "no matter" not in shown
    assert "between" in shown
