"""What stands behind Run: features, pixels, shared artefacts, hold-out, curves and the clock."""

import dataclasses
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import traced
from PIL import Image
from traced import cell_run, lines, toy

import rankbench
from rankbench.cell import TestSet, key_of
from rankbench.errors import NotApplicable, PluginError, UnreadableImage
from rankbench.features import RowStore, StoredRows, resize
from rankbench.files import read_state, write_checksums
from rankbench.services import CellRun, Clock, Door, Fitting, Services
from rankbench.worker import judge


def process(code, *arguments):
    """A process of its own that can import the traced plugins."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        text=True,
    )


def levels(images):
    return [int(image[0, 0, 0]) for image in images]


# ----------------------------------------------------------------------------------------------------------- features


def test_rows_are_those_of_the_images_asked_for(tmp_path):
    problem = toy()
    run = cell_run(problem, tmp_path, [{"name": "level", "normalize": "none"}])
    images, _ = problem.training()
    rows = run.features(images, {"name": "level", "normalize": "none"})
    assert (rows.shape, rows.dtype, len(rows)) == ((6, 3), np.float32, 6)
    assert rows[:][:, 0].tolist() == levels(images)
    assert rows[2].tolist() == [levels(images)[2], 4, 3]
    assert rows[[4, -1, 0]][:, 0].tolist() == [levels(images)[k] for k in (4, -1, 0)]
    assert rows[np.array([True, False] * 3)][:, 0].tolist() == levels(images)[::2]
    assert rows[np.array([[0, 1], [2, 3]])].shape == (2, 2, 3)
    assert [len(block) for block in rows.blocks(4)] == [4, 2]
    assert np.array_equal(np.concatenate(list(rows.blocks(4))), np.asarray(rows))
    assert np.asarray(rows, dtype=np.float64).dtype == np.float64
    judged, _ = problem.judged()
    assert run.features(judged, run.declared)[:][:, 0].tolist() == levels(judged)
    assert run.features(images.take([]), run.declared).shape == (0, 3)


def test_each_image_is_extracted_once_in_batches_of_one_size(tmp_path):
    problem, log = toy(), tmp_path / "log"
    choice = {"name": "level", "log": str(log), "normalize": "none"}
    for _ in range(2):  # two cells, with a cache in common
        run = cell_run(problem, tmp_path, [choice])
        for images in (problem.training()[0], problem.judged()[0]):
            assert set(run.features(images, [choice])[:][:, 1].tolist()) == {4}
    assert sorted(set(lines(log))) == sorted(map(str, range(0, 240, 20)))
    assert len(lines(log)) == 12
    more = toy(range(0, 200, 20))
    cell_run(more, tmp_path, [choice]).features(more.training()[0], [choice])
    assert len(lines(log)) == 12  # the same images in another problem


def test_the_last_batch_is_filled_up(tmp_path):
    problem, log = toy(range(0, 200, 20)), tmp_path / "log"
    choice = {"name": "level", "log": str(log), "size": 8, "normalize": "none"}
    run = cell_run(problem, tmp_path, [choice])
    rows = run.features(problem.judged()[0], [choice])
    assert rows[:][:, 1].tolist() == [8] * 5
    assert len(lines(log)) == 16


def test_blocks_are_normalised_one_by_one_and_laid_side_by_side(tmp_path):
    problem = toy()
    plain, wide = {"name": "level", "normalize": "none"}, {"name": "level", "size": 6}
    run = cell_run(problem, tmp_path, [plain, wide])
    images, _ = problem.training()
    both = run.features(images, [plain, wide])
    assert (both.shape, both.dtype, len(both)) == ((6, 6), np.float32, 6)
    assert np.allclose(np.linalg.norm(both[:][:, 3:], axis=1), 1)
    raw = np.array([[level, 6, 3] for level in levels(images)], dtype=np.float64)
    assert np.allclose(both[:][:, 3:], raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-6)
    assert np.array_equal(both[3], both[:][3])  # one row alone is the row among others, to the bit
    assert [block.shape for block in both.blocks(5)] == [(5, 6), (1, 6)]
    assert np.asarray(both).shape == np.asarray(both, dtype=float).shape == (6, 6)


def test_a_row_of_zeros_stays_zero():
    rows = StoredRows([np.zeros((2, 3), np.float32)], np.array([[0, 0], [0, 1]]), True)
    assert not rows[:].any()
    assert StoredRows([], np.zeros((0, 2), np.int64), True).shape == (0, 0)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("centered", "asked for feature 'centered', which none of its parameters of type rankbench.Features names"),
        ({"name": "level", "size": 5}, "asked for feature 'level', which none of its parameters"),
        ([], "asked for an empty list of features"),
    ],
)
def test_a_feature_that_was_not_declared_is_refused(tmp_path, asked, message):
    problem = toy()
    with pytest.raises(PluginError, match=f"ranker 'x' of package y {message}"):
        cell_run(problem, tmp_path, ["level"]).features(problem.images, asked)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("double", r"extract must give \(4, d\) float32, not \(4, 3\) float64"),
        ("flat", r"extract must give \(4, d\) float32, not \(4,\) float32"),
        ("short", r"extract must give \(4, d\) float32, not \(3, 3\) float32"),
        ("wide", r"extract must give \(4, [36]\) float32, not \(4, [36]\) float32"),
        ("masked", r"extract: \d+ of 12 values (is|are) masked \(first: row \d\)"),
        ("nan", r"extract gave NaN or infinity for array \d+"),
    ],
)
def test_wrong_rows_name_feature_and_package(tmp_path, bad, message):
    problem = toy([0, 5, 10, 15, 120, 125, 130, 135])
    if bad == "wide":  # the first batch is narrow, a later one wide
        problem = toy([*range(0, 48, 4), *range(150, 198, 4)])
    choice = {"name": "level", "bad": bad}
    run = cell_run(problem, tmp_path, [choice])
    with pytest.raises(PluginError, match=f"feature 'level' of package traced-plugins: {message}"):
        run.features(problem.training()[0], [choice])
    assert not list((tmp_path / "cache" / "features").rglob("*.npy"))  # neither rows nor a claim on some


def test_what_is_no_feature_is_refused(tmp_path):
    with pytest.raises(PluginError, match=r"feature 'metric' of package traced-plugins: its class must inherit"):
        cell_run(toy(), tmp_path, ["metric"]).features(toy().images, ["metric"])


def test_a_learned_feature_sees_training_images_and_declared_columns_alone(tmp_path):
    problem = toy()
    curves = []
    run = cell_run(problem, tmp_path, ["centered"], seed=7, logger=lambda *point: curves.append(point))
    images, _ = problem.training()
    rows = run.features(problem.judged()[0], ["centered"])
    assert rows.shape == (6, 2)
    fitted = next(path for path in (tmp_path / "cache" / "fitted").iterdir() if (path / "state.json").exists())
    state = read_state(fitted)
    assert state["seen_"] == ["None", "['category']", "[]", "6", "0"]  # its seed is its own parameter, not the cell's
    assert state["center_"] == np.mean(levels(images))
    assert curves == [(1.0, {"centered: loss": 0.0})]
    run.features(images, ["centered"])
    assert len(curves) == 1
    other = cell_run(problem, tmp_path, ["centered"], seed=8)
    assert np.array_equal(other.features(problem.judged()[0], ["centered"])[:], rows[:])
    assert len(list((tmp_path / "cache" / "fitted").glob("*/state.json"))) == 1


def test_a_damaged_state_of_a_learned_feature_is_learned_again(tmp_path):
    problem, choice = toy(), {"name": "centered", "normalize": "none"}
    first = cell_run(problem, tmp_path, [choice]).features(problem.training()[0], [choice])[:]
    state = next((tmp_path / "cache" / "fitted").glob("*/state.npz"), None) or next(
        (tmp_path / "cache" / "fitted").glob("*/state.json")
    )
    state.write_bytes(state.read_bytes()[:7])
    again = cell_run(problem, tmp_path, [choice])
    assert np.array_equal(again.features(problem.training()[0], [choice])[:], first)
    assert read_state(state.parent)


def test_problems_with_equal_training_images_share_a_fitted_feature(tmp_path):
    first, other = toy(), toy([*range(0, 120, 20), *range(121, 241, 20)])
    relabeled = first.images.columns["category"] + 1
    images = rankbench.Images.from_arrays(list(first.images), columns={"category": relabeled, "score": relabeled})
    third = rankbench.Problem(images, first.train, first.tests).canonical()
    for problem, count in ((first, 1), (other, 1), (third, 2)):
        cell_run(problem, tmp_path, ["centered"]).features(problem.judged()[0], ["centered"])
        assert len(list((tmp_path / "cache" / "fitted").glob("*/state.json"))) == count
    bare = rankbench.Problem(rankbench.Images.from_arrays(list(first.images)), first.train, first.tests).canonical()
    with pytest.raises(NotApplicable, match="feature 'centered' learns from the column 'category', which"):
        cell_run(bare, tmp_path, ["centered"]).features(bare.judged()[0], ["centered"])


def test_a_learned_feature_without_some_lost_images(tmp_path):
    problem = toy()
    lost = np.zeros(12, bool)
    lost[[problem.training_rows()[0], problem.test_rows()[0]]] = True
    run = cell_run(problem, tmp_path, ["centered"], lost=lost)
    kept = problem.images.take(problem.training_rows()[~lost[problem.training_rows()]])
    run.fitting = {choice: Fitting(kept) for choice in run.declared}
    assert run.features(problem.judged(lost)[0], ["centered"]).shape == (5, 2)


def test_names_and_evidence_reach_only_the_feature_that_declares_them(tmp_path):
    problem = toy()
    choice = {"name": "named", "normalize": "none"}
    run = cell_run(problem, tmp_path, [choice])
    images, _ = problem.judged()  # handed to the ranker without names or inputs
    rows = run.features(images, [choice])
    assert rows[:].tolist() == [[level, level / 2] for level in levels(images)]
    images = rankbench.Images.from_arrays(list(problem.images), inputs=dict(problem.images.inputs))
    nameless = rankbench.Problem(images, problem.train, problem.tests).canonical()
    with pytest.raises(NotApplicable, match="Named matches images by name, and these have none"):
        cell_run(nameless, tmp_path, [choice]).features(nameless.judged()[0], [choice])


def test_other_evidence_means_another_row(tmp_path):
    choice, found = {"name": "named", "normalize": "none"}, []
    for shift in (0, 1000):
        problem = toy()
        images = rankbench.Images.from_arrays(
            list(problem.images), names=problem.images.names, inputs={"votes": problem.images.inputs["votes"] + shift}
        )
        problem = rankbench.Problem(images, problem.train, problem.tests).canonical()
        found.append(cell_run(problem, tmp_path, [choice]).features(problem.judged()[0], [choice])[:][:, 1])
    assert (found[1] - found[0]).tolist() == [1000] * 6


def test_a_features_file_is_found_in_the_data_folder_and_known_by_its_content(tmp_path):
    problem, choice = toy(), {"name": "weighted", "weight": "w.txt", "normalize": "none"}
    for weight in (2, 3):
        (tmp_path / "w.txt").write_text(str(weight))
        run = cell_run(problem, tmp_path, [choice])
        run.services.root = tmp_path
        images, _ = problem.judged()
        assert run.features(images, [choice])[:].ravel().tolist() == [weight * level for level in levels(images)]


def test_images_a_ranker_made_itself_have_features_too(tmp_path):
    problem, log = toy(), tmp_path / "log"
    choice = {"name": "level", "log": str(log), "normalize": "none"}
    run = cell_run(problem, tmp_path, [choice])
    made = rankbench.Images.from_arrays(traced.grey([7, 9, 7]))
    assert run.features(made, [choice])[:][:, 0].tolist() == [7, 9, 7]
    assert lines(log) == ["7", "9", "9", "9"]  # equal images once; the batch of four is filled up
    assert run.features(made.take([1]), [choice])[:][:, 0].tolist() == [9]


FILL = """
    import sys, traced
    from pathlib import Path
    problem = traced.toy(range(0, 240, 4))
    choice = {"name": "level", "log": sys.argv[2], "wait": 0.02, "size": 1}
    run = traced.cell_run(problem, Path(sys.argv[1]), [choice])
    print(float(run.features(problem.training()[0], [choice])[:].sum()))
