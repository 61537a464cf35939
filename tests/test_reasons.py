"""`rankbench why`: which part of a key differs from the nearest stored cell."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_runs import TinyRuns, stored_before

from rankbench.benchmark import Benchmark
from rankbench.cell import key_of
from rankbench.loading import DatasetChoice
from rankbench.plan import PlannedCell
from rankbench.printed import TAIL
from rankbench.reasons import SCREEN, excerpt, failures, flat, lacking, reasons, summary, told_in
from rankbench.runner import Options, Runner

TOY = """
title = "Toy"
dataset = "dots"
metric = "pairwise-accuracy"
seeds = [0]
[[column]]
label = "Bright"
where = { attribute = "bright" }
[[row]]
label = "Level"
ranker = { name = "level", values = [1, 2, 6] }
[[row]]
label = "Truth"
ranker = "brightness"
"""


@pytest.fixture
def why(lab):
    """Explanations of a benchmark's cells by row."""

    def explain(text):
        runner = Runner(Options(**lab.places, device="cpu"))
        plan = runner.plan(Benchmark.read(lab.file(text)))
        return {cell.row: reason for cell, reason in reasons(runner.planner, plan.cells)}

    return explain


def test_an_empty_store_has_nothing_near(why):
    assert set(why(TOY).values()) == {"nothing is stored yet"}


def test_a_stored_cell_says_when_it_was_computed(lab, why):
    result = lab.run(TOY)
    record = lab.records()[0]
    key = next(cell.key for cell in result.cells if cell.row == record["row"])
    stored = f"stored as {key[:12]}, computed {record['started']}"
    assert why(TOY)[record["row"]] == stored
    record["lost"] = ["image a.png", "image b.png"]
    stored_before(lab.results / "cells" / key, lambda stored: stored.update(lost=record["lost"]))
    lines = [f"left out, as it cannot be read: image {name}.png" for name in "ab"]
    assert why(TOY)[record["row"]].splitlines() == [stored, *lines]


@pytest.mark.parametrize(
    ("old", "new", "row", "line"),
    [
        ("[1, 2, 6]", "[1, 2, 7]", "Level", "ranker.parameters.values[2]: 6.0 there, 7.0 here"),
        ("seeds = [0]", "seeds = [2]", "Level", "seed: 0 there, 2 here"),
        ('ranker = "brightness"', 'ranker = { name = "brightness", sign = -1 }', "Truth", "ranker.parameters.sign: 1"),
        ("seeds = [0]", "threads = 4\nseeds = [0]", "Truth", "threads: 1 there, 4 here"),
    ],
)
def test_the_part_that_differs_is_named(lab, why, old, new, row, line):
    lab.run(TOY)
    text = why(TOY.replace(old, new))[row]
    assert text.startswith("not stored; the nearest stored cell is ")
    assert f"of row {row!r}" in text
    assert text.splitlines()[1].startswith(line)
    assert len(text.splitlines()) == 2, "nothing else differs"


def test_another_rankers_cell_is_no_near_one(lab, why):
    lab.run(TOY)
    text = TOY + '[[row]]\nlabel = "New"\nranker = "comparer"\n'
    assert why(text)["New"] == "not stored, and no cell of ranker 'comparer' is"


def planned(row, status, text, seed=0):
    cell = PlannedCell(row, DatasetChoice("dots"), {}, {"name": row}, seed, None, status=status)
    return replace(cell, reason=text) if status == "failed" else replace(cell, missing=text)


def test_each_cause_of_failures_is_said_once():
    cells = [planned("a", "failed", "x", seed) for seed in (0, 1)] + [planned("b", "failed", "y")]
    assert failures([*cells, planned("c", "done", "")]) == [(" (2 cells of a)", "x"), (": b · dots · seed 0", "y")]
    assert failures([planned("a", "failed", "x"), planned("b", "failed", "x")]) == [(" (2 cells)", "x")]


def test_each_path_of_missing_data_is_said_once():
    some, more, other = "not found:\n  a", "not found:\n  a\n  b", "not found:\n  c"
    cells = [planned("a", "missing data", text) for text in (some, more, other, more)]
    assert lacking([*cells, planned("b", "done", "not found:\n  d")]) == [more, other]


def test_changed_data_is_named(lab, why):
    lab.run(TOY)
    shutil.copy(lab.data / "dots" / "bright-110.pgm", lab.data / "dots" / "bright-100.pgm")
    assert why(TOY)["Truth"].splitlines()[1].startswith("data (images, pairs, columns or splits): ")


def test_a_raised_version_is_named(lab, why):
    lab.run(TOY)
    for path in lab.results.glob("cells/*/record.json"):  # as an earlier release had stored it
        stored_before(path.parent, lambda record: record["key_parts"]["ranker"].update(version="0"))
        path.parent.rename(path.parent.with_name(key_of(json.loads(path.read_text())["key_parts"])))
    assert why(TOY)["Truth"].splitlines()[1] == "ranker.version: 0 there, 1 here"


def test_a_stale_cell_names_the_plugin_that_changed(lab, why):
    lab.run(TOY)
    lab.edit("return self.sign * grey(images)", "return grey(images) * self.sign")
    assert "the source of rankers/brightness has changed since" in why(TOY)["Truth"]


