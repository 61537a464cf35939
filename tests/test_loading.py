"""Datasets by name: what is missing, what is remembered, what is noticed, and whose fault an error is."""

import contextlib
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import traced
from PIL import Image
from traced import lines

import rankbench
from rankbench.errors import BenchmarkError, MissingData, PluginError
from rankbench.loading import Data, DatasetChoice, FileMemo, missing_message, state_of


@pytest.fixture
def root(tmp_path):
    traced.files(tmp_path / "data" / "files")
    return tmp_path / "data"


def open_data(root, cache="cache"):
    return Data(traced.registry(), root, root.parent / cache)


def choice(root, **parameters):
    return DatasetChoice("files", {"log": str(root.parent / "log"), **parameters})


@pytest.fixture
def settled(monkeypatch):
    """Files may be remembered the moment they are written."""
    monkeypatch.setattr("rankbench.loading.SETTLED", -(10**9))


OPENED: list | None = None  # while a list, what Python opens is noted there


def note_opened(event, arguments):
    if OPENED is not None and event == "open":
        OPENED.append(str(arguments[0]))


sys.addaudithook(note_opened)  # a file's times cannot tell: setting them changes what digests are remembered under


@contextlib.contextmanager
def opened(folder):
    """Paths of the files below a folder that are opened meanwhile."""
    global OPENED
    OPENED, found = [], []
    try:
        yield found
    finally:
        found += [path for path in OPENED if path.startswith(f"{folder}{os.sep}")]
        OPENED = None


DARK = {"attribute": "dark"}


# ------------------------------------------------------------------------------------------------------------- naming


def test_a_table_names_a_dataset_its_folder_and_parameters():
    parsed = DatasetChoice.parse({"name": "manifest", "folder": "shoes", "share": 0.5})
    assert (parsed.name, parsed.folder, parsed.parameters) == ("manifest", "shoes", {"share": 0.5})
    assert parsed.description == {"name": "manifest", "parameters": {"share": 0.5}}
    assert parsed.label == "manifest (folder=shoes, share=0.5)"
    assert DatasetChoice("osr").label == "osr"


def test_a_folder_defaults_to_the_name_or_to_what_the_class_says(root):
    data = open_data(root)
    assert data.folder(DatasetChoice("files")) == root / "files"
    assert data.folder(DatasetChoice("files", folder="a/b")) == root / "a" / "b"

    class Elsewhere(rankbench.Dataset):
        folder = "there"

    class Packaged(rankbench.Dataset):
        folder = ""

    data.registry.add(hooks({"elsewhere": Elsewhere, "packaged": Packaged}), "acme")
    assert data.folder(DatasetChoice("elsewhere")) == root / "there"
    assert data.folder(DatasetChoice("packaged")) == root
    assert data.missing(DatasetChoice("packaged")) == []
    assert [need.path for need in data.missing(DatasetChoice("elsewhere"))] == [root / "there"]


def hooks(datasets):
    class Package:
        @rankbench.hookimpl
        def rankbench_datasets(self):
            return datasets

    return Package()


def test_names_and_classes_are_checked(root):
    with pytest.raises(BenchmarkError, match=r"no dataset named 'file'\. Did you mean 'files'\?"):
        open_data(root).dataset(DatasetChoice("file"))
    with pytest.raises(PluginError, match="dataset 'ranker' of package traced-plugins: its class must inherit"):
        open_data(root).dataset(DatasetChoice("ranker"))


# ----------------------------------------------------------------------------------------------------------- the memo


def test_a_second_plan_reads_nothing(root):
    first = open_data(root)
    facets = first.facets(choice(root))
    summaries = [first.summary(choice(root), one) for one in facets]
    assert facets == [{"attribute": "dark"}, {"attribute": "pale"}]
    assert summaries[0]["fingerprint"] != summaries[1]["fingerprint"]
    assert summaries[0]["tests"]["test"] | {"digest": ""} == {"digest": "", "pairs": 5, "ordered": 5, "images": 6}
    assert summaries[0]["train"] == {"images": 6, "pairs": 5}
    read = len(lines(root.parent / "log"))
    with opened(root) as files:
        second = open_data(root)
        assert second.facets(choice(root)) == facets
        assert [second.summary(choice(root), one) for one in facets] == summaries
    assert len(lines(root.parent / "log")) == read
    assert files == []


def test_deleting_the_cache_changes_no_fingerprint(root):
    before = open_data(root).summary(choice(root), DARK)
    shutil.rmtree(root.parent / "cache")
    assert open_data(root).summary(choice(root), DARK) == before
    assert open_data(root, "other").summary(choice(root), DARK) == before


