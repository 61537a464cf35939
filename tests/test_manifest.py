"""manifest: a user's own folder, and what is said of each mistake in it."""

import os

import numpy as np
import pytest
from PIL import Image

import rankbench
from rankbench_datasets.manifest import Manifest, parsed


@pytest.fixture
def shoes(tmp_path):
    """A folder with 20 images, all different."""
    (tmp_path / "img").mkdir()
    for k in range(20):
        Image.new("RGB", (6, 4), (10 * k, k, 0)).save(tmp_path / "img" / f"{k:02}.png")
    return tmp_path


def write(folder, name, *lines, encoding="utf-8"):
    (folder / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding=encoding)


def scored(folder, split=None):
    """images.csv with scores 0 to 19, and a split column from a function of the number."""
    tail = ["" if split is None else f",{split(k)}" for k in range(20)]
    head = "path,score,category" + (",split" if split else "")
    write(folder, "images", head, *(f"img/{k:02}.png,{k},{'ab'[k % 2]}{tail[k]}" for k in range(20)))


def only(dataset, folder):
    (problem,) = dataset.problems(folder)
    return problem


def named(problem, pairs):
    """Pairs as (left name, right name, label), right-way round for reading."""
    names = problem.images.names
    return sorted((names[a], names[b], int(c)) for a, b, c in zip(pairs.left, pairs.right, pairs.label, strict=True))


# -- scores


def test_scores_alone_give_five_random_splits(shoes):
    scored(shoes)
    problems = list(Manifest(train_pairs=60).problems(shoes))
    assert [dict(p.facets) for p in problems] == [{"split": k} for k in range(5)] == Manifest().facets(shoes)
    for problem in problems:
        score, test = problem.images.columns["score"], problem.tests["test"]
        assert (len(problem.train_images), len(problem.train), len(test)) == (16, 60, 6)
        assert (test.label == np.sign(score[test.left] - score[test.right])).all()
        assert problem.images.columns["category"].tolist() == ["a", "b"] * 10
    assert len({p.train_images.tobytes() for p in problems}) == 5
    again = Manifest(train_pairs=60).problem(shoes, {"split": 3})
    assert again.canonical().fingerprint == problems[3].canonical().fingerprint


def test_given_splits_name_the_tests(shoes):
    scored(shoes, lambda k: "train" if k < 10 else "near" if k < 15 else "far")
    problem = only(Manifest(), shoes)
    assert dict(problem.facets) == {}
    assert len(problem.train) == 45
    assert {name: len(pairs) for name, pairs in problem.tests.items()} == {"near": 10, "far": 10}
    assert len(only(Manifest(test_pairs=4), shoes).tests["far"]) == 4


def test_equal_scores_are_ties_for_training_only(shoes):
    write(
        shoes,
        "images",
        "path,score,split",
        *(f"img/{k:02}.png,{k % 3},{'train' if k < 12 else 'test'}" for k in range(20)),
    )
    problem = only(Manifest(train_ties=5), shoes)
    assert int((~problem.train.ordered).sum()) == 5
    assert problem.tests["test"].ordered.all()


def test_the_order_of_lines_changes_nothing(shoes):
    scored(shoes)
    before = [p.canonical().fingerprint for p in Manifest(train_pairs=50).problems(shoes)]
    head, *rows = (shoes / "images.csv").read_text().splitlines()
    write(shoes, "images", head, *reversed(rows))
    assert [p.canonical().fingerprint for p in Manifest(train_pairs=50).problems(shoes)] == before


def test_categories_alone_are_a_problem_without_pairs(shoes):
    write(shoes, "images", "path,category", "img/00.png,a", "img/01.png,b")
    problem = only(Manifest(), shoes)
    assert problem.train is None
    assert not problem.tests
    assert problem.train_images.tolist() == [0, 1]


def test_exif_rotation_is_applied_unless_switched_off(shoes):
    image, exif = Image.new("RGB", (6, 4)), Image.Exif()
    exif[0x0112] = 6
    image.save(shoes / "img" / "00.png", exif=exif)
    scored(shoes)
    facets = {"split": 0}
    assert Manifest().problem(shoes, facets).images[0].shape == (6, 4, 3)
    assert Manifest(exif=False).problem(shoes, facets).images[0].shape == (4, 6, 3)


# -- pairs


