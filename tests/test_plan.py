"""Planning: every cell with its key, without data where it must be, and what is said of a file that cannot be right."""

import json
import shutil

import pytest

import rankbench
from rankbench.benchmark import Benchmark
from rankbench.errors import BenchmarkError
from rankbench.runner import Options, Runner

TOY = """
title = "Toy"
dataset = "dots"
metric = "pairwise-accuracy"
seeds = [0, 1]
[[column]]
label = "Bright"
where = { attribute = "bright" }
[[column]]
label = "All"
[[row]]
label = "Truth"
ranker = "brightness"
[[row]]
label = "Level"
ranker = { name = "level", values = [1, 2] }
"""
FEATURED = """
title = "Toy"
dataset = "dots"
metric = "pairwise-accuracy"
[[column]]
label = "All"
[[row]]
label = "Featured"
ranker = { name = "featured", features = FEATURES }
"""


@pytest.fixture
def planned(lab):
    """Plans a benchmark text; nothing is run."""

    def plan(text, name="toy", **options):
        runner = Runner(Options(**{**lab.places, "device": "cpu", **options}))
        return runner.plan(Benchmark.read(lab.file(text, name)))

    return plan


def one(plan, **wanted):
    """The only cell with these attributes."""
    (cell,) = [c for c in plan.cells if all(getattr(c, name) == value for name, value in wanted.items())]
    return cell


def keys(plan):
    return sorted(str(cell.key) for cell in plan.cells)


# -- what a plan holds


def test_a_cell_shared_by_columns_is_planned_once(planned):
    plan = planned(TOY)
    assert len(plan.cells) == 2 + 4  # two problems without a seed; two problems with two
    assert {cell.status for cell in plan.cells} == {"to do"}
    truth = [cell for cell in plan.cells if cell.row == "Truth"]
    assert [(cell.seed, cell.facets) for cell in truth] == [
        (None, {"attribute": "bright"}),
        (None, {"attribute": "pale"}),
    ]
    assert one(plan, row="Level", seed=1, facets={"attribute": "pale"}).title == "Level · dots attribute=pale · seed 1"


def test_a_parameter_decides_whether_a_ranker_depends_on_the_seed(planned):
    text = """
title = "C"
dataset = "dots"
metric = "pairwise-accuracy"
seeds = [0, 1, 2]
[[column]]
label = "Bright"
where = { attribute = "bright" }
[[row]]
label = "fixed"
ranker = { name = "ranksvm", features = ["grey"], C = 1.0 }
[[row]]
label = "chosen"
ranker = { name = "ranksvm", features = ["grey"], C = "holdout" }
"""
    seeds = {row: [c.seed for c in planned(text).cells if c.row == row] for row in ("fixed", "chosen")}
    assert seeds == {"fixed": [None], "chosen": [0, 1, 2]}


def test_planning_stores_no_plan_and_a_run_stores_one(lab, planned):
    planned(TOY)
    assert not (lab.results / "plans").exists()
    lab.run(TOY)
    assert [path.name for path in (lab.results / "plans" / "toy").iterdir()] == ["000001.json"]


def test_plans_are_numbered_and_an_equal_one_is_not_stored_again(lab):
    for text in (TOY, TOY, TOY.replace('title = "Toy"', 'title = "Toys"'), TOY):
        lab.run(text)
    stored = [json.loads(path.read_text()) for path in sorted((lab.results / "plans" / "toy").iterdir())]
    assert [(plan["number"], "Toys" in plan["toml"]) for plan in stored] == [(1, False), (2, True), (3, False)]
    assert all(len(cell["key"]) == 64 for plan in stored for cell in plan["cells"])


def test_only_leaves_the_plan_complete(lab):
    result = lab.run(TOY, only="Tr*")
    assert [cell.row for cell in result.cells] == ["Truth", "Truth"]
    assert len(result.plan.cells) == 6
    assert len(json.loads(next((lab.results / "plans" / "toy").iterdir()).read_text())["cells"]) == 6
    assert len(lab.records()) == 2


def test_a_rerun_fits_nothing(lab):
    assert lab.run(TOY).plan.fitted == 6
    again = lab.run(TOY)
    assert (again.plan.fitted, again.exit_code) == (0, 0)
    assert {cell.status for cell in again.cells} == {"done"}


# -- keys