def test_neither_folder_nor_file_names_enter_the_fingerprint(root):
    before = open_data(root).summary(choice(root), DARK)["fingerprint"]
    shutil.copytree(root / "files", root / "moved")
    for path in sorted((root / "moved" / "images").iterdir()):
        path.rename(path.with_name(f"x{path.name}"))
    moved = DatasetChoice("files", choice(root).parameters, "moved")
    assert open_data(root).summary(moved, DARK)["fingerprint"] == before


def changes():
    def pixel(root):
        pixels = np.asarray(Image.open(root / "images" / "020-2.png")).copy()
        pixels[0, 0] = 9
        Image.fromarray(pixels).save(root / "images" / "020-2.png")

    def label(root):
        path = root / "pairs.csv"
        path.write_text(path.read_text().replace("dark,0,1,1,train", "dark,0,1,-1,train"))

    def swap(root):
        one, other = root / "images" / "020-2.png", root / "images" / "180-0.png"
        one.rename(root / "x")
        other.rename(one)
        (root / "x").rename(other)

    return {"a pixel": pixel, "a label of equal length": label, "two files change names": swap}


@pytest.mark.parametrize("change", changes())
def test_changed_files_are_noticed(root, change):
    before = open_data(root).summary(choice(root), DARK)["fingerprint"]
    changes()[change](root / "files")
    after = open_data(root).summary(choice(root), DARK)["fingerprint"]
    assert after != before
    assert open_data(root, "fresh").summary(choice(root), DARK)["fingerprint"] == after


def test_parameters_have_their_own_memo(root):
    data = open_data(root)
    data.summary(choice(root), DARK)
    read = len(lines(root.parent / "log"))
    data.summary(choice(root, wrong="nothing"), DARK)
    assert len(lines(root.parent / "log")) > read


def test_one_problem_after_another_is_loaded_once(root):
    data = open_data(root)
    problem = data.problem(choice(root), DARK)
    assert data.problem(choice(root), DARK) is problem
    assert data.problem(choice(root), {"attribute": "pale"}) is not problem
    assert problem.canonical().fingerprint == problem.fingerprint == data.summary(choice(root), DARK)["fingerprint"]


# ------------------------------------------------------------------------------------------------------- missing data


def test_missing_data_says_which_path_and_where_to_get_it(tmp_path):
    data = open_data(tmp_path / "data")
    files = DatasetChoice("files", folder="shoes")
    assert data.facets(files) is None
    folder = tmp_path / "data" / "shoes"
    with pytest.raises(MissingData) as raised:
        data.summary(files, DARK)
    get = "    https://example.org/files"
    assert str(raised.value) == f"dataset files (folder=shoes): not found:\n  {folder / 'pairs.csv'}\n{get}"
    assert [need.path.name for need in data.missing(files)] == ["pairs.csv", "images"]
    assert [need.path.name for need in data.missing(files, pixels=False)] == ["pairs.csv"]


def test_a_dataset_that_does_not_say_where_to_get_it_is_told_how_to_read_no_files(tmp_path):
    message = missing_message(DatasetChoice("blobs"), [rankbench.Need(tmp_path / "blobs", False)])
    assert message == (
        f"dataset blobs: not found:\n  {tmp_path / 'blobs'}\n"
        '    The dataset does not say where to get it. If it reads no files, its class says so by folder = "".'
    )


def test_fixed_facets_are_known_without_data_and_others_are_not(tmp_path):
    data = open_data(tmp_path / "data")
    assert data.facets(DatasetChoice("fixed")) == [{"attribute": "dark"}, {"attribute": "pale"}]

    class Reading(traced.Files):
        def facets(self, root):
            return [{"lines": len((root / "pairs.csv").read_text())}]

    data.registry.add(hooks({"reading": Reading}), "acme")
    assert data.facets(DatasetChoice("reading")) is None


# ---------------------------------------------------------------------------------------------------- whose fault it is


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        (
            "type",
            PluginError,
            r"dataset .files. of .* failed: TypeError: problem\(\) gave str, not a rankbench\.Problem$",
        ),
        ("error", PluginError, r"dataset 'files' of .* failed: KeyError: 'key' \(traced.py, line \d+\)$"),
        ("facets", rankbench.DataError, r"dataset files \(.*wrong=facets\): two problems have the facets"),
    ],
)
def test_an_error_in_a_dataset_names_it(root, wrong, kind, message):
    data, broken = open_data(root), choice(root, wrong=wrong)
    ask = data.facets if wrong == "facets" else lambda one: data.problem(one, DARK)
    with pytest.raises(kind, match=message):
        ask(broken)