def test_pairs_without_images_csv_name_files(shoes):
    write(
        shoes,
        "pairs",
        "left,right,label,weight,split",
        "img/00.png,img/01.png,1,2,train",
        "img/01.png,./img/02.png,right,0.5,train",
        "img/05.png,img/06.png,-1,1,test",
        "img/06.png,img/07.png,tie,1,test",
    )
    problem = only(Manifest(), shoes)
    assert problem.images.names == tuple(f"img/{k:02}.png" for k in (0, 1, 2, 5, 6, 7))
    assert named(problem, problem.train) == [("img/00.png", "img/01.png", 1), ("img/01.png", "img/02.png", -1)]
    assert problem.train.weight.tolist() == [2, 0.5]
    assert named(problem, problem.tests["test"]) == [("img/05.png", "img/06.png", -1), ("img/06.png", "img/07.png", 0)]


def test_one_problem_an_attribute_and_names_of_images_csv(shoes):
    write(shoes, "images", "path,name", *(f"img/{k:02}.png,shoe {k}" for k in range(20)))
    write(
        shoes,
        "pairs",
        "attribute,left,right,label,split",
        "shiny,shoe 3,img/04.png,left,train",
        "shiny,shoe 5,shoe 6,0,test",
        "shiny,shoe 5,shoe 7,-1.0,test",
        "open,shoe 9,shoe 8,+1,train",
        "open,shoe 1,shoe 2,Right,easy",
    )
    opened, shiny = Manifest().problems(shoes)
    assert [dict(p.facets) for p in (opened, shiny)] == [{"attribute": "open"}, {"attribute": "shiny"}]
    assert named(shiny, shiny.train) == [("shoe 3", "shoe 4", 1)]
    assert named(opened, opened.tests["easy"]) == [("shoe 1", "shoe 2", -1)]
    alone = Manifest().problem(shoes, {"attribute": "shiny"})
    assert alone.canonical().fingerprint == shiny.canonical().fingerprint
    with pytest.raises(rankbench.DataError, match=r"no problem has the facets \{'attribute': 'red'\}"):
        Manifest().problem(shoes, {"attribute": "red"})


