"""Outcomes to numbers: means, spreads, marks and footnotes, all from the store."""

import math
import re
import shutil
import statistics

import numpy as np
import pytest
from tiny_runs import stored_before

from rankbench.benchmark import Benchmark
from rankbench.cache import remember
from rankbench.errors import BenchmarkError
from rankbench.registry import Registry
from rankbench.store import ResultStore
from rankbench.table import Drawer, Entry, Head, Remarks, mark_best, summarize

HEAD = """
title = "Toy"
dataset = "dots"
metric = "mean-score"
seeds = [0, 1, 2]
"""
COLUMNS = """
[[column]]
label = "Bright"
where = { attribute = "bright" }
[[column]]
label = "All"
"""
LEVEL = """
[[row]]
label = "Level"
ranker = { name = "level", values = [1, 2, 6] }
"""
TRUTH = """
[[row]]
label = "Truth"
ranker = "brightness"
"""
TOY = HEAD + COLUMNS + LEVEL + TRUTH


def entry(result, row, column):
    table = result.drawn()
    return table.entries[table.rows.index(row)][[head.label for head in table.heads].index(column)]


def change_records(lab, change):
    """Edit every stored record."""
    for path in lab.results.glob("cells/*/record.json"):
        stored_before(path.parent, change)


# -- numbers


def test_mean_over_problems_then_seeds_and_spread_over_seeds(lab):
    means = lab.means()
    table = lab.run(TOY).table()
    assert table.loc["Level", "Bright"] == pytest.approx(means["bright"] + 3)
    assert table.loc["Level", "Bright (sd)"] == pytest.approx(statistics.stdev([1, 2, 6]))
    assert table.loc["Level", "All"] == pytest.approx((means["bright"] + means["pale"]) / 2 + 3)
    assert table.loc["Level", "All (sd)"] == pytest.approx(statistics.stdev([1, 2, 6]))


def test_every_problem_weighs_the_same_within_a_seed():
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = rng.normal(size=(rng.integers(2, 6), rng.integers(1, 7)))  # seeds by problems
        found = Entry()
        summarize(found, values.tolist(), 100.0)
        assert found.value == pytest.approx(100 * values.mean(axis=1).mean())
        assert found.spread == pytest.approx(100 * values.mean(axis=1).std(ddof=1))


def test_one_seed_has_no_spread(lab):
    result = lab.run(TOY.replace("seeds = [0, 1, 2]", "seeds = [1]"))
    assert entry(result, "Level", "All").spread is None
    assert list(result.table().columns) == ["Bright", "All"]
    assert not entry(result, "Truth", "All").notes, "with one seed nobody asks what depends on it"


def test_a_ranker_that_ignores_the_seed_says_so_instead_of_a_spread(lab):
    result = lab.run(TOY)
    truth = entry(result, "Truth", "All")
    assert (truth.spread, truth.deterministic, truth.cells) == (None, True, 2)
    assert result.drawn().row_notes[1] == ["deterministic: does not depend on the seed"]
    assert math.isnan(result.table().loc["Truth", "All (sd)"])


def test_percent_and_decimals_come_from_the_metric_and_the_file(lab):
    result = lab.run(HEAD.replace("mean-score", "pairwise-accuracy") + COLUMNS + TRUTH)
    assert entry(result, "Truth", "All").value == 100.0
    (head, _) = result.drawn().heads
    assert (head.percent, head.decimals, head.higher_is_better) == (True, 2, True)
    result = lab.run("decimals = 4\n" + TOY)
    assert {head.decimals for head in result.drawn().heads} == {4}


def test_reported_figures_stand_beside_measured_ones(lab):
    text = TOY + 'reported = { All = { value = 3.25, source = "A 2020" } }\n'
    text += '[[row]]\nlabel = "Paper"\nreported = { Bright = { value = 1.0 } }\n'
    result = lab.run(text)
    frame = result.table()
    assert frame.loc["Truth", "All (reported)"] == 3.25
    assert frame.loc["Paper", "Bright (reported)"] == 1.0
    assert entry(result, "Truth", "All").reported.source == "A 2020"
    assert entry(result, "Paper", "Bright").status == "reported"
    assert not entry(result, "Paper", "Bright").best
    assert math.isnan(frame.loc["Paper", "Bright"])


