"""The benchmark file: what it says, and a message with its place for everything that can be wrong in it."""

import re

import pytest

import rankbench
from rankbench.errors import BenchmarkError, did_you_mean

BASE = """
title = "Toy"
dataset = { name = "osr", folder = "elsewhere" }
metric = "pairwise-accuracy"
[[column]]
label = "Open"
group = "Scenes"
where = { attribute = "open", fold = [0, 1] }
[[column]]
label = "Natural"
dataset = "manifest"
metric = { name = "kendall-tau", ties = "wrong" }
test = "val"
[[row]]
label = "RankSVM"
ranker = { name = "ranksvm", c = 1, features = ["hog"] }
reported = { Open = { value = 94.98, source = "table 3" }, "Natural" = { value = 90 } }
timeout = 60
[row.at."Scenes"]
c = 2
[row.at."Open"]
features = ["gist"]
[[row]]
label = "Paper"
reported = { "Scenes: Open" = { value = 1 } }
"""


def parse(text=BASE, **changes):
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    return rankbench.Benchmark.parse(text, "toy", "toy.toml")


def test_a_file_becomes_rows_and_columns(tmp_path):
    path = tmp_path / "my-table.toml"
    path.write_text(BASE, encoding="utf-8")
    benchmark = rankbench.Benchmark.read(path)
    assert (benchmark.name, benchmark.text, benchmark.seeds, benchmark.keep) == ("my-table", BASE, [0], None)
    first, second = benchmark.column
    assert (first.choice.name, first.choice.folder, first.metric) == ("osr", "elsewhere", "pairwise-accuracy")
    assert (second.choice.name, second.metric["ties"], second.test) == ("manifest", "wrong", "val")
    assert benchmark.row[0].reported["Open"].value == 94.98
    assert benchmark.addresses == ["Scenes: Open", "Natural"]


def test_a_column_takes_every_problem_its_where_matches():
    first, second = parse().column
    assert first.matches({"attribute": "open", "fold": 1, "user": 3})
    assert not first.matches({"attribute": "open", "fold": 2})
    assert not first.matches({"attribute": "closed", "fold": 0})
    assert not first.matches({"attribute": "open"})
    assert second.matches({"anything": 1})


def test_parameters_at_a_group_and_at_a_column_lie_over_the_rows_own():
    benchmark = parse()
    row = benchmark.row[0]
    assert row.parameters(benchmark.column[0]) == {"c": 2, "features": ["gist"]}
    assert row.parameters(benchmark.column[1]) == {"c": 1, "features": ["hog"]}
    assert benchmark.row[1].parameters(benchmark.column[0]) == {}


