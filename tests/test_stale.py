"""After an edit of one's own method: what is said first, and what is asked at a terminal."""

import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rankbench.errors import PluginError
from rankbench.registry import Registry
from rankbench.worker import load_registry

TOY = """
title = "Toy"
dataset = "dots"
metric = "pairwise-accuracy"
[[column]]
label = "Bright"
where = { attribute = "bright" }
[[row]]
label = "Truth"
ranker = "brightness"
[[row]]
label = "Chance"
ranker = "chance"
"""
QUESTION = "1 stored cell was computed by an earlier version of brightness's source. Compute it again? [Y/n]: "
HINT = "Stale: 1 stored cell, as the source of brightness has changed since. `--rerun stale` computes them again, "


@pytest.fixture
def edited(lab):
    """A stored result whose plugin was edited since, in an editable installation."""
    info = lab.site / "dots_plugins-1.0.dist-info"
    (info / "direct_url.json").write_text(json.dumps({"url": "file:///here", "dir_info": {"editable": True}}))
    lab.run(TOY)
    lab.edit("return self.sign * grey(images)", "return grey(images) * self.sign")
    lab.file(TOY)
    return lab


def at_a_terminal(lab, arguments, answer="", **variables):
    """What a command prints at a terminal where `answer` is typed once it asks."""
    ours, theirs = pty.openpty()
    paths = os.pathsep.join([str(lab.site), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=lab.root,
        env={**os.environ, "PYTHONPATH": paths, "CI": "", "TERM": "dumb", **variables},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ):
        os.close(theirs)
        text, deadline = b"", time.monotonic() + 60
        while time.monotonic() < deadline:
            if not select.select([ours], [], [], 1)[0]:
                continue
            try:
                block = os.read(ours, 4096)
            except OSError:  # the other end was closed
                break
            text += block
            if answer and b"[Y/n]" in text:
                os.write(ours, answer.encode())
                answer = ""
            if not block:
                break
        os.close(ours)
    return text.decode().replace("\r\n", "\n")


COMMAND = ["-m", "rankbench.cli", "run", "toy.toml", "--device", "cpu"]


def test_at_a_terminal_one_question_computes_ones_own_edit_again(edited):
    told = at_a_terminal(edited, COMMAND, "\n")
    assert told.count(QUESTION) == 1
    assert told.index(QUESTION) < told.index("Toy\n")
    assert "†" not in told
    assert "1 fitted in this run" in told
    assert "Stale" not in told


def test_who_says_no_keeps_the_number_and_reads_what_to_type(edited):
    told = at_a_terminal(edited, COMMAND, "n\n")
    assert told.index(QUESTION) < told.index(HINT) < told.index("Toy\n") < told.index("†")
    assert "0 fitted in this run" in told


def test_ctrl_c_at_the_question_ends_the_run(edited):
    told = at_a_terminal(edited, COMMAND, "\x04")
    assert "Interrupted. What was finished is stored" in told
    assert "Toy\n" not in told


def test_nobody_is_asked_in_a_service_a_pipe_or_about_others_packages(edited):
    told = at_a_terminal(edited, COMMAND, CI="true")
    assert QUESTION not in told
    assert told.index(HINT) < told.index("Toy\n")
    piped = edited.command("run", "toy.toml")
    assert piped.stderr.startswith(HINT)
    assert QUESTION not in piped.stderr
    assert piped.stderr.count("Stale") == 1
    (edited.site / "dots_plugins-1.0.dist-info" / "direct_url.json").write_text("{}")
    told = at_a_terminal(edited, COMMAND)
    assert QUESTION not in told
    assert HINT in told


def test_a_module_given_by_name_is_ones_own_work(edited):
    (edited.site / "dots_plugins-1.0.dist-info" / "direct_url.json").unlink()
    script = "import rankbench; print(rankbench.run('toy.toml', plugins=['dots_plugins'], device='cpu'))"
    told = at_a_terminal(edited, ["-c", script], "y\n")
    assert QUESTION in told
    assert "<Result of toy: 2 done" in told


def test_the_command_s_own_choice_is_not_questioned(edited):
    told = at_a_terminal(edited, [*COMMAND, "--rerun", "stale"])
    assert QUESTION not in told
    assert HINT not in told


# -- a module that is installed already


def test_an_installed_module_given_by_name_does_not_clash_with_itself(lab):
    registry = load_registry(["dots_plugins"])
    assert not registry.broken
    assert registry.find("rankers", "brightness").distribution == "dots-plugins", "its keys stay the same"
    assert load_registry(["dots_plugins"]).plugins == Registry.installed().plugins
    installed = lab.run(TOY)
    again = lab.run(TOY, plugins=["dots_plugins"])
    assert again.plan.fitted == 0
    assert [cell.key for cell in again.cells] == [cell.key for cell in installed.cells]


def test_another_module_with_an_installed_name_still_clashes(lab):
    package = (Path(__file__).parent / "dots_package" / "dots_plugins.py").read_text()
    (lab.site / "dots_other.py").write_text(package)
    registry = load_registry(["dots_other"])
    message = "ranker 'brightness' is brought by 'dots-plugins' and 'dots_other'"
    assert any(message in broken.message for broken in registry.broken)
    with pytest.raises(PluginError, match=message):
        registry.find("rankers", "brightness")
    sys.modules.pop("dots_other")