"""


def test_two_processes_fill_one_store_and_compute_each_row_once(tmp_path):
    workers = [process(FILL, tmp_path, tmp_path / "log") for _ in range(2)]
    sums = [worker.communicate(timeout=60)[0] for worker in workers]
    assert sums[0] == sums[1] != ""
    assert sorted(map(int, lines(tmp_path / "log"))) == list(range(0, 240, 4))


def test_processes_that_want_the_same_rows_share_the_work(tmp_path):
    code = """
        import sys, time
        from pathlib import Path
        import numpy as np
        from rankbench.features import RowStore
        ids, mine = np.random.default_rng(0).integers(0, 256, (300, 32), dtype=np.uint8), []
        def compute(rows):
            mine.extend(rows.tolist())
            time.sleep(0.01 * len(rows))
            yield rows[:, None].astype(np.float32)
        store = RowStore(Path(sys.argv[1]))
        store.fill(ids, compute)
        assert store.rows(ids)[:].ravel().tolist() == list(range(300))
        print(len(mine), round(store.seconds(ids), 2))
    """
    workers = [process(code, tmp_path / "s") for _ in range(2)]
    counts = [worker.communicate(timeout=60)[0].split() for worker in workers]
    assert sum(int(rows) for rows, _ in counts) == 300
    assert all(int(rows) > 60 for rows, _ in counts)
    assert all(3 <= float(seconds) < 6 for _, seconds in counts)  # of all rows, whoever computed them


def test_rows_that_a_dead_process_was_at_are_taken_over(tmp_path):
    ids = np.random.default_rng(0).integers(0, 256, (40, 32), dtype=np.uint8)
    code = """
        import os, sys
        from pathlib import Path
        import numpy as np
        from rankbench.features import RowStore
        ids = np.random.default_rng(0).integers(0, 256, (40, 32), dtype=np.uint8)
        RowStore(Path(sys.argv[1])).fill(ids, lambda rows: os._exit(9))
    """
    dead = process(code, tmp_path / "s")
    dead.communicate(timeout=30)
    assert dead.returncode == 9
    left = list((tmp_path / "s" / "claims").glob("*.npy"))
    assert len(left) == 1  # its claim on sixteen rows
    began, store = time.monotonic(), RowStore(tmp_path / "s")
    store.fill(ids, lambda rows: iter([rows[:, None].astype(np.float32)]))
    assert store.rows(ids)[:].ravel().tolist() == list(range(40))
    assert time.monotonic() - began < 5  # it is known to be dead; nobody waits for its silence
    assert not left[0].exists()


def test_ids_that_end_in_zeros_are_told_apart(tmp_path):
    ids = np.zeros((4, 32), np.uint8)
    ids[1, 0], ids[2, 1], ids[3, 31] = 1, 1, 1
    store = RowStore(tmp_path / "s")
    store.fill(ids, lambda rows: iter([rows[:, None].astype(np.float32)]))
    assert store.rows(ids)[:].ravel().tolist() == [0, 1, 2, 3]


def test_a_kill_while_filling_loses_at_most_one_chunk(tmp_path):
    small = "import sys, traced, rankbench.features\n    rankbench.features.CHUNK_BYTES = 60"
    code = FILL.replace("import sys, traced", small)
    worker = process(code, tmp_path, tmp_path / "log")
    end = time.monotonic() + 30
    while len(lines(tmp_path / "log")) < 33:
        assert time.monotonic() < end
        time.sleep(0.005)
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    again = process(code, tmp_path, tmp_path / "log")
    assert again.communicate(timeout=60)[0] != ""
    computed = list(map(int, lines(tmp_path / "log")))
    assert set(computed) == set(range(0, 240, 4))
    assert len(computed) <= 60 + 6  # a chunk holds five rows of twelve bytes; one more may have been begun


def test_a_store_takes_in_what_others_added(tmp_path):
    ids = np.random.default_rng(0).integers(0, 256, (6, 32), dtype=np.uint8)
    mine, theirs = RowStore(tmp_path / "s"), RowStore(tmp_path / "s")

    def compute(rows):
        yield np.array([[float(row)] for row in rows], dtype=np.float32)

    theirs.fill(ids[:4], compute)
    mine.fill(ids[2:], lambda rows: iter([np.full((len(rows), 1), 9, np.float32)]))
    assert mine.rows(ids)[:].ravel().tolist() == [0, 1, 2, 3, 9, 9]
    (tmp_path / "s" / ".draft").mkdir()
    (tmp_path / "s" / ".draft" / "ids.npy").write_text("half a chunk")
    mine.refresh()
    assert len(mine.missing(ids)) == 0


# ------------------------------------------------------------------------------------------------------------- pixels


def ramp(height, width):
    return np.repeat(np.linspace(0, 255, width)[None, :, None], height, 0).repeat(3, 2).astype(np.uint8)


def test_pixels_are_stretched_cropped_or_padded():
    wide = ramp(20, 40)
    assert np.array_equal(resize(wide, 10, "stretch"), np.asarray(Image.fromarray(wide).resize((10, 10), 2)))
    middle = resize(wide, 10, "crop")
    half = np.asarray(Image.fromarray(wide).resize((20, 10), 2))
    assert np.array_equal(middle, half[:, 5:15])
    padded = resize(np.full((20, 40, 3), 200, np.uint8), 10, "long-side")
    assert padded[:, 0, 0].tolist() == [0, 0, 0, *[200] * 5, 0, 0]
    for shape in ((1, 1), (1, 90), (90, 1), (7, 13)):
        for fit in ("stretch", "crop", "long-side"):
            assert resize(np.full((*shape, 3), 9, np.uint8), 12, fit).shape == (12, 12, 3)


def test_pixels_are_decoded_once_an_image(tmp_path):
    decoded = []
    digests = np.random.default_rng(0).integers(0, 256, (6, 32), dtype=np.uint8)

    def decode(row):
        decoded.append(row)
        return ramp(10, 20 + row)

    images = rankbench.Images.from_decoder(digests, decode)
    problem = rankbench.Problem(images, rankbench.Pairs([0], [1], [1]), rankbench.Pairs([4], [5], [1])).canonical()
    for _ in range(2):
        run = cell_run(problem, tmp_path)
        training, _ = problem.training()
        rows = run.pixels(training, 8)
        assert (rows.shape, rows.dtype) == ((2, 8, 8, 3), np.uint8)
        assert np.array_equal(rows[1], resize(training[1], 8, "stretch"))
        decoded = [row for row in decoded if row in (0, 1, 4, 5)]
        assert run.pixels(problem.judged()[0], 8)[:].shape == (2, 8, 8, 3)
        assert next(rows.blocks(1)).shape == (1, 8, 8, 3)
    run.pixels(training, 8, "crop")
    with pytest.raises(rankbench.DataError, match="pixels: fit is 'stretch', 'crop' or 'long-side', not 'fill'"):
        run.pixels(training, 8, "fill")
    with pytest.raises(rankbench.DataError, match="pixels: size must be at least 1, not 0"):
        run.pixels(training, 0)
    assert run.pixels(training.take([]), 8).shape == (0, 8, 8, 3)


def test_the_exif_policy_has_its_own_rows(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for k in range(4):
        Image.fromarray(ramp(10, 12 + k)).save(tmp_path / f"{k}.png", exif=exif)
    found = []
    for policy in (False, True):
        images = rankbench.Images([tmp_path / f"{k}.png" for k in range(4)], exif=policy)
        problem = rankbench.Problem(images, rankbench.Pairs([0], [1], [1]), rankbench.Pairs([2], [3], [1])).canonical()
        found.append(cell_run(problem, tmp_path).pixels(problem.images, 8)[:])
    assert np.array_equal(np.rot90(found[0], -1, axes=(1, 2)), found[1])
    assert not np.array_equal(found[0], found[1])


def test_an_image_that_cannot_be_read_is_raised_through(tmp_path):
    root = traced.files(tmp_path / "files")
    problem = next(traced.Files().problems(root)).canonical()
    broken = root / "images" / "040-1.png"
    broken.write_bytes(broken.read_bytes()[:50])
    run = cell_run(problem, tmp_path, ["level"])
    for ask in (lambda: run.features(problem.training()[0], ["level"]), lambda: run.pixels(problem.training()[0], 8)):
        with pytest.raises(UnreadableImage, match=r"040-1\.png: cannot be decoded"):
            ask()
    lost = np.array([name == "040-1.png" for name in problem.images.names])
    again = cell_run(problem, tmp_path, ["level"], lost=lost)
    assert again.pixels(problem.training(lost)[0], 8).shape == (5, 8, 8, 3)
    assert again.features(problem.training(lost)[0], ["level"]).shape == (5, 3)


# -------------------------------------------------------------------------------------------------- shared artefacts

SHARE = """
    import sys, time, traced
    from pathlib import Path
    problem = traced.toy()
    run = traced.cell_run(problem, Path(sys.argv[1]), seed=3, fit_digest="given")
    def build(inner):
        traced.write(sys.argv[2], "built")
        (inner.folder / "checkpoint").write_text("x")
        time.sleep(0.3)
        return {"draw": inner.rng.random(3), "seed": inner.seed}
    print(run.shared("dictionary", {"words": 3}, build)["draw"].tolist())
