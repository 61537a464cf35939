"""What others wrote reaches no terminal as a command, and fills no screen."""

import csv
import io
import json

import pytest

from rankbench.benchmark import Reported
from rankbench.render import FORMATS, render
from rankbench.table import Entry, Head, Table
from rankbench.visible import HIDDEN, one_line, shortened, visible

HOSTILE = "a\x1b[31mred\x07\x9b2J\r\x00b\u202egnp.exe\u2066x\u2028y\ud800z\u200b\x85\x7f\ufeff"


def test_what_a_terminal_would_act_on_is_written_out():
    assert visible("\x1b[31mred\x07") == r"\x1b[31mred\x07"
    assert visible("\u202eevil \ud800 \u2028") == r"\u202eevil \ud800 \u2028"
    assert visible("one\r\ntwo\tthree\n") == "one\ntwo\tthree\n"
    assert visible("Łódź 日本語 שלום नमस्\u200dते 👩\u200d🔬") == "Łódź 日本語 שלום नमस्\u200dते 👩\u200d🔬"
    assert one_line(" a\r\n  b\u00a0c\x1b ") == "a b\u00a0c\\x1b"


@pytest.mark.parametrize("form", FORMATS)
def test_no_format_of_a_table_lets_a_control_character_through(form):
    done = Entry(value=0.5, status="done", done=1, cells=1, notes=[HOSTILE], reported=Reported(0.5, HOSTILE))
    table = Table(HOSTILE, HOSTILE, [Head(HOSTILE, HOSTILE, "m", 2, True, True, [HOSTILE])], [HOSTILE], [[done]],
                  [[HOSTILE]], [HOSTILE], HOSTILE)  # fmt: skip
    page = render(table, form)
    assert HIDDEN.findall(page) == []
    page.encode()
    if form == "json":
        assert json.loads(page)["title"] == HOSTILE, "nothing is lost"
    if form == "csv":
        (line,) = csv.DictReader(io.StringIO(page))
        assert line["row"] == visible(HOSTILE)


def test_a_long_message_is_cut_with_a_word_where_the_whole_lies():
    assert shortened("short", "x") == "short"
    cut = shortened("y" * 100_000, "whole in failures/3f")
    assert cut.endswith("y … (100,000 characters; whole in failures/3f)")
    assert len(cut) < 500
