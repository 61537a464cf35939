"""virality: files in the layout of the released repository, written here, and the real ones."""

import numpy as np
import pytest
from scipy.io import savemat

import rankbench
from rankbench.testing import check_dataset
from rankbench_datasets.virality import Virality
from rankbench_datasets.virality_files import FOLDERS, RELATIVE
from rankbench_metrics.accuracy import PairwiseAccuracy
from rankbench_rankers.attribute_votes import AttributeVotes
from rankbench_rankers.deep_attributes import PublishedDeepAttributes


def cells(values):
    found = np.empty((1, len(values)), object)
    for at, value in enumerate(values):
        found[0, at] = np.array([[value]])
    return found


def structure(fields):
    found = np.empty((1, 1), [(name, object) for name in fields])
    for name, value in fields.items():
        found[name][0, 0] = value
    return found


def write_virality(root, count=40, tested=10, seed=0, flat=False):
    """Small files with the variables, shapes and quirks of the real ones."""
    rng = np.random.default_rng(seed)
    relative, create = (root, root) if flat else (root / RELATIVE, root / "Create_Dataset_Code")
    for folder in (relative, create):
        folder.mkdir(parents=True, exist_ok=True)
    ids = np.sort(rng.permutation(9 * count)[: 2 * count] + 3)
    scores = np.sort(rng.normal(size=2 * count))
    of_score = rng.permutation(ids)  # lowest first
    records = np.empty((1, 2 * count), object)
    for at, (image, score) in enumerate(zip(of_score, scores, strict=True)):
        fields = {"img_id": np.array([[image]]), "img_link": "x", "v_score": np.array([[score]])}
        records[0, at] = structure(fields)
    savemat(create / "viral_datasetV2.mat", {"viral_dataset": records})
    pairs = np.stack([rng.permutation(of_score[count:]), rng.permutation(of_score[:count])], axis=1).astype(np.uint16)
    left = rng.integers(0, 2, (count, 1)).astype(np.uint8)
    votes = rng.integers(-1, 2, (count, 5)).astype(np.int16)
    rows = rng.permutation(count)[:tested]
    savemat(root / "pair_matrix.mat", {"pair_matrix_spot": pairs})
    savemat(root / "virality_label.mat", {"virality_label_spot": left})
    savemat(root / "Attribute_matrix.mat", {"Attribute_matrix_spot": votes})
    savemat(root / "Top_489_pair.mat", {"top_pair_matrix_489": pairs[rows]})
    predicted = np.zeros((tested, 5), int)
    for number, folder in enumerate(FOLDERS, 1):
        parts = np.empty((1, 3), object)
        groups = np.array_split(rng.permutation(tested), 3)
        for at, name in enumerate(("positive", "negative", "neutral")):
            fields = {"ClassName": f"./{name}", "TestingID": cells(pairs[rows[groups[at]], 0])}
            parts[0, at] = structure(fields if at != 1 else dict(reversed(fields.items())))
        split = np.empty((1, 1), object)
        split[0, 0] = parts
        savemat(relative / f"split_A{number}_Top.mat", {"split": split})
        (relative / folder).mkdir(exist_ok=True)
        hat = rng.integers(1, 4, (tested, 1)).astype(np.uint8)
        savemat(relative / folder / "SVM_Result_01__rbf__.mat", {"class_hat": hat})
        predicted[np.concatenate(groups), number - 1] = np.array([0, 1, -1, 0])[hat[:, 0]]
    return {"pairs": pairs, "left": left[:, 0], "votes": votes, "rows": rows, "predicted": predicted, "ids": ids}


def problem(root):
    return Virality().problem(root, {})