def test_wrong_data_names_dataset_and_file(root):
    (root / "files" / "images" / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(
        rankbench.DataError, match=r"^dataset files .*gone\.png: No such file .*lists this image; restore"
    ):
        open_data(root).problem(choice(root), DARK)
    with pytest.raises(rankbench.DataError, match=r"Files has no problem with facets \{'attribute': 'red'\}"):
        open_data(root).problem(choice(root), {"attribute": "red"})


def test_facets_may_hold_numpys_numbers(root):
    class Numbered(traced.Files):
        def facets(self, root):
            return [{"fold": np.int64(fold)} for fold in range(2)]

    data = open_data(root)
    data.registry.add(hooks({"numbered": Numbered}), "acme")
    assert data.facets(DatasetChoice("numbered", folder="files")) == [{"fold": 0}, {"fold": 1}]


# ------------------------------------------------------------------------------------------------------------- fit_on


def test_a_feature_may_learn_from_another_dataset_less_every_test_image(root):
    traced.files(root / "other", range(100, 220, 20))
    (root / "other" / "pairs.csv").write_text("all,0,1,1,train\nall,1,2,1,train\nall,3,4,1,test")
    data = open_data(root)
    problem = data.problem(choice(root), DARK)
    on = {"name": "files", "folder": "other"}
    found = data.fitting_on(on, problem).images
    tested = {int(problem.images[row][0, 0, 0]) for row in problem.test_rows()}
    assert tested == {120, 140, 160, 180, 200, 220}
    assert sorted(int(image[0, 0, 0]) for image in found) == [100]
    assert list(found.columns) == ["category"]
    parts = data.fitting_on_parts(on, choice(root), DARK)
    assert parts == data.fitting_on(on, problem).parts
    assert open_data(root).fitting_on_parts(on, choice(root), DARK) == parts
    own = data.fitting(problem)
    assert (len(own.images), own.parts == parts) == (6, False)
    lost = np.zeros(12, bool)
    lost[problem.training_rows()[:2]] = True
    assert len(data.fitting(problem, lost).images) == 4


def test_fit_on_needs_one_problem_and_an_image_that_is_not_tested(root):
    data = open_data(root)
    problem = data.problem(choice(root), DARK)
    with pytest.raises(rankbench.DataError, match="fit_on: dataset files has 2 problems; choose one by its parameters"):
        data.fitting_on({"name": "files"}, problem)
    traced.files(root / "tested", range(120, 240, 20))
    (root / "tested" / "pairs.csv").write_text("all,0,1,1,train\nall,2,3,1,test")
    with pytest.raises(
        rankbench.DataError, match=r"fit_on: dataset files \(folder=tested\) has no image that is not in"
    ):
        data.fitting_on({"name": "files", "folder": "tested"}, problem)
    with pytest.raises(MissingData, match=r"dataset files \(folder=absent\): not found"):
        data.fitting_on({"name": "files", "folder": "absent"}, problem)


# ------------------------------------------------------------------------------------------------------ file memories


def test_the_state_of_a_folder_tells_every_file_in_it(tmp_path):
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "deep" / "x").write_text("1")
    (tmp_path / "a" / "round").symlink_to(tmp_path)
    (tmp_path / "a" / "nowhere").symlink_to(tmp_path / "absent")
    states = [state_of(tmp_path / "a")]
    assert state_of(tmp_path / "a") == states[0]
    assert state_of(tmp_path / "absent") is None
    (tmp_path / "a" / "deep" / "x").write_text("22")
    states.append(state_of(tmp_path / "a"))
    (tmp_path / "a" / "deep" / "y").write_text("1")
    states.append(state_of(tmp_path / "a"))
    os.rename(tmp_path / "a" / "deep" / "y", tmp_path / "a" / "deep" / "z")
    states.append(state_of(tmp_path / "a"))
    states.append(state_of(tmp_path / "a" / "deep" / "x"))
    (tmp_path / "linked").mkdir()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "linked")
    states.append(state_of(tmp_path / "a"))
    (tmp_path / "linked" / "image").write_text("1")
    states.append(state_of(tmp_path / "a"))
    (tmp_path / "linked" / "image").write_text("22")
    states.append(state_of(tmp_path / "a"))
    assert len({str(state) for state in states}) == len(states)


def test_of_a_huge_folder_only_the_first_files_are_looked_at_one_by_one(tmp_path, monkeypatch):
    monkeypatch.setattr("rankbench.loading.WALK_LIMIT", 5)
    for k in range(4):
        (tmp_path / "a" / f"{k}").mkdir(parents=True)
        for name in range(4):
            (tmp_path / "a" / f"{k}" / f"{name}").touch()
    os.utime(tmp_path / "a" / "3", ns=(1, 1))  # long before the change, whatever the clock's step
    before = state_of(tmp_path / "a")
    assert len(before[1]) == 8 + 2
    (tmp_path / "a" / "3" / "1").rename(tmp_path / "a" / "3" / "5")
    renamed = state_of(tmp_path / "a")
    (tmp_path / "a" / "2" / "new").mkdir()
    assert before != renamed != state_of(tmp_path / "a")


