"""The command, run as a user runs it: what it prints, where, and its exit code."""

import csv
import importlib.metadata
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from dots import install

import rankbench

TOY = """
title = "Toy"
dataset = "dots"
metric = "pairwise-accuracy"
seeds = [0, 1]
[[column]]
label = "Bright"
where = { attribute = "bright" }
[[row]]
label = "Truth"
ranker = "brightness"
[[row]]
label = "Level"
ranker = { name = "level", values = [1, 2] }
"""
ROW = '[[row]]\nlabel = "{0}"\nranker = "{0}"\n'
HEAVY = ("torch", "sklearn", "PIL", "pandas", "skimage", "scipy")


@pytest.fixture
def toy(lab):
    """A benchmark file."""
    return lab.file(TOY)


# -- run and its exit codes


def test_run_prints_the_table_and_says_what_it_did(lab, toy):
    first = lab.command("run", "toy.toml", "--device", "cpu")
    assert first.returncode == 0, first.stderr
    assert "*100.00*" in first.stdout
    assert "50.00  ± 0.00" in first.stdout
    assert "Cells: 3 done; 3 fitted in this run." in first.stderr
    assert "[3/3] done" in first.stderr
    again = lab.command("run", "toy.toml")
    assert (again.returncode, again.stdout) == (0, first.stdout)
    assert "Cells: 3 done; 0 fitted in this run." in again.stderr
    assert sorted(path.name for path in lab.results.iterdir() if path.name != "claims") == ["cells", "plans", "tests"]


def test_a_failure_gives_1_and_leaves_the_others_alone(lab):
    lab.file(TOY + ROW.format("boom"))
    ran = lab.command("run", "toy.toml", "--jobs", "1")
    assert ran.returncode == 1
    assert "Failed (2 cells of boom): ValueError: boom (dots_plugins.py, line " in ran.stderr
    assert "100.00" in ran.stdout
    assert "failed: ValueError: boom" in ran.stdout
    assert "Traceback" not in ran.stderr
    again = lab.command("run", "toy.toml", "--no-retry")
    assert (again.returncode, "0 fitted" in again.stderr) == (1, True)


def test_a_ranker_that_does_not_apply_is_good(lab):
    lab.file(TOY + ROW.format("refuses"))
    ran = lab.command("run", "toy.toml")
    assert ran.returncode == 0
    assert "– not applicable" in ran.stdout


def test_many_failures_are_counted(lab):
    lab.file(TOY.replace("[0, 1]", str(list(range(13)))) + ROW.format("broken"))
    ran = lab.command("run", "toy.toml", "--only", "broken")
    assert ran.returncode == 1
    assert "Failed (13 cells of broken): ranker 'broken' of package dots-plugins: " in ran.stderr
    assert ran.stderr.count("Failed") == 1
    assert "Cells of rows that match 'broken': 13 failed; 0 fitted in this run." in ran.stderr


def test_missing_data_gives_3(lab, toy):
    ran = lab.command("run", "toy.toml", "--data", "nowhere")
    assert ran.returncode == 3
    assert f"Missing data: dataset dots: not found:\n  {lab.root / 'nowhere' / 'dots'}\n    run the tests" in ran.stderr
    assert "? data is missing" in ran.stdout


def test_the_data_root_and_the_cache_come_from_the_environment(lab, toy):
    lab.data.rename(lab.root / "elsewhere")
    assert lab.command("run", "toy.toml").returncode == 3
    ran = lab.command("run", "toy.toml", RANKBENCH_DATA="elsewhere", RANKBENCH_CACHE="kept")
    assert ran.returncode == 0
    assert (lab.root / "kept" / "problems").is_dir()