WRONG = {
    "column 1: no dataset. Add dataset": ('dataset = { name = "osr", folder = "elsewhere" }', ""),
    "column 1: no metric. Add metric": ('metric = "pairwise-accuracy"', ""),
    'dataset needs a name: { name = "…" }': ('{ name = "osr", folder = "elsewhere" }', "{ folder = 'x' }"),
    "column 2: metric needs a name": ('{ name = "kendall-tau", ties = "wrong" }', "{ name = 3 }"),
    "row 1: ranker needs a name": ('ranker = { name = "ranksvm", ', "ranker = { "),
    "row 1, label: expected `str`, got `int`": ('label = "RankSVM"', "label = 3"),
    "row 1: object missing required field `label`": ('label = "RankSVM"', ""),
    "column 2, test: expected `str | null`, got `bool`": ('test = "val"', "test = true"),
    "row 1, reported[...].value: expected `float`, got `str`": ("value = 94.98", "value = 'high'"),
    "row 1: reported 'Open' is nan; leave out what is not known": ("value = 94.98", "value = nan"),
    "row 1, reported[...]: object contains unknown field `valeu`": ("value = 94.98", "valeu = 94.98, value = 1"),
    "row 1: unknown key 'rankre'. Did you mean 'ranker'? Known: label, ranker, ": ("ranker = {", "rankre = {"),
    "column 1: unknown key 'were'. Did you mean 'where'?": ("where =", "were ="),
    "unknown key 'titel'. Did you mean 'title'? Known: title, column, row, ": ('title = "Toy"', 'titel = "Toy"'),
    "unknown key 'name'.": ('title = "Toy"', 'name = "Toy"'),
    "unknown key 'text'.": ('title = "Toy"', 'text = "Toy"'),
    "object missing required field `title`": ('title = "Toy"', ""),
    "title: expected `str`, got `int`": ('title = "Toy"', "title = 1"),
    "seeds[1]: expected `int`, got `str`": ('title = "Toy"', 'title = "T"\nseeds = [0, "1"]'),
    "keep: invalid enum value 'all'. Write one of: models, scores.": ('title = "Toy"', 'title = "T"\nkeep = "all"'),
    "timeout must be more than 0 seconds, not 0.0": ('title = "Toy"', 'title = "T"\ntimeout = 0'),
    "row 1: timeout must be more than 0 seconds, not inf": ("timeout = 60", "timeout = inf"),
    "row 1: timeout must be more than 0 seconds, not nan": ("timeout = 60", "timeout = nan"),
    "threads must be at least 1, not 0": ('title = "Toy"', 'title = "T"\nthreads = 0'),
    "row 1: threads must be at least 1, not -1": ("timeout = 60", "threads = -1"),
    "decimals must be at least 0, not -1": ('title = "Toy"', 'title = "T"\ndecimals = -1'),
    "seeds must be different numbers of at least 0, one or more": ('title = "Toy"', 'title = "T"\nseeds = []'),
    "seeds must be different": ('title = "Toy"', 'title = "T"\nseeds = [1, 1]'),
    "seeds must be different numbers of at least 0": ('title = "Toy"', 'title = "T"\nseeds = [-1]'),
    "row 2: label 'RankSVM' is used twice; labels tell rows apart": ('label = "Paper"', 'label = "RankSVM"'),
    "column 2: label 'Open' is used twice; labels tell columns apart": (
        'label = "Natural"',
        'label = "Open"\ngroup = "Scenes"',
    ),
    "row 2: has neither a ranker nor reported figures": ('reported = { "Scenes: Open" = { value = 1 } }', ""),
    "row 1: reported names 'Opne'. Did you mean 'Open'? Known: ": ("{ Open =", "{ Opne ="),
    "row 1: at names 'Scene'. Did you mean 'Scenes'? Known: Natural, Open, Scenes.": ('at."Scenes"', 'at."Scene"'),
    "write [[row]] with two brackets, once for each row": (BASE[BASE.index("[[row]]") :], "[row]\nlabel = 'a'"),
    "has no [[row]]": (BASE, "row = []\n" + BASE[: BASE.index("[[row]]")]),
    "is not valid TOML: ": ("[[column]]", "[[column"),
}


def test_a_mark_at_the_beginning_of_a_file_is_no_matter(tmp_path):
    (tmp_path / "toy.toml").write_text(BASE, encoding="utf-8-sig")
    assert rankbench.Benchmark.read(tmp_path / "toy.toml").title == "Toy"


@pytest.mark.parametrize("message", WRONG)
def test_everything_wrong_is_said_with_its_place(message):
    text = BASE.replace(*WRONG[message], 1)
    assert text != BASE
    with pytest.raises(BenchmarkError) as raised:
        rankbench.Benchmark.parse(text, "toy", "benchmarks/toy.toml")
    said = str(raised.value)
    assert said.startswith("benchmarks/toy.toml")
    assert re.sub("^benchmarks/toy.toml(, |: )", "", said).startswith(message)


def test_equal_labels_are_told_apart_by_their_group():
    text = BASE.replace('label = "Natural"', 'label = "Open"\ngroup = "Shoes"').replace(
        '"Natural" =', '"Shoes: Open" ='
    )
    assert parse(text).addresses == ["Scenes: Open", "Shoes: Open"]


def test_a_folder_must_be_a_string():
    with pytest.raises(BenchmarkError, match="dataset osr: folder is 3; it must be a string"):
        _ = parse(a=('folder = "elsewhere"', "folder = 3")).column[0].choice


def test_a_file_that_is_not_there_is_answered_with_the_closest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "quickstart.toml").write_text("")
    with pytest.raises(
        BenchmarkError, match=r"^benchmarks/quickstrat\.toml: cannot be read \(No such file or directory\)"
    ):
        rankbench.Benchmark.read("benchmarks/quickstrat.toml")
    with pytest.raises(BenchmarkError, match=r"Did you mean 'benchmarks/quickstart\.toml'\?"):
        rankbench.Benchmark.read("benchmarks/quickstrat.toml")
    (tmp_path / "latin.toml").write_bytes(b'title = "\xe9"')
    with pytest.raises(BenchmarkError, match=r"latin\.toml: cannot be read \('utf-8' codec"):
        rankbench.Benchmark.read("latin.toml")


def test_suggestions_come_only_where_something_is_close():
    assert did_you_mean("rankre", ["label", "ranker"]) == " Did you mean 'ranker'?"
    assert did_you_mean("zzz", ["label", "ranker"]) == ""