def test_reported_figures_of_one_label_in_two_groups(lab):
    columns = "".join(f'[[column]]\nlabel = "All"\ngroup = "{group}"\n' for group in "AB")
    text = HEAD + columns + TRUTH + 'reported = { "A: All" = { value = 1 }, All = { value = 2 } }\n'
    frame = lab.run(text).table()
    assert frame.loc["Truth", ["A: All (reported)", "B: All (reported)"]].tolist() == [1, 2]


# -- the best


def best(values, higher=True, decimals=1):
    entries = [Entry(value=value) for value in values]
    mark_best(entries, Head("x", None, "m", decimals, higher))
    return [entry.best for entry in entries]


def test_the_best_is_marked_with_its_ties_at_the_shown_precision():
    assert best([80.11, 80.14, 79.9]) == [True, True, False]
    assert best([80.11, 80.16]) == [False, True]
    assert best([0.3, 0.2, 0.2], higher=False) == [False, True, True]
    assert best([-0.01, 0.01]) == [True, True]
    assert best([1.0, None, 2.0]) == [False, False, True]


def test_nothing_is_best_among_one():
    assert best([80.0]) == [False]
    assert best([None, 80.0]) == [False, False]


def test_lower_is_better_reaches_the_table(lab):
    text = HEAD.replace("mean-score", "error") + COLUMNS + TRUTH
    text += '[[row]]\nlabel = "Wrong"\nranker = { name = "brightness", sign = -1 }\n'
    result = lab.run(text)
    assert [entry(result, row, "All").value for row in ("Truth", "Wrong")] == [0.0, 100.0]
    assert [entry(result, row, "All").best for row in ("Truth", "Wrong")] == [True, False]


# -- marks


def test_each_status_is_told_apart(lab):
    rows = "".join(f'[[row]]\nlabel = "{name}"\nranker = "{name}"\n' for name in ("boom", "refuses"))
    gone = '[[column]]\nlabel = "Gone"\ndataset = { name = "dots", folder = "gone" }\n'
    result = lab.run(HEAD + COLUMNS + gone + LEVEL + rows)
    assert entry(result, "Level", "All").status == "done"
    assert entry(result, "Level", "Gone").status == "missing data"
    assert entry(result, "boom", "All").status == "failed"
    assert entry(result, "refuses", "All").status == "not applicable"
    failed, refused = result.drawn().row_notes[1:]
    assert re.fullmatch(r"failed: ValueError: boom \(dots_plugins\.py, line \d+\)", failed[0])
    assert refused == ["not applicable: needs images.columns['category']"]
    only = lab.run(HEAD + COLUMNS + LEVEL + TRUTH, name="other", only="Level")
    assert entry(only, "Truth", "All").status == "to do"


def test_a_partial_mean_is_never_shown(lab):
    result = lab.run(TOY)
    path = lab.results / "cells" / next(c.key for c in result.cells if c.row == "Level" and c.seed == 2)
    shutil.rmtree(path)
    table = Drawer(Registry.installed(), ResultStore(lab.results)).draw(result.plan.benchmark)
    found = table.entries[0][1]
    assert (found.value, found.spread, found.done, found.cells, found.status) == (None, None, 5, 6, "to do")


def test_a_stale_cell_is_marked(lab):
    lab.run(TOY)
    lab.edit("self.values[run.seed]", "0 + self.values[run.seed]")
    table = Drawer(Registry.installed(), ResultStore(lab.results)).draw(Benchmark.read(lab.root / "toy.toml"))
    assert [[entry.stale for entry in row] for row in table.entries] == [[True, True], [True, True]]
    assert table.entries[0][0].value is not None


# -- footnotes


def test_predicted_ties_are_footnoted_above_a_thousandth(lab):
    result = lab.run(HEAD.replace("mean-score", "pairwise-accuracy") + COLUMNS + LEVEL + TRUTH)
    assert "predicted ties: 100 % of the ordered pairs" in result.drawn().row_notes[0]
    assert not any("ties" in note for note in result.drawn().row_notes[1])
    for share, noted in ((0.001, []), (0.0011, ["predicted ties: 0.11 % of the ordered pairs"])):
        remarks = Remarks()
        remarks.tied(share)
        assert remarks.notes() == noted


