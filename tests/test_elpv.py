"""elpv: the shipped photographs, their splits, and how pairs are drawn from scores."""

import sys
from itertools import combinations

import numpy as np
import pytest
from PIL import Image

import rankbench
from rankbench_datasets.elpv import Elpv, read_labels
from rankbench_datasets.sampling import distinct, pairs_by_score, split_images


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package laid out like elpv-dataset, with 60 images, that must not be imported."""
    home = tmp_path / "site" / "elpv_dataset"
    (home / "data" / "images").mkdir(parents=True)
    (home / "__init__.py").write_text("raise AssertionError('imported')")
    lines = []
    for k in range(60):
        image = np.full((4, 4), k, np.uint8)
        Image.fromarray(image).save(home / "data" / "images" / f"cell{k:04}.png")
        likelihood = [0.0, 0.3333333333333333, 0.6666666666666666, 1.0][k % 4]
        lines.append(f"images/cell{k:04}.png  {likelihood}   {'mono' if k % 3 else 'poly'}\n")
    (home / "data" / "labels.csv").write_text("".join(lines))
    monkeypatch.delitem(sys.modules, "elpv_dataset", raising=False)
    monkeypatch.syspath_prepend(home.parent)
    return home / "data"


def test_five_splits_are_known_without_data(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "elpv_dataset", None)
    assert Elpv().facets(tmp_path) == [{"split": split} for split in range(5)]


def test_needs_names_the_package_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "elpv_dataset", None)
    needs = Elpv().needs(tmp_path)
    assert not any(need.found for need in needs)
    assert all("pip install elpv-dataset" in need.get for need in needs)
    with pytest.raises(rankbench.MissingData, match="pip install elpv-dataset"):
        Elpv().problem(tmp_path, {"split": 0})


def test_columns_pixels_and_sizes(package, tmp_path):
    problem = Elpv(train_pairs=100, train_ties=10).problem(tmp_path, {"split": 3})
    assert all(need.found for need in Elpv().needs(tmp_path))
    assert problem.images.columns["score"][:5].tolist() == [0, 1 / 3, 2 / 3, 1, 0]
    assert problem.images.columns["category"][:4].tolist() == ["poly", "mono", "mono", "poly"]
    assert problem.images[7].tolist() == np.full((4, 4, 3), 7).tolist()
    assert (len(problem.train), int(problem.train.ordered.sum())) == (110, 100)
    assert len(problem.train_images) == 48
    score, test = problem.images.columns["score"], problem.tests["test"]
    tested = np.setdiff1d(np.arange(60), problem.train_images)
    assert len(test) == sum(score[a] != score[b] for a, b in combinations(tested, 2))
    assert (test.label == np.sign(score[test.left] - score[test.right])).all()


def test_splits_differ_and_repeat(package, tmp_path):
    first, again = list(Elpv().problems(tmp_path)), list(Elpv().problems(tmp_path))
    assert [p.canonical().fingerprint for p in first] == [p.canonical().fingerprint for p in again]
    assert len({p.train_images.tobytes() for p in first}) == 5


def test_a_training_copy_of_a_test_image_is_removed_and_noted(package, tmp_path):
    problem = Elpv().problem(tmp_path, {"split": 0})
    tested = int(problem.tests["test"].left[0])
    trained = int(problem.train_images[0])
    copy = package / "images" / f"cell{trained:04}.png"
    copy.write_bytes((package / "images" / f"cell{tested:04}.png").read_bytes())
    canonical = Elpv().problem(tmp_path, {"split": 0}).canonical()
    assert len(canonical.train_images) == 47
    assert canonical.notes == ("1 training images with the bytes of a test image were removed with their pairs",)


@pytest.mark.parametrize("line", ["images/a.png 0.5 mono", "images/a.png 1.0", "images/a.png x mono", "a 1.0 blue"])
def test_a_bad_line_is_named(tmp_path, line):
    (tmp_path / "labels.csv").write_text(f"images/cell0001.png  1.0  mono\n{line}\n")
    with pytest.raises(rankbench.DataError, match=r"labels.csv, line 2: '.*--force-reinstall"):
        read_labels(tmp_path / "labels.csv")


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(rankbench.DataError, match="splits are 0 to 4"):
        Elpv().problem(tmp_path, {"split": 5})


def test_the_shipped_photographs(tmp_path):
    if not all(need.found for need in Elpv().needs(tmp_path)):
        pytest.skip("needs elpv-dataset")
    problem = Elpv().problem(tmp_path, {"split": 0})
    score, category = problem.images.columns["score"], problem.images.columns["category"]
    counts = [int(((score == s) & (category == c)).sum()) for s in (0, 1 / 3, 2 / 3, 1) for c in ("mono", "poly")]
    assert counts == [588, 920, 117, 178, 56, 50, 313, 402]
    assert problem.images[0].shape == (300, 300, 3)
    assert (len(problem.train_images), len(problem.train)) == (2099, 22_000)
    assert len(problem.tests["test"]) == 77_763
    assert np.setdiff1d(np.arange(2624), problem.train_images)[:6].tolist() == [8, 15, 22, 23, 32, 34]


# -- pairs from scores


def listed(pairs):
    return list(zip(pairs.left.tolist(), pairs.right.tolist(), pairs.label.tolist(), strict=True))


def test_all_pairs_are_those_of_every_two_images():
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores = rng.integers(0, 5, size=30) / 4
        rows = rng.permutation(30)[: rng.integers(2, 20)]
        pairs = pairs_by_score(scores, rows, ties=None)
        expected = {(int(a), int(b), int(np.sign(scores[a] - scores[b]))) for a, b in combinations(sorted(rows), 2)}
        assert set(listed(pairs)) == expected
        assert len(pairs) == len(expected)


def test_drawn_pairs_are_distinct_and_as_many_as_asked():
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 4, size=80).astype(float)
    everything = set(listed(pairs_by_score(scores, np.arange(80), ties=None)))
    for ordered, ties in ((1, 0), (100, 7), (2000, 300), (10**9, 10**9)):
        drawn = listed(pairs_by_score(scores, np.arange(80), ordered, ties, rng))
        assert len(set(drawn)) == len(drawn)
        assert set(drawn) <= everything
        present = [sum(label != 0 for *_, label in everything), sum(label == 0 for *_, label in everything)]
        found = [sum(label != 0 for *_, label in drawn), sum(label == 0 for *_, label in drawn)]
        assert found == [min(ordered, present[0]), min(ties, present[1])]


def test_every_pair_is_drawn_about_equally_often():
    scores, seen = np.array([0.0, 0, 1, 2, 2, 3]), {}
    for seed in range(3000):
        for pair in listed(pairs_by_score(scores, np.arange(6), 4, 1, np.random.default_rng(seed))):
            seen[pair] = seen.get(pair, 0) + 1
    ordered = [count for (*_, label), count in seen.items() if label]
    ties = [count for (*_, label), count in seen.items() if not label]
    assert (len(ordered), len(ties)) == (13, 2)
    np.testing.assert_allclose(ordered, 4 * 3000 / 13, rtol=0.12)
    np.testing.assert_allclose(ties, 3000 / 2, rtol=0.12)


def test_a_million_images_need_no_list_of_all_pairs():
    scores = np.arange(1_000_000) / 7
    pairs = pairs_by_score(scores, np.arange(1_000_000), 1000, 1000, np.random.default_rng(0))
    assert len(pairs) == 1000
    assert (pairs.label == -1).all()


def test_distinct_numbers_are_golden():
    assert distinct(5, 1000, np.random.default_rng(0)).tolist() == [269, 307, 511, 636, 850]
    most = distinct(990, 1000, np.random.default_rng(0))
    assert (most.dtype, most.shape, np.count_nonzero(most)) == (bool, (1000,), 990)


def test_a_split_takes_every_image_once():
    train, test = split_images(11, 0.2, np.random.default_rng(0))
    assert (len(train), len(test)) == (9, 2)
    assert sorted([*train, *test]) == list(range(11))


def test_a_negative_number_of_pairs_is_refused():
    with pytest.raises(rankbench.DataError, match="the number of pairs to draw is -1; give 0 or more"):
        pairs_by_score(np.arange(3.0), np.arange(3), -1)