"""


def test_an_artefact_is_built_once_for_all_processes(tmp_path):
    workers = [process(SHARE, tmp_path, tmp_path / "log") for _ in range(2)]
    said = [worker.communicate(timeout=60)[0] for worker in workers]
    assert said[0] == said[1] != ""
    assert lines(tmp_path / "log") == ["built"]
    assert list((tmp_path / "cache").glob("**/shared-*")) == []


def test_an_artefact_does_not_depend_on_the_cell_that_came_first(tmp_path):
    def build(inner):
        inner.log(1, loss=0.5)
        inner.holdout(toy().training()[0], toy().training()[1], 0.3)
        return {"draw": inner.rng.random(3), "names": ["a"]}

    found, curves = [], []
    for folder, draws in (("a", 0), ("b", 5)):
        curves.clear()
        run = cell_run(toy(), tmp_path / folder, fit_digest="given", logger=lambda *point: curves.append(point))
        run.rng.random(draws)
        before = run.rng.bit_generator.state
        found.append(run.shared("words", {"n": 3}, build))
        assert run.rng.bit_generator.state == before
        assert (curves, run.holdouts) == ([(1.0, {"words: loss": 0.5})], [])
    assert found[0]["draw"].tolist() == found[1]["draw"].tolist()
    assert found[0]["names"] == ["a"]


def test_every_cell_has_the_curves_of_the_shared_work_it_rests_on_once(tmp_path):
    def inner(run):
        run.log(1, loss=0.5)
        return {"x": 1}

    def outer(run):
        run.log(2, loss=0.25, accuracy=float("nan"))
        return {"y": run.shared("words", {}, inner)["x"]}

    seen = []
    for _ in range(2):
        curves = []
        run = cell_run(toy(), tmp_path, fit_digest="given", logger=lambda *point, to=curves: to.append(point))
        assert [run.shared("network", {}, outer) for _ in range(2)] == [{"y": 1}] * 2
        seen.append([(step, sorted(numbers)) for step, numbers in curves])
    both = [(2.0, ["network: accuracy", "network: loss"]), (1.0, ["network: words: loss"])]
    assert seen == [both, both]


def test_whatever_an_artefact_depends_on_makes_another(tmp_path):
    built = []

    def build(inner):
        built.append(inner.seed)
        return {"seed": inner.seed}

    def ask(name="words", parameters=None, **more):
        run = cell_run(toy(), tmp_path, **{"seed": 0, "fit_digest": "given", "source": "s", "version": "1", **more})
        run.threads = more.get("threads", 1)
        return run.shared(name, parameters or {"n": 3}, build)["seed"]

    first = ask()
    assert ask() == first
    others = [ask(name="other"), ask(parameters={"n": 4}), ask(seed=1), ask(fit_digest="others"), ask(source="t")]
    others.append(ask(version="2"))
    assert len({first, *others}) == len(built) == 7


def test_an_artefact_is_built_anew_when_a_feature_or_file_it_reads_changes(tmp_path, monkeypatch):
    problem = toy()
    choice = {"name": "weighted", "weight": "w.txt", "normalize": "none"}

    def ask(weight=2, names=(choice,), own="1", scene=problem):
        (tmp_path / "w.txt").write_text(str(weight))
        (tmp_path / "own.txt").write_text(own)
        run = cell_run(scene, tmp_path, names, fit_digest="given", files={"own": rankbench.File("own.txt")})
        run.services.root = tmp_path

        def build(inner):
            built.append(run)
            return {"sum": float(inner.features(scene.training()[0], names)[:].sum())}

        return run.shared("words", {}, build)["sum"]

    built = []
    first = ask()
    assert (ask(), len(built)) == (first, 1)
    assert (ask(weight=3), len(built)) == (first * 1.5, 2)
    assert (ask(own="2"), len(built)) == (first, 3)
    monkeypatch.setattr(traced.Weighted, "version", "2")
    assert (ask(), len(built)) == (first, 4)
    monkeypatch.undo()
    monkeypatch.setattr("rankbench.registry.source_digest", lambda module, packages: "edited")
    assert (ask(), len(built)) == (first, 5)
    named = [{"name": "named", "normalize": "none"}]
    ask(names=named)
    inputs = {"votes": problem.images.inputs["votes"] + 1000}
    other = rankbench.Images.from_arrays(list(problem.images), names=problem.images.names, inputs=inputs)
    before = len(built)
    assert ask(names=named, scene=rankbench.Problem(other, problem.train, problem.tests).canonical()) > 1000
    assert len(built) == before + 1


def test_an_artefact_that_says_what_it_reads_is_shared_by_cells_with_other_features(tmp_path):
    problem, built = toy(), []

    def ask(declared, reads, wanted):
        run = cell_run(problem, tmp_path, declared, fit_digest="given")

        def build(inner):
            built.append(run)
            return {"sum": float(inner.features(problem.training()[0], wanted)[:].sum()) if wanted else 0.0}

        return run.shared("words", {"wanted": len(wanted)}, build, rankbench.Features(*reads))["sum"]

    level, named = {"name": "level", "normalize": "none"}, {"name": "named", "normalize": "none"}
    ask([], [], [])
    ask([level, named], [], [])
    assert len(built) == 1
    ask([level, named], [level], [level])
    ask([level], [level], [level])
    assert len(built) == 2
    with pytest.raises(PluginError, match="asked for feature 'named', which none of its parameters"):
        ask([level, named], [], [named])


def public(thing, depth=4, seen=None):
    """Everything within reach of an object's public attributes."""
    seen = {} if seen is None else seen
    if depth and id(thing) not in seen and not isinstance(thing, type):
        seen[id(thing)] = thing
        for name in dir(thing) if type(thing).__module__.startswith("rankbench") else ():
            if not name.startswith("_"):
                public(getattr(thing, name), depth - 1, seen)
    return seen.values()


