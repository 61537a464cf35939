"""virality: files in the layout of the released repository, written here, and the real ones."""

import numpy as np
import pytest
from scipy.io import savemat

import rankbench
import rankbench_datasets.virality_files as files
from rankbench.testing import check_dataset
from rankbench_datasets.viral_categories import CATEGORIES, ViralCategories
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


def write_submissions(folder, ids, rng):
    """The csv files, one line a submission; returns the scores of the images by the published formula."""
    snap = [str(one) for one in sorted(range(int(ids.max()) + 5), key=str)]  # not in numeric order, as in the release
    lines, best, times = {"img_id": [], "authenticated_shift_score": [], "subreddit": []}, {}, {}
    for number, one in enumerate(snap, 1):
        for _ in range(rng.integers(1, 9)):
            score = f"{rng.normal(3, 2):.5g}"
            subreddit = str(rng.choice(["funny", "WTF", "aww", "atheism", "gaming", "pics", "a, b;c"]))
            lines["img_id"].append(one)
            lines["authenticated_shift_score"].append(score)
            lines["subreddit"].append(subreddit)
            if subreddit != "a, b;c":
                best[number] = max(best.get(number, -np.inf), float(score))
                times[number] = times.get(number, 0) + 1
        if number in ids and number not in best:
            for name, value in (("img_id", one), ("authenticated_shift_score", "1.5"), ("subreddit", "gaming")):
                lines[name].append(value)
            best[number], times[number] = 1.5, 1
    for name, values in lines.items():
        (folder / f"{name}.csv").write_text("\n".join(values) + "\n")
    mean = np.mean([times[image] for image in ids.tolist()])
    return np.array([best[image] * np.log(times[image] / mean) for image in ids.tolist()])


def write_virality(root, count=40, tested=10, seed=0, flat=False):
    """Small files with the variables, shapes and quirks of the real ones."""
    rng = np.random.default_rng(seed)
    relative, create = (root, root) if flat else (root / RELATIVE, root / "Create_Dataset_Code")
    for folder in (relative, create):
        folder.mkdir(parents=True, exist_ok=True)
    ids = np.sort(rng.permutation(9 * count)[: 2 * count] + 3)
    scores = write_submissions(create, ids, rng)
    order = np.argsort(scores)
    of_score, scores = ids[order], scores[order]  # lowest first
    records = np.empty((1, 2 * count), object)
    for at, (image, score) in enumerate(zip(of_score, scores, strict=True)):
        fields = {
            "img_id": np.array([[image]]),
            "img_link": f"http://gone.example/{image}.jpg",
            "v_score": np.array([[score]]),
        }
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
    return Virality(protocol="released").problem(root, {})


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
    check_dataset(Virality(protocol="released"), tmp_path)
    check_dataset(Virality(splits=2, extremes=5), tmp_path)
    check_dataset(Virality(protocol="paper", splits=1, extremes=5), tmp_path)


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
        (
            "Create_Dataset_Code/viral_datasetV2.mat",
            {"viral_dataset": cells([1, 2])},
            "lacks img_id, v_score or img_link",
        ),
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


def test_unknown_facets_and_parameters_are_refused(tmp_path):
    with pytest.raises(rankbench.DataError, match=r"virality \(released\) has no problem \{'split': 1\}"):
        Virality(protocol="released").problem(tmp_path, {"split": 1})
    with pytest.raises(rankbench.DataError, match="splits and extremes are at least 1"):
        Virality(splits=0)


# --------------------------------------------------------------------------------------------------- drawn protocols

DRAWN = {"train_pairs": 300, "test_pairs": 40, "extremes": 5}


def rows_of(pairs):
    return set(pairs.left.tolist()) | set(pairs.right.tolist())


@pytest.mark.parametrize("protocol", ["strict", "paper"])
def test_drawn_splits(tmp_path, protocol):
    truth = write_virality(tmp_path)
    dataset = Virality(protocol=protocol, **DRAWN)
    assert dataset.facets(tmp_path) == [{"split": 0}, {"split": 1}, {"split": 2}]
    seen = []
    for facets in dataset.facets(tmp_path):
        found = dataset.problem(tmp_path, facets)
        score = found.images.columns["score"]
        assert list(found.tests) == ["viral-complete", "viral-pairs", "viral-pairs-all", "viral-random-pairs"]
        sizes = {name: len(pairs) for name, pairs in found.tests.items()}
        assert sizes["viral-pairs"] == 5
        assert sizes["viral-pairs-all"] == 25
        assert sizes["viral-random-pairs"] == 10
        for pairs in (found.train, *list(found.tests.values())[:3]):
            assert (np.sign(score[pairs.left] - score[pairs.right]) == pairs.label).all()
            assert len(set(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))) == len(pairs)
        by_score = np.argsort(score)
        one = found.tests["viral-pairs"]
        assert set(one.left.tolist()) == set(by_score[-5:].tolist())
        assert set(one.right.tolist()) == set(by_score[:5].tolist())
        training = rows_of(found.train) | set(found.train_images.tolist())
        assert not training & rows_of(found.tests["viral-complete"])
        elsewhere = rows_of(one) | rows_of(found.tests["viral-random-pairs"])
        assert len(training) + len(rows_of(found.tests["viral-complete"])) == (
            80 if protocol == "paper" else 80 - len(elsewhere)
        )
        if protocol == "strict":
            assert not training & elsewhere
            assert found.overlap is None
        else:
            assert training & elsewhere
            assert "published protocol" in found.overlap
        seen.append(frozenset(training))
    assert len(set(seen)) == 3
    again = dataset.problem(tmp_path, {"split": 1}).canonical().fingerprint
    assert again == Virality(protocol=protocol, **DRAWN).problem(tmp_path, {"split": 1}).canonical().fingerprint
    assert len(truth["ids"]) == 80