def test_failures_missing_data_and_dashes_say_why(lab, why):
    names = ("boom", "refuses", "broken", "weightless", "clumsy")
    text = TOY + "".join(f'[[row]]\nlabel = "{name}"\nranker = "{name}"\n' for name in names)
    lab.run(text)
    found = why(text)
    assert found["weightless"] == "weights.pt: not found.\nPut it there."
    assert found["clumsy"].startswith(
        "failed: ranker 'clumsy' of package dots-plugins cannot be made: RuntimeError: the b"
    )
    assert found["Truth"].startswith("stored as")
    assert found["boom"].startswith("failed: ValueError: boom")
    assert "a_package_that_is_not_there" in found["broken"]
    assert found["refuses"].endswith("(needs images.columns['category'])")
    shutil.rmtree(lab.data / "dots")
    shutil.rmtree(lab.results)
    assert str(lab.data / "dots") in why(TOY)["Truth"]


def test_nested_values_become_dotted_paths():
    assert flat({"a": {"b": [1, {"c": None}], "d": []}, "e": {}}) == {"a.b[0]": 1, "a.b[1].c": None, "a.d": []}


# -- in summary

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.mark.parametrize("name", ["viral", "attributes", "popularity", "ablation", "classical", "networks-small"])
def test_a_table_without_data_is_explained_on_one_screen(tmp_path, name):
    runner = Runner(Options(data=tmp_path, results=tmp_path, cache=tmp_path, device="cpu"))
    plan = runner.plan(Benchmark.read(BENCHMARKS / f"{name}.toml"))
    lines = summary(runner.planner, plan.cells)
    assert len(lines) <= 22
    assert lines[0].startswith(f"{len(plan.cells)} cells: ")
    counts = [int(line.split()[0].replace(",", "")) for line in lines[1:] if line[2:3].isdigit()]
    assert sum(counts) == len(plan.cells), "every cell has a reason"
    assert any("missing data: dataset" in line for line in lines)


def test_reasons_are_counted_with_a_way_on(lab):
    names = ("boom", "refuses", "weightless")
    text = TOY + "".join(f'[[row]]\nlabel = "{name}"\nranker = "{name}"\n' for name in names)
    lab.run(text)
    added = '[[row]]\nlabel = "New"\nranker = "chance"\n'
    lab.edit("return self.sign * grey(images)", "return grey(images) * self.sign")
    runner = Runner(Options(**lab.places, device="cpu"))
    plan = runner.plan(Benchmark.read(lab.file(text.replace("[1, 2, 6]", "[1, 2, 7]") + added)))
    lines = summary(runner.planner, plan.cells)
    assert lines[0] == "6 cells: 1 failed, 1 missing data, 2 stale, 2 to do"
    assert lines[1].startswith("  1 failed: ValueError: boom (dots_plugins.py, line ")
    (failed,) = (cell.key for cell in plan.cells if cell.status == "failed")
    (file,) = lab.results.glob(f"failures/{failed}/*/record.json")
    assert lines[2] == f"      Its traceback and output: {file}"
    assert lines[3:5] == ["  1 missing data: weights.pt: not found.", "      Put it there."]
    assert lines[5] == "  1 stale: the source of rankers/brightness has changed since"
    assert lines[6] == "  1 stale: the source of rankers/refuses has changed since"
    assert lines[7].startswith("  1 to do: Level · dots attribute=bright · seed 0 differs from the nearest stored ")
    assert lines[7].endswith(" of row 'Level', in ranker.parameters.values[2]")
    assert lines[8:] == ["  1 to do: nothing is stored of ranker 'chance'"]


def test_a_thousand_reasons_fit_a_screen(lab):
    runner = Runner(Options(**lab.places, device="cpu"))
    (cell, *_) = runner.plan(Benchmark.read(lab.file(TOY))).cells
    cells = [replace(cell, status="failed", reason=f"reason {k}\n" + "more\n" * 50, key=None) for k in range(1000)]
    lines = summary(runner.planner, cells)
    assert len(lines) == SCREEN + 2
    assert lines[-1] == f"  … and {1000 - SCREEN} more reasons"
    assert excerpt("a\nb\nc\nd\ne", 4) == ["a", "b", "… 2 lines more", "e"]


def test_a_failed_cell_keeps_the_end_of_what_its_plugin_printed_and_names_the_file(tmp_path, monkeypatch):
    """Through one worker process: what Python prints and what a library writes, and nothing of the cell before."""
    tiny = TinyRuns(tmp_path, monkeypatch)
    rows = {how: {"name": "trouble", "how": how} for how in ("prints_and_fails", "raises")}
    result = tiny.run(rows)
    records = {cell.row: json.loads(tiny.store.failure_file(cell.key).read_text()) for cell in result.cells}
    output = records["prints_and_fails"]["error"]["output"]
    assert output.endswith("by print\nby a library")
    assert len(output) == TAIL
    assert "in prints_and_fails" in records["prints_and_fails"]["error"]["traceback"]
    assert records["raises"]["error"]["output"] == ""
    for cell in result.cells:
        place = f"\nIts traceback and output: {tiny.store.failure_file(cell.key)}"
        assert [text for _, text in failures([cell], tiny.store)] == [cell.reason + place]
    (found,) = reasons(result.runner.planner, result.cells[:1])
    assert found[1] == f"failed: {result.cells[0].reason}{told_in(tiny.store, result.cells[0])}"
