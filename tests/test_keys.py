"""Keys from a benchmark file: any input that matters changes them, and no way of writing it down does."""

import shutil
from dataclasses import dataclass

import numpy as np
import pytest
import traced

import rankbench
from rankbench.loading import Data
from rankbench.plan import Planner
from rankbench.plugin import Features
from rankbench.services import fitted_on
from rankbench.store import ResultStore

FILE = """
title = "Keys"
metric = "right"
threads = 1
[dataset]
name = "files"
folder = "files"
[[column]]
label = "Dark"
where = { attribute = "dark" }
[[row]]
label = "Row"
[row.ranker]
name = "tuned"
c = 1.0
features = [{ name = "level", size = 4, normalize = "l2" }]
"""


@dataclass(frozen=True)
class Tuned(rankbench.Ranker):
    """A ranker with parameters of every kind."""

    c: float = 1
    steps: tuple[int, ...] = (1, 2)
    features: Features = Features("level")  # noqa: RUF009
    weights: rankbench.File | None = None
    late: float = rankbench.added_later(0.0, old=0.0)


class Right(rankbench.Metric):
    """A metric."""


class Package:
    @rankbench.hookimpl
    def rankbench_rankers(self):
        return {"tuned": Tuned}

    @rankbench.hookimpl
    def rankbench_metrics(self):
        return {"right": Right}


@pytest.fixture
def key(tmp_path):
    """The key of the one cell of a file, in a place of its own."""
    traced.files(tmp_path / "data" / "files")
    (tmp_path / "data" / "w.txt").write_text("1")

    def of(*changes, root=tmp_path / "data", cache="cache", version="1"):
        text = FILE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        registry = traced.registry()
        registry.add(Package(), "acme", version)
        planner = Planner(registry, Data(registry, root, tmp_path / cache), ResultStore(tmp_path / "results"))
        plan = planner.plan(rankbench.Benchmark.parse(text, "keys", "keys.toml"))
        assert len(plan.cells) == 1
        assert plan.cells[0].key is not None, plan.cells[0].error or plan.cells[0].missing
        return plan.cells[0].key

    return of


SAME = [
    [("c = 1.0\n", "")],
    [("c = 1.0", "c = 1")],
    [("c = 1.0", "late = 0\nc = 1.0")],
    [("c = 1.0", "steps = [1, 2]\nc = 1.0")],
    [(', normalize = "l2"', "")],
    [('[{ name = "level", size = 4, normalize = "l2" }]', '["level"]')],
    [('[{ name = "level", size = 4, normalize = "l2" }]', '"level"')],
    [("size = 4", "bad = ''")],
    [('features = [{ name = "level", size = 4, normalize = "l2" }]\n', "")],
    [('name = "tuned"\nc = 1.0', 'c = 1.0\nname = "tuned"')],
    [('name = "level", size = 4', 'size = 4, name = "level"')],
    [('label = "Row"', 'label = "Renamed"\nnotes = "seen"'), ('title = "Keys"', 'title = "Other"\ndecimals = 2')],
    [('label = "Row"', 'label = "Row"\ntimeout = 5'), ('title = "Keys"', 'title = "Keys"\nkeep = "scores"')],
    [('label = "Row"', 'label = "Row"\nreported = { Dark = { value = 3 } }')],
    [('where = { attribute = "dark" }', 'where = { attribute = ["dark", "red"] }\ngroup = "All"')],
    [('folder = "files"\n', "")],
]
OTHER = [
    [("c = 1.0", "c = 1.5")],
    [("c = 1.0", "late = 0.1")],
    [("c = 1.0", "steps = [2, 1]")],
    [("c = 1.0", "weights = 'w.txt'")],
    [("size = 4", "size = 5")],
    [('normalize = "l2"', 'normalize = "none"')],
    [('"level"', '"centered"'), ("size = 4, ", "")],
    [('normalize = "l2" }]', 'normalize = "l2" }, "centered"]')],
    [('attribute = "dark"', 'attribute = "pale"')],
    [("threads = 1", "threads = 2")],
    [("threads = 1", "seeds = [1]")],
]


def test_no_way_of_writing_it_down_changes_a_key(key):
    assert {key(*changes) for changes in SAME} == {key()}


def test_whatever_a_result_depends_on_changes_the_key(key):
    keys = [key(), *(key(*changes) for changes in OTHER)]
    assert len(set(keys)) == len(keys)


