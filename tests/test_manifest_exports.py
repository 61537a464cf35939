"""manifest: what labelling tools and A/B tests export: votes, winners, folds, repeated lines, Parquet."""

import numpy as np
import pandas as pd
import pytest
from test_manifest import named, only, scored, shoes, write  # noqa: F401

import rankbench
from rankbench.testing import check_dataset
from rankbench_datasets.manifest import Manifest


def paths(*pairs):
    return [(f"img/{a:02}.png", f"img/{b:02}.png") for a, b in pairs]


TRAIN = paths((0, 1), (2, 3), (4, 5), (6, 7))
TEST = paths((10, 11), (12, 13))


def rows(head, values, split=True):
    """pairs.csv lines: the four training pairs and the two test pairs, with these values each."""
    sides = ["train"] * 4 + ["test"] * 2
    lines = [
        ",".join([*pair, value, *([side] if split else [])])
        for pair, value, side in zip(TRAIN + TEST, values, sides, strict=True)
    ]
    return [f"left,right,{head}{',split' * split}", *lines]


def test_votes_become_labels(shoes):  # noqa: F811
    write(
        shoes,
        "pairs",
        *rows("votes_left,votes_right,votes_tie", ["3,1,0", "1,3,1", "2,2,0", "1,1,3", "5,0,0", "0,1,0"]),
    )
    problem = only(Manifest(), shoes)
    assert [label for *_, label in named(problem, problem.train)] == [1, -1, 0, 0]
    assert [label for *_, label in named(problem, problem.tests["test"])] == [1, -1]
    assert problem.train.columns["votes"].tolist() == [[3, 1, 0], [1, 3, 1], [2, 2, 0], [1, 1, 3]]
    flipped = problem.train.swapped(np.array([True, False, False, False]))
    assert flipped.columns["votes"][0].tolist() == [1, 3, 0]
    check_dataset(Manifest(), shoes)


def test_votes_for_a_tie_may_be_left_out(shoes):  # noqa: F811
    write(shoes, "pairs", *rows("votes_left,votes_right", ["3,1", "1,3", "2,2", "0,4", "5,0", "0,1"]))
    assert only(Manifest(), shoes).train.label.tolist() == [1, -1, 0, -1]


def test_a_winner_is_named_by_image_or_side(shoes):  # noqa: F811
    winners = [TRAIN[0][0], "./" + TRAIN[1][1], "tie", "Right", TEST[0][1], "left"]
    write(shoes, "pairs", *rows("winner", winners))
    problem = only(Manifest(), shoes)
    assert problem.train.label.tolist() == [1, -1, 0, -1]
    assert problem.tests["test"].label.tolist() == [-1, 1]


def test_repeated_lines_stay_or_are_merged(shoes):  # noqa: F811
    said = [
        (0, 1, "left"),
        (1, 0, "left"),
        (0, 1, "left"),
        (2, 3, "right"),
        (3, 2, "right"),
        (4, 5, "right"),
        (5, 4, "left"),
    ]
    lines = [f"img/{a:02}.png,img/{b:02}.png,{label},train" for a, b, label in said]
    lines += ["img/10.png,img/11.png,left,test"]
    write(shoes, "pairs", "left,right,label,split", *lines)
    assert len(only(Manifest(), shoes).train) == 7
    merged = only(Manifest(merge=True), shoes)
    found = {(a[-6:-4], b[-6:-4]): label for a, b, label in named(merged, merged.train)}
    assert found == {("00", "01"): 1, ("02", "03"): 0, ("04", "05"): -1}
    votes = dict(zip(merged.train.left.tolist(), merged.train.columns["votes"].tolist(), strict=True))
    assert sorted(votes.values()) == [[0, 2, 0], [1, 1, 0], [2, 1, 0]]
    write(shoes, "pairs", "left,right,label,split", *reversed(lines))
    assert only(Manifest(merge=True), shoes).canonical().fingerprint == merged.canonical().fingerprint


