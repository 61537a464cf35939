"""What others wrote reaches no terminal as a command, and fills no screen."""

import csv
import io
import json
import os
import re
import sys
from pathlib import Path

import pytest
from dots import install
from terminals import shown_on_a_terminal

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


SHOUTING = """
import time
import rankbench

class Shout(rankbench.Ranker):
    def fit(self, images, pairs, run):
        raise ValueError("\\x1b[2J" + "x" * 100_000 + "\\n\\x07second")

class Paced(rankbench.Ranker):
    def fit(self, images, pairs, run):
        run.expect(30)
        for step in range(31):
            run.log(step, loss=1 / (step + 1))
            time.sleep(0.02)
        return self

    def score(self, images, run):
        raise rankbench.NotApplicable("\\x1b[5m" + "y" * 100_000)

@rankbench.hookimpl
def rankbench_rankers():
    return {"shout": Shout, "paced": Paced}
"""
SHOUTED = """
title = "Toy \\u001b[31m"
dataset = "dots"
metric = "pairwise-accuracy"
[[column]]
label = "Bright"
where = { attribute = "bright" }
[[row]]
label = "Paced \\u009b5m"
ranker = "paced"
[[row]]
label = "Shout \\u202e"
ranker = "shout"
"""


def test_a_run_with_hostile_words_on_a_real_terminal(lab):
    install(lab.site, "shouting", "0.1", {"shouting": "shouting"}, {"shouting": SHOUTING})
    lab.file(SHOUTED)
    environment = {"PYTHONPATH": os.pathsep.join([str(lab.site), os.environ.get("PYTHONPATH", "")])}
    rankbench = str(Path(sys.executable).with_name("rankbench"))
    command = [rankbench, "run", "toy.toml", "--jobs", "1", "--device", "cpu"]
    shown, code = shown_on_a_terminal(command, 80, out=True, cwd=lab.root, env=environment)
    assert code == 1
    bold = re.sub("\x1b\\[[01]m", "", shown)
    assert HIDDEN.findall(bold.replace("\r", "")) == []
    assert re.search(r"Paced \\x9b5m \(step \d+/30 loss [01]", shown)
    assert re.search(r"failed Shout \\u202e · dots attribute='?bright'?.*: ValueError: \\x1b\[2Jxxx", shown)
    (key,) = (path.name for path in lab.results.glob("failures/*"))
    told = re.sub(r"\s", "", shown).replace(r"\x1b", "~")
    assert told.count(f"failures/{key}") >= 3, "in the progress, a footnote and the summary"
    assert re.search(r"notapplicable:~\[5my+…\(100,004characters;wholeincells/", told)
    print(shown[-4000:])
    assert len(shown) < 20_000
    assert "second" not in re.split("Toy ", shown)[-1].split("Failed")[0]
