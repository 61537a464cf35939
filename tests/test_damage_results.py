"""A results folder that is damaged: every file is named and mended by the next run, and the rest is drawn."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import TinyRuns, environment, stored_before

from rankbench import drafts
from rankbench.benchmark import Benchmark
from rankbench.cell import TestSet
from rankbench.errors import DamagedFile
from rankbench.files import write_checksums, write_folder
from rankbench.pairs import Pairs
from rankbench.reasons import reasons, summary
from rankbench.runner import Options, Runner
from rankbench.store import ResultStore
from rankbench.table import Drawer

ROWS = {"one": {"name": "steady"}, "two": {"name": "steady", "noise": 0.02}}
SECONDS = 30  # after which a command hangs


@pytest.fixture(autouse=True)
def in_bounded_time():
    """What waits for a pipe or reads an endless device fails, rather than hang the tests."""

    def late(*_):
        raise AssertionError(f"no answer within {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


class Store(TinyRuns):
    """Results of two rows, and the commands that read them."""

    def command(self, rows=None, **options):
        return self.run(rows or ROWS, **{"in_process": True, **options})

    def runner(self):
        return Runner(Options(**self.options(in_process=True)))

    def table(self):
        """What `table` draws, in a process that has read nothing yet."""
        drawer = Drawer(self.runner().registry, ResultStore(self.results), self.cache)
        return drawer.draw(Benchmark.read(self.write(ROWS)))

    def why(self):
        """What `why` says of each row."""
        runner = self.runner()
        cells = runner.selected(runner.plan(Benchmark.read(self.write(ROWS))))
        return {cell.row: text for cell, text in reasons(runner.planner, cells)}

    def folder(self, row):
        """Of a row's cell."""
        return next(self.store.cell(key) for key, record in self.store.records() if record["row"] == row)


def values(table):
    return [[entry.value for entry in row] for row in table.entries]


def notes(table):
    """All that is noted anywhere in a table."""
    lists = [table.notes, *table.row_notes, *(entry.notes for row in table.entries for entry in row)]
    return " ".join(note for texts in lists for note in texts)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("undisturbed"))
    assert store.command({"one": ROWS["one"]}).exit_code == 0
    assert store.command().exit_code == 0  # a second plan
    return store, store.scores(), values(store.table())


@pytest.fixture
def store(undisturbed, tmp_path):
    """A copy to damage."""
    for name in ("results", "cache", "data"):
        shutil.copytree(undisturbed[0].root / name, tmp_path / name)
    return Store(tmp_path)


@pytest.fixture
def before(store):
    """The same as a release without checksums stored it."""
    for folder in (store.results / "cells").iterdir():
        stored_before(folder)
    for folder in (store.results / "tests").iterdir():
        about = json.loads((folder / "test.json").read_text())
        about.pop("checksums")
        (folder / "test.json").write_text(json.dumps(about))
        (folder / "checksums.json").unlink()
    return store


