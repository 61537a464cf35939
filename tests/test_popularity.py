"""popularity: manifests written here; values by hand."""

import numpy as np
import pytest
from PIL import Image

import rankbench
from rankbench.testing import check_dataset
from rankbench_datasets.listed_images import files_below, names_there
from rankbench_datasets.popularity import Popularity
from rankbench_datasets.sampling import pairs_by_score


def write(root, users=6, each=24, seed=0, order=None, ties=False):
    """A manifest with scores; {image: (user, score)}."""
    rng = np.random.default_rng(seed)
    rows = {}
    for user in range(users):
        for k in range(each if user else 3):  # user 0 has too few
            score = float(rng.integers(4)) if ties else round(float(rng.normal(5, 2)), 9)
            rows[f"{user}/{k:03}.jpg"] = (f"{user}@N0é", score)
    names = list(rows) if order is None else [list(rows)[k] for k in order]
    lines = [f"{name},{rows[name][0]},x,{rows[name][1]}" for name in names]
    root.mkdir(exist_ok=True)
    (root / "popularity.csv").write_text("image,user,title,score\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return rows


def problems(root, **parameters):
    dataset = Popularity(**parameters)
    return [dataset.problem(root, facets) for facets in dataset.facets(root)]


def touched(problem, pairs):
    return {problem.images.names[row] for row in np.concatenate([pairs.left, pairs.right])}


def check_pairs(problem, rows, sizes):
    score = np.array([rows[name][1] for name in problem.images.names])
    assert problem.images.columns["score"].tolist() == score.tolist()
    for pairs, size in zip((problem.train, problem.tests["test"]), sizes, strict=True):
        assert len(pairs) == size
        assert (np.sign(score[pairs.left] - score[pairs.right]) == pairs.label).all()
        assert pairs.ordered.all()
        assert len(set(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))) == len(pairs)
    assert not touched(problem, problem.train) & touched(problem, problem.tests["test"])


def test_user_mix_takes_everybody(tmp_path):
    rows = write(tmp_path)
    found = problems(tmp_path, train_pairs=500, test_pairs=200)
    assert [dict(problem.facets) for problem in found] == [{"split": 0}, {"split": 1}, {"split": 2}]
    for problem in found:
        check_pairs(problem, rows, (500, 200))
    assert len({frozenset(touched(problem, problem.train)) for problem in found}) == 3