class Wanderer(rankbench.Ranker):
    """Follows every public attribute of its Run."""

    met: list = []

    def fit(self, images, pairs, run):
        run.shared("words", {}, lambda inner: self.look("build", inner))
        return self.look("fit", run) and self

    def score(self, images, run):
        self.look("score", run)
        return np.zeros(len(images))

    def look(self, where, run):
        self.met.append((where, list(public(run))))
        return {"seen": where}


class WandererFeature(rankbench.Feature):
    uses = ("category",)

    def fit(self, images, run):
        Wanderer().look("feature fit", run)
        return self

    def extract(self, images, run):
        Wanderer().look("extract", run)
        return np.zeros((len(images), 1), np.float32)


def test_no_public_attribute_of_a_run_leads_to_names_columns_or_tests(tmp_path, monkeypatch):
    monkeypatch.setattr(Wanderer, "met", [])
    problem = toy()
    run = cell_run(problem, tmp_path, ["centered"], fit_digest="given")
    ranker = Wanderer().fit(*problem.training(), run.door)
    judge(ranker, problem, run, None, {"test": TestSet.of(problem, "test")})
    run.services.registry.plugins["features", "centered"] = dataclasses.replace(
        run.services.registry.find("features", "centered"), target=WandererFeature
    )
    run.features(problem.judged()[0], ["centered"])
    assert {where for where, _ in Wanderer.met} == {"fit", "build", "score", "feature fit", "extract"}
    for where, found in Wanderer.met:
        kinds = {type(one) for one in found}
        assert not kinds & {CellRun, Services, rankbench.Images, rankbench.Problem, Fitting}, where
        assert np.random.Generator in kinds, "the walk follows attributes"
        assert isinstance(found[0], Door)