def test_the_key_of_this_cell_stays_the_same_for_ever(planned):
    """A stored result is found by its key: whatever moves it orphans every result users have."""
    cell = one(planned(TOY), row="Level", seed=1, facets={"attribute": "pale"})
    assert cell.key == "32f7b356b7388d8965f28afa8edc86a738af0db8b66aa5a9a394f9776b5657b6"
    assert cell.parts["ranker"] == {
        "name": "level",
        "distribution": "dots-plugins",
        "version": "1",
        "parameters": {"values": [1.0, 2.0], "threads": 1},
    }


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('label = "Level"', 'label = "Constant"'),
        ('title = "Toy"', 'title = "Other"'),
        ("values = [1, 2]", "values = [1.0, 2.0]"),
        ("values = [1, 2]", "values = [1, 2], threads = 1"),  # the default, written down
        ('metric = "pairwise-accuracy"', 'metric = "error"'),
        ('dataset = "dots"', 'dataset = { name = "dots", note = "" }'),
        ("seeds = [0, 1]", "timeout = 5\nseeds = [1, 0]\nkeep = 'scores'"),
        ("seeds = [0, 1]", "seeds = [0, 1]\nthreads = 1"),
    ],
)
def test_what_changes_no_result_changes_no_key(planned, old, new):
    assert keys(planned(TOY.replace(old, new))) == keys(planned(TOY))


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("values = [1, 2]", "values = [1, 3]", 4),
        ("seeds = [0, 1]", "seeds = [2, 3]", 4),
        ("seeds = [0, 1]", "seeds = [0, 1]\nthreads = 2", 6),
        ('dataset = "dots"', 'dataset = { name = "dots", shared = "a reason" }', 6),
    ],
)
def test_what_changes_results_changes_keys(planned, old, new, changed):
    before, after = set(keys(planned(TOY))), set(keys(planned(TOY.replace(old, new))))
    assert len(after) == 6
    assert len(after - before) == changed


def test_the_content_of_an_image_and_the_version_of_a_ranker_enter_the_key(lab, planned):
    before = planned(TOY)
    picture = lab.data / "dots" / "pale-105.pgm"
    shutil.copy(lab.data / "dots" / "pale-215.pgm", picture)  # training data of one attribute
    after = planned(TOY)
    assert [a.key == b.key for a, b in zip(before.cells, after.cells, strict=True)] == [
        cell.facets["attribute"] == "bright" for cell in before.cells
    ]


def test_where_the_data_lies_enters_no_key(lab, planned):
    before = keys(planned(TOY))
    elsewhere = lab.root / "elsewhere"
    shutil.move(lab.data, elsewhere)
    assert keys(planned(TOY, data=elsewhere)) == before
    (elsewhere / "dots").rename(elsewhere / "squares")
    moved = TOY.replace('dataset = "dots"', 'dataset = { name = "dots", folder = "squares" }')
    assert keys(planned(moved, data=elsewhere)) == before


def test_two_folders_of_one_dataset_are_two_datasets(lab):
    shutil.copytree(lab.data / "dots", lab.data / "more")
    for path in (lab.data / "more").glob("pale-*.pgm"):
        path.unlink()
    (lab.data / "dots").rename(lab.data / "some")
    text = """
title = "Two folders"
metric = "mean-score"
dataset = { name = "dots", folder = "some" }
[[column]]
label = "Some"
[[column]]
label = "More"
dataset = { name = "dots", folder = "more" }
where = { attribute = "bright" }
[[row]]
label = "Truth"
ranker = "brightness"
"""
    table = lab.run(text).table()
    assert table["Some"].tolist() == [(lab.means()["bright"] + lab.means()["pale"]) / 2]
    assert table["More"].tolist() == [lab.means()["bright"]]


def test_features_files_and_what_they_are_fitted_on_enter_the_key(lab, planned):
    """Each of these gives another result, and another key."""
    variants = [
        '"grey"',
        '["grey", "centered"]',
        '[{ name = "grey", normalize = "none" }]',
        '"centered"',
        '[{ name = "centered", fit_on = { name = "dots-one" } }]',
    ]
    lab.edit('"dots": Dots,', '"dots": Dots, "dots-one": OneDots,')
    path = lab.site / "dots_plugins.py"
    one_problem = '''
class OneDots(Dots):
    """The bright ones alone."""

    folder = "dots"

    def facets(self, root):
        return [{"attribute": "bright"}]

'''
    path.write_text(path.read_text().replace("def grey(images)", one_problem.strip() + "\n\n\ndef grey(images)"))
    found = [keys(planned(FEATURED.replace("FEATURES", features))) for features in variants]
    (lab.data / "sign.txt").write_text("-1")
    found.append(keys(planned(FEATURED.replace("FEATURES", variants[0]))))
    assert len({key for some in found for key in some}) == 2 * len(found)
    (lab.data / "dots").rename(lab.data / "squares")
    moved = FEATURED.replace('dataset = "dots"', 'dataset = { name = "dots", folder = "squares" }')
    on = '[{ name = "centered", fit_on = { name = "dots-one", folder = "squares" } }]'
    (lab.data / "sign.txt").write_text("1")
    assert keys(planned(moved.replace("FEATURES", on))) == found[4], "the folder of fit_on moved the key"


# -- without data