def test_one_per_user(tmp_path):
    rows = write(tmp_path, users=30)
    for problem in problems(tmp_path, setting="one-per-user"):
        check_pairs(problem, rows, (15 * 14 // 2, 15 * 14 // 2))
        users = [rows[name][0] for name in problem.images.names]
        assert len(set(users)) == len(users) == 30


def test_user_specific_problems_stay_inside_a_user(tmp_path):
    rows = write(tmp_path)
    found = problems(tmp_path, setting="user-specific", splits=2)
    assert [(problem.facets["user"], problem.facets["split"]) for problem in found] == [
        (f"{user}@N0é", split) for user in range(1, 6) for split in range(2)
    ]
    for problem in found:
        check_pairs(problem, rows, (66, 66))
        assert {rows[name][0] for name in problem.images.names} == {problem.facets["user"]}


def test_neither_lines_nor_other_users_change_a_problem(tmp_path):
    rows = write(tmp_path / "a")
    write(tmp_path / "b", order=np.random.default_rng(5).permutation(len(rows)))
    write(tmp_path / "c", users=9)
    dataset = Popularity("user-specific")
    facets = {"user": "2@N0é", "split": 1}
    prints = {dataset.problem(tmp_path / name, facets).canonical().fingerprint for name in "abc"}
    assert len(prints) == 1
    mixed = {Popularity().problem(tmp_path / name, {"split": 0}).canonical().fingerprint for name in "ab"}
    assert len(mixed) == 1


def test_views_by_days(tmp_path):
    (tmp_path / "popularity.csv").write_text(
        "\ufeffimage,user,views,days\n" + "".join(f"{k}.jpg,u,{10 * k},{k + 1}\n" for k in range(20)), encoding="utf-8"
    )
    (found,) = problems(tmp_path, splits=1)
    for name, score in zip(found.images.names, found.images.columns["score"], strict=True):
        k = int(name.removesuffix(".jpg"))
        assert score == pytest.approx(np.log2(10 * k / (k + 1) + 1), abs=1e-15)


def test_ties_and_gaps(tmp_path):
    rows = write(tmp_path, ties=True)
    (found,) = problems(tmp_path, splits=1)
    assert found.train.ordered.all()
    (far,) = problems(tmp_path, splits=1, min_gap=2.0)
    score = far.images.columns["score"]
    assert np.abs(score[far.train.left] - score[far.train.right]).min() == 2.0
    assert len(rows) > 0
    with pytest.raises(rankbench.DataError, match="too few different scores"):
        problems(tmp_path, min_gap=9.0)


@pytest.mark.parametrize("gap", [0.0, 0.5, 1.0])
def test_a_gap_keeps_exactly_the_pairs_that_differ_by_it(gap):
    score = np.random.default_rng(1).integers(0, 8, 40) / 4.0
    pairs = pairs_by_score(score, np.arange(40), min_gap=gap)
    expected = {
        (a, b) for a in range(40) for b in range(a + 1, 40) if score[a] != score[b] and abs(score[a] - score[b]) >= gap
    }
    assert set(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True)) == expected


def test_images_that_are_not_there_are_left_out(tmp_path):
    rows = write(tmp_path)
    for number, name in enumerate(rows):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2), (number, 0, 0)).save(tmp_path / "images" / name)
    assert all(need.found for need in Popularity().needs(tmp_path))
    (whole,) = problems(tmp_path, splits=1)
    assert whole.notes == ()
    gone = "2/003.jpg"
    (tmp_path / "images" / gone).unlink()
    (found,) = problems(tmp_path, splits=1)
    assert gone not in found.images.names
    assert found.notes == (f"1 of {len(rows)} images are not there and were left out with their pairs",)
    at = found.images.names.index("3/000.jpg")
    assert found.images[at][0, 0, 0] == pytest.approx(list(rows).index("3/000.jpg"), abs=3)


def test_images_that_nearly_all_lack_are_missing_data(tmp_path):
    write(tmp_path)
    (tmp_path / "images").mkdir()
    images = Popularity().needs(tmp_path)[1]
    assert (images.found, images.get) == (False, "the photographs that popularity.csv names, as images/<image>")
    assert not problems(tmp_path, splits=1)[0].images.has_content, "an empty folder is as good as none"
    (tmp_path / "images" / "1").mkdir()
    (tmp_path / "images" / "1" / "001.jpg").touch()
    images = Popularity().needs(tmp_path)[1]
    assert not images.found
    assert images.get.startswith("122 of 123 images are not there (first: 0/000.jpg). Get them: ")
    with pytest.raises(rankbench.MissingData, match=r"images: 122 of 123 images are not there \(first: 0/000.jpg\)"):
        problems(tmp_path)