@pytest.mark.parametrize("flat", [False, True])
def test_pairs_votes_and_predictions_are_oriented_alike(tmp_path, flat):
    truth = write_virality(tmp_path, flat=flat)
    found = problem(tmp_path)
    test, names = found.tests["viral-random-pairs"], found.images.names
    assert (len(found.images), len(found.train), len(test)) == (80, 30, 10)
    assert list(names) == [f"{image}.jpg" for image in truth["ids"]]
    row_of = {int(viral): row for row, viral in enumerate(truth["pairs"][:, 0])}
    for pairs in (found.train, test):
        for at in range(len(pairs)):
            shown = [int(names[row].removesuffix(".jpg")) for row in (pairs.left[at], pairs.right[at])]
            viral = shown[0] if pairs.label[at] > 0 else shown[1]
            row = row_of[viral]
            assert sorted(shown) == sorted(truth["pairs"][row].tolist())
            assert (shown[0] == viral) == bool(truth["left"][row])
            assert pairs.inputs["attribute_votes"][at].tolist() == truth["votes"][row].tolist()
            if pairs is test:
                place = truth["rows"].tolist().index(row)
                sign = 1 if shown[0] == viral else -1
                assert pairs.inputs["predicted_attributes"][at].tolist() == (sign * truth["predicted"][place]).tolist()
    assert pairs.sided["predicted_attributes"] == "negate"
    trained, tested = (set(np.concatenate([p.left, p.right]).tolist()) for p in (found.train, test))
    assert not trained & tested


def test_conforms(tmp_path):
    write_virality(tmp_path)
    check_dataset(Virality(), tmp_path)


def test_images_are_read_where_there_are_some(tmp_path):
    from PIL import Image

    truth = write_virality(tmp_path)
    (tmp_path / "images").mkdir()
    for image in truth["ids"]:
        Image.new("RGB", (4, 4), (int(image) % 256, 0, 0)).save(tmp_path / "images" / f"{image}.jpg", "PNG")
    found = problem(tmp_path).images
    assert found[3][0, 0, 0] == truth["ids"][3] % 256
    assert all(need.found for need in Virality().needs(tmp_path))


def test_what_is_missing_is_listed(tmp_path):
    write_virality(tmp_path)
    assert [need.path.name for need in Virality().needs(tmp_path) if not need.found] == ["images"]
    (tmp_path / "pair_matrix.mat").unlink()
    for path in (tmp_path / RELATIVE / "animal_N").iterdir():
        path.unlink()
    lacking = [need for need in Virality().needs(tmp_path) if not need.found]
    assert [need.path.name for need in lacking] == ["pair_matrix.mat", "SVM_Result_*.mat", "images"]
    assert "github.com/ArturoDeza/virality" in lacking[0].get
    with pytest.raises(rankbench.MissingData, match=r"pair_matrix\.mat: not found"):
        problem(tmp_path)


def damage(root, name, **variables):
    savemat(root / name, variables)


@pytest.mark.parametrize(
    ("name", "variables", "message"),
    [
        ("pair_matrix.mat", {"other": [[1, 2]]}, "variable 'pair_matrix_spot' is missing"),
        ("pair_matrix.mat", {"pair_matrix_spot": np.ones((40, 3))}, "is 40 × 3, not n × 2"),
        ("pair_matrix.mat", {"pair_matrix_spot": np.ones((40, 2))}, "image 1 is in 80 pairs"),
        ("virality_label.mat", {"virality_label_spot": np.ones((39, 1))}, "is 39 × 1, not 40 × 1"),
        ("virality_label.mat", {"virality_label_spot": np.full((40, 1), 2)}, "holds values other than 0, 1"),
        ("Attribute_matrix.mat", {"Attribute_matrix_spot": np.full((40, 5), 3)}, "other than -1, 0, 1"),
        ("Attribute_matrix.mat", {"Attribute_matrix_spot": np.full((40, 5), 256)}, "other than -1, 0, 1"),
        ("Attribute_matrix.mat", {"Attribute_matrix_spot": np.full((40, 5), 0.5)}, "other than -1, 0, 1"),
        ("Top_489_pair.mat", {"top_pair_matrix_489": [[1, 2]]}, r"pair \[1, 2\] is not in pair_matrix.mat"),
        ("Create_Dataset_Code/viral_datasetV2.mat", {"viral_dataset": cells([1, 2])}, "lacks img_id or v_score"),
        (f"{RELATIVE}/animal_N/SVM_Result_01__rbf__.mat", {"class_hat": np.full((10, 1), 4)}, "classes other than"),
    ],
)
def test_wrong_files_are_named(tmp_path, name, variables, message):
    write_virality(tmp_path)
    damage(tmp_path, name, **variables)
    with pytest.raises(rankbench.DataError, match=message) as raised:
        problem(tmp_path)
    assert str(tmp_path) in str(raised.value)