def test_a_private_folder_is_removed_by_the_process_that_does_the_work_alone(tmp_path):
    class Checkpoints(traced.Level):
        def extract(self, images, run):
            (run.folder / "checkpoint").write_text("x")
            return super().extract(images, run)

    problem = toy()
    run = cell_run(problem, tmp_path, ["level"], fit_digest="given")
    run.services.registry.plugins["features", "level"] = dataclasses.replace(
        run.services.registry.find("features", "level"), target=Checkpoints
    )
    images, _ = problem.training()
    run.features(images, ["level"])
    run.shared("words", {}, lambda inner: {"x": str(inner.folder)})
    _, key = run._feature(run.declared[0])
    for scratch in (
        run.services.private("features", key_of(key)),
        Path(run.shared("words", {}, None)["x"]),
    ):
        assert not scratch.exists()
        scratch.mkdir()  # another process is at work in it
        (scratch / "checkpoint").write_text("theirs")
        run.features(images, ["level"])
        run.shared("words", {}, None)
        assert (scratch / "checkpoint").read_text() == "theirs"


def test_artefacts_belong_to_fit_and_are_never_pickled(tmp_path):
    run = cell_run(toy(), tmp_path)
    with pytest.raises(PluginError, match=r"ranker 'x' of package y called run.shared\('words'\) outside fit"):
        run.shared("words", {}, lambda inner: {})
    run.fit_digest = "given"
    with pytest.raises(rankbench.RankbenchError, match="is no JSON value"):
        run.shared("words", {"n": object()}, lambda inner: {})
    with pytest.raises(
        rankbench.DataError, match="ranker 'x' of package y: state may hold arrays and JSON values only"
    ):
        run.shared("words", {}, lambda inner: {"x": object()})
    assert run.shared("words", {}, lambda inner: {"x": 1}) == {"x": 1}  # a failed attempt blocks nothing