def test_pairs_between_the_sides_of_a_random_split_are_dropped_and_counted(shoes):
    rows = [f"img/{a:02}.png,img/{b:02}.png,-1" for a in range(20) for b in range(a + 1, 20)]
    write(shoes, "pairs", "left,right,label", *rows)
    problem = Manifest(test_share=0.3).problem(shoes, {"split": 1})
    assert (len(problem.train), len(problem.tests["test"])) == (14 * 13 // 2, 6 * 5 // 2)
    assert problem.notes == (f"{14 * 6} of {20 * 19 // 2} pairs join a training and a test image and were left out",)
    assert len(Manifest(splits=2).facets(shoes)) == 2


def test_a_split_of_images_sorts_the_pairs(shoes):
    scored(shoes, lambda k: "train" if k < 10 else "test")
    write(
        shoes,
        "pairs",
        "left,right,label",
        "img/00.png,img/01.png,1",
        "img/00.png,img/11.png,1",
        "img/12.png,img/11.png,1",
    )
    problem = only(Manifest(), shoes)
    assert (len(problem.train), len(problem.tests["test"]), len(problem.train_images)) == (1, 1, 10)
    assert problem.notes == ("1 of 3 pairs join a training and a test image and were left out",)


def test_shared_images_need_a_reason(shoes):
    write(shoes, "pairs", "left,right,label,split", "img/00.png,img/01.png,1,train", "img/00.png,img/02.png,1,test")
    with pytest.raises(rankbench.DataError) as raised:
        only(Manifest(), shoes)
    assert str(raised.value) == (
        f"{shoes}: 1 image both in training and in test 'test' (first: img/00.png). Split by image, or say in the "
        'benchmark file why that is right: dataset = { name = "manifest", …, overlap = "…" }.'
    )
    assert only(Manifest(overlap="the authors' own split"), shoes).overlap == "the authors' own split"


# -- misspelt attributes and splits


def judged(folder, column, *values):
    """pairs.csv: one attribute or split after the other, each a number of times; every second pair is for testing."""
    rows = [value for value, times in values for _ in range(times)]
    split = [f",{'train' if k % 2 else 'test'}" if column == "attribute" else "" for k in range(len(rows))]
    lines = [
        f"img/{k % 2 + 2 * (k % 9):02}.png,img/18.png,1,{row}{split[k]}".replace("img/18", f"img/{18 + k % 2}")
        for k, row in enumerate(rows)
    ]
    write(folder, "pairs", f"left,right,label,{column}" + (",split" if column == "attribute" else ""), *lines)


def test_a_misspelt_attribute_is_named_with_its_line_and_the_one_meant(shoes):
    judged(shoes, "attribute", ("red", 20), ("rde", 1), ("open", 2))
    assert len(Manifest().problem(shoes, {"attribute": "red"}).train) == 10
    with pytest.raises(
        rankbench.DataError,
        match=r"^attribute 'rde' has 1 pair \(pairs.csv, line 22\); did you mean 'red' \(20 pairs\)\? As it stands: .*",
    ):
        Manifest().problem(shoes, {"attribute": "rde"})
    assert len(Manifest().problem(shoes, {"attribute": "open"}).train) == 1


@pytest.mark.parametrize("split", ["trian", "Train", "training"])
def test_a_misspelt_split_is_no_test_set(shoes, split):
    judged(shoes, "split", ("train", 20), ("test", 3), (split, 2))
    with pytest.raises(
        rankbench.DataError,
        match=rf"pairs.csv, line 25: split '{split}' \(2 pairs\) is taken for a test set. Did you mean",
    ):
        only(Manifest(overlap="none"), shoes)


def test_a_misspelt_split_of_an_image_is_no_test_set(shoes):
    scored(shoes, lambda k: "trian" if k == 4 else "train" if k < 15 else "test")
    with pytest.raises(rankbench.DataError, match=r"images.csv, line 6: split 'trian' \(1 image\) is taken for a test"):
        only(Manifest(), shoes)


@pytest.mark.parametrize("split", ["brain", "easy", "test-2"])
def test_other_names_are_test_sets_however_small(shoes, split):
    judged(shoes, "split", ("train", 20), ("test", 3), (split, 2))
    assert len(only(Manifest(overlap="all share an image"), shoes).tests[split]) == 2


# -- what is needed, and mistakes


def test_needs_say_how_to_make_the_files(tmp_path):
    (need,) = Manifest().needs(tmp_path)
    assert (need.path, need.found) == (tmp_path / "images.csv or pairs.csv", False)
    assert "make images.csv with the columns path and score" in need.get
    with pytest.raises(rankbench.MissingData, match=r"there is no images.csv or pairs.csv; make images.csv"):
        list(Manifest().problems(tmp_path))
    write(tmp_path, "pairs", "left,right,label")
    needs = Manifest().needs(tmp_path)
    assert [(need.path, need.found) for need in needs] == [(tmp_path / "pairs.csv", True), (tmp_path, True)]


IMAGES = {
    "empty score": (["path,score", "img/00.png,1", "img/01.png,"], "line 3: score is empty. Fill it in"),
    "blank lines count": (["path,score", "", "img/00.png,1", "", "img/01.png,"], "line 5: score is empty"),
    "quoted line breaks count": (["path,score,note", 'img/00.png,1,"a', 'b"', "img/01.png,x,c"], "line 4: score 'x'"),
    "no number": (["path,score", "img/00.png,high"], "line 2: score 'high' is not a number. Write it like 0.5"),
    "not finite": (["path,score", "img/00.png,nan"], "line 2: score 'nan' is not a number"),
    "too many fields": (
        ["path,score", "img/00.png,1,2"],
        "line 2: 3 fields where the header has 2. Put a value with a comma in quotes",
    ),
    "too few fields": (["path,score", "img/00.png"], "line 2: 1 field where the header has 2. Fill in the rest"),
    "duplicate": (["path,score", "img/00.png,1", "./img/00.png,2"], "line 3: path 'img/00.png' is already in line 2"),
    "duplicate name": (["path,name", "img/00.png,a", "img/01.png,a"], "line 3: name 'a' is already in line 2"),
    "name of another": (
        ["path,name", "img/00.png,a", "img/01.png,img/00.png"],
        "line 3: name 'img/00.png' is the path of line 2",
    ),
    "no column": (["file,score", "img/00.png,1"], "line 1: column 'path' is missing; the header is file, score"),
    "semicolons": (["path;score", "img/00.png;1"], "line 1: columns are separated by .;.. Save the file with commas"),
    "misspelt": (["path,scores", "img/00.png,1"], "line 1: no column is named 'scores'. Did you mean 'score'"),
    "column twice": (["path,score,score", "img/00.png,1,2"], "line 1: column 'score' is there twice"),
    "no rows": (["path,score"], "has no rows. It needs a header line"),
    "empty": ([], "has no rows"),
    "open quote": (["path,score", 'img/00.png,"1'], "line 2: unexpected end of data. Check its quotes"),
    "not there": (
        ["path,score", "img/00.png,1", "img/77.png,1", "img/88.png,2"],
        r"line 3: image 'img/77.png' is not in .* \(2 of 3 listed images not there\)",
    ),
    "all equal": (["path,score", *(f"img/{k:02}.png,1" for k in range(10))], "test 'test' has no ordered pair"),
    "only training": (
        ["path,score,split", "img/00.png,1,train", "img/01.png,2,train"],
        "no test pairs. Give some pairs",
    ),
    "no training": (
        ["path,score,split", "img/00.png,1,training", "img/01.png,2,training"],
        "no training pairs. Splits with pairs: 'training'; name the one for training 'train'",
    ),
}


@pytest.mark.parametrize("case", list(IMAGES))
def test_a_mistake_in_images_csv_is_named_with_its_line(shoes, case):
    lines, message = IMAGES[case]
    write(shoes, "images", *lines)
    with pytest.raises(rankbench.DataError, match=message):
        list(Manifest(train_ties=0 if case == "no training" else 10).problems(shoes))


PAIRS = {
    "label": (
        ["left,right,label", "img/00.png,img/01.png,2"],
        "line 2: label '2' is unknown. Write 1 or left where left shows more, -1 or right, 0 or tie",
    ),
    "itself": (["left,right,label", "img/00.png,img/00.png,1"], "line 2: 'img/00.png' is paired with itself"),
    "empty": (["left,right,label", "img/00.png,,1"], "line 2: right is empty"),
    "weight": (["left,right,label,weight", "img/00.png,img/01.png,1,-2"], "weight '-2' is not a number of at least 0"),
    "column": (["left,right", "img/00.png,img/01.png"], "line 1: column 'label' is missing"),
    "not there": (
        ["left,right,label", "img/00.png,img/01.png,1", "img/00.png,x.png,1"],
        "line 3: image 'x.png' is not in",
    ),
}


@pytest.mark.parametrize("case", list(PAIRS))
def test_a_mistake_in_pairs_csv_is_named_with_its_line(shoes, case):
    lines, message = PAIRS[case]
    write(shoes, "pairs", *lines)
    with pytest.raises(rankbench.DataError, match=f"pairs.csv, .*{message}"):
        list(Manifest().problems(shoes))


def test_an_image_that_is_not_listed_is_named(shoes):
    scored(shoes)
    write(shoes, "pairs", "left,right,label", "img/00.png,img/1.png,1")
    with pytest.raises(
        rankbench.DataError, match=r"line 2: right image 'img/1.png' is no path or name in images.csv.*did you mean"
    ):
        list(Manifest().problems(shoes))


def test_encodings(shoes):
    scored(shoes)
    text = (shoes / "images.csv").read_text()
    plain = Manifest().problem(shoes, {"split": 0}).canonical().fingerprint
    (shoes / "images.csv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert Manifest().problem(shoes, {"split": 0}).canonical().fingerprint == plain
    (shoes / "images.csv").write_text(text.replace("03.png,3,b", "03.png,3,é"), encoding="latin-1", newline="")
    with pytest.raises(rankbench.DataError, match=r"images.csv, line 5: byte 0xe9 is not UTF-8. Save it as UTF-8"):
        list(Manifest().problems(shoes))


@pytest.mark.parametrize("parameters", [{"splits": 0}, {"test_share": 1.0}])
def test_bad_parameters_are_explained(shoes, parameters):
    scored(shoes)
    with pytest.raises(rankbench.DataError, match="one random split or more is needed"):
        list(Manifest(**parameters).problems(shoes))


def test_files_are_read_once_for_all_problems_and_again_when_they_change(shoes):
    scored(shoes)
    os.utime(shoes / "images.csv", ns=(10**18, 10**18))
    before = parsed.cache_info()
    problems = [Manifest(train_pairs=60).problem(shoes, {"split": k}) for k in range(3)]
    after = parsed.cache_info()
    assert (after.misses - before.misses, after.hits - before.hits) == (1, 2)
    assert len({p.train_images.tobytes() for p in problems}) == 3
    old, new = "img/03.png,3,b", "img/03.png,9,b"  # of one length, within one step of the clock
    for _ in range(3):
        text = (shoes / "images.csv").read_text()
        (shoes / "images.csv").write_text(text.replace(old, new))
        problem = Manifest(train_pairs=60).problem(shoes, {"split": 0})
        assert problem.images.columns["score"][3] == float(new.split(",")[1])
        old, new = new, old
