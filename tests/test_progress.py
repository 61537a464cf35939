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
    progress = Progress(2)
    progress.logged("row", 1, {"loss": 0.5})
    progress.finished("row · data", "failed", "first\nsecond")
    progress.say("between")
    progress.finished("other", "done", "")
    progress.close()
    out, error = capsys.readouterr()
    assert out == ""
    first, between, last = error.splitlines()
    assert re.fullmatch(r"\[1/2\] failed row · data: first \(\d+ s left\)", first)
    assert between == "between"
    assert re.fullmatch(r"\[2/2\] done  other \(\d+ s in all\)", last)


def test_quiet_says_only_what_is_said(capsys):
    progress = Progress(1, quiet=True)
    progress.finished("row", "done", "")
    progress.say("a disk is full")
    assert capsys.readouterr().err == "a disk is full\n"


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    progress = Progress(2)
    progress.logged("row", 3, {"loss": 0.25})
    progress.finished("row", "failed", "why")
    progress.finished("other", "not applicable", "no matter")
    progress.say("between")
    progress.close()
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert "row: 3 loss 0.25" in shown
    assert "failed row: why" in shown
    assert "no matter" not in shown
    assert "between" in shown