def test_numbers_of_footnotes_add_up_over_neither_problems_nor_seeds():
    remarks = Remarks()
    for _seed in range(3):
        for problem, count in (("a", 2), ("b", 5)):
            remarks.add(problem, f"{count} images could not be read")
            remarks.add(problem, "a plain remark")
            remarks.add(problem, f"{count} of 10 pairs were left out")
    assert remarks.notes() == [
        "in each of 2 problems, up to 5 images could not be read",
        "a plain remark",
        "in each of 2 problems, up to 5 of 10 pairs were left out",
    ]


def test_unreadable_images_are_footnoted(lab):
    def lose(record):
        if record["facets"]["attribute"] == "bright":
            record["lost"] = ["image bright-100.pgm", "image bright-110.pgm"]

    lab.run(TOY)
    change_records(lab, lose)
    table = lab.run(TOY).drawn()
    note = "2 of {} images could not be read and were left out with their pairs"
    assert table.heads[0].notes == [note.format(12)]
    assert table.heads[1].notes == [note.format(24)], "each attribute has images of its own"

    def forget(record):
        del record["listed"]

    change_records(lab, forget)  # as records were before
    table = Drawer(Registry.installed(), ResultStore(lab.results)).draw(Benchmark.read(lab.file(TOY)))
    assert table.heads[0].notes == [note.format(12)]
    assert table.heads[1].notes == ["2 images could not be read and were left out with their pairs"]


def test_overlap_and_notes_of_the_data_are_footnoted(lab):
    dataset = 'dataset = { name = "dots", shared = "as published", note = "3 pairs were dropped" }'
    table = lab.run(TOY.replace('dataset = "dots"', dataset)).drawn()
    assert table.heads[0].notes == ["training and test share images: as published", "3 pairs were dropped"]


def test_removed_copies_are_footnoted(lab):
    shutil.copy(lab.data / "dots" / "bright-180.pgm", lab.data / "dots" / "bright-100.pgm")
    table = lab.run(TOY).drawn()
    assert table.heads[0].notes == ["1 training images with the bytes of a test image were removed with their pairs"]


def test_rows_that_read_inputs_are_footnoted(lab):
    text = HEAD.replace("mean-score", "error") + COLUMNS + TRUTH + '[[row]]\nlabel = "Votes"\nranker = "comparer"\n'
    assert "reads evidence given at test time: votes" in lab.run(text).drawn().row_notes[1]


def test_remarks_of_rankers_and_features_are_footnoted(lab):
    (lab.data / "sign.txt").write_text("1")
    row = "[[row]]\nlabel = '{0}'\nranker = {{ name = 'featured', features = {0} }}\n"
    table = lab.run(HEAD + COLUMNS + row.format('["grey"]') + row.format('["grey", "centered"]')).drawn()
    assert table.row_notes[0] == []
    assert table.row_notes[1] == ["of 2 features only the first counts", "centered on the training images"]


def test_what_is_found_missing_while_fitting_is_missing_and_tried_again(lab):
    text = HEAD + COLUMNS + '[[row]]\nlabel = "Net"\nranker = "weightless"\n'
    for _ in range(2):
        result = lab.run(text)
        place = entry(result, "Net", "All")
        assert (place.status, place.done, place.cells) == ("missing data", 0, 6)
        assert "missing: weights.pt: not found." in [*place.notes, *result.drawn().row_notes[0]]
        assert result.exit_code == 3


COSTS = """
[[column]]
label = "{0}"
metric = {1}
"""


