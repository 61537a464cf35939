"""What plugins cannot reach, and what tables say of rows that see more than pixels."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

import rankbench
from rankbench.scratch import UNUSED, scratch_root, sweep_private

BENCHMARK = """
title = "Coins"
dataset = {{ name = "coins", drawn = {drawn} }}
metric = "pairwise-accuracy"
[[column]]
label = "Heads"
[[row]]
label = "Honest"
ranker = "honest"
[[row]]
label = "Spy"
ranker = "spy"
"""


# -- test labels


@pytest.fixture
def coins(tmp_path, monkeypatch):
    """Standing in a folder with results in it, as a user does; the private folders are where they are by default."""
    home = tmp_path / "home"
    (tmp_path / "project").mkdir()
    home.mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("RANKBENCH_SCRATCH", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("SPY_LOG", str(tmp_path / "spy.log"))

    def run(drawn=True, **options):
        Path("coins.toml").write_text(BENCHMARK.format(drawn=str(drawn).lower()))
        return rankbench.run("coins.toml", plugins=["spies"], quiet=True, device="cpu", jobs=1, **options)

    yield run
    shutil.rmtree("results", ignore_errors=True)


def looks():
    return [json.loads(line) for line in Path(os.environ["SPY_LOG"]).read_text().splitlines()]


@pytest.mark.parametrize("drawn", [True, False])
def test_a_later_row_cannot_reach_the_labels_that_an_earlier_one_was_tested_on(coins, drawn, tmp_path):
    result = coins(drawn)
    assert [cell.status for cell in result.cells] == ["done", "done"], [cell.reason for cell in result.cells]
    assert list(Path("results/tests").iterdir()), "the first row's tests were there to be found"
    seen = looks()
    assert {look["where"] for look in seen} == {"fit", "build", "score", "feature fit", "extract"}
    assert [told for look in seen for told in look["told"]] == []
    assert 40 < result.table().loc["Spy", "Heads"] < 60


def test_tests_are_stored_only_once_a_cell_is_fitted(coins):
    Path("trouble.toml").write_text(BENCHMARK.format(drawn="true").replace('ranker = "spy"', 'ranker = "boom"'))
    result = rankbench.run("trouble.toml", plugins=["spies"], quiet=True, device="cpu", only="Spy", in_process=True)
    assert [cell.reason for cell in result.cells] == ["no tests there: []"]
    assert not Path("results/tests").exists()


# -- where a worker stands, and private folders


def standing(**options):
    """What a ranker says of the place where it was fitted."""
    places = 'title = "t"\ndataset = {}\nmetric = "pairwise-accuracy"\n[[column]]\nlabel = "x"\n[[row]]\n'
    toml = places.format('{ name = "manifest", folder = "." }') + 'label = "Standing"\nranker = "standing"\n'
    Path("standing.toml").write_text(toml)
    found = rankbench.run("standing.toml", quiet=True, device="cpu", jobs=1, **options)
    assert [cell.status for cell in found.cells] == ["done"], found.cells[0].reason
    state = found.runner.store.state(found.cells[0].key)
    return state["here_"], state["pwd_"], state["empty_"], state["folder_"]


def test_a_worker_stands_in_an_empty_folder_and_finds_what_was_relative(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("modules")  # relative, and the data too
    Path("modules").mkdir()
    lines = ["import os, rankbench", "from spies import Standing", "assert not os.path.exists('modules')"]
    lines += ["@rankbench.hookimpl", "def rankbench_rankers():", "    return {'standing': Standing}"]
    guarded = "\n".join(lines).replace("assert not", "assert os.getpid() == int(os.environ['RUNNER']) or not")
    Path("modules/standing_plugin.py").write_text(guarded + "\n")
    monkeypatch.setenv("RUNNER", str(os.getpid()))
    draw(Path("pictures"))
    here, pwd, before, folder = standing(data="pictures", plugins=["standing_plugin"])
    assert before == []
    assert here == pwd
    assert not here.startswith(str(tmp_path))
    assert not os.path.exists(here)
    assert os.path.dirname(folder) == os.environ["RANKBENCH_SCRATCH"]
    assert not os.path.exists(folder)
    here, *_ = standing(data="pictures", plugins=["standing_plugin"], in_process=True, results="others")
    assert here == str(tmp_path)


def draw(folder, count=12):
    from PIL import Image

    folder.mkdir()
    for at in range(count):
        Image.new("RGB", (8, 8), (20 * at,) * 3).save(folder / f"{at}.png")
    lines = ["path,score,split", *(f"{at}.png,{at},{'train' if at % 2 else 'test'}" for at in range(count))]
    (folder / "images.csv").write_text("\n".join(lines) + "\n")


def test_private_folders_lie_where_no_folder_above_holds_results(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.delenv("RANKBENCH_SCRATCH")
    monkeypatch.setattr("rankbench.scratch.SYSTEM", tmp_path_factory.mktemp("system"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", "relative, so it does not count")
    mine = tmp_path / "home" / ".cache" / "rankbench" / "running"
    assert scratch_root(tmp_path / "cache", tmp_path / "results") != mine, "the results lie above it"
    assert tmp_path not in scratch_root(tmp_path / "cache", tmp_path / "results").parents
    project = tmp_path / "project"
    assert scratch_root(project / "cache", project / "results") == mine
    assert mine.stat().st_mode & 0o777 == 0o700
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert scratch_root(project / "cache", project / "results") == tmp_path / "xdg" / "rankbench" / "running"
    monkeypatch.setenv("RANKBENCH_SCRATCH", str(tmp_path / "chosen"))
    assert scratch_root(project / "cache", project / "results") == tmp_path / "chosen"


def test_private_folders_are_in_the_cache_where_there_is_no_other_place(tmp_path, monkeypatch):
    monkeypatch.delenv("RANKBENCH_SCRATCH")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("rankbench.scratch.SYSTEM", tmp_path / "file")
    assert scratch_root(tmp_path / "p" / "cache", tmp_path / "p" / "results") == tmp_path / "p" / "cache" / "running"


def test_private_folders_nobody_uses_any_more_are_swept(tmp_path):
    key, old = "0" * 64, time.time() - UNUSED - 60
    names = [f"{key}-0123456789ab-01234567", f"features-{key}-01234567.run", f"shared-{key}-01234567.run.55"]
    for name in (*names, "somebody-else's", f"{key}-others"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "checkpoint").write_text("x")
        os.utime(tmp_path / name / "checkpoint", (old, old))
        os.utime(tmp_path / name, (old, old))
    young = tmp_path / f"{key}-aa-bb"
    young.mkdir()
    (young / "checkpoint").write_text("x")
    os.utime(young, (old, old))
    sweep_private(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"somebody-else's", f"{key}-others", young.name}
    sweep_private(tmp_path / "not there")
