"""lfw10: annotation files in the layout of the release, written here, and the real pairs where they are."""

import csv

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

import rankbench
from rankbench.testing import check_dataset
from rankbench_datasets.lfw10 import ATTRIBUTES, ORDERED, Judged, Lfw10

SWAPPED = "goodlooking"


def cells(rows):
    found = np.empty((len(rows), len(rows[0])), object)
    for at, row in enumerate(rows):
        for column, value in enumerate(row):
            found[at, column] = value
    return found


def write_lfw10(root, count=20, seed=0, images=False):
    """Ten attributes with `count` pairs a side; images 1 to 30 train and 31 to 60 test, swapped for one attribute."""
    rng = np.random.default_rng(seed)
    (root / "annotations").mkdir(parents=True)
    truth = {}
    for name in ATTRIBUTES:
        for side in ("train", "test"):
            low = 1 if (side == "train") != (name == SWAPPED) else 31
            first, second = np.array([rng.permutation(30)[:2] + low for _ in range(count)]).T
            votes = rng.multinomial(5, [0.4, 0.4, 0.2], count)
            compare = [["x", f"{a}.jpg", f"{b}.jpg", "more"] for a, b in zip(first, second, strict=True)]
            strengths = np.concatenate([np.arange(count)[:, None], votes], axis=1)
            savemat(
                root / "annotations" / f"{name}{side}.mat",
                {"images_compare": cells(compare), "attribute_strengths": strengths},
            )
            truth[name, side] = (first, second, votes)
    if images:
        (root / "images").mkdir()
        for number in range(1, 61):  # PNG inside a .jpg name, as in some copies
            Image.new("RGB", (5, 4), (number, 0, 0)).save(root / "images" / f"{number}.jpg", "PNG")
    return truth


def expected(votes, rule):
    """The label of one pair, written out: None where it is left out."""
    if rule == "majority":
        return next((label for label, number in zip((1, -1, 0), votes, strict=True) if number >= 3), None)
    if votes[0] >= votes[1] and votes[0] >= votes[2]:
        return 1
    return -1 if votes[1] >= votes[2] else 0


@pytest.mark.parametrize("rule", ["arg-max", "majority"])
@pytest.mark.parametrize("inside", [False, True])
def test_labels_and_images(tmp_path, rule, inside):
    truth = write_lfw10(tmp_path / "LFW10" if inside else tmp_path)
    dataset = Lfw10(rule)
    for facets in dataset.facets(tmp_path):
        name = facets["attribute"]
        found = dataset.problem(tmp_path, facets)
        for side, pairs in (("train", found.train), ("test", found.tests["test"])):
            first, second, votes = truth[name, side]
            rows = [
                (f"{a}.jpg", f"{b}.jpg", expected(v, rule), v.tolist())
                for a, b, v in zip(first, second, votes, strict=True)
                if expected(v, rule) is not None
            ]
            names = found.images.names
            seen = [
                (names[left], names[right], label, said)
                for left, right, label, said in zip(
                    pairs.left, pairs.right, pairs.label.tolist(), pairs.columns["votes"].tolist(), strict=True
                )
            ]
            assert seen == rows
        sides = [
            {int(found.images.names[row].removesuffix(".jpg")) <= 30 for row in np.concatenate([p.left, p.right])}
            for p in (found.train, found.tests["test"])
        ]
        assert sides == ([{False}, {True}] if name == SWAPPED else [{True}, {False}])


def test_votes_swap_with_the_sides(tmp_path):
    truth = write_lfw10(tmp_path)
    pairs = Lfw10().problem(tmp_path, {"attribute": "smile"}).train
    flipped = pairs.swapped(np.ones(len(pairs), bool))
    assert flipped.columns["votes"].tolist() == truth["smile", "train"][2][:, [1, 0, 2]].tolist()


def test_images_are_read_where_there_are_some(tmp_path):
    write_lfw10(tmp_path, images=True)
    images = Lfw10().problem(tmp_path, {"attribute": "smile"}).images
    assert images[3][0, 0, 0] == int(images.names[3].removesuffix(".jpg"))
    assert all(need.found for need in Lfw10().needs(tmp_path))
    (tmp_path / "images" / images.names[0]).unlink()
    assert all(need.found for need in Lfw10().needs(tmp_path)), "1 of 60 is tolerated"
    found = Lfw10().problem(tmp_path, {"attribute": "smile"})
    assert images.names[0] not in found.images.names
    assert "1 of" in found.notes[0]
    assert len(found.train) < 20 == len(found.tests["test"])
    assert found.images[0][0, 0, 0] == int(found.images.names[0].removesuffix(".jpg"))
    for name in images.names[1:4]:
        (tmp_path / "images" / name).unlink()
    (lacking,) = [need for need in Lfw10().needs(tmp_path) if not need.found]
    assert f"images are not there (first: {images.names[0]})" in lacking.get
    assert "cvit.iiit.ac.in" in lacking.get
    assert [one.kind for one in Lfw10().downloads(tmp_path)] == ["archive"]
    for name in images.names[:4]:
        Image.new("RGB", (5, 4)).save(tmp_path / "images" / name, "PNG")
    assert Lfw10().downloads(tmp_path) == [], "what was unpacked by hand is not fetched"