def test_merging_keeps_attributes_apart_and_adds_weights(shoes):  # noqa: F811
    lines = []
    for attribute in ("nice", "old"):
        for split, first in (("train", 0), ("test", 10)):
            for k, label in enumerate(("left", "left", "right")):
                pair = f"img/{first:02}.png,img/{first + 1:02}.png"
                lines.append(f"{pair},{label if attribute == 'nice' else 'right'},{k + 1},{attribute},{split}")
    write(shoes, "pairs", "left,right,label,weight,attribute,split", *lines)
    nice, old = Manifest(merge=True).problems(shoes)
    assert (nice.facets["attribute"], nice.train.label.tolist(), nice.train.weight.tolist()) == ("nice", [1], [6.0])
    assert (old.train.label.tolist(), old.train.columns["votes"].tolist()) == ([-1], [[0, 3, 0]])


def test_folds_of_images(shoes):  # noqa: F811
    lines = [f"img/{k:02}.png,{k},{'abc'[k % 3]}" for k in range(20)]
    write(shoes, "images", "path,score,fold", *lines)
    problems = list(Manifest().problems(shoes))
    assert [dict(problem.facets) for problem in problems] == [{"fold": name} for name in "abc"]
    for problem in problems:
        tested = {problem.images.names[row] for row in problem.test_rows()}
        assert tested == {f"img/{k:02}.png" for k in range(20) if "abc"[k % 3] == problem.facets["fold"]}
        assert not set(problem.training_rows().tolist()) & set(problem.test_rows().tolist())
        assert len(problem.training_rows()) + len(problem.test_rows()) == 20


def test_drawn_folds_part_the_images(shoes):  # noqa: F811
    scored(shoes)
    dataset = Manifest(folds=4)
    assert dataset.facets(shoes) == [{"fold": k} for k in range(4)]
    tested = [set(problem.test_rows().tolist()) for problem in dataset.problems(shoes)]
    assert sorted(row for fold in tested for row in fold) == list(range(20))
    assert [len(fold) for fold in tested] == [5] * 4
    assert tested != [set(problem.test_rows().tolist()) for problem in Manifest(folds=4, seed=1).problems(shoes)]
    with pytest.raises(rankbench.DataError, match="folds is 21; give 2 or more, at most one an image"):
        Manifest(folds=21).facets(shoes)


def test_folds_of_pairs(shoes):  # noqa: F811
    lines = [",".join([*pair, "left", "xyz"[k % 3]]) for k, pair in enumerate(TRAIN + TEST)]
    write(shoes, "pairs", "left,right,label,fold", *lines)
    for problem in Manifest().problems(shoes):
        number = "xyz".index(problem.facets["fold"])
        assert len(problem.tests["test"]) == 2
        expected = sorted(pair for k, pair in enumerate(TRAIN + TEST) if k % 3 == number)
        assert [(a, b) for a, b, _ in named(problem, problem.tests["test"])] == expected
        assert len(problem.train) == 4


PACKED = {"path": [f"img/{k:02}.png" for k in range(20)], "score": [float(k) for k in range(20)], "other": [None] * 20}


def unpacked(monkeypatch, frame):
    """Parquet without the package that reads it: pandas is asked for the file, and gives this frame."""
    asked = []
    monkeypatch.setattr(pd, "read_parquet", lambda file: asked.append(file) or frame)
    return asked


def test_parquet_means_the_same_as_csv(shoes, monkeypatch):  # noqa: F811
    write(shoes, "images", "path,score", *(f"img/{k:02}.png,{k}" for k in range(20)))
    before = [problem.canonical().fingerprint for problem in Manifest().problems(shoes)]
    (shoes / "images.csv").unlink()
    (shoes / "images.parquet").write_bytes(b"PAR1")
    asked = unpacked(monkeypatch, pd.DataFrame(PACKED))
    assert all(need.found for need in Manifest().needs(shoes))
    assert [problem.canonical().fingerprint for problem in Manifest().problems(shoes)] == before
    assert asked[0] == shoes / "images.parquet"


def test_parquet_is_read_where_its_package_is(shoes):  # noqa: F811
    pytest.importorskip("pyarrow")
    pd.DataFrame(PACKED).to_parquet(shoes / "images.parquet")
    assert len(list(Manifest().problems(shoes))) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": ["img/00.png"] * 20}, "images.parquet, row 2: path 'img/00.png' is already in"),
        ({"score": [0.0, None, *range(18)]}, "images.parquet, row 2: score is empty"),
        ({"score": ["x"] * 20}, "images.parquet, row 1: score 'x' is not a number"),
    ],
)
def test_mistakes_in_parquet_are_named_with_their_row(shoes, monkeypatch, change, message):  # noqa: F811
    (shoes / "images.parquet").touch()
    unpacked(monkeypatch, pd.DataFrame(PACKED | change))
    with pytest.raises(rankbench.DataError) as raised:
        Manifest().facets(shoes)
    assert message in str(raised.value)


