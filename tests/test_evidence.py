"""What plugins cannot reach, and what tables say of rows that see more than pixels."""

import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import spies
from tiny_runs import stored_before

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
    lines = ["import os", "from spies import rankbench_rankers"]
    lines += ["assert os.getpid() == int(os.environ['RUNNER']) or not os.path.exists('modules')"]
    Path("modules/standing_plugin.py").write_text("\n".join(lines) + "\n")
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


# -- the best


ROWS = {
    "Pixels": '{ name = "told", less = 100 }',
    "Worse": '{ name = "told", less = 150 }',
    "Names": '{ name = "told", features = [{ name = "by-name", normalize = "none" }] }',
    "Votes": '{ name = "told", votes = true }',
    "Leak": '{ name = "told", leaking = "the split is not by image" }',
    "Leaky": '"leaky"',
    "Chance": '"chance"',
}
NAMES, EVIDENCE = "matches images by name: by-name", "reads evidence given at test time: votes"


def drawn(rows, overlap="", old=False):
    """The table of these rows; with `old`, of records as they were before they told what a row sees."""
    from rankbench.table import Drawer

    head = f'title = "Votes"\ndataset = {{ name = "votes", overlap = "{overlap}" }}\nmetric = "pairwise-accuracy"\n'
    text = head + '[[column]]\nlabel = "x"\n'
    text += "".join(f'[[row]]\nlabel = "{row}"\nranker = {ROWS[row]}\n' for row in rows)
    Path("votes.toml").write_text(text)
    result = rankbench.run("votes.toml", plugins=["spies"], quiet=True, device="cpu", in_process=True)
    assert {cell.status for cell in result.cells} == {"done"}, [cell.reason for cell in result.cells]
    for path in Path("results/cells").glob("*/record.json") if old else ():
        stored_before(path.parent, lambda record: [record.pop(name) for name in ("by_name", "leaks", "pixels")])
    return Drawer(result.runner.registry, result.runner.store).draw(result.plan.benchmark)


def bests(table):
    return {label for label, (entry,) in zip(table.rows, table.entries, strict=True) if entry.best}


def legend(table):
    from rankbench.render import render

    text = " ".join(render(table, "text").split())
    return text.partition(": best measured in ")[2].partition(".")[0]


@pytest.mark.parametrize(
    ("rows", "best", "told"),
    [
        ("Pixels Worse Names Votes", "Pixels", "rows that read evidence or leak do not compete"),
        ("Pixels Worse Chance Leak", "Pixels", "rows whose label leaks do not compete"),
        ("Pixels Worse", "Pixels", ""),
        ("Votes Leak Chance", "Votes", "rows whose label leaks do not compete"),
        ("Votes Names", "Votes Names", ""),
        ("Leak Leaky", "Leak Leaky", ""),
        ("Leak Chance", "", None),
        ("Pixels Votes", "", None),
    ],
)
def test_the_best_competed_fairly(tmp_path, monkeypatch, rows, best, told):
    monkeypatch.chdir(tmp_path)
    table = drawn(rows.split())
    assert bests(table) == set(best.split())
    assert legend(table) == ("" if told is None else "its column" + (f"; {told}" if told else ""))


def test_shared_images_are_everybodys_leak(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert bests(drawn(["Pixels", "Worse", "Votes"], overlap="as published")) == {"Pixels"}


def test_names_evidence_and_leaks_are_footnoted_and_recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = drawn(["Pixels", "Names", "Votes", "Leak"])
    assert [entry.notes for (entry,) in table.entries] == [[], [NAMES], [EVIDENCE], ["the split is not by image"]]
    records = [json.loads(path.read_text()) for path in Path("results/cells").glob("*/record.json")]
    told = {record["row"]: [record[name] for name in ("pixels", "inputs", "by_name", "leaks")] for record in records}
    assert told == {
        "Pixels": [True, [], [], []],
        "Names": [False, [], ["by-name"], []],
        "Votes": [False, ["votes"], [], []],
        "Leak": [True, [], [], ["the split is not by image"]],
    }


def test_old_records_are_judged_by_the_plugins_that_are_installed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = drawn(["Pixels", "Worse", "Names", "Votes", "Leaky"], old=True)
    assert bests(table) == {"Pixels"}
    assert [entry.notes for (entry,) in table.entries][2:4] == [[NAMES], [EVIDENCE]]


def test_the_published_row_that_leaks_is_no_best():
    from rankbench.evidence import Sight, competitors
    from rankbench_rankers.attribute_votes import AttributeVotes
    from rankbench_rankers.deep_attributes import PublishedDeepAttributes

    rows = [Sight.of(ranker, ()) for ranker in (AttributeVotes(), PublishedDeepAttributes())]
    assert competitors(dict(enumerate(rows))) == [0]
    assert rows[1].leaks == PublishedDeepAttributes.notes


@pytest.mark.parametrize(("leaks", "wanted"), [((), "a string"), (3, "a string")])
def test_a_leak_is_a_reason(leaks, wanted):
    from rankbench.evidence import Sight

    class Odd(rankbench.Ranker):
        pass

    Odd.leaks = leaks
    with pytest.raises(rankbench.RankbenchError, match=rf"^Odd: leaks must be {wanted}, the reason why, not "):
        Sight.of(Odd(), ())


# -- a new layout of what is stored


def layout(folder, name, title, rows=("Pixels", "Votes"), columns=("x",)):
    path = folder / f"{name}.toml"
    text = f'title = "{title}"\ndataset = {{ name = "votes" }}\nmetric = "pairwise-accuracy"\n'
    text += "".join(f'[[column]]\nlabel = "{column}"\n' for column in columns)
    path.write_text(text + "".join(f'[[row]]\nlabel = "{row}"\nranker = {ROWS[row]}\n' for row in rows))
    return path


def table_of(path, results="results"):
    """Drawn from the store alone, as `rankbench table` does."""
    from rankbench.benchmark import Benchmark
    from rankbench.store import ResultStore
    from rankbench.table import Drawer
    from rankbench.worker import load_registry

    return Drawer(load_registry(["spies"]), ResultStore(results)).draw(Benchmark.read(path))


def values(table):
    return [[entry.value for entry in row] for row in table.entries]


def test_a_renamed_file_and_a_new_layout_show_what_is_stored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"plugins": ["spies"], "quiet": True, "device": "cpu", "in_process": True}
    first = rankbench.run(layout(tmp_path, "first", "First"), **options).drawn()
    rankbench.run(layout(tmp_path, "second", "Second", ["Names", "Chance"]), **options)
    shown = values(first)
    assert all(value is not None for row in shown for value in row)
    assert values(table_of(layout(tmp_path, "renamed", "Renamed"))) == shown
    mixed = table_of(layout(tmp_path, "mixed", "Mixed", ["Names", "Votes", "Worse"], ["x", "y"]))
    assert [[entry.status for entry in row] for row in mixed.entries] == [["done"] * 2, ["done"] * 2, ["to do"] * 2]
    assert mixed.notes == []
    (tmp_path / "results" / "plans" / "third").mkdir()
    for at, text in enumerate(("{", '"plan"', '{"facets": 3}', '{"cells": [1], "facets": {}}', "{}"), 1):
        (tmp_path / "results" / "plans" / "third" / f"{at:06d}.json").write_text(text)
    assert values(table_of(tmp_path / "renamed.toml")) == shown, "damaged plans are passed over"
    monkeypatch.setattr("rankbench.keys.Keys._read", lambda keys: pytest.fail("the file's own plan has it all"))
    assert values(table_of(tmp_path / "first.toml")) == shown