def test_results_and_cache_lie_where_the_options_say(lab, toy):
    ran = lab.command("run", "toy.toml", "--results", "out/results", "--cache", "out/cache")
    assert ran.returncode == 0
    assert len(list((lab.root / "out" / "results" / "cells").iterdir())) == 3
    assert (lab.root / "out" / "cache").is_dir()
    assert not lab.results.exists()
    assert not lab.cache.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "gone.toml"], "gone.toml: cannot be read (No such file or directory)"),
        (["run", "toy.toml", "--only", "X*"], "--only 'X*' matches no row. The rows are: Truth Level"),
        (["run", "toy.toml", "--jobs", "0"], "Invalid value for '--jobs'"),
        (["run", "toy.toml", "--device", "tpu"], "'tpu' is not one of 'auto', 'cpu', 'cuda'"),
        (["run", "toy.toml", "--device", "cuda"], "--device cuda: no GPU was found"),
        (["run", "toy.toml", "--rerun", "some"], "'some' is not one of 'stale', 'all'"),
        (["run", "toy.toml", "--frmat", "csv"], "No such option"),
        (["table"], "holds no results yet. `rankbench run FILE` makes some"),
        (["table", "toy.toml", "--format", "pdf"], "'pdf' is not one of"),
        (["list", "models"], "'models' is not one of 'datasets', 'rankers', 'metrics', 'features'"),
        (["why"], "Missing argument 'FILE'"),
        (["check-plugin", "brightnes"], "no plugin named 'brightnes'. Did you mean 'brightness'?"),
        (["fit"], "No such command 'fit'"),
    ],
)
def test_wrong_use_gives_2_and_says_what_is_right(lab, toy, arguments, words):
    ran = lab.command(*arguments)
    assert ran.returncode == 2
    assert words in " ".join(ran.stderr.replace("│", "").split())
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""