def test_a_metric_may_look_at_what_a_cell_took(lab):
    (lab.data / "sign.txt").write_text("1")
    columns = [("Own", '{ name = "seconds", features = false }'), ("All", '"seconds"'), ("GB", '"peak-memory"')]
    text = HEAD.replace('"mean-score"', '"error"') + "".join(COSTS.format(*column) for column in columns)
    text += '[[row]]\nlabel = "Featured"\nranker = "featured"\n' + TRUTH
    lab.run(text)

    def slow(record):
        record["phases"]["fit"]["wall_seconds"], record["phases"]["score"]["wall_seconds"] = 2.0, 0.5
        record["phases"]["features"] = {"wall_seconds": 50.0, "cpu_seconds": 50.0}  # what this cell spent for all
        record["feature_seconds"] = {"a": 3.0, "b": 4.0} if record["ranker"]["name"] == "featured" else {}
        record["peak_memory_bytes"], record["memory_bytes_before"], record["peak_memory_of"] = 3 * 10**9, 10**9, "cell"

    change_records(lab, slow)
    shutil.rmtree(lab.cache)
    table = Drawer(Registry.installed(), ResultStore(lab.results)).draw(Benchmark.parse(text, "toy", "toy.toml"))
    values = [[entry.value for entry in row] for row in table.entries]
    assert values == [[2.5, 9.5, 2.0], [2.5, 2.5, 2.0]]
    assert not any(entry.best for row in table.entries for entry in row)  # what is cheap is not best
    assert [head.unit for head in table.heads] == ["s", "s", "GB"]


def test_a_row_may_be_for_some_columns_only(lab):
    text = TOY + 'columns = ["Bright"]\nreported = { All = 81.0 }\n'.replace("81.0", "{ value = 81.0 }")
    result = lab.run(text)
    assert entry(result, "Truth", "Bright").status == "done"
    other = entry(result, "Truth", "All")
    assert (other.status, other.value, other.cells, other.reported.value) == ("reported", None, 0, 81.0)
    assert {cell.facets["attribute"] for cell in result.cells if cell.row == "Truth"} == {"bright"}
    with pytest.raises(BenchmarkError, match=r"row 2: columns names 'bright'\. Did you mean 'Bright'"):
        lab.run(text.replace('["Bright"]', '["bright"]'))


def test_parameters_of_a_place_are_footnoted_and_used(lab):
    columns = COLUMNS.replace('label = "All"', 'label = "All"\ngroup = "Both"')
    text = HEAD + columns + TRUTH + '[row.at.Both]\nsign = -1\n[row.at."Bright"]\nsign = 1\n'
    result = lab.run(text)
    assert entry(result, "Truth", "All").notes == ["here with sign = -1"]
    assert entry(result, "Truth", "Bright").notes == ["here with sign = 1"]
    assert entry(result, "Truth", "All").value == -entry(lab.run(TOY), "Truth", "All").value
    both = text.replace('[row.at."Bright"]\nsign = 1', "[row.at.All]\nsign = 1")
    assert entry(lab.run(both), "Truth", "All").notes == ["here with sign = 1"], "the column's own come last"


def test_mixed_devices_and_versions_are_noted_where_they_are_shown(lab):
    lab.run(TOY)
    lab.run(HEAD + COLUMNS + LEVEL, name="level")

    def mix(record):
        if record["row"] == "Truth":
            record["device"] = "cuda"
            record["versions"]["numpy"] = "1.0"

    change_records(lab, mix)
    drawer = Drawer(Registry.installed(), ResultStore(lab.results))
    toy, level = Benchmark.read(lab.root / "toy.toml"), Benchmark.read(lab.root / "level.toml")
    notes = {name: drawer.draw(benchmark).notes for name, benchmark in (("toy", toy), ("level", level))}
    assert notes["toy"] == [
        "cells ran on different devices: cpu, cuda",
        f"cells ran with different versions of numpy: 1.0, {np.__version__}",
    ]
    assert notes["level"] == []


def test_notes_of_the_file_are_kept(lab):
    table = lab.run('notes = "Trained for a day."\n' + TOY + 'notes = "Ours."\n').drawn()
    assert table.notes == ["Trained for a day."]
    assert "Ours." in table.row_notes[1]


# -- where it comes from


def test_a_table_needs_the_store_alone(lab):
    first = lab.run(TOY).drawn()
    for folder in (lab.data, lab.cache, lab.site):
        shutil.rmtree(folder)
    drawer = Drawer(Registry.installed(), ResultStore(lab.results))
    (again,) = drawer.every()
    assert "mean-score" in str(again), "its metric is not installed any more"
    text = TOY.replace('"mean-score"', '"pairwise-accuracy"')
    drawn = drawer.draw(Benchmark.parse(text, "toy", "toy.toml"))
    assert [e.status for row in drawn.entries for e in row] == ["done"] * 4
    assert first.rows == drawn.rows