def test_long_lists_of_names_are_looked_up_in_one_listing(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("1.jpg", "a/2.jpg", "a/b/3.jpg"):
        (tmp_path / name).touch()
    assert files_below(tmp_path) == {"1.jpg", "a/2.jpg", "a/b/3.jpg"}
    names = ["1.jpg", "2.jpg", "a/2.jpg", "a/b/3.jpg", "a/b"]
    few = names_there(tmp_path, names)
    monkeypatch.setattr("rankbench_datasets.listed_images.MANY", 2)
    many = names_there(tmp_path, names)
    assert few[0].tolist() == many[0].tolist() == [True, False, True, True, False]
    assert few[1] == many[1] == ("2 of 5 images are not there and were left out with their pairs",)


def test_it_conforms_and_plans_without_data(tmp_path):
    assert len(Popularity().facets(tmp_path)) == 3
    assert [need.path.name for need in Popularity().needs(tmp_path)] == ["popularity.csv", "images"]
    with pytest.raises(rankbench.MissingData, match=r"popularity\.csv: not found"):
        Popularity("user-specific").facets(tmp_path)
    with pytest.raises(rankbench.DataError, match="nothing of popularity may be downloaded"):
        Popularity().downloads(tmp_path)
    write(tmp_path, users=4)
    for setting in ("one-per-user", "user-mix", "user-specific"):
        check_dataset(Popularity(setting, splits=1, train_pairs=50, test_pairs=20), tmp_path)
    counts = {count.what: count.found for count in Popularity().counts(tmp_path)}
    assert counts == {"images listed": 75, "users": 4, "users with 20 images or more": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read as a table"),
        ("image,user\na,b\n", "line 1: column 'views' is missing; there are image, user"),
        ("image,user,scores\na,b,1\n", "line 1: no column is named 'scores'. Did you mean 'score'"),
        ("image,user,score\n", "has no rows"),
        ("image,user,score\na,u,1\nb,u,high\n", "line 3: score 'high' is not a number"),
        ("image,user,score\na,u,1\nb,u,\n", "line 3: score '' is not a number"),
        ("image,user,score\na,u,1\nb,u,inf\n", "line 3: score is inf; it must be finite"),
        ("image,user,score\na,u,1\n,u,2\n", "line 3: image is empty"),
        ("image,user,score\na,u,1\nb,,2\n", "line 3: user is empty"),
        ("image,user,score\na,u,1\na,u,2\n", "line 3: image 'a' is already in line 2. Remove"),
        ("image,user,score\na,u,1,4,5,6\nb,u,2\n", "line 2: 6 fields where the header has 3. Put a value with"),
        ("image,user,score\na,u,1\nb,u,2,\n", "line 3: 4 fields where the header has 3"),
        ("title,image,user,score\nx,a,u,1\nx,b,u\n", "line 3: 3 fields where the header has 4. Fill in the rest"),
        ("image,user,score\n\na,u,1\n  \n\nb,u,nan\n", "line 6: score 'nan' is not a number. Write it like 0.5"),
        ('image,user,score\n"a\n",u,1\nb,u,x\n', "line 4: score 'x' is not a number"),
        ("image,user,score\n\na,u,1\n\na,u,2\n", "line 5: image 'a' is already in line 3"),
        ("image,user,views,days\na,u,1,1\nb,u,-1,1\n", "line 3: views is -1; it must be 0 or more"),
        ("image,user,views,days\na,u,1,1\nb,u,1,0\n", "line 3: days is 0; it must be above 0"),
        ("image,user,score\na,u,1\nb,u,2\n", "2 images for {'split': 0}; give 4 or more"),
    ],
)
def test_wrong_manifests_are_told(tmp_path, text, message):
    (tmp_path / "popularity.csv").write_text(text)
    with pytest.raises(rankbench.DataError) as raised:
        Popularity().problem(tmp_path, {"split": 0})
    assert message in str(raised.value)


def test_wrong_bytes_facets_and_parameters_are_told(tmp_path):
    (tmp_path / "popularity.csv").write_bytes(b"image,user,score\na\xff,u,1\n")
    with pytest.raises(rankbench.DataError, match="UTF-8"):
        Popularity().problem(tmp_path, {"split": 0})
    write(tmp_path)
    for facets in ({}, {"split": 3}, {"split": 0, "user": "x"}):
        with pytest.raises(rankbench.DataError, match=r"popularity \(user-mix\) has no problem"):
            Popularity().problem(tmp_path, facets)
    with pytest.raises(rankbench.DataError, match="has no user 'nobody'"):
        Popularity("user-specific").problem(tmp_path, {"user": "nobody", "split": 0})
    with pytest.raises(rankbench.DataError, match="no user has 90 images or more"):
        Popularity("user-specific", min_images=90).facets(tmp_path)
    with pytest.raises(rankbench.DataError, match="test_share between 0 and 1"):
        Popularity(test_share=1.0)