def test_no_place_and_no_version_of_the_package_is_part_of_a_key(key, tmp_path):
    before = key()
    shutil.copytree(tmp_path / "data", tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "files").rename(tmp_path / "elsewhere" / "other")
    moved = key(('folder = "files"', 'folder = "other"'), root=tmp_path / "elsewhere", cache="second")
    assert (moved, key(version="2")) == (before, before)


def test_a_file_is_part_of_a_key_by_its_content(key, tmp_path):
    before = key(("c = 1.0", "weights = 'w.txt'"))
    (tmp_path / "data" / "w.txt").rename(tmp_path / "data" / "v.txt")
    assert key(("c = 1.0", "weights = 'v.txt'")) == before
    (tmp_path / "data" / "v.txt").write_text("2")
    assert key(("c = 1.0", "weights = 'v.txt'")) != before


def test_a_learned_features_columns_are_part_of_a_key_where_it_uses_them(key, tmp_path):
    def change(column):
        registry = traced.registry()
        data = Data(registry, tmp_path / "data", tmp_path / "cache")
        problem = next(traced.Files().problems(tmp_path / "data" / "files"))
        images = problem.images
        columns = {**images.columns, column: np.arange(len(images))}
        changed = rankbench.Images([images.describe(k) for k in range(len(images))], columns=columns)
        return data.fitting(rankbench.Problem(changed, problem.train, problem.tests).canonical()).parts

    plain = change("score")
    assert fitted_on(plain, ("category",)) == fitted_on(change("votes"), ("category",))
    assert fitted_on(plain, ("category",)) != fitted_on(change("category"), ("category",))
    assert fitted_on(plain, ()) == fitted_on(change("category"), ())


@dataclass(frozen=True)
class Told(rankbench.Feature):
    """Looks at names where it is told to."""

    by_name = True

    def extract(self, images, run):
        return np.array([[float(name[0])] for name in images.names], dtype=np.float32)


def test_names_are_part_of_a_key_where_a_feature_reads_them(key, tmp_path):
    class Named(Package):
        @rankbench.hookimpl
        def rankbench_features(self):
            return {"told": Told}

    def told():
        registry = traced.registry()
        registry.add(Named(), "acme")
        data = Data(registry, tmp_path / "data", tmp_path / "cache")
        text = FILE.replace('"level", size = 4', '"told"')
        (cell,) = (
            Planner(registry, data, ResultStore(tmp_path / "results"))
            .plan(rankbench.Benchmark.parse(text, "keys", "keys.toml"))
            .cells
        )
        assert cell.key, cell.error
        return cell.key

    before = (key(), told())
    assert told() == before[1]
    image = min((tmp_path / "data" / "files" / "images").iterdir())
    image.rename(image.with_name("00" + image.name))  # still the first of the listing
    assert key() == before[0]
    assert told() != before[1]


def test_planning_asks_each_plugin_once_however_many_columns_overlap(tmp_path):
    asked = []

    class Counted(traced.Files):
        folder = "files"

        def needs(self, root):
            asked.append("needs")
            return super().needs(root)

    class Counting(rankbench.Ranker):
        def needs_images(self):
            asked.append("ranker")
            return True

    class Counters(Package):
        @rankbench.hookimpl
        def rankbench_datasets(self):
            return {"counted": Counted}

        @rankbench.hookimpl
        def rankbench_rankers(self):
            return {"counting": Counting}

    traced.files(tmp_path / "data" / "files")
    registry = traced.registry()
    registry.add(Counters(), "acme")
    data = Data(registry, tmp_path / "data", tmp_path / "cache")
    planner = Planner(registry, data, ResultStore(tmp_path / "results"))
    text = "\n".join(
        [
            'title = "T"\nmetric = "right"\ndataset = "counted"\nseeds = [0, 1]',
            '[[column]]\nlabel = "Dark"\nwhere = { attribute = "dark" }',
            *(f'[[column]]\nlabel = "{k}"' for k in "ABC"),
            '[[row]]\nlabel = "Row"\nranker = "counting"',
        ]
    )
    benchmark = rankbench.Benchmark.parse(text, "counted", "counted.toml")
    plan = planner.plan(benchmark)
    assert [(cell.facets["attribute"], cell.seed) for cell in plan.cells] == [
        ("dark", 0),
        ("dark", 1),
        ("pale", 0),
        ("pale", 1),
    ]
    assert asked == ["needs", "ranker", "ranker"]
    (tmp_path / "data" / "files" / "pairs.csv").rename(tmp_path / "away")
    assert {cell.status for cell in planner.plan(benchmark).cells} == {"missing data"}  # the next plan looks again