@pytest.mark.parametrize("fixed", ["true", "false"])
def test_running_without_data_keeps_keys_and_table(lab, fixed):
    text = TOY.replace('dataset = "dots"', f'dataset = {{ name = "dots", fixed = {fixed} }}')
    first = lab.run(text)
    shutil.rmtree(lab.data)
    shutil.rmtree(lab.cache)
    again = lab.run(text)
    assert keys(again.plan) == keys(first.plan)
    assert (again.exit_code, again.plan.fitted) == (0, 0)
    assert again.table().equals(first.table())
    assert again.table()[["Bright", "All"]].notna().all(axis=None)


@pytest.mark.parametrize("fixed", ["true", "false"])
def test_data_that_was_never_there_is_missing(lab, fixed):
    shutil.move(lab.data / "dots", lab.data / "hidden")
    text = TOY.replace('dataset = "dots"', f'dataset = {{ name = "dots", fixed = {fixed} }}')
    result = lab.run(text)
    assert (result.exit_code, result.plan.fitted) == (3, 0)
    assert {cell.status for cell in result.cells} == {"missing data"}
    for cell in result.cells:
        assert str(lab.data / "dots") in cell.reason
        assert "run the tests" in cell.reason
    assert result.table().isna().all(axis=None)


def test_a_list_in_where_is_left_open_until_the_data_says_more(lab):
    shutil.move(lab.data / "dots", lab.data / "hidden")
    text = TOY.replace('{ attribute = "bright" }', '{ attribute = ["bright", "pale"] }').replace(
        'dataset = "dots"', 'dataset = { name = "dots", fixed = false }'
    )
    assert {json.dumps(cell.facets) for cell in lab.run(text).cells} == {"{}"}
    shutil.move(lab.data / "hidden", lab.data / "dots")
    assert lab.run(text).exit_code == 0


def test_a_missing_file_parameter_and_missing_data_of_fit_on_say_where_they_were_looked_for(lab):
    (lab.data / "sign.txt").unlink()
    cells = lab.run(FEATURED.replace("FEATURES", '"grey"')).cells
    assert {cell.status for cell in cells} == {"missing data"}
    assert str(lab.data / "sign.txt") in cells[0].reason
    (lab.data / "sign.txt").write_text("1")
    on = '[{ name = "centered", fit_on = { name = "manifest", folder = "nowhere" } }]'
    cells = lab.run(FEATURED.replace("FEATURES", on)).cells
    assert {cell.status for cell in cells} == {"missing data"}
    assert str(lab.data / "nowhere" / "images.csv") in cells[0].reason


def test_broken_data_fails_its_cells_and_empties_no_table(lab):
    first = lab.run(TOY)
    for path in (lab.data / "dots").glob("pale-*.pgm"):
        path.unlink()
    again = lab.run(TOY)
    assert again.exit_code == 1
    assert {cell.facets["attribute"] for cell in again.cells if cell.status == "failed"} == {"pale"}
    assert again.table().equals(first.table())


# -- plugins that cannot be used


def test_a_broken_plugin_spoils_its_row_alone(lab):
    text = TOY + "".join(
        f'[[row]]\nlabel = "{name}"\nranker = "{name}"\n' for name in ("broken", "no-ranker", "unplannable")
    )
    result = lab.run(text)
    reasons = {cell.row: cell.reason for cell in result.cells if cell.status == "failed"}
    assert "a_package_that_is_not_there" in reasons["broken"]
    assert "dots-plugins" in reasons["broken"]
    assert "must inherit rankbench.Ranker" in reasons["no-ranker"]
    assert "KeyError: 'gpu'" in reasons["unplannable"]
    assert sum(cell.status == "done" for cell in result.cells) == 6
    assert result.exit_code == 1


def test_a_dataset_that_is_none_fails_its_column_alone(lab):
    text = TOY.replace(
        '[[row]]\nlabel = "Truth"', '[[column]]\nlabel = "No"\ndataset = "no-dataset"\n[[row]]\nlabel = "Truth"'
    )
    result = lab.run(text)
    assert {(c.dataset.name, c.status) for c in result.cells} == {("dots", "done"), ("no-dataset", "failed")}
    assert "must inherit rankbench.Dataset" in next(c.reason for c in result.cells if c.status == "failed")