def test_it_conforms_and_plans_without_data(tmp_path):
    assert [facets["attribute"] for facets in Lfw10().facets(tmp_path)] == list(ATTRIBUTES)
    lacking = [need for need in Lfw10().needs(tmp_path) if not need.found]
    assert len(lacking) == 21
    assert [need.images for need in lacking] == [False] * 20 + [True]
    write_lfw10(tmp_path)
    check_dataset(Lfw10(), tmp_path)
    check_dataset(Lfw10("majority"), tmp_path)


def test_counts_and_downloads(tmp_path):
    truth = write_lfw10(tmp_path)
    found = {count.what: count.found for count in Lfw10().counts(tmp_path)}
    votes = truth["young", "test"][2]
    assert found["young test pairs ordered by majority"] == sum(expected(v, "majority") in (1, -1) for v in votes)
    assert found["young train pairs ordered by arg-max"] == sum(
        expected(v, "arg-max") in (1, -1) for v in truth["young", "train"][2]
    )
    assert Lfw10().published({"attribute": "smile"}) == {"train pairs": 500, "test pairs": 500}
    (one,) = Lfw10().downloads(tmp_path)
    assert (one.kind, one.path, one.urls[0].rsplit("/", 1)[-1]) == ("archive", ".", "LFW10.zip")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"images_compare": cells([["x", "1.jpg", "2.jpg"]])}, "variable 'attribute_strengths' is missing"),
        ({"images_compare": np.ones((1, 3)), "attribute_strengths": np.ones((1, 4))}, "not a cell array of n × 3"),
        ({"images_compare": cells([["x", "1.jpg", "2.jpg"]]), "attribute_strengths": np.ones((2, 4))}, "not 1 × 4 or"),
        ({"images_compare": cells([["x", "1.jpg", "2.jpg"]]), "attribute_strengths": np.zeros((1, 4))}, "row 1 holds"),
        ({"images_compare": cells([["x", "a.jpg", "2.jpg"]]), "attribute_strengths": np.ones((1, 4))}, "holds 'a.jpg'"),
        ({"images_compare": cells([["x", "2.jpg", "2.jpg"]]), "attribute_strengths": np.ones((1, 4))}, "with itself"),
    ],
)
def test_wrong_files_are_named(tmp_path, variables, message):
    write_lfw10(tmp_path)
    savemat(tmp_path / "annotations" / "smiletest.mat", variables)
    with pytest.raises(rankbench.DataError, match=message) as raised:
        Lfw10().problem(tmp_path, {"attribute": "smile"})
    assert "smiletest.mat" in str(raised.value)
    assert all(need.found for need in Lfw10().needs(tmp_path) if not need.images), "what is wrong is said by `problem`"


def test_unknown_facets_are_refused(tmp_path):
    with pytest.raises(rankbench.DataError, match=r"lfw10 has no problem .*attributes are baldhead"):
        Lfw10().problem(tmp_path, {"attribute": "bald"})


@pytest.mark.realdata
def test_the_published_counts_follow_from_the_label_rules(shared_data):
    """The real votes, of a conversion that leaves out votes for "equal", through the rules; and the image ranges."""
    for side, rules in (("train", ("arg-max", "majority")), ("test", ("majority",))):
        votes = {name: {} for name in ATTRIBUTES}
        images = {name: set() for name in ATTRIBUTES}
        with open(shared_data / "lfw10_pairs" / f"{side}_LFW10.txt") as lines:
            for first, second, label, attribute, pair, number in csv.reader(lines):
                name = ATTRIBUTES[int(attribute)]
                votes[name].setdefault(int(pair), [0, 0])[0 if label == "1" else 1] += int(number)
                images[name] |= {int(file.removesuffix(".jpg")) for file in (first, second)}
        for name in ATTRIBUTES:
            counted = np.array([[a, b, 5 - a - b] for a, b in votes[name].values()])
            numbers = np.arange(len(counted))
            judged = Judged(numbers, numbers + 1, counted)
            published = dict(
                zip((("train", "arg-max"), ("train", "majority"), ("test", "majority")), ORDERED[name], strict=True)
            )
            for rule in rules:
                assert int(np.isin(judged.labels(rule), (-1, 1)).sum()) == published[side, rule], (name, side, rule)
            low = (side == "train") != (name == SWAPPED)
            assert (max(images[name]) <= 1000) if low else (min(images[name]) > 1000), (name, side)