def test_what_cannot_be_unpacked_is_told(shoes, monkeypatch):  # noqa: F811
    def fails(error):
        def read(file):
            raise error

        monkeypatch.setattr(pd, "read_parquet", read)

    (shoes / "images.parquet").touch()
    fails(ImportError("no engine"))
    with pytest.raises(rankbench.DataError, match=r"needs the package pyarrow. Install it"):
        Manifest().facets(shoes)
    fails(OSError("magic bytes"))
    with pytest.raises(rankbench.DataError, match=r"images.parquet: cannot be read as Parquet \(magic bytes\)"):
        Manifest().facets(shoes)
    unpacked(monkeypatch, pd.DataFrame({"path": []}))
    with pytest.raises(rankbench.DataError, match="has no rows"):
        Manifest().facets(shoes)
    write(shoes, "images", "path", "img/00.png")
    with pytest.raises(rankbench.DataError, match=r"holds images\.csv and images\.parquet. Remove one"):
        Manifest().facets(shoes)


A, B = "img/00.png", "img/01.png"
WRONG = {
    "no judgement": (
        ["left,right,split", f"{A},{B},train"],
        "column 'label' is missing.*there may be winner, or votes",
    ),
    "two judgements": (["left,right,label,winner", f"{A},{B},1,{A}"], "label and winner both say who won"),
    "label and votes": (["left,right,label,votes_left,votes_right", f"{A},{B},1,1,0"], "label and votes_left both say"),
    "half of the votes": (["left,right,votes_left", f"{A},{B},1"], "need the two columns votes_left and votes_right"),
    "no votes": (["left,right,votes_left,votes_right", f"{A},{B},0,0"], "line 2: nobody voted"),
    "half a vote": (["left,right,votes_left,votes_right", f"{A},{B},0.5,1"], "'0.5' is not a whole number .* like 3"),
    "minus": (["left,right,votes_left,votes_right", f"{A},{B},-1,1"], "votes_left '-1' is not a whole number of"),
    "winner elsewhere": (
        ["left,right,winner", f"{A},{B},img/02.png"],
        "winner 'img/02.png' is neither 'img/00.png' nor",
    ),
    "one fold": (["left,right,label,fold", f"{A},{B},1,a"], "there is only the fold 'a'; give two or more"),
    "fold and split": (["left,right,label,fold,split", f"{A},{B},1,a,train"], "give a split and a fold. Remove one"),
    "misspelt": (["left,right,label,folds", f"{A},{B},1,a"], "no column is named 'folds'. Did you mean 'fold'"),
    "tabs": (["left\tright\tlabel", f"{A}\t{B}\t1"], "columns are separated by '.t'. Save the file with commas"),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_mistakes_are_named(shoes, case):  # noqa: F811
    lines, message = WRONG[case]
    write(shoes, "pairs", *lines)
    with pytest.raises(rankbench.DataError, match=message) as raised:
        Manifest().facets(shoes)
    assert str(shoes) in str(raised.value)


def test_a_column_of_folders_is_no_misspelt_fold(shoes):  # noqa: F811
    write(
        shoes,
        "pairs",
        *[line + ("," + ("folder" if k == 0 else "x")) for k, line in enumerate(rows("label", ["1"] * 6))],
    )
    assert len(only(Manifest(), shoes).train) == 4


def test_two_hundred_thousand_lines(tmp_path):
    """Also a bound on time: a pair a line, in seconds."""
    import time

    rng = np.random.default_rng(0)
    (tmp_path / "i").mkdir()
    for k in range(2000):
        (tmp_path / "i" / f"{k}.png").touch()
    pairs = np.stack(
        [first := rng.integers(2000, size=200_000), (first + rng.integers(1, 2000, 200_000)) % 2000], axis=1
    )
    lines = [f"i/{a}.png,i/{b}.png,{a % 3 + 1},{b % 3}" for a, b in pairs.tolist()]
    write(tmp_path, "pairs", "left,right,votes_left,votes_right", *lines)
    began = time.perf_counter()
    problem = Manifest(splits=1, merge=True).problem(tmp_path, {"split": 0})
    assert time.perf_counter() - began < 8
    assert len(problem.train) > 100_000