def test_images_that_are_not_there_are_left_out_and_change_no_split(tmp_path):
    from PIL import Image

    truth = write_virality(tmp_path)
    dataset = Virality(**DRAWN)
    whole = dataset.problem(tmp_path, {"split": 0})
    (tmp_path / "images").mkdir()
    for image in truth["ids"]:
        Image.new("RGB", (4, 4), (int(image) % 256, 0, 0)).save(tmp_path / "images" / f"{image}.jpg")
    gone = [whole.images.names[rows[0]] for rows in (whole.train_images, whole.tests["viral-random-pairs"].left)]
    for name in gone:
        (tmp_path / "images" / name).unlink()
    assert all(need.found for need in dataset.needs(tmp_path)), "2 of 80 are tolerated"
    found = dataset.problem(tmp_path, {"split": 0})
    assert found.notes == ("2 of 80 images are not there and were left out with their pairs",)
    assert len(found.images) == 78
    assert len(found.tests["viral-random-pairs"]) == 9

    def names(problem):
        return {problem.images.names[row] for row in problem.train_images}

    assert names(found) == names(whole) - set(gone)
    for name in list(found.images.names)[:4]:
        (tmp_path / "images" / name).unlink()
    (lacking,) = [need for need in dataset.needs(tmp_path) if not need.found]
    assert lacking.get.startswith("6 of 80 images are not there (first: ")
    assert "rankbench data fetch virality" in lacking.get


def test_more_pairs_than_there_are_means_all(tmp_path):
    write_virality(tmp_path)
    found = Virality(extremes=5).problem(tmp_path, {"split": 0})
    count = len(found.train_images)
    assert len(found.train) == count * (count - 1) // 2


def test_counts_and_downloads(tmp_path):
    truth = write_virality(tmp_path)
    dataset = Virality()
    found = {count.what: count.found for count in dataset.counts(tmp_path)}
    assert found["released pairs"] == 40
    assert found["votes explicit: less"] == (truth["votes"][:, 3] == -1).sum()
    assert found["scores that differ from the csv files by over 1e-10"] == 0
    downloads = dataset.downloads(tmp_path)
    assert downloads[0] == rankbench.Download(
        (f"http://gone.example/{truth['ids'][0]}.jpg",), f"images/{truth['ids'][0]}.jpg", "image"
    )
    assert len(downloads) == 80
    (tmp_path / "Create_Dataset_Code" / "viral_datasetV2.mat").unlink()
    assert [one.kind for one in dataset.downloads(tmp_path)] == ["archive"]


def test_a_changed_csv_shows_in_the_counts(tmp_path):
    write_virality(tmp_path)
    path = tmp_path / "Create_Dataset_Code" / "authenticated_shift_score.csv"
    path.write_text(path.read_text().replace("3.", "4."))
    found = {count.what: count for count in Virality().counts(tmp_path)}
    assert found["scores that differ from the csv files by over 1e-10"].found > 0
    path.write_text("1.5\n")
    with pytest.raises(rankbench.DataError, match=r"authenticated_shift_score.csv: has 1 lines"):
        Virality().counts(tmp_path)
    path.unlink()
    assert "csv files" in {count.what for count in Virality().counts(tmp_path)}


# -------------------------------------------------------------------------------------------------- viral-categories


def categories_by_hand(root):
    """{img_id: {category: best score}} of the five subreddits, straight from the csv lines."""
    folder = root / "Create_Dataset_Code"
    read = [
        (folder / f"{n}.csv").read_text().splitlines() for n in ("img_id", "authenticated_shift_score", "subreddit")
    ]
    number, found = {}, {}
    for snap, score, subreddit in zip(*read, strict=True):
        image = number.setdefault(snap, len(number) + 1)
        if subreddit in CATEGORIES:
            best = found.setdefault(image, {})
            best[subreddit] = max(best.get(subreddit, -np.inf), float(score))
    return found


