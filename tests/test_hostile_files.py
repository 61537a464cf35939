"""Benchmark files that are hostile, huge or oddly named: a message, no traceback, and an answer in seconds."""

import os
import subprocess
import sys
import time

import pytest

import rankbench
from rankbench.errors import BenchmarkError, did_you_mean
from rankbench.plan import DONE
from rankbench.runner import Options, Runner
from rankbench.store import ResultStore, folder_name

TOP = 'title = "T"\ndataset = { name = "shapes", images = 20, train_pairs = 30, test_pairs = 20 }\n'
TOP += 'metric = "pairwise-accuracy"\n'
PLACE, ROW = '[[column]]\nlabel = "All"\n', '[[row]]\nlabel = "Chance"\nranker = "chance"\n'

WRONG = {
    "nested more than 32 levels": TOP + PLACE + "where = { a = " + "[" * 3000 + "]" * 3000 + " }\n" + ROW,
    "nested more than 32 levels deep (under": TOP + PLACE + "where = " + "{ a = " * 200 + "1" + " }" * 200 + "\n" + ROW,
    "line 1: a key of more than 100 parts": ".".join("a" * 200_000) + " = 1\n",
    "line 2: a key of more than 100 parts": "title = 'x'\n" + ' . '.join(['"a b"'] * 200_000) + " = 1\n",
    "cannot be read: Exceeds the limit": "seeds = [1" + "0" * 5000 + "]\n" + TOP + PLACE + ROW,
    "a whole number does not fit into 64 bits (under 'seeds')": f"seeds = [{2**63}]\n" + TOP + PLACE + ROW,
    "a whole number does not fit into 64 bits (under 'x')": TOP + PLACE + f"where = {{ x = 0x{'f' * 9000} }}\n" + ROW,
    "decimals must be at most 12, not 1000000000": "decimals = 1000000000\n" + TOP + PLACE + ROW,
    "timeout must be at most 1000000000 seconds, not 1e+308": "timeout = 1e308\n" + TOP + PLACE + ROW,
    "threads must be at most 1024, not 1000000000": "threads = 1_000_000_000\n" + TOP + PLACE + ROW,
    "row 1: label has 1,500 characters; it may have 1,000": TOP + PLACE + ROW.replace("Chance", "x" * 1500),
    "a text has 1,000,000 characters; it may have 100,000": TOP + PLACE + ROW.replace("Chance", "x" * 1_000_000),
    "column 1: group has 2,000 characters": TOP + PLACE + f'group = "{"g" * 2000}"\n' + ROW,
    "a text holds the character NUL": TOP.replace("20,", '20, folder = "a\\u0000b",', 1) + PLACE + ROW,
    "a text holds the character NUL, which no file name and no terminal can (under": TOP + PLACE + '"a\\u0000b" = 1\n',
    "is not valid TOML": TOP + PLACE + '[[row]]\nlabel = "a\0b"\n',
    "column 1: where: 'day' must be text, numbers, true or false": TOP + PLACE + "where = { day = 2020-01-01 }\n" + ROW,
    "column 1: where: 'x' must be text, numbers, true or false, not n": TOP + PLACE + "where = { x = [nan] }\n" + ROW,
    "is not valid TOML: Invalid date": TOP + PLACE + "where = { day = 2020-02-31 }\n" + ROW,
    "2,000 rows × 2 columns × 1,000 seeds are 4,000,000 cells; a file may have 1,000,000": (
        f"seeds = {list(range(1000))}\n" + TOP + PLACE + PLACE.replace("All", "Again")
        + "".join(ROW.replace("Chance", f"r{k}") for k in range(2000))
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", WRONG)
def test_a_hostile_file_is_a_message_in_bounded_time(message):
    began = time.process_time()
    with pytest.raises(BenchmarkError) as raised:
        rankbench.Benchmark.parse(WRONG[message], "toy", "toy.toml")
    assert message in str(raised.value)
    assert str(raised.value).startswith("toy.toml")
    assert len(str(raised.value)) < 4000
    assert time.process_time() - began < 3


def test_what_is_no_file_or_too_large_is_refused_at_once(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "folder.toml").mkdir()
    with open(tmp_path / "large.toml", "wb") as file:
        file.truncate(2**30)
    (tmp_path / "endless.toml").symlink_to("/dev/zero")
    reasons = {"pipe": "it is no regular file", "folder": "Is a directory", "large": "it is larger than 64 MiB"}
    for name, reason in {**reasons, "endless": "it is no regular file"}.items():
        with pytest.raises(BenchmarkError) as raised:
            rankbench.Benchmark.read(tmp_path / f"{name}.toml")
        assert str(raised.value) == f"{tmp_path / name}.toml: cannot be read ({reason})."
    with pytest.raises(BenchmarkError, match="null byte"):
        rankbench.Benchmark.read("a\0b.toml")


def test_the_command_prints_it_without_a_traceback(tmp_path):
    (tmp_path / "deep.toml").write_text(WRONG["nested more than 32 levels"])
    done = subprocess.run(
        [sys.executable, "-m", "rankbench.cli", "run", "deep.toml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "Error: deep.toml: tables or lists are nested more than 32 levels deep.\n"


def test_messages_about_many_labels_stay_short():
    rows = "".join(f'[[row]]\nlabel = "r{k}"\nranker = "chance"\n' for k in range(5000))
    columns = "".join(f'[[column]]\nlabel = "c{k}"\n' for k in range(200))
    with pytest.raises(BenchmarkError) as raised:
        rankbench.Benchmark.parse(TOP + columns + rows + 'columns = ["d"]\n', "toy", "toy.toml")
    assert str(raised.value).startswith("toy.toml, row 5000: columns names 'd'.")
    assert str(raised.value).endswith("and 150 more.")
    assert did_you_mean("x" * 10**6, ["x" * 10**6]) == ""


def planned(runner, count):
    """CPU seconds of reading, planning and drawing a benchmark of so many rows."""
    rows = "".join(f'[[row]]\nlabel = "row {k}"\nranker = "chance"\nnotes = "note {k}"\n' for k in range(count))
    began = time.process_time()
    benchmark = rankbench.Benchmark.parse(TOP + PLACE + rows, "many", "many.toml")
    plan = runner.plan(benchmark)
    runner.store.save_plan(benchmark.name, plan.to_json())
    assert len(plan.cells) == count
    from rankbench.render import render
    from rankbench.table import Drawer

    drawn = Drawer(runner.registry, runner.store).draw(benchmark)
    assert render(drawn, "text").count("row ") == count
    return time.process_time() - began


def test_time_grows_with_the_rows_and_not_with_their_square(tmp_path):
    runner = Runner(Options(data=tmp_path, results=tmp_path / "results", cache=tmp_path / "cache"))
    planned(runner, 10)
    few, many = min(planned(runner, 250) for _ in range(2)), planned(runner, 2000)
    assert many < 8 * few * 2.5, f"250 rows took {few:.2f} s, 2,000 rows {many:.2f} s"


def test_a_plan_stays_below_plans_whatever_the_file_is_called(lab):
    text = TOP + PLACE + ROW
    for name in ("..", ".", "a\nb"):
        result = lab.run(text, name)
        assert {cell.status for cell in result.cells} == {DONE}
        assert result.plan.benchmark.name == name
        assert result.drawn().entries[0][0].status == DONE
    assert sorted(path.name for path in lab.results.iterdir()) == ["cells", "claims", "plans", "tests"]
    store = ResultStore(lab.results)
    assert len(list((lab.results / "plans").glob("*/000001.json"))) == 3
    assert len(store.benchmarks()) == 3
    assert all(store.plan(name)["toml"] == text for name in store.benchmarks())


def test_names_that_were_usable_keep_their_folder():
    for name in ("viral", "networks-small", ".hidden", "a b", "日本", "a:b", "x.y", "a" * 255):
        assert folder_name(name) == name
    odd = ["..", ".", "...", "", " ", "a/b", "a\\b", "a\0b", "a\nb", "../../etc", "a" * 256, "a\udcff"]
    found = [folder_name(name) for name in odd]
    assert len(set(found)) == len(odd)
    for name in found:
        assert folder_name(name) == name
        assert name.strip(".")
        assert not set(name) & set("/\\\0\n")


def test_the_largest_values_that_are_allowed_are_computed(lab):
    text = f"seeds = [{2**63 - 1}]\ndecimals = 12\ntimeout = 1e9\n" + TOP + PLACE
    text += '[[row]]\nlabel = "Map"\nranker = { name = "ranksvm", features = ["color-histogram"], map = "nystroem" }\n'
    (cell,) = lab.run(text).cells
    assert cell.status == DONE, cell.reason