# ----------------------------------------------------------------------------------------------------------- the rest


def test_a_run_logs_holds_out_and_has_a_folder_of_its_own(tmp_path):
    curves = []
    run = cell_run(toy(), tmp_path, seed=5, logger=lambda step, numbers: curves.append((step, numbers)))
    run.log(3, loss=np.float32(0.5))
    assert curves == [(3.0, {"loss": 0.5})]
    assert not (tmp_path / "cell").exists()
    assert run.folder.is_dir()
    images, pairs = toy().training()
    fitted, held = run.holdout(images, pairs, 0.4)
    assert run.holdouts == [{"by": "pairs", "fitted": len(fitted), "held": len(held), "dropped": 0}]
    assert cell_run(toy(), tmp_path, seed=5).rng.random() == np.random.default_rng(5).random()


def test_a_phase_within_another_is_counted_once():
    clock = Clock()
    with clock.phase("fit"):
        time.sleep(0.02)
        with clock.phase("decode"):
            time.sleep(0.05)
    with clock.phase("fit"):
        sum(range(10**6))
    wall = {name: spent["wall_seconds"] for name, spent in clock.phases.items()}
    assert wall["fit"] >= 0.02
    assert wall["decode"] >= 0.05
    assert clock.phases["fit"]["cpu_seconds"] > 0
    assert clock.phases["decode"]["cpu_seconds"] < 0.04