@pytest.mark.parametrize("protocol", ["strict", "paper"])
def test_categories(tmp_path, protocol):
    truth = write_virality(tmp_path)
    by_hand = {k: v for k, v in categories_by_hand(tmp_path).items() if k in truth["ids"]}
    tested = set(truth["pairs"][truth["rows"]].ravel().tolist()) if protocol == "strict" else set()
    every = ViralCategories(select="all", protocol=protocol).problem(tmp_path, {})
    expected = {f"{k}.jpg": next(iter(v)) for k, v in by_hand.items() if len(v) == 1 and k not in tested}
    assert dict(zip(every.images.names, every.images.columns["category"].tolist(), strict=True)) == expected
    assert every.train is None
    assert len(every.train_images) == len(every.images)
    few = ViralCategories(per_category=2, protocol=protocol).problem(tmp_path, {}).images
    for name in CATEGORIES:
        clear = {}
        for image, scores in by_hand.items():
            rest = [score for other, score in scores.items() if other != name]
            if image not in tested and scores.get(name, 0) > 0 and scores[name] >= 2 * max([0, *rest]):
                clear[f"{image}.jpg"] = scores[name]
        mine = {few.names[k] for k in np.flatnonzero(few.columns["category"] == name)}
        assert mine == set(sorted(clear, key=clear.get, reverse=True)[:2])


def test_categories_conform_and_say_what_is_missing(tmp_path):
    write_virality(tmp_path)
    check_dataset(ViralCategories(per_category=3), tmp_path)
    assert [need.path.name for need in ViralCategories().needs(tmp_path) if not need.found] == ["images"]
    (tmp_path / "Create_Dataset_Code" / "subreddit.csv").unlink()
    lacking = [need.path.name for need in ViralCategories().needs(tmp_path) if not need.found]
    assert lacking == ["subreddit.csv", "images"]
    with pytest.raises(rankbench.MissingData, match=r"subreddit\.csv: not found"):
        ViralCategories().problem(tmp_path, {})
    with pytest.raises(rankbench.DataError, match="one problem, without facets"):
        ViralCategories().problem(tmp_path, {"split": 0})


# --------------------------------------------------------------------------------------------------- the real files


def judged(ranker, pairs):
    margins = ranker.compare(None, pairs, None)
    return rankbench.Judged(margins, pairs.label)


def test_counts_that_parameters_change_are_not_held_against_the_published_ones():
    facets = {"split": 0}
    assert Virality().published(facets)["train pairs"] == 10_000_000
    few = Virality(train_pairs=1_000, test_pairs=2_000_000).published(facets)
    assert few["train pairs"] == 1_000, "as many as were asked for"
    assert "viral-complete pairs" not in few, "how many there are nobody published"
    assert few["viral-pairs-all pairs"] == 62_500
    assert not {"viral-pairs pairs", "train pairs"} & set(Virality(extremes=20).published(facets))
    assert ViralCategories().published({}) == {"images": 425}
    assert ViralCategories(per_category=2).published({}) == {}


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


@pytest.mark.realdata
def test_every_published_count_is_found(shared_data):
    for dataset in (Virality(), ViralCategories(), ViralCategories(select="all", protocol="paper")):
        counts = dataset.counts(shared_data / "virality")
        assert [count for count in counts if count.found != count.published] == []


@pytest.mark.realdata
def test_scores_are_recomputed_from_the_csv_files(shared_data):
    root = shared_data / "virality"
    records = files.read_records(root)
    found = files.recomputed_scores(files.read_submissions(root), records.ids)
    assert np.abs(found - records.scores).max() < 1e-10


@pytest.mark.realdata
def test_ten_million_pairs(shared_data):
    found = Virality().problem(shared_data / "virality", {"split": 0})
    sizes = {name: len(pairs) for name, pairs in found.tests.items()}
    assert sizes == {
        "viral-complete": 1_000_000, "viral-pairs": 250, "viral-pairs-all": 62_500, "viral-random-pairs": 489,
    }  # fmt: skip
    assert (len(found.train), len(found.train_images)) == (10_000_000, 7_280)
    codes = np.sort(found.train.left.astype(np.int64) * 2**14 + found.train.right)
    assert (codes[1:] > codes[:-1]).all(), "distinct; the lower row is always left"
    assert (found.train.left < found.train.right).all()
    assert found.overlap is None


@pytest.mark.realdata
@pytest.mark.parametrize(("protocol", "sizes"), [("strict", [425, 5_516]), ("paper", [425, 6_030])])
def test_category_counts(shared_data, protocol, sizes):
    found = [
        len(ViralCategories(select=select, protocol=protocol).problem(shared_data / "virality", {}).images)
        for select in ("balanced85", "all")
    ]
    assert found == sizes