# -- files that cannot be right


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('{ attribute = "bright" }', '{ attribute = "dark" }', ["column 'Bright'", "attribute is one of bright, pale"]),
        (
            '{ attribute = "bright" }',
            '{ attribute = ["brihgt"] }',
            ["where = { attribute = [\"brihgt\"] }. Did you mean 'bright'?"],
        ),
        (
            '{ attribute = "bright" }',
            "{ fold = 1 }",
            ["no problem of dots matches", "where = { fold = 1 }. Its facets"],
        ),
        (
            '"brightness"',
            '"brightnes"',
            ["row 'Truth'", "Did you mean 'brightness'?", "Installed rankers: attribute-votes, boom"],
        ),
        ('"brightness"', '{ name = "brightness", sing = 1 }', ["row 'Truth'", "no parameter 'sing'", "'sign'?"]),
        ("values = [1, 2]", 'values = "1"', ["row 'Level'", "parameter 'values'", "got '1'"]),
        ('metric = "pairwise-accuracy"', 'metric = "acuracy"', ["benchmark toy, at the top: no metric named"]),
        ('dataset = "dots"', 'dataset = "dotz"', ["no dataset named 'dotz'", "Did you mean 'dots'?"]),
        ('dataset = "dots"', 'dataset = { name = "dots", tests = ["a", "b"] }', ["'Bright'", "Tests of dots", "a, b"]),
        ('label = "All"', 'label = "All"\ntest = "far"', ["column 'All'", "no test 'far'", 'test = "test"']),
        ('dataset = "dots"', 'dataset = { name = "dots", tests = [] }', ["has no test pairs"]),
    ],
)
def test_a_wrong_file_is_refused_with_place_and_remedy(lab, old, new, words):
    with pytest.raises(BenchmarkError) as refused:
        lab.run(TOY.replace(old, new))
    for word in words:
        assert word in str(refused.value)
    assert not lab.results.exists()


def test_a_feature_that_is_none_is_refused(lab):
    with pytest.raises(BenchmarkError, match=r"row 'Featured': no feature named 'gray'\. Did you mean 'grey'\?"):
        lab.run(FEATURED.replace("FEATURES", '"gray"'))


def test_an_earlier_plan_does_not_make_a_new_where_wrong(lab):
    """The facets an earlier plan knew may be out of date; only the data itself can say that nothing matches."""
    text = TOY.replace('dataset = "dots"', 'dataset = { name = "dots", fixed = false }')
    lab.run(text)
    shutil.rmtree(lab.data / "dots")
    result = lab.run(text.replace('attribute = "bright"', 'attribute = "new"'))
    assert {cell.status for cell in result.cells if cell.facets == {"attribute": "new"}} == {"missing data"}


def test_the_cache_is_where_the_environment_says(lab, monkeypatch):
    monkeypatch.setenv("RANKBENCH_CACHE", str(lab.root / "other"))
    lab.run(TOY, cache=None)
    assert (lab.root / "other" / "problems").is_dir()
    assert not lab.cache.exists()


def test_a_changed_source_makes_stored_cells_stale_until_it_is_accepted(lab):
    lab.run(TOY)
    lab.edit("return self.sign * grey(images)", "return grey(images) * self.sign")
    stale = lab.run(TOY)
    assert {cell.status for cell in stale.cells} == {"stale"}
    assert (stale.exit_code, stale.plan.fitted) == (0, 0)
    accepted = lab.run(TOY, accept_stale=True)
    assert {cell.status for cell in accepted.cells} == {"done"}
    assert {cell.status for cell in lab.run(TOY).cells} == {"done"}
    lab.edit("return grey(images) * self.sign", "return self.sign * (grey(images))")  # layout alone
    lab.edit("return self.sign * (grey(images))", "return self.sign * grey(images)  # as it was")
    assert {cell.status for cell in lab.run(TOY).cells} == {"done"}


def test_a_failed_cell_is_tried_again_unless_told_otherwise(lab):
    text = TOY + '[[row]]\nlabel = "Boom"\nranker = "boom"\n'
    assert lab.run(text).plan.fitted == 10
    assert lab.run(text, retry=False).plan.fitted == 0
    again = lab.run(text)
    assert (again.plan.fitted, again.exit_code) == (4, 1)
    assert {c.reason for c in again.cells if c.row == "Boom"} == {"ValueError: boom (dots_plugins.py, line 138)"}


def test_rows_that_read_inputs_are_known_before_they_run(planned):
    text = TOY + '[[row]]\nlabel = "Votes"\nranker = "comparer"\n'
    assert {tuple(c.inputs) for c in planned(text).cells if c.row == "Votes"} == {("votes",)}


def test_inputs_that_are_a_word_are_the_plugins_fault(lab):
    lab.edit('inputs = ("votes",)', 'inputs = "votes"')
    result = lab.run(TOY + '[[row]]\nlabel = "Votes"\nranker = "comparer"\n')
    found = {cell.reason for cell in result.cells if cell.row == "Votes"}
    assert len(found) == 1
    assert "inputs must be a tuple of names, not 'votes'" in found.pop()


def test_public_run_takes_a_benchmark_or_a_path(lab):
    path = lab.file(TOY)
    by_path = rankbench.run(str(path), in_process=True, quiet=True, **lab.places)
    by_value = rankbench.run(rankbench.Benchmark.read(path), in_process=True, quiet=True, **lab.places)
    assert by_path.table().equals(by_value.table())
