"""What a cell leaves behind in its process changes no other cell, in any order."""

import numpy as np
import pytest
from bad_neighbours import CHANGES
from PIL import Image
from tiny_runs import TinyRuns, grey_files

from rankbench import ambient, traits

SLOW = ("torch", "library", "other", "nothing")
QUICK = [how for how in CHANGES if how not in SLOW]
TOGETHER = ["+".join(QUICK[at::4]) for at in range(4)]  # a process each
PLUGINS = ["misbehaving", "bad_neighbours"]


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    return TinyRuns(tmp_path, monkeypatch)


def rows_of(changes, **more):
    rows = {}
    for how in changes:
        rows[f"bad {how}"] = {"name": "neighbour", "how": how}
        rows[f"after {how}"] = {"name": "witness", "tag": how, **more}
    return rows


def witnesses(tiny):
    """Scores of the rows that came after, by row."""
    found = {}
    for key, record in tiny.store.records():
        if record["ranker"]["name"] == "witness":
            found[record["row"]] = tiny.store.outcome(key, "test").scores.tobytes()
    return found


def changes_of(tiny):
    return {record["row"]: record.get("left_changed", []) for _, record in tiny.store.records()}


@pytest.fixture(scope="module")
def in_order(tmp_path_factory):
    """Every change, each before a row that would see it, in one worker at a time; and those rows alone."""
    with pytest.MonkeyPatch.context() as patch:
        tiny = TinyRuns(tmp_path_factory.mktemp("order"), patch)
        result = tiny.run(rows_of(TOGETHER), plugins=PLUGINS)
        alone = TinyRuns(tmp_path_factory.mktemp("alone"), patch)
        alone.run(rows_of(TOGETHER), plugins=PLUGINS, only="after *")
        return tiny, alone, result


def test_no_score_depends_on_what_a_row_before_it_left(in_order):
    tiny, alone, result = in_order
    assert {cell.status for cell in result.cells} == {"done"}
    assert len(witnesses(alone)) == len(TOGETHER)
    assert len(set(witnesses(alone).values())) == 1
    assert witnesses(tiny) == witnesses(alone)


def test_what_was_left_is_named_in_the_record_and_in_a_footnote(in_order):
    tiny, _, result = in_order
    left = changes_of(tiny)
    for at, together in enumerate(TOGETHER):
        assert left[f"after {together}"] == []
        (entry,) = result.drawn().entries[2 * at]
        for how in together.split("+"):
            (text,) = [text for text in left[f"bad {together}"] if text.startswith(CHANGES[how][1])]
            (note,) = [note for note in entry.notes if note.startswith("changes the state of its process, which is ")]
            assert text in note


def test_a_process_that_was_left_as_it_was_serves_on(in_order):
    _, alone, _ = in_order
    assert len({note["pid"] for note in alone.notes("witness")}) == 1


def test_other_orders_and_two_workers_change_nothing(tiny, in_order):
    _, alone, _ = in_order
    rows = dict(reversed(rows_of(TOGETHER).items()))
    rows |= {"broken": {"name": "trouble", "how": "raises"}}
    tiny.run(rows, plugins=PLUGINS, jobs=2)
    found, expected = witnesses(tiny), witnesses(alone)
    assert found == expected


def test_another_distribution_gets_another_process(tiny):
    rows = {"bad": {"name": "neighbour", "how": "other"}, "steady": {"name": "steady"}, "trouble": {"name": "trouble"}}
    rows["trouble"]["how"] = "tells-its-folder"
    rows["bad again"] = {"name": "neighbour", "how": "nothing"}
    result = tiny.run(rows, plugins=PLUGINS)
    assert {cell.status for cell in result.cells} == {"done"}
    pids = {note.get("how", "steady"): note["pid"] for note in tiny.notes()}
    assert pids["other"] == pids["nothing"] != pids["steady"] == pids["tells-its-folder"], "cells are grouped so"


def test_a_worker_whose_cell_failed_serves_no_other(tiny):
    rows = {str(at): {"name": "trouble", "how": how} for at, how in enumerate(["raises", "suits-nothing", "prints"])}
    tiny.run(rows)
    first, second, third = (note["pid"] for note in tiny.notes())
    assert first != second == third


def test_what_a_library_changes_by_being_imported_is_no_plugin_s_doing(tiny, monkeypatch):
    folder = tiny.root / "libraries"
    folder.mkdir()
    lines = [
        "import os, warnings, signal, decimal",
        "os.environ['BAD_LIBRARY'] = '1'",
        "warnings.simplefilter('ignore')",
    ]
    lines += ["signal.signal(signal.SIGUSR2, signal.SIG_IGN)"]
    (folder / "bad_library.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(folder))
    tiny.run({"imports": {"name": "neighbour", "how": "library"}, "after": {"name": "witness"}}, plugins=PLUGINS)
    assert changes_of(tiny) == {"imports": [], "after": []}
    assert len({note["pid"] for event in ("fit", "witness") for note in tiny.notes(event)}) == 1


def test_in_process_it_is_put_back(tiny):
    before = ambient.snapshot()
    result = tiny.run(rows_of(QUICK), plugins=PLUGINS, in_process=True)
    assert {cell.status for cell in result.cells} == {"done"}, [cell.reason for cell in result.cells]
    assert ambient.differences(before, ambient.snapshot()) == []
    assert len(set(witnesses(tiny).values())) == 1
    for row, left in changes_of(tiny).items():
        how = row.removeprefix("bad ")
        named = [text for text in left if row.startswith("bad") and text.startswith(CHANGES[how][1])]
        assert len(named) == row.startswith("bad") == bool(left), (row, left)


@pytest.mark.parametrize("pixels", [False, True])
def test_a_flag_of_the_decoder_does_not_poison_the_pixels_that_all_rows_share(tiny, pixels):
    grey_files(tiny.data / "tiny-files")
    photograph = sorted((tiny.data / "tiny-files").glob("t*.png"))[0]
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photograph)
    photograph.write_bytes(photograph.read_bytes()[:6000])
    bad = {"name": "neighbour", "how": "pillow", "pixels": pixels}
    rows = {"bad": bad, "decodes": {"name": "decoder", "pixels": True}}
    tiny.run(rows, plugins=PLUGINS, dataset={"name": "tiny-files"})
    lost = {record["row"]: len(record["lost"]) for _, record in tiny.store.records()}
    assert lost["decodes"] == 1


def test_torch_s_settings_do_not_outlive_their_cell(tiny):
    rows = {"bad": {"name": "neighbour", "how": "torch"}, "after": {"name": "witness", "torch": True}}
    result = tiny.run(rows, plugins=PLUGINS)
    assert {cell.status for cell in result.cells} == {"done"}
    left = changes_of(tiny)
    assert left["after"] == []
    assert len(left["bad"]) == 7, left["bad"]
    assert left["bad"][0] == CHANGES["torch"][1]


def test_torch_s_settings_are_put_back():
    torch = pytest.importorskip("torch")
    before = ambient.snapshot()
    assert {trait.words for trait in traits.TORCH} <= before.keys()
    assert traits.UNREADABLE not in before.values()
    watch = ambient.Ambient()
    CHANGES["torch"][0]()
    torch.set_num_threads(torch.get_num_threads() + 1)
    torch.autograd.set_detect_anomaly(True)
    assert len(watch.left()) == 9
    assert ambient.differences(before, ambient.snapshot(traits.TORCH)) == []
    assert torch.ones(1).requires_grad_().sum().grad_fn is not None