def test_where_plans_lead_to_different_results_the_newest_wins_and_a_note_says_so(tmp_path, monkeypatch):
    from rankbench.keys import DIFFERING

    monkeypatch.chdir(tmp_path)
    options = {"plugins": ["spies"], "quiet": True, "device": "cpu", "in_process": True}
    rankbench.run(layout(tmp_path, "first", "First"), **options)
    monkeypatch.setattr(spies.Told, "version", "2", raising=False)
    monkeypatch.setattr(spies.Told, "score", lambda self, images, run: np.zeros(len(images)))
    rankbench.run(layout(tmp_path, "second", "Second"), **options)
    plans = [tmp_path / "results" / "plans" / name / "000001.json" for name in ("first", "second")]
    for newest in (0, 1):
        for at, plan in enumerate(plans):
            os.utime(plan, (1e9 + (at == newest), 1e9 + (at == newest)))
        table = table_of(layout(tmp_path, "third", "Third"))
        assert table.notes == [DIFFERING]
        assert (table.entries[1][0].value == 50) == (newest == 1)
    assert table_of(tmp_path / "first.toml").notes == [], "a file's own plan rules"


def test_a_layout_that_was_run_without_its_data_shows_what_other_plans_know(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "pictures")
    text = 'title = "t"\ndataset = {{ name = "manifest", folder = "." }}\nmetric = "{}"\n[[column]]\nlabel = "x"\n'
    text += '[[row]]\nlabel = "Pixels"\nranker = "told"\n'
    Path("first.toml").write_text(text.format("pairwise-accuracy"))
    Path("second.toml").write_text(text.format("spearman"))
    options = {"plugins": ["spies"], "quiet": True, "device": "cpu", "in_process": True}
    assert rankbench.run("first.toml", data="pictures", **options).exit_code == 0
    rankbench.run("second.toml", data="nowhere", **options)
    assert values(table_of(tmp_path / "second.toml")) == [[1.0]]


# -- counts


def test_footnotes_count_each_photograph_once(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data" / "photos"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for at in range(40):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3)).astype(np.uint8)).save(folder / f"{at:02d}.png")
    photo = folder / "07.png"
    photo.write_bytes(photo.read_bytes()[:300])
    pairs = [(a, b) for a in range(40) for b in range(a + 1, 40) if (a + b) % 3]
    lines = ["left,right,label", *(f"{a:02d}.png,{b:02d}.png,{(-1) ** a}" for a, b in pairs)]
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    text = 'title = "t"\ndataset = { name = "manifest", folder = "photos" }\nmetric = "pairwise-accuracy"\n'
    text += '[[column]]\nlabel = "x"\n[[column]]\nlabel = "One"\nwhere = { split = 3 }\n'
    Path("photos.toml").write_text(text + '[[row]]\nlabel = "Pixels"\nranker = "told"\n')
    result = rankbench.run("photos.toml", plugins=["spies"], quiet=True, device="cpu", in_process=True)
    assert {cell.status for cell in result.cells} == {"done"}, [cell.reason for cell in result.cells]
    table = result.drawn()
    dropped = [max(int(note.split()[0]) for note in cell.notes) for cell in result.cells]
    unread, join = (
        "1 of 40 images could not be read and was left out with its pairs",
        (f" of {len(pairs)} pairs join a training and a test image and were left out"),
    )
    assert len(set(dropped)) > 1
    assert table.entries[0][0].notes == [f"in each of 5 splits, up to {max(dropped)}{join}"]
    assert table.entries[0][1].notes == [f"{dropped[3]}{join}"]
    assert table.row_notes == [[unread]]
