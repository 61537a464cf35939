"""A second distribution, installed by pip into a clean environment, beside the first-party plugins."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from market import write_market, write_sizes

ROOT = Path(__file__).parents[1]
THIRD = ROOT / "tests" / "thirdparty"
PLUGINS = {
    "datasets": ("market", "market-categories", "market-sizes"),
    "rankers": ("given-weights", "never", "pair-gap", "timed-gpu", "votes", "workbench"),
    "metrics": ("swap-rate",),
    "features": ("palette", "released"),
}
BENCHMARK = """
title = "Market stalls"
source = "Authors, 2020, table 2"
dataset = "market"
metric = "pairwise-accuracy"
seeds = [0, 1]
timeout = 60

[[column]]
label = "Busy"
group = "Near"
where = { attribute = "busy" }
test = "near"

[[column]]
label = "Bright"
group = "Far"
where = { attribute = "bright" }
test = "far"

[[column]]
label = "Swaps"
test = "far"
metric = "swap-rate"

[[column]]
label = "Sizes"
dataset = "market-sizes"
[[row]]
label = "Chance"
ranker = "chance"

[[row]]
label = "RankSVM, color histogram"
ranker = { name = "ranksvm", features = ["color-histogram"] }
reported = { Swaps = { value = 12.5, source = "table 2" } }
at."Busy" = { C = 0.5 }

[[row]]
label = "RankSVM, palette of other tiles"
[row.ranker]
name = "ranksvm"
features = [{ name = "palette", softness = 0.4, fit_on = { name = "market-categories" } }]

[[row]]
label = "Ridge, released vectors"
ranker = { name = "regression", features = [{ name = "released", vectors = "vectors.csv", normalize = "none" }] }

[[row]]
label = "Pair gap"
ranker = { name = "pair-gap" }

[[row]]
label = "Workbench"
ranker = { name = "workbench", features = ["palette"] }

[[row]]
label = "GPU"
ranker = "timed-gpu"

[[row]]
label = "Votes"
ranker = "votes"

[[row]]
label = "Weights"
ranker = { name = "given-weights", weights = "weights.txt" }