# ---------------------------------------------------------------------------------------------------- kinds of damage


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def a_bit(path):
    """In the middle, where a number or a key is."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def the_first_key(path):
    """One bit of it."""
    content = bytearray(path.read_bytes())
    content[content.index(b'"') + 2] ^= 1
    path.write_bytes(content)


def status(path):
    """One bit of the key "status"."""
    path.write_bytes(path.read_bytes().replace(b'"status"', b'"statur"'))


def gone(path):
    path.unlink()


def a_list(path):
    path.write_text("[1, 2]")


def other_types(path):
    """Numbers as text, and text as numbers."""
    record = json.loads(path.read_text())
    path.write_text(json.dumps({key: 1 if isinstance(value, str) else "1" for key, value in record.items()}))


def deep(path):
    path.write_text("[" * 100_000 + "]" * 100_000)


def a_pipe(path):
    path.unlink()
    os.mkfifo(path)


def a_socket(path):
    path.unlink()
    here = os.getcwd()
    os.chdir(path.parent)  # an address is short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


def a_device(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def a_dangling_link(path):
    path.unlink()
    path.symlink_to("nowhere")


def a_folder(path):
    path.unlink()
    path.mkdir()
    (path / "more").write_text("more")


def ten_gigabytes(path):
    os.truncate(path, 10 * 2**30)


ODD = [a_pipe, a_socket, a_device, a_dangling_link, a_folder, ten_gigabytes]
TORN = [half, empty, gone, *ODD]
FILES = {
    "record.json": [*TORN, a_bit, status, a_list, other_types, deep],
    "scores.npz": [*TORN, a_bit, a_list],
    "checksums.json": [*TORN, a_bit, a_list, deep],
    "curves.json": [*TORN, a_bit, a_list, deep],
}
CASES = [(name, damage) for name, damages in FILES.items() for damage in damages]
PRESENT = [case for case in CASES if case[0] != "checksums.json" and case not in [("curves.json", gone)]]


def named(case):
    return getattr(case, "__name__", str(case))


# -------------------------------------------------------------------------------------------------------------- cells


def damaged_cell(store, undisturbed, path, capsys):
    """Every command on a store with a damaged cell of row `one`."""
    _, scores, whole = undisturbed
    table = store.table()
    drawn = path.name == "curves.json"  # a table needs none
    assert table.entries[1][0].value == whole[1][0]
    assert table.entries[0][0].status == ("done" if drawn else "failed")
    assert drawn or str(path.parent) in notes(table)
    why = store.why()
    assert str(path.parent) in why["one"]
    assert why["two"].startswith("stored as ")
    capsys.readouterr()
    result = store.command()
    assert (result.plan.fitted, result.exit_code) == (1, 0)
    assert str(path.parent) in capsys.readouterr().err
    assert store.scores() == scores
    assert values(store.table()) == whole
    again = store.command()
    assert (again.plan.fitted, again.exit_code, capsys.readouterr().err) == (0, 0, "")


@pytest.mark.parametrize(("name", "damage"), CASES, ids=named)
def test_a_damaged_cell_is_named_and_computed_again(store, undisturbed, capsys, name, damage):
    path = store.folder("one") / name
    damage(path)
    damaged_cell(store, undisturbed, path, capsys)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        pytest.param(*case, marks=() if case[1] in (half, status, a_pipe, gone) else pytest.mark.slow)
        for case in PRESENT
        if case not in [("curves.json", a_bit), ("record.json", a_bit)]  # a digit of a number: nothing can tell
    ],
    ids=named,
)
def test_a_damaged_cell_of_an_older_store_is_named_and_computed_again(before, undisturbed, capsys, name, damage):
    path = before.folder("one") / name
    damage(path)
    damaged_cell(before, undisturbed, path, capsys)


def another_length(arrays):
    return {name: array[:-1] for name, array in arrays.items()}


def another_type(arrays):
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def a_nan(arrays):
    return {name: np.where(np.arange(len(array)) == 1, np.nan, array) for name, array in arrays.items()}


def another_name(arrays):
    return {f"{name}s": array for name, array in arrays.items()}


def objects(arrays):
    return {name: array.astype(object) for name, array in arrays.items()}


@pytest.mark.parametrize("change", [another_length, another_type, a_nan, another_name, objects], ids=named)
def test_scores_that_cannot_be_right_are_named_and_computed_again(before, undisturbed, capsys, change):
    path = before.folder("one") / "scores.npz"
    with np.load(path) as arrays:
        changed = change(dict(arrays))
    np.savez(path, **changed)
    damaged_cell(before, undisturbed, path, capsys)


def test_every_bit_of_a_file_of_scores_is_guarded_without_checksums_too(before, undisturbed):
    """Whatever readers of archives and arrays make of a flipped bit, another number is never taken for the score."""
    folder = before.folder("one")
    content = (folder / "scores.npz").read_bytes()
    right = before.store.outcome(folder.name, "test").scores.tobytes()
    for at in range(len(content)):
        flipped = bytearray(content)
        flipped[at] ^= 1 << (at % 8)
        (folder / "scores.npz").write_bytes(flipped)
        try:
            found = before.store.outcome(folder.name, "test")
        except DamagedFile:
            continue
        assert found.scores.tobytes() == right or found.flaw(4, 6, 0), at


def test_cells_whose_files_or_folders_were_exchanged_are_computed_again(store, undisturbed, capsys):
    one, two = store.folder("one"), store.folder("two")
    for exchange in ((one / "scores.npz", two / "scores.npz"), (one, two)):
        assert drafts.swapped(*exchange)
        assert [row[0].status for row in store.table().entries] == ["failed", "failed"]
        result = store.command()
        assert (result.plan.fitted, result.exit_code) == (2, 0)
        assert str(one) in (said := capsys.readouterr().err)
        assert str(two) in said
        assert store.scores() == undisturbed[1]


def test_whatever_lies_in_the_place_of_a_cell_gives_way(store, undisturbed, capsys):
    for damage in (a_dangling_link, a_pipe, a_device, empty):
        folder = store.folder("one")
        shutil.rmtree(folder)
        folder.touch()
        damage(folder)
        damaged_cell(store, undisturbed, folder / "record.json", capsys)


def test_a_value_that_is_remembered_hides_no_damage(store, undisturbed):
    assert values(store.table()) == undisturbed[2]  # and remembers them
    path = store.folder("one") / "scores.npz"
    stat = path.stat()
    a_bit(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert store.table().entries[0][0].status == "failed"


def test_a_damaged_cell_whose_data_is_absent_fails_and_stays(tmp_path, undisturbed):
    from tiny_runs import grey_files

    store, images = Store(tmp_path), {"name": "tiny-files"}
    grey_files(store.data / "tiny-files")
    assert store.command(dataset=images).exit_code == 0
    (store.data / "tiny-files").rename(tmp_path / "elsewhere")
    path = store.folder("one") / "scores.npz"
    half(path)
    left = store.stored()
    result = store.command(dataset=images)
    status = {cell.row: cell for cell in result.cells}
    assert (status["one"].status, status["two"].status) == ("failed", "done")
    assert str(path) in status["one"].reason
    assert "Draw them." in status["one"].reason
    assert result.exit_code == 1
    assert store.stored() == left
    (tmp_path / "elsewhere").rename(store.data / "tiny-files")
    result = store.command(dataset=images)
    assert (result.plan.fitted, result.exit_code) == (1, 0)


def test_a_failed_attempt_to_mend_a_cell_leaves_what_is_there(store):
    path = store.folder("one") / "scores.npz"
    half(path)
    left = store.stored()
    result = store.command(in_process=False, top={"timeout": 0.0001}.items())
    assert result.exit_code == 1
    assert store.stored() == left


def test_a_model_is_checked_when_it_is_loaded(store, capsys):
    key = store.folder("one").name
    assert store.store.state(key)
    for name in ("state.json", "state.npz"):
        path = store.store.cell(key) / "model" / name
        for damage in (a_bit, a_pipe):
            whole = path.read_bytes()
            damage(path)
            with pytest.raises(DamagedFile, match=name):
                ResultStore(store.results).state(key)
            path.unlink()
            path.write_bytes(whole)
    a_bit(store.store.cell(key) / "curves.json")
    with pytest.raises(DamagedFile, match=r"curves\.json"):
        store.store.curves(key)


def test_an_older_store_is_left_as_it_is(before, undisturbed, capsys):
    left = before.stored()
    assert values(before.table()) == undisturbed[2]
    result = before.command()
    assert (result.plan.fitted, result.exit_code, before.stored()) == (0, 0, left)
    assert capsys.readouterr().err == ""


def test_an_older_store_may_be_copied_over_a_newer_and_the_other_way(store, undisturbed, tmp_path, capsys):
    older = tmp_path / "older"
    shutil.copytree(store.results, older)
    for folder in (older / "cells").iterdir():
        stored_before(folder)
    newer = tmp_path / "newer"
    shutil.copytree(store.results, newer)
    shutil.copytree(older, store.results, dirs_exist_ok=True)
    assert store.command().plan.fitted == 0
    shutil.copytree(newer, store.results, dirs_exist_ok=True)
    assert store.command().plan.fitted == 0
    assert capsys.readouterr().err == ""
    a_bit(store.folder("one") / "scores.npz")
    assert store.command().plan.fitted == 1


# ---------------------------------------------------------------------------------------------------------- test sets


def the_test(store):
    (folder,) = (store.results / "tests").iterdir()
    return folder


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *(("test.npz", damage) for damage in [*TORN, a_bit, a_list]),
        *(("test.json", damage) for damage in [*TORN, a_bit, the_first_key, a_list, other_types, deep]),
        *(("checksums.json", damage) for damage in [half, gone, a_pipe]),
    ],
    ids=named,
)
def test_a_damaged_test_set_is_named_and_stored_again(store, undisturbed, capsys, name, damage):
    path = the_test(store) / name
    damage(path)
    table = store.table()
    assert [row[0].status for row in table.entries] == ["failed", "failed"]
    assert str(path.parent) in notes(table)
    store.why()
    capsys.readouterr()
    result = store.command()
    assert (result.plan.fitted, result.exit_code) == (0, 0)
    assert str(path.parent) in capsys.readouterr().err
    assert values(store.table()) == undisturbed[2]
    store.command()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("honest", [True, False])
@pytest.mark.parametrize("warm", [True, False])
def test_a_test_set_with_other_labels_is_noticed(store, undisturbed, capsys, honest, warm):
    """From a store of somebody else, say; its checksums may be right."""
    folder, digest = the_test(store), the_test(store).name
    if not warm:
        shutil.rmtree(store.cache)
    test = store.store.test(digest)
    pairs = Pairs(test.pairs.left, test.pairs.right, -test.pairs.judgement)
    other = TestSet(pairs, test.digests, test.names, test.columns)
    forged = ResultStore(store.root / "forged")
    forged.save_test(other)
    shutil.copy(forged.root / "tests" / other.digest / "test.npz", folder)
    (folder / "checksums.json").unlink()
    if honest:
        write_checksums(folder)
    for _twice in range(2):  # nothing remembers it as whole
        table = store.table()
        assert [row[0].status for row in table.entries] == ["failed", "failed"]
        assert str(folder) in notes(table)
    assert store.command().exit_code == 0
    assert str(folder) in capsys.readouterr().err
    assert values(store.table()) == undisturbed[2]


def test_a_test_set_that_has_gone_or_cannot_be_one_is_stored_again(store, undisturbed, capsys):
    for damage in (None, a_dangling_link, empty, a_pipe):
        folder = the_test(store)
        shutil.rmtree(folder)
        if damage is not None:
            folder.touch()
            damage(folder)
        assert str(folder) in notes(store.table())
        result = store.command()
        assert (result.plan.fitted, result.exit_code) == (0, 0)
        assert str(folder) in capsys.readouterr().err
        assert values(store.table()) == undisturbed[2]


# ------------------------------------------------------------------------------------------------- plans and failures


@pytest.mark.parametrize("damage", [*TORN, a_bit, the_first_key, a_list, other_types, deep], ids=named)
def test_a_damaged_plan_gives_way_to_the_one_before(store, undisturbed, capsys, damage):
    path = store.results / "plans" / "tiny" / "000002.json"
    damage(path)
    table = store.table()
    assert table.entries[0][0].value == undisturbed[2][0][0]
    assert (str(path) in capsys.readouterr().err) != (damage is gone)
    result = store.command()
    assert (result.plan.fitted, result.exit_code) == (0, 0)
    assert values(store.table()) == undisturbed[2]
    capsys.readouterr()
    store.command()
    store.table()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("strip", ["facets", "cells", "toml"])
def test_a_plan_that_lacks_a_part_is_named(store, capsys, strip):
    path = store.results / "plans" / "tiny" / "000002.json"
    plan = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in plan.items() if key not in ("seal", strip)}))
    store.table()
    assert f"{path}: is damaged (Object missing required field `{strip}`)" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [half, gone, a_bit, status, a_list, other_types, deep, a_pipe], ids=named)
def test_a_damaged_failure_is_named_and_counts_as_not_there(tmp_path, capsys, damage):
    store, rows = Store(tmp_path), {"raises": {"name": "trouble", "how": "raises"}, **ROWS}
    assert store.command(rows).exit_code == 1
    (path,) = (store.results / "failures").glob("*/*/record.json")
    damage(path)
    Drawer(store.runner().registry, ResultStore(store.results), store.cache).draw(Benchmark.read(store.write(rows)))
    assert str(path) in capsys.readouterr().err
    assert store.command(rows).exit_code == 1
    assert str(path) in capsys.readouterr().err
    assert store.command(rows, retry=False).exit_code == 1
    assert capsys.readouterr().err == ""


# ------------------------------------------------------------------------------------------------ drafts and replacing


KILLED = """
    import os, sys, signal
    from pathlib import Path
    from rankbench import drafts, files

    root, step, way = Path(sys.argv[1]), 0, sys.argv[2]
    if way == "renames":
        drafts.swapped = lambda one, other: False  # a file system that cannot exchange

    def killed_at(step):
        here = {files.__file__, drafts.__file__}
        def trace(frame, event, value):
            nonlocal step
            if frame.f_code.co_filename not in here:
                return None
            step -= 1
            if step < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace
        return trace

    def fill(draft):
        (draft / "text").write_text("new")

    while True:
        step += 1
        folder = root / str(step) / "cells"
        files.write_folder(folder / ("k" * 64), lambda draft: (draft / "text").write_text("old"))
        child = os.fork()
        if not child:
            sys.settrace(killed_at(step))
            files.write_folder(folder / ("k" * 64), fill, replace=True)
            sys.settrace(None)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            break
    print(step)