def test_a_pair_tested_twice_is_refused(tmp_path):
    tested = write_virality(tmp_path)["pairs"][:3]
    damage(tmp_path, "Top_489_pair.mat", top_pair_matrix_489=tested[[0, 1, 2, 0]])
    with pytest.raises(rankbench.DataError, match=r"Top_489_pair\.mat: names a pair twice"):
        problem(tmp_path)


@pytest.mark.parametrize("other", ["another image", "an image twice"])
def test_an_image_without_a_prediction_of_each_attribute_is_refused(tmp_path, other):
    """It would otherwise count as predicted neutral."""
    truth = write_virality(tmp_path)
    tested = truth["pairs"][truth["rows"], 0].astype(int)
    tested[0] = tested[1] if other == "an image twice" else 9_999
    parts = np.empty((1, 3), object)
    for at, name in enumerate(("positive", "negative", "neutral")):
        parts[0, at] = structure({"ClassName": name, "TestingID": cells(np.array_split(tested, 3)[at])})
    split = np.empty((1, 1), object)
    split[0, 0] = parts
    damage(tmp_path, f"{RELATIVE}/split_A3_Top.mat", split=split)
    with pytest.raises(rankbench.DataError, match=r"split_A3_Top\.mat: its tested images are not each named once"):
        problem(tmp_path)


def test_a_file_that_is_no_matlab_file_is_named(tmp_path):
    write_virality(tmp_path)
    (tmp_path / "pair_matrix.mat").write_text("<html>not found</html>")
    with pytest.raises(rankbench.DataError, match="cannot be read as a MATLAB file"):
        problem(tmp_path)


def test_it_has_one_problem(tmp_path):
    with pytest.raises(rankbench.DataError, match="one problem, without facets"):
        Virality().problem(tmp_path, {"split": 1})


# --------------------------------------------------------------------------------------------------- the real files


def judged(ranker, pairs):
    margins = ranker.compare(None, pairs, None)
    return rankbench.Judged(margins, pairs.label)


@pytest.mark.realdata
def test_published_counts(shared_data):
    found = problem(shared_data / "virality")
    test = found.tests["viral-random-pairs"]
    assert (len(found.images), len(found.train), len(test)) == (10_078, 4_550, 489)
    votes = np.concatenate([found.train.inputs["attribute_votes"], test.inputs["attribute_votes"]])
    counts = [[int((votes[:, at] == value).sum()) for value in (1, -1, 0)] for at in range(5)]
    assert counts == [[1050, 1020, 2969], [1236, 1258, 2545], [686, 630, 3723], [368, 326, 4345], [312, 319, 4408]]
    assert np.median(found.images.columns["score"]) == pytest.approx(-0.514, abs=5e-4)
    higher = np.where(test.label > 0, test.left, test.right)
    score = found.images.columns["score"]
    assert (score[higher] > np.median(score)).all()


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("ranker", "expected"),
    [
        (AttributeVotes, [55.93, 58.38, 59.51, 59.41, 58.79]),
        (PublishedDeepAttributes, [52.45, 58.79, 61.86, 67.38, 68.20]),
    ],
)
def test_published_rows_are_recomputed(shared_data, ranker, expected):
    test = problem(shared_data / "virality").tests["viral-random-pairs"]
    found = [100 * PairwiseAccuracy()(judged(ranker(attributes=count), test)) for count in range(1, 6)]
    assert found == pytest.approx(expected, abs=0.005)
    flipped = test.swapped(np.arange(len(test)) % 3 == 0)
    assert 100 * PairwiseAccuracy()(judged(ranker(), flipped)) == pytest.approx(expected[-1], abs=0.005)


@pytest.mark.realdata
def test_votes_without_ties(shared_data):
    one = judged(AttributeVotes(), problem(shared_data / "virality").tests["viral-random-pairs"])
    decided = one.margins != 0
    assert (~decided).sum() == 173
    assert 100 * (np.sign(one.margins[decided]) == one.labels[decided]).mean() == pytest.approx(63.61, abs=0.005)