[[row]]
label = "Never"
ranker = "never"
"""


class Environment:
    """A virtual environment that borrows dependencies, not rankbench, from the running one."""

    def __init__(self, folder):
        self.folder = folder
        run(sys.executable, "-m", "venv", "--without-pip", folder)
        self.python = folder / "bin" / "python"
        (site,) = folder.glob("lib/python*/site-packages")
        borrowed = sysconfig.get_path("purelib")
        (site / "borrowed.pth").write_text(f"import sys; sys.path.append({borrowed!r})\n")

    def install(self, *sources):
        run(
            *(sys.executable, "-m", "pip", "--python", self.python, "install", "--no-deps", "--no-build-isolation"),
            *("--no-index", "--disable-pip-version-check", "--force-reinstall", "--quiet", *sources),
        )

    def rankbench(self, *arguments, cwd=None, code=0, **environment):
        answer = subprocess.run(
            [str(self.folder / "bin" / "rankbench"), *map(str, arguments)],
            cwd=cwd or self.folder,
            env={**clean(), "COLUMNS": "120", **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert answer.returncode == code, answer.stdout + answer.stderr
        return answer


def clean():
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "RANKBENCH", "COV", "VIRTUAL_ENV"))}


def run(*words):
    answer = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, timeout=300, env=clean(), check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("needs hatchling, to build without a network")
    environment = Environment(tmp_path_factory.mktemp("clean") / "venv")
    environment.install(ROOT, THIRD)
    return environment


@pytest.fixture(scope="module")
def market(installed, tmp_path_factory):
    """A folder with data, where the benchmark has been run once."""
    place = tmp_path_factory.mktemp("market")
    write_market(place / "data" / "market")
    write_sizes(place / "data" / "market-sizes")
    (place / "market.toml").write_text(BENCHMARK)
    first = installed.rankbench("run", "market.toml", "--jobs", 2, cwd=place)
    return installed, place, first


def test_the_environment_is_clean(installed):
    code = "import rankbench, rankbench_thirdparty; print(rankbench.__file__); print(rankbench_thirdparty.__file__)"
    found = run(installed.python, "-P", "-c", code).stdout.split()
    assert all(Path(path).is_relative_to(installed.folder) for path in found), found


def test_plugins_and_list_show_the_package(installed):
    shown = json.loads(installed.rankbench("plugins", "--json").stdout)
    assert shown["broken"] == []
    expected = sorted(f"{kind[:-1]} {name}" for kind, names in PLUGINS.items() for name in names)
    assert sorted(shown["packages"]["rankbench-thirdparty 1.2"]) == expected
    for kind, names in PLUGINS.items():
        lines = installed.rankbench("list", kind).stdout.splitlines()
        theirs = [line.split()[0] for line in lines if line.endswith("[rankbench-thirdparty]")]
        assert theirs == sorted(names)
        assert any(not line.endswith("[rankbench-thirdparty]") for line in lines)


def test_one_table_of_both_packages(market):
    environment, place, first = market
    assert "45 done, 16 not applicable; 61 fitted in this run." in first.stderr
    text = environment.rankbench("table", "market.toml", "--format", "markdown", cwd=place).stdout.replace("\\", "")
    rows = {line.split("  ")[0].strip("| "): line for line in text.splitlines()}
    for label in re.findall(r'\[\[row\]\]\nlabel = "(.*?)"', BENCHMARK):
        assert any(label in line for line in rows), (label, text)
    assert "needs a market with more stalls" in text
    assert "needs pairs.inputs['votes']" in text
    assert "12.5" in text
    assert "C=0.5" in text or "C = 0.5" in text


def test_what_the_rows_should_reach(market):
    environment, place, _ = market
    script = (
        "import json, rankbench\n"
        "result = rankbench.run('market.toml', quiet=True)\n"
        "print(json.dumps([json.loads(result.table().to_json()), result.plan.fitted, result.exit_code]))\n"
    )
    answer = subprocess.run(
        [environment.python, "-P", "-c", script], cwd=place, env=clean(), capture_output=True, text=True, check=True
    )
    table, fitted, code = json.loads(answer.stdout)
    assert (fitted, code) == (0, 0)
    assert table["Sizes"]["RankSVM, color histogram"] > 80
    busy, swaps = table["Near: Busy"], table["Swaps"]
    for label, floor in (
        ("Pair gap", 90),
        ("Workbench", 85),
        ("Ridge, released vectors", 90),
        ("RankSVM, palette of other tiles", 65),
    ):
        assert busy[label] > floor, (label, busy)
    assert busy["Weights"] == pytest.approx(100, abs=3)
    assert busy["Votes"] > 85
    assert busy["Never"] is None
    assert table["Sizes"]["Votes"] is None
    assert abs(busy["Chance"] - 50) < 30
    assert swaps["Pair gap"] < swaps["Chance"]
    assert table["Swaps (reported)"]["RankSVM, color histogram"] == 12.5


def test_records_tell_the_package_its_services_and_the_gpu_it_wanted(market):
    _, place, _ = market
    records = [json.loads(path.read_text()) for path in (place / "results" / "cells").glob("*/record.json")]
    theirs = [r for r in records if r["row"] in ("Workbench", "GPU", "Pair gap") and r["status"] == "done"]
    assert len(theirs) == 2 * (2 + 4 + 4)  # seeds times problems; Workbench suits no problem without categories
    for record in theirs:
        assert record["versions"]["rankbench-thirdparty"] == "1.2"
        assert record["key_parts"]["ranker"]["distribution"] == "rankbench-thirdparty"
    bench = next(record for record in theirs if record["row"] == "Workbench")
    assert bench["holdouts"][0]["held"] > 0
    assert bench["phases"].keys() >= {"load", "fit", "score", "features", "decode", "shared"}
    assert bench["inputs"] == ["released"]
    assert {record["device"] for record in theirs} == {"cpu"}
    kinds = {record["row"]: {test["kind"] for test in record["tests"].values()} for record in theirs}
    assert kinds == {"Workbench": {"scores"}, "GPU": {"scores"}, "Pair gap": {"margins"}}
    keys = {path.name for path in (place / "results" / "cells").iterdir()}
    assert not [path for path in Path(os.environ["RANKBENCH_SCRATCH"]).iterdir() if path.name[:64] in keys]


def test_a_second_run_fits_nothing(market):
    environment, place, _ = market
    again = environment.rankbench("run", "market.toml", cwd=place)
    assert "0 fitted in this run" in again.stderr


def test_a_new_version_of_a_file_or_vectors_is_another_cell(market):
    environment, place, _ = market
    for name, row in (("weights.txt", "Weights"), ("vectors.csv", "Ridge, released vectors")):
        path = place / "data" / name
        before = path.read_text()
        path.write_text(before.replace("0.9", "0.8") + ("" if name == "weights.txt" else "more,1,2,3\n"))
        plan = json.loads(environment.rankbench("run", "market.toml", "--dry-run", "--json", cwd=place).stdout)
        path.write_text(before)
        assert {cell["row"] for cell in plan["cells"] if cell["status"] == "to do"} == {row}


def test_rows_that_read_no_image_run_without_images(installed, tmp_path):
    write_market(tmp_path / "data" / "market", images=False)
    head, _, _ = BENCHMARK.partition('[[column]]\nlabel = "Sizes"')
    rows = '[[row]]\nlabel = "Votes"\nranker = "votes"\n[[row]]\nlabel = "Pair gap"\nranker = "pair-gap"\n'
    (tmp_path / "votes.toml").write_text(head + rows)
    answer = installed.rankbench("run", "votes.toml", cwd=tmp_path, code=3)
    assert str(tmp_path / "data" / "market" / "images") in answer.stderr
    assert "Ask the authors for market.zip" in answer.stderr
    assert "2 done, 4 missing data" in answer.stderr


def test_the_conformance_kit_passes_every_one_of_its_plugins(market):
    environment, place, _ = market
    for names in PLUGINS.values():
        for name in names:
            code = 3 if name in ("given-weights", "released") else 0  # parameters without default: nothing to check
            answer = environment.rankbench("check-plugin", name, cwd=place, code=code)
            assert "FAILED" not in answer.stdout
            if name not in ("never", "votes", "given-weights", "released"):
                assert answer.stdout.count("  ok ") >= 4, answer.stdout