# ----------------------------------------------------------------------------------------------- a store of many chunks


def chunked(folder, count):
    """A store of `count` chunks of one row each: row k is [k]."""
    ids = np.random.default_rng(0).integers(0, 256, (count, 32), dtype=np.uint8)
    for k in range(count):
        (folder / f"{k:04d}").mkdir(parents=True)
        np.save(folder / f"{k:04d}" / "ids.npy", ids[k : k + 1])
        np.save(folder / f"{k:04d}" / "rows.npy", np.array([[k]], np.float32))
        np.save(folder / f"{k:04d}" / "seconds.npy", np.float64(0.5))
        write_checksums(folder / f"{k:04d}")
    return ids


def test_a_store_may_have_more_chunks_than_a_process_may_open_files(tmp_path):
    chunked(tmp_path / "s", 200)
    code = """
        import resource, sys
        from pathlib import Path
        import numpy as np
        from rankbench.features import RowStore
        folder = Path(sys.argv[1])
        ids = np.concatenate([np.load(path) for path in sorted(folder.glob("*/ids.npy"))])
        resource.setrlimit(resource.RLIMIT_NOFILE, (120, 120))
        store = RowStore(folder)
        store.refresh()
        rows = store.rows(ids)
        assert len(store.missing(ids)) == 0
        assert rows[:].ravel().tolist() == rows[:].ravel().tolist() == list(range(200))
        print("good")
    """
    pytest.importorskip("resource")
    assert process(code, tmp_path / "s").communicate()[0] == "good\n"