def test_another_metric_or_layout_refits_nothing(lab):
    lab.run(TOY)
    other = TOY.replace('"mean-score"', '{ name = "mean-score", less = 100 }').replace('"Level"', '"Renamed"')
    drawer = Drawer(Registry.installed(), ResultStore(lab.results))
    table = drawer.draw(Benchmark.parse(other, "toy", "toy.toml"))
    assert table.rows == ["Renamed", "Truth"]
    assert table.entries[0][0].value == pytest.approx(lab.means()["bright"] + 3 - 100)


def test_values_are_remembered_and_a_changed_metric_is_computed_again(lab):
    first = lab.run(TOY).table()
    memos = list((lab.cache / "metrics").iterdir())
    assert len(memos) == 3 * 2 + 2
    for path in memos:
        remember(path, {"value": 7.0})
    assert set(lab.run(TOY).table()["All"]) == {7.0}, "the memo is used"
    lab.edit("float(judged.scores.mean()) - self.less", "float(judged.scores.mean()) - 1 * self.less")
    assert lab.run(TOY).table().equals(first)


def test_a_metric_that_does_not_apply_gives_a_dash_and_a_faulty_one_a_failure(lab):
    text = HEAD + COLUMNS + LEVEL + '[[row]]\nlabel = "Votes"\nranker = "comparer"\n'
    for _attempt in range(2):  # the second time from the memo
        result = lab.run(text)
        assert entry(result, "Votes", "All").status == "not applicable"
        assert "not applicable: needs image scores" in result.drawn().row_notes[1]
    table = lab.run(text.replace("mean-score", "faulty")).drawn()
    assert [row[1].status for row in table.entries] == ["failed", "not applicable"]
    assert table.row_notes[0] == [
        "failed: metric 'faulty' of package dots-plugins failed: ZeroDivisionError: division by zero"
    ]
    assert "not applicable: Faulty is nan here" in table.row_notes[1]


def test_several_tests_need_a_name(lab):
    dataset = 'dataset = { name = "dots", tests = ["near", "far"] }'
    named = "".join(f'[[column]]\nlabel = "{name}"\ntest = "{name}"\n' for name in ("near", "far"))
    result = lab.run(HEAD.replace('dataset = "dots"', dataset) + named + TRUTH)
    assert entry(result, "Truth", "near").value != entry(result, "Truth", "far").value
    drawer = Drawer(Registry.installed(), ResultStore(lab.results))
    for test, message in (("", "does not say which test"), ('test = "x"', "there is no test 'x'")):
        columns = f'[[column]]\nlabel = "near"\n{test}\n'
        text = HEAD.replace('dataset = "dots"', dataset) + columns + TRUTH
        table = drawer.draw(Benchmark.parse(text, "toy", "toy.toml"))
        assert table.entries[0][0].status == "failed"
        assert message in table.entries[0][0].notes[0]
        assert "far, near" in table.entries[0][0].notes[0]


def test_a_store_with_holes_says_what_is_gone(lab):
    result = lab.run(TOY)
    for path in lab.results.glob("cells/*/scores.npz"):
        path.unlink()
    found = entry(result, "Level", "All")
    assert found.status == "failed"
    assert "scores.npz" in str(result.drawn().row_notes[0])


def test_a_wrong_metric_names_its_column(lab):
    drawer = Drawer(Registry.installed(), ResultStore(lab.results))
    with pytest.raises(Exception, match=r"^benchmark toy, at the top: no metric named 'men-score'\. Did you mean"):
        drawer.draw(Benchmark.parse(TOY.replace("mean-score", "men-score"), "toy", "toy.toml"))


def test_counts_say_in_how_many_problems_they_are_found():
    remarks = Remarks()
    for split in range(3):
        problem = f'{{"attribute":"open","split":{split}}}'
        remarks.add(problem, "2009 release of the labels is used")
        remarks.add(problem, "1,234 of 5,678 images are not there")
        if split:
            remarks.add(problem, "3 of 20 pairs were dropped")
    remarks.add("", "a word on the place")
    assert remarks.notes() == [
        "2009 release of the labels is used",
        "in each of 3 splits, 1,234 of 5,678 images are not there",
        "in 2 of 3 splits, 3 of 20 pairs were dropped",
        "a word on the place",
    ]