def test_a_wrong_file_gives_2_with_place(lab):
    lab.file(TOY.replace('"brightness"', '"brightnes"'))
    ran = lab.command("run", "toy.toml")
    assert ran.returncode == 2
    assert "row 'Truth': no ranker named 'brightnes'. Did you mean 'brightness'?" in ran.stderr
    assert not lab.results.exists()


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_an_interrupted_run_stores_what_was_finished_and_resumes(lab, stop, code):
    lab.file(TOY.replace("[0, 1]", "[0, 1, 2, 3]") + ROW.format("sleeper"))
    command = [str(Path(sys.executable).with_name("rankbench")), "run", "toy.toml", "--only", "sleeper", "--jobs", "1"]
    environment = {**os.environ, "PYTHONPATH": str(lab.site), "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(command, cwd=lab.root, env=environment, stderr=subprocess.PIPE, text=True) as process:
        line = process.stderr.readline()
        while "[1/4] done" not in line:
            assert line, "ended before the first cell did"
            line = process.stderr.readline()
        process.send_signal(stop)
        rest = process.stderr.read()
        assert process.wait(timeout=60) == code
    stored = len(lab.records())
    assert 1 <= stored < 4
    assert "the same command goes on from there" in rest
    ran = lab.command("run", "toy.toml", "--only", "sleeper")
    assert ran.returncode == 0
    assert f": 4 done; {4 - stored} fitted in this run." in ran.stderr


def test_stale_cells_are_counted_recomputed_or_accepted(lab, toy):
    lab.command("run", "toy.toml")
    lab.edit("return self.sign * grey(images)", "return grey(images) * self.sign")
    stale = lab.command("run", "toy.toml")
    assert stale.returncode == 0
    assert "Stale: 3 stored cells, as the source of brightness and level has changed since" in stale.stderr
    assert "† computed by an earlier version" in stale.stdout
    assert "2 fitted" in lab.command("run", "toy.toml", "--rerun", "stale", "--only", "Level").stderr
    assert (
        "Stale: 1 stored cell, as the source of brightness has changed since." in lab.command("run", "toy.toml").stderr
    )
    accepted = lab.command("run", "toy.toml", "--accept-stale")
    assert "1 stored cell accepted." in accepted.stderr
    assert "stale" not in accepted.stderr + accepted.stdout
    assert "3 fitted" in lab.command("run", "toy.toml", "--rerun", "all").stderr


def test_strict_data_tolerates_no_unreadable_image(lab, toy):
    (lab.data / "dots" / "bright-210.pgm").write_bytes(b"P5 8 8 255\n")
    for options, limit in (([], "at most 5% may be lost"), (["--strict-data"], "--strict-data allows none")):
        ran = lab.command("run", "toy.toml", "--only", "Truth", *options)
        assert ran.returncode == 1
        assert f"1 of 12 images cannot be read; {limit}. The first: " in ran.stderr
        assert "bright-210.pgm" in ran.stderr


# -- the plan


def test_dry_run_prints_the_plan_and_stores_nothing(lab):
    lab.file(TOY + ROW.format("boom"))
    planned = lab.command("run", "toy.toml", "--dry-run")
    assert planned.returncode == 0
    lines = planned.stdout.splitlines()
    assert lines[:2] == ["Toy: 5 cells", "  to do              5"]
    assert "    Truth · dots attribute=bright" in lines
    assert not lab.results.exists()
    lab.command("run", "toy.toml")
    again = lab.command("run", "toy.toml", "--dry-run").stdout
    assert "  done               3" in again
    assert "  failed             2\nFailed (2 cells of boom): ValueError: boom (dots_plugins.py, line " in again
    gone = lab.command("run", "toy.toml", "--dry-run", "--data", "nowhere", "--results", "none").stdout
    assert "  missing data       5" in gone
    assert "Missing data: dataset dots: not found:" in gone


def test_dry_run_shortens_long_lists(lab):
    lab.file(TOY.replace("[0, 1]", str(list(range(30)))))
    planned = lab.command("run", "toy.toml", "--dry-run").stdout
    assert "  to do             31" in planned
    assert "    … and 11 more (--json lists all)" in planned


@pytest.mark.parametrize("option", [["--json"], ["--format", "json"]])
def test_dry_run_in_json(lab, toy, option):
    plan = json.loads(lab.command("run", "toy.toml", "--dry-run", *option).stdout)
    assert plan["benchmark"] == "toy"
    cell = next(cell for cell in plan["cells"] if cell["row"] == "Level" and cell["seed"] == 1)
    assert cell["ranker"] == {"name": "level", "parameters": {"values": [1, 2]}}
    assert (cell["status"], len(cell["key"]), cell["facets"]) == ("to do", 64, {"attribute": "bright"})


def test_without_a_file_the_quick_start_is_planned(lab):
    planned = json.loads(lab.command("run", "--dry-run", "--json").stdout)
    assert planned["benchmark"] == "quickstart"
    assert {cell["dataset"]["name"] for cell in planned["cells"]} == {"elpv"}


def test_why_names_the_part_that_differs(lab, toy):
    assert "nothing is stored yet" in lab.command("why", "toy.toml").stdout
    lab.command("run", "toy.toml")
    lab.file(TOY.replace("[1, 2]", "[1, 3]"))
    text = lab.command("why", "toy.toml", "--only", "Level").stdout
    assert "Truth" not in text
    assert "Level · dots attribute=bright · seed 0: to do\n    not stored; the nearest" in text
    told = lab.command("why", "toy.toml").stdout
    assert told.startswith("3 cells: 2 to do, 1 done\n  2 to do: the first of them, Level · dots attribute=bright · ")
    assert "differs from the nearest stored cell" in told
    assert "`--only GLOB` tells more of each cell of the rows that match, `--all` of every cell." in told
    every = lab.command("why", "toy.toml", "--all").stdout
    assert text.partition("\nLevel")[2] in every
    assert "Truth · dots attribute=bright: done\n    stored as" in every
    answers = json.loads(lab.command("why", "toy.toml", "--json").stdout)
    assert [answer["status"] for answer in answers] == ["done", "to do", "to do"]
    assert answers[0]["why"].startswith(f"stored as {answers[0]['key'][:12]}")


# -- tables


def test_every_format_is_printed_alike_by_run_and_table(lab, toy):
    lab.command("run", "toy.toml")
    starts = {
        "text": "Toy\n",
        "markdown": "**Toy**",
        "latex": "% needs",
        "html": "<!doctype html>",
        "csv": "benchmark,title,row,",
    }
    for form, start in starts.items():
        drawn = lab.command("table", "toy.toml", "--format", form)
        assert drawn.returncode == 0
        assert drawn.stdout.startswith(start)
        assert lab.command("run", "toy.toml", "--format", form).stdout == drawn.stdout
    assert [line["value"] for line in csv.DictReader(io.StringIO(drawn.stdout))] == ["100.0", "50.0"]
    values = json.loads(lab.command("table", "toy.toml", "--json").stdout)
    assert values == json.loads(lab.command("run", "toy.toml", "--format", "json").stdout)
    assert [entry["value"] for entry in values["entries"]] == [100.0, 50.0]


def test_a_table_is_drawn_from_the_store_alone(lab, toy):
    ran = lab.command("run", "toy.toml")
    shutil.rmtree(lab.data)
    shutil.rmtree(lab.cache)
    toy.unlink()
    assert lab.command("table").stdout == ran.stdout
    shutil.rmtree(lab.site)  # the plugins too: only the metric is needed, and that one is not theirs
    assert lab.command("table").stdout == ran.stdout
    assert not lab.cache.exists()


def test_table_without_a_file_draws_every_benchmark(lab, toy):
    lab.file(TOY.replace('"Toy"', '"Other"').replace('"pairwise-accuracy"', '"error"'), "other")
    for name in ("toy.toml", "other.toml"):
        lab.command("run", name)
    drawn = lab.command("table")
    assert drawn.returncode == 0
    assert [line for line in drawn.stdout.splitlines() if line in ("Toy", "Other")] == ["Other", "Toy"]
    assert [table["title"] for table in json.loads(lab.command("table", "--json").stdout)] == ["Other", "Toy"]
    shutil.rmtree(lab.site)
    broken = lab.command("table", "--json")
    assert broken.returncode == 2
    assert [table["title"] for table in json.loads(broken.stdout)] == ["Toy"]
    assert "no metric named 'error'" in broken.stderr


def test_a_table_of_a_benchmark_that_never_ran_says_so(lab, toy):
    drawn = lab.command("table", "toy.toml")
    assert drawn.returncode == 0
    assert "Note: results holds no run of toy.toml; `rankbench run toy.toml` makes one." in drawn.stderr
    assert "… not run yet" in drawn.stdout


def test_output_into_a_closed_pipe_ends_quietly(lab, toy):
    lab.command("run", "toy.toml")
    command = f"{Path(sys.executable).with_name('rankbench')} table --format html"
    script = f'import subprocess, sys; p = subprocess.Popen("{command}", shell=True, stdout=subprocess.PIPE)'
    script += "; p.stdout.close(); sys.exit(p.wait())"
    environment = {**os.environ, "PYTHONPATH": str(lab.site)}
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=lab.root, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.stderr == ""


# -- plugins


def test_list_names_every_plugin_with_its_package(lab):
    rankers = lab.command("list", "rankers")
    assert rankers.returncode == 0
    assert "brightness" in rankers.stdout
    assert "Mean grey level, which is the truth. [dots-plugins]" in rankers.stdout
    assert "ranksvm" in rankers.stdout
    for kind, name in (("datasets", "dots"), ("metrics", "mean-score"), ("features", "grey")):
        listed = json.loads(lab.command("list", kind, "--json").stdout)
        assert {"dots-plugins", "rankbench"} == {plugin["package"] for plugin in listed}
        assert name in {plugin["name"] for plugin in listed}


def test_list_with_a_name_says_what_a_plugin_does_and_its_parameters(lab):
    told = lab.command("list", "rankers", "level")
    assert told.returncode == 0
    assert told.stdout == (
        "ranker level [dots-plugins]\n\n"
        "The score of every image is `values[seed]`, plus the mean grey level of the test images.\n\n"
        "Parameter  Type           Default\n"
        "values     list of float  [0.0]\n"
        "threads    int            1\n"
    )
    about = json.loads(lab.command("list", "rankers", "level", "--json").stdout)
    assert about["parameters"][0] == {"name": "values", "type": "list of float", "required": False, "default": [0.0]}
    assert lab.command("list", "rankers", "boom").stdout.endswith("It has no parameters of its own.\n")
    assert "Did you mean 'level'?" in lab.command("list", "rankers", "levle").stderr


def test_list_has_no_holes_where_a_docstring_is_missing(lab):
    source = "import rankbench\nclass Bare(rankbench.Metric):\n    pass\n"
    source += "@rankbench.hookimpl\ndef rankbench_metrics():\n    return {'bare': Bare}\n"
    install(lab.site, "plain", "0.1", {"plain": "plain_metrics"}, {"plain_metrics": source})
    line = next(line for line in lab.command("list", "metrics").stdout.splitlines() if line.startswith("bare "))
    assert line.split() == ["bare", "[plain]"]
    assert lab.command("list", "metrics", "bare").stdout == "metric bare [plain]\n\nIt has no parameters of its own.\n"


def test_plugins_works_while_packages_are_broken(lab):
    install(lab.site, "torn", "0.1", {"torn": "torn"}, {"torn": "import a_package_that_is_not_there\n"})
    misspelt = "import rankbench\n@rankbench.hookimpl\ndef rankbench_ranker():\n    return {}\n"
    install(lab.site, "typo", "0.1", {"typo": "typo"}, {"typo": misspelt})
    double = "import rankbench\n@rankbench.hookimpl\ndef rankbench_metrics():\n    return {'error': 'double:Error'}\n"
    install(lab.site, "double", "0.1", {"double": "double"}, {"double": double})
    told = lab.command("plugins")
    assert told.returncode == 1
    assert "dots-plugins 1.0\n  dataset dots" in told.stdout
    assert "torn, entry point 'torn': NOT USABLE: does not import: ModuleNotFoundError" in told.stdout
    assert "unknown hook 'rankbench_ranker'. Did you mean 'rankbench_rankers'?" in told.stdout
    assert "metric 'error' is brought by 'dots-plugins' and 'double'" in told.stdout
    values = json.loads((told := lab.command("plugins", "--json")).stdout)
    assert told.returncode == 1
    assert {broken["package"] for broken in values["broken"]} >= {"torn", "typo"}
    listed = lab.command("list", "rankers")
    assert "Warning: plugin package torn" in listed.stderr
    assert "brightness" in listed.stdout
    lab.file(TOY)
    assert lab.command("run", "toy.toml").returncode == 0, "nobody needs the broken ones"
    lab.file(TOY.replace('"pairwise-accuracy"', '"error"'))
    refused = lab.command("run", "toy.toml")
    assert refused.returncode == 2
    assert "brought by 'dots-plugins' and 'double'" in refused.stderr


def test_check_plugin_runs_the_conformance_kit(lab):
    good = lab.command("check-plugin", "metrics/mean-score")
    assert good.returncode == 0, good.stdout
    assert good.stdout.startswith("metric mean-score\n  ok ")
    assert " ok, 0 failed" in good.stdout.splitlines()[-1]
    bad = lab.command("check-plugin", "boom")
    assert bad.returncode == 1
    assert "FAILED fits a small problem and returns itself: ValueError: boom" in bad.stdout
    assert " ok, 1 failed" in bad.stdout.splitlines()[-1]
    dataset = lab.command("check-plugin", "dots", "--data", "data")
    assert dataset.returncode == 0, dataset.stdout
    nothing = lab.command("check-plugin", "dots", "--data", "nowhere")
    assert (nothing.returncode, nothing.stdout.splitlines()[-1]) == (3, "0 ok, 0 failed, 1 left out")


# -- small things


def test_version_and_help(lab):
    assert lab.command("--version").stdout.split()[-1] == importlib.metadata.version("rankbench")
    told = lab.command("--help")
    for command in ("run", "table", "list", "plugins", "why", "check-plugin"):
        assert f"\n  {command} " in told.stdout
    assert "..." not in told.stdout.partition("Commands:")[2], "summaries are not cut"
    assert "Exit codes: 0 all good" in lab.command("run", "-h").stdout


@pytest.mark.parametrize("arguments", [["--help"], ["list", "rankers"], ["plugins"], ["table"], ["run", "--dry-run"]])
def test_commands_import_nothing_heavy(lab, arguments):
    """With the first-party plugins installed: torch and scikit-learn take seconds to import."""
    if arguments == ["table"]:
        toy = lab.file(TOY)
        assert lab.command("run", toy).returncode == 0
    script = (
        "import sys\nfrom rankbench.cli import main\n"
        "try:\n    main()\nfinally:\n"
        f"    print('HEAVY', *[name for name in {HEAVY} if name in sys.modules], file=sys.stderr)\n"
    )
    allowed = {"PIL", "pandas", "skimage", "scipy"} if "run" in arguments else set()
    environment = {**os.environ, "PYTHONPATH": str(lab.site)}
    ran = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=lab.root, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = set(next(line for line in ran.stderr.splitlines() if line.startswith("HEAVY")).split()[1:])
    assert found <= allowed
    assert ran.returncode == 0, ran.stderr


def test_a_public_name_is_imported_when_it_is_used():
    script = "import sys, rankbench; assert 'numpy' not in sys.modules; rankbench.Pairs; assert 'numpy' in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
    with pytest.raises(AttributeError, match="module 'rankbench' has no attribute 'Rankers'"):
        __import__("rankbench").Rankers  # noqa: B018
    assert all(hasattr(__import__("rankbench"), name) for name in __import__("rankbench").__all__)


def test_output_that_cannot_be_written_is_told_in_a_line(lab):
    lab.file(TOY)
    assert lab.command("run", "toy.toml").returncode == 0
    paths = {**os.environ, "PYTHONPATH": str(lab.site)}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [str(Path(sys.executable).with_name("rankbench")), "table", "toy.toml"],
            cwd=lab.root, env=paths, stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("Error: the output cannot be written (No space left on device).")
    assert "Traceback" not in done.stderr


def test_a_cache_that_is_no_folder_is_told_at_once(lab):
    lab.file(TOY)
    (lab.root / "taken").write_text("")
    done = lab.command("run", "toy.toml", "--cache", "taken")
    assert done.returncode == 2
    assert "taken: is no folder; --cache names the folder of the cache." in done.stderr


def test_plugins_are_given_by_name(lab):
    with pytest.raises(rankbench.RankbenchError, match="is no name of a module; write the name"):
        lab.run(TOY, plugins=[os])