@pytest.mark.parametrize("file", ["rows.npy", "ids.npy"])
@pytest.mark.parametrize("left", [0, 20, 90, 130])
def test_a_damaged_chunk_is_computed_again(tmp_path, file, left):
    ids = chunked(tmp_path / "s", 3)
    path = tmp_path / "s" / "0001" / file
    path.write_bytes(path.read_bytes()[:left])
    store = RowStore(tmp_path / "s")
    asked = []

    def compute(rows):
        asked.extend(rows.tolist())
        yield np.full((len(rows), 1), 9, np.float32)

    store.fill(ids, compute)
    assert (asked, store.rows(ids)[:].ravel().tolist()) == ([1], [0, 9, 2])
    again = RowStore(tmp_path / "s")
    again.refresh()
    assert len(again.missing(ids)) == 0


def test_a_chunk_that_goes_while_it_is_in_use_is_named(tmp_path):
    ids = chunked(tmp_path / "s", 70)
    store = RowStore(tmp_path / "s")
    store.refresh()
    rows = store.rows(ids)
    assert rows[:].sum() == sum(range(70))
    (tmp_path / "s" / "0000" / "rows.npy").unlink()
    with pytest.raises(rankbench.errors.StoreError, match=r"0000.rows\.npy: has gone from the cache or is damaged"):
        rows[:]
    store.fill(ids, lambda wanted: iter([np.full((len(wanted), 1), 9, np.float32)]))
    assert store.rows(ids)[:].ravel().tolist() == [9, *range(1, 70)], "the next try computes what has gone"


def test_a_chunk_that_changes_while_a_process_knows_it_is_computed_again(tmp_path, capsys):
    ids = chunked(tmp_path / "s", 3)
    store, asked = RowStore(tmp_path / "s"), []

    def compute(rows):
        asked.extend(rows.tolist())
        yield rows[:, None].astype(np.float32)

    store.fill(ids, compute)
    assert (asked, capsys.readouterr().err) == ([], "")
    path = tmp_path / "s" / "0001" / "rows.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    store.fill(ids[[0, 2]], compute)
    assert asked == [], "what nobody wants is not looked at"
    store.fill(ids, compute)
    assert (asked, store.rows(ids)[:].ravel().tolist()) == ([1], [0, 1, 2])
    assert capsys.readouterr().err == (
        f"{path}: is damaged: its checksum is not that of what was stored. It is built again.\n"
    )


def test_two_processes_find_a_damaged_chunk_at_once_and_say_so_once(tmp_path):
    chunked(tmp_path / "s", 40)
    for k in range(0, 40, 2):
        path = tmp_path / "s" / f"{k:04d}" / "rows.npy"
        path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    code = """
        import sys
        from pathlib import Path
        import numpy as np
        from rankbench.features import RowStore
        from rankbench.files import NOTICES
        ids = np.random.default_rng(0).integers(0, 256, (40, 32), dtype=np.uint8)
        store, mine, said = RowStore(Path(sys.argv[1])), [], []
        NOTICES.say = said.append
        def compute(rows):
            mine.extend(rows.tolist())
            yield rows[:, None].astype(np.float32)
        store.fill(ids, compute)
        assert store.rows(ids)[:].ravel().tolist() == list(range(40))
        print(len(mine), len(said))
    """
    workers = [process(code, tmp_path / "s") for _ in range(2)]
    counts = [list(map(int, worker.communicate(timeout=60)[0].split())) for worker in workers]
    assert [sum(column) for column in zip(*counts, strict=True)] == [20, 20]


def test_a_store_without_checksums_is_computed_again_and_said_in_one_line(tmp_path, capsys):
    ids = chunked(tmp_path / "s", 5)
    for path in (tmp_path / "s").glob("*/checksums.json"):
        path.unlink()
    store = RowStore(tmp_path / "s")
    store.fill(ids, lambda rows: iter([np.full((len(rows), 1), 9, np.float32)]))
    assert store.rows(ids)[:].ravel().tolist() == [9] * 5
    (said,) = capsys.readouterr().err.splitlines()
    assert said == (
        f"{tmp_path / 's' / '0000' / 'checksums.json'}: is not there (caches of older versions have none); nothing "
        f"beside it is used. It is built again. So are 4 other folders of {tmp_path / 's'}."
    )
    assert len(list((tmp_path / "s").glob("*/rows.npy"))) == 1


def test_a_damaged_artefact_is_built_again_by_one_process_alone(tmp_path):
    first = process(SHARE, tmp_path, tmp_path / "log").communicate(timeout=60)[0]
    (path,) = (tmp_path / "cache" / "shared").glob("*/state.npz")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    workers = [process(SHARE, tmp_path, tmp_path / "log") for _ in range(2)]
    assert [worker.communicate(timeout=60)[0] for worker in workers] == [first, first]
    assert lines(tmp_path / "log") == ["built", "built"]


def test_rows_that_never_arrive_are_an_error_and_no_endless_loop(tmp_path):
    ids = np.zeros((2, 32), np.uint8)
    ids[1] = 1
    with pytest.raises(rankbench.errors.StoreError, match="0 rows for 2 images cannot be stored"):
        RowStore(tmp_path / "s").fill(ids, lambda rows: iter([np.zeros((0, 1), np.float32)]))