"""


@pytest.mark.parametrize("way", ["exchange", "renames"])
def test_a_kill_at_any_step_of_replacing_loses_nothing(tmp_path, way):
    script = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), way]
    done = subprocess.run(script, env=environment(), capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    found = []
    for folder in sorted(tmp_path.glob("*/cells"), key=lambda folder: int(folder.parent.name)):
        drafts.sweep(folder)
        assert os.listdir(folder) == ["k" * 64], folder
        found.append((folder / ("k" * 64) / "text").read_text())
    assert len(found) == int(done.stdout) > 20
    assert found == sorted(found, reverse=True), "once it is new it stays new"
    assert set(found) == {"old", "new"}


def test_a_cell_that_is_replaced_while_it_is_read_is_not_taken_for_damaged(store):
    key = store.folder("one").name
    record, outcomes = store.store.record(key), {"test": store.store.outcome(key, "test")}
    done = threading.Event()

    def replace():
        for number in range(30):
            store.store.save(key, {**record, "take": "x" * number}, outcomes, replace=True)
        done.set()

    writer = threading.Thread(target=replace)
    writer.start()
    reads = 0
    while not done.is_set():
        assert ResultStore(store.results).stored(key).record["row"] == "one"
        reads += 1
    writer.join()
    assert reads > 30


def test_what_a_kill_moved_aside_is_put_back_by_whoever_misses_it(store, undisturbed):
    folder, dead = store.folder("one"), subprocess.Popen(["true"])
    dead.wait()
    mark = f"{drafts.host()}-{dead.pid}-1"
    folder.rename(folder.with_name(f".{folder.name}.01234567.{mark}.aside"))
    assert values(store.table()) == undisturbed[2]
    assert folder.is_dir()


def test_drafts_of_the_dead_are_swept_and_those_of_the_living_stay(store):
    dead = subprocess.Popen(["true"])
    dead.wait()
    host, cells, old = drafts.host(), store.results / "cells", time.time() - 30 * 3600
    live = drafts.birth(os.getppid())
    swept = [f".k.01234567.{host}-{dead.pid}-99", f".k.01234568.{host}-{os.getppid()}-1{live}"]
    aged = [".k.01234569.00000000-1-1", ".k.0123456a"]
    kept = [f".k.0123456b.{host}-{os.getppid()}-{live}", ".k.0123456c.00000000-1-1", ".k.0123456d", ".hidden"]
    for folder in (cells, store.results / "tests", store.results / "plans" / "tiny", store.cache / "features"):
        folder.mkdir(exist_ok=True)
        for name in (*swept, *aged, *kept):
            (folder / name).mkdir()
            (folder / name / "file").write_text("")
        for name in (*aged, kept[0]):
            os.utime(folder / name, (old, old))
    half(store.folder("one") / "scores.npz")
    assert store.command().exit_code == 0
    for folder in (cells, store.results / "tests", store.results / "plans" / "tiny", store.cache / "features"):
        assert sorted(name for name in os.listdir(folder) if name[0] == ".") == sorted(kept)


def test_a_file_of_somebody_else_that_looks_like_an_old_draft_is_left_alone(tmp_path):
    other = tmp_path / ".notes.20240101"
    other.write_text("mine")
    os.utime(other, (0, 0))
    write_folder(tmp_path / "folder", lambda draft: None)
    drafts.sweep(tmp_path)
    assert other.exists()


def test_the_command_draws_marks_and_mends(lab):
    """The real command, in processes of its own."""
    text = 'title = "T"\ndataset = "dots"\nmetric = "mean-score"\n[[column]]\nlabel = "All"\n'
    text += (
        '[[row]]\nlabel = "Truth"\nranker = "brightness"\n[[row]]\nlabel = "Turned"\nranker = { name = "brightness", '
    )
    file = lab.file(text + "sign = -1 }\n")
    first = lab.command("run", file)
    assert first.returncode == 0, first.stderr
    path = next(Path(lab.results).glob("cells/*/scores.npz"))
    half(path)
    table = lab.command("table", file)
    assert (table.returncode, table.stdout.count("!")) == (0, 2), table.stdout + table.stderr
    assert path.parent.name in table.stdout.replace("\n", "").replace(" ", "")
    mended = lab.command("run", file)
    assert (mended.returncode, mended.stdout) == (0, first.stdout)
    assert str(path) in mended.stderr


def test_a_model_of_words_alone_comes_back(tmp_path):
    store = ResultStore(tmp_path)
    store.save("ab" * 32, {"status": "not applicable", "error": {"message": ""}}, state={"words": ["x", "y"]})
    assert store.state("ab" * 32) == {"words": ["x", "y"]}


def test_other_ends_of_lines_are_no_damage(store, undisturbed, capsys):
    for path in [*store.results.glob("cells/*/record.json"), *store.results.glob("plans/*/*.json")]:
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))  # as git writes them on Windows
    assert values(store.table()) == undisturbed[2]
    assert store.command().exit_code == 0
    assert "damaged" not in capsys.readouterr().err
    assert all(b"\r\n" in path.read_bytes() for path in store.results.glob("cells/*/record.json")), "none fitted again"


def test_lost_images_of_a_record_that_does_not_say_how_many_there_were_are_counted(before, undisturbed):
    for folder in (before.results / "cells").iterdir():
        stored_before(folder, lambda record: [record.pop(name) for name in ("images", "listed")])
        stored_before(folder, lambda record: record.update(lost=["a.png"]))
    table = before.table()
    assert values(table) == undisturbed[2]
    assert table.heads[0].notes == ["1 image could not be read and was left out with its pairs"]


def test_damaged_plans_of_other_benchmarks_are_passed_over(store):
    (own,) = {path.parent for path in store.results.glob("plans/*/*.json")}
    other = own.with_name("other")
    own.rename(other)
    for path in other.iterdir():
        plan = json.loads(path.read_text())
        for cell in plan["cells"]:
            cell["notes"] = 5
        plan.pop("seal", None)
        path.write_text(json.dumps(plan))
    assert values(store.table()) == [[None], [None]]


def test_the_nearest_stored_cell_may_not_say_its_row(before):
    for folder in (before.results / "cells").iterdir():
        stored_before(folder, lambda record: record.pop("row"))
    runner = before.runner()
    plan = runner.plan(Benchmark.read(before.write({"new": {"name": "steady", "noise": 0.5}})))
    assert "of row '?'" in " ".join(summary(runner.planner, plan.cells))