def rewrite(path, text):
    """Other content of one size, with the time put back, once the file system's clock has moved on."""
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        path.write_text(text)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_digests_of_unchanged_files_are_remembered_across_processes(tmp_path, settled):
    (tmp_path / "data").mkdir()
    paths = [tmp_path / "data" / f"{k}" for k in range(3)]
    for k, path in enumerate(paths):
        path.write_text(str(k))
    with opened(tmp_path / "data") as files:
        first = FileMemo(tmp_path / "memo").digests(paths)
    assert sorted(files) == list(map(str, paths))
    with opened(tmp_path / "data") as files:
        again = FileMemo(tmp_path / "memo").digests(paths[::-1])
    assert files == []
    assert np.array_equal(first, again[::-1])
    (tmp_path / "memo" / ".half").mkdir()
    (tmp_path / "memo" / ".half" / "keys.npy").write_text("a draft that a kill left")
    rewrite(paths[0], "9")
    changed = FileMemo(tmp_path / "memo").digests(paths)
    assert (changed[0] != first[0]).any()
    assert np.array_equal(changed[1:], first[1:])


def test_a_file_changed_in_place_is_noticed_though_size_and_time_are_put_back(tmp_path, settled):
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "image"
    path.write_text("1")
    first, states = FileMemo(tmp_path / "memo").digests([path]), [state_of(path), state_of(path.parent)]
    rewrite(path, "2")
    assert (FileMemo(tmp_path / "memo").digests([path]) != first).any()
    assert all(now != then for now, then in zip([state_of(path), state_of(path.parent)], states, strict=True))


def test_a_file_written_just_now_is_not_trusted_later(tmp_path):
    path = tmp_path / "fresh"
    path.write_text("1")
    memo = FileMemo(tmp_path / "memo")
    first = memo.digests([path])
    assert np.array_equal(memo.digests([path]), first)
    assert not list(tmp_path.glob("memo/*"))
    stamp = path.stat().st_mtime_ns
    path.write_text("2")
    os.utime(path, ns=(stamp, stamp))  # as a coarse clock would have it
    assert (FileMemo(tmp_path / "memo").digests([path]) != first).any()
    with pytest.raises(rankbench.DataError, match="absent: No such file"):
        memo.digests([path, Path(tmp_path / "absent")])


# ------------------------------------------------------------------------------------ a cache that is damaged or closed


@pytest.mark.parametrize("left", [0, 5, -1])
def test_a_damaged_memo_is_made_again(root, left):
    expected = open_data(root).facets(choice(root)), open_data(root).summary(choice(root), DARK)
    memos = sorted((root.parent / "cache" / "problems").glob("*.json"))
    assert len(memos) == 2
    for memo in memos:
        memo.write_bytes(memo.read_bytes()[:left])
    assert (open_data(root).facets(choice(root)), open_data(root).summary(choice(root), DARK)) == expected
    for memo in memos:
        memo.write_text("null")
    assert (open_data(root).facets(choice(root)), open_data(root).summary(choice(root), DARK)) == expected
    assert [memo.read_text() == "null" for memo in memos] == [False, False]


@pytest.mark.parametrize("file", ["keys.npy", "digests.npy"])
@pytest.mark.parametrize("left", [0, 20, 90, 140])
def test_damaged_digests_are_taken_again(tmp_path, settled, file, left):
    path = tmp_path / "image"
    path.write_text("1")
    first = FileMemo(tmp_path / "memo").digests([path])
    (kept,) = (tmp_path / "memo").glob(f"*/{file}")
    kept.write_bytes(kept.read_bytes()[:left])
    assert np.array_equal(FileMemo(tmp_path / "memo").digests([path]), first)
    with opened(tmp_path) as files:
        assert np.array_equal(FileMemo(tmp_path / "memo").digests([path]), first)
    assert str(path) not in files, "remembered again"


def test_a_cache_that_cannot_be_written_only_costs_time(root, settled):
    traced.files(root / "other", range(100, 220, 20))
    (root / "other" / "pairs.csv").write_text("all,0,1,1,train\nall,1,2,1,train\nall,3,4,1,test")
    (root.parent / "blocked").write_text("a file in the place of the cache")
    open_one, blocked = open_data(root), open_data(root, "blocked")
    on = {"name": "files", "folder": "other"}
    for ask in (
        lambda data: data.facets(choice(root)),
        lambda data: data.summary(choice(root), DARK),
        lambda data: data.fitting_on_parts(on, choice(root), DARK),
    ):
        assert ask(blocked) == ask(open_one)
