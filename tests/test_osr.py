"""osr: the real layout, written small by the test; the published counts, where the real files are there."""

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

import rankbench
from rankbench_datasets.osr import ATTRIBUTES, FOLDERS, Osr

CLASSES = ("tallbuilding", "insidecity", "street", "highway", "coast", "opencountry", "mountain", "forest")
ORDERING = np.array(
    [
        [1, 2, 2, 3, 4, 4, 4, 4],
        [1, 2, 2, 4, 4, 4, 3, 1],
        [7, 5, 6, 4, 2, 1, 3, 3],
        [5, 3, 3, 4, 4, 2, 2, 1],
        [6, 4, 4, 5, 3, 2, 2, 1],
        [4, 4, 4, 4, 1, 3, 2, 4],
    ],
    np.uint8,
)


def cells(texts):
    row = np.empty((1, len(texts)), object)
    row[0] = list(texts)
    return row


def content(each=3):
    """The variables of data.mat for `each` images a class, the first of each class for training."""
    names = [f"{name}_a{k}.jpg" for name in sorted(CLASSES) for k in range(each)]
    label = [CLASSES.index(name.split("_")[0]) + 1 for name in names]
    return {
        "im_names": cells(names),
        "class_names": cells(CLASSES),
        "attribute_names": cells(ATTRIBUTES),
        "class_labels": np.array(label, np.uint8)[:, None],
        "used_for_training": np.array([name.endswith(("a0.jpg", "a1.jpg")) for name in names], np.uint8)[:, None],
        "relative_ordering": ORDERING,
    }


def write(root, variables=None, folder=FOLDERS[1]):
    variables = variables or content()
    root.mkdir(exist_ok=True)
    savemat(root / "data.mat", variables)
    if folder:
        (root / folder).mkdir()
        for k, cell in enumerate(variables["im_names"].ravel()):
            Image.new("RGB", (8, 8), (k, 0, 9)).save(root / folder / cell, quality=95)
    return root


@pytest.mark.parametrize("folder", FOLDERS)
def test_both_folder_names_are_read(tmp_path, folder):
    root = write(tmp_path / "osr", folder=folder)
    assert all(need.found for need in Osr().needs(root))
    problem = Osr().problem(root, {"attribute": "open"})
    assert problem.images[1].shape == (8, 8, 3)
    assert problem.images.names[0] == "coast_a0.jpg"


def test_labels_are_those_of_the_category_ordering(tmp_path):
    root = write(tmp_path / "osr")
    problems = {problem.facets["attribute"]: problem for problem in Osr().problems(root)}
    assert list(problems) == list(ATTRIBUTES)
    for attribute, problem in problems.items():
        rank = {name: int(r) for name, r in zip(CLASSES, ORDERING[ATTRIBUTES.index(attribute)], strict=True)}
        names = problem.images.names
        assert problem.images.columns["category"].tolist() == [name.split("_")[0] for name in names]
        score = [rank[name.split("_")[0]] for name in names]
        assert problem.images.columns["score"].tolist() == score
        for pairs in (problem.train, problem.tests["test"]):
            expected = [np.sign(score[a] - score[b]) for a, b in zip(pairs.left, pairs.right, strict=True)]
            assert pairs.label.tolist() == expected
        assert len(problem.train) == 16 * 15 // 2
        assert problem.tests["test"].ordered.all()
        assert problem.train_images.tolist() == [k for k, name in enumerate(names) if "a2" not in name]


def test_attributes_are_found_by_name_not_by_row(tmp_path):
    plain = write(tmp_path / "plain")
    variables = content()
    order = [3, 0, 5, 1, 4, 2]
    variables["attribute_names"] = cells([ATTRIBUTES[k] for k in order])
    variables["relative_ordering"] = ORDERING[order]
    shuffled = write(tmp_path / "shuffled", variables)
    for facets in Osr().facets(plain):
        assert Osr().problem(plain, facets).canonical().fingerprint == (
            Osr().problem(shuffled, facets).canonical().fingerprint
        )


def test_a_stray_file_is_not_an_image_of_the_dataset(tmp_path):
    root = write(tmp_path / "osr")
    before = Osr().problem(root, {"attribute": "open"}).canonical().fingerprint
    Image.new("RGB", (8, 8)).save(root / FOLDERS[1] / "street_stray.jpg")
    assert Osr().problem(root, {"attribute": "open"}).canonical().fingerprint == before


def test_a_sample_of_test_pairs_is_seeded(tmp_path):
    root, facets = write(tmp_path / "osr", content(20)), {"attribute": "perspective"}
    whole = Osr().problem(root, facets).tests["test"]
    one, same, other = (Osr(50, seed).problem(root, facets).tests["test"] for seed in (1, 1, 2))
    assert len(one) == 50
    assert one.digest == same.digest != other.digest
    pairs = set(zip(whole.left.tolist(), whole.right.tolist(), whole.label.tolist(), strict=True))
    assert set(zip(one.left.tolist(), one.right.tolist(), one.label.tolist(), strict=True)) < pairs


def test_facets_are_known_and_needs_say_where_to_get_it_without_data(tmp_path):
    assert Osr().facets(tmp_path) == [{"attribute": attribute} for attribute in ATTRIBUTES]
    labels, images = Osr().needs(tmp_path)
    assert (labels.path, labels.found, labels.images) == (tmp_path / "data.mat", False, False)
    assert (images.path, images.found, images.images) == (tmp_path / FOLDERS[1], False, True)
    assert "relative_attributes_v2.zip" in labels.get
    assert "spatialenvelope" in images.get
    with pytest.raises(rankbench.MissingData, match=r"data.mat: not found"):
        Osr().problem(tmp_path, {"attribute": "open"})


def test_without_the_image_folder_images_are_names(tmp_path):
    root = write(tmp_path / "osr", folder=None)
    assert [need.found for need in Osr().needs(root)] == [True, False]
    problem = Osr().problem(root, {"attribute": "open"})
    assert not problem.images.has_content
    assert problem.images.names[0] == "coast_a0.jpg"


def test_a_listed_image_that_is_not_there_is_left_out_with_its_pairs(tmp_path):
    root, facets = write(tmp_path / "osr"), {"attribute": "open"}
    whole = Osr().problem(root, facets)
    (root / FOLDERS[1] / "forest_a1.jpg").unlink()
    assert all(need.found for need in Osr().needs(root)), "1 of 24 is tolerated"
    found = Osr().problem(root, facets)
    assert found.notes == ("1 of 24 images are not there and were left out with their pairs",)

    def judged(problem, pairs):
        names = problem.images.names
        ends = zip(pairs.left, pairs.right, pairs.label.tolist(), strict=True)
        return [(names[left], names[right], label) for left, right, label in ends]

    for before, after in ((whole.train, found.train), (whole.tests["test"], found.tests["test"])):
        assert judged(found, after) == [pair for pair in judged(whole, before) if "forest_a1.jpg" not in pair]
    assert [found.images.names[row] for row in found.train_images] == [
        whole.images.names[row] for row in whole.train_images if whole.images.names[row] != "forest_a1.jpg"
    ]
    assert found.images[found.images.names.index("street_a0.jpg")][0, 0, 2] == pytest.approx(9, abs=9)


def test_needs_name_listed_images_that_are_not_there(tmp_path):
    root = write(tmp_path / "osr")
    for name in ("forest_a1.jpg", "street_a0.jpg"):
        (root / FOLDERS[1] / name).unlink()
    labels, images = Osr().needs(root)
    assert (labels.found, images.found) == (True, False)
    assert images.get.startswith("2 of 24 images are not there (first: forest_a1.jpg). Get them: spatial")
    for name in (root / FOLDERS[1]).glob("*_a2.jpg"):
        name.unlink()
    with pytest.raises(rankbench.MissingData, match=r"10 of 24 .*first: coast_a2.jpg\), and no pair is left"):
        Osr().problem(root, {"attribute": "open"})


def test_an_empty_folder_is_as_good_as_none(tmp_path):
    root = write(tmp_path / "osr", folder=None)
    (root / FOLDERS[0]).mkdir()
    assert [need.found for need in Osr().needs(root)] == [True, False]
    assert not Osr().problem(root, {"attribute": "open"}).images.has_content


def test_a_pointer_of_git_lfs_is_told(tmp_path):
    root = write(tmp_path / "osr")
    (root / "data.mat").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    with pytest.raises(rankbench.DataError, match=r"data.mat: is a Git LFS pointer.*git lfs pull"):
        Osr().problem(root, {"attribute": "open"})


@pytest.mark.parametrize("variable", list(content()))
def test_a_missing_variable_is_named(tmp_path, variable):
    variables = content()
    write(tmp_path / "osr", folder=FOLDERS[0])
    del variables[variable]
    savemat(tmp_path / "osr" / "data.mat", variables)
    with pytest.raises(rankbench.DataError, match=rf"data.mat: variable '{variable}' is missing. Get the file again"):
        Osr().problem(tmp_path / "osr", {"attribute": "open"})


BAD = {
    "class_labels": (np.arange(24)[:, None], "holds 0; its values are whole numbers from 1 to 8"),
    "used_for_training": (np.ones((23, 1)), r"is \(23, 1\) float64, not \(24, 1\) numbers"),
    "relative_ordering": (ORDERING[:, :7], r"is \(6, 7\) uint8, not \(6, 8\) numbers"),
    "attribute_names": (cells([*ATTRIBUTES[:5], "depth"]), "lacks 'depth-close'; it has natural, open"),
    "im_names": (cells(["a.jpg", "a.jpg"]), "lists 'a.jpg' twice"),
    "class_names": (np.arange(8), r"is \(1, 8\) int64, not a row of strings"),
}


@pytest.mark.parametrize("variable", list(BAD))
def test_a_wrong_variable_is_named(tmp_path, variable):
    root = write(tmp_path / "osr")
    value, message = BAD[variable]
    savemat(root / "data.mat", {**content(), variable: value})
    with pytest.raises(rankbench.DataError, match=f"data.mat: variable '{variable}' {message}"):
        Osr().problem(root, {"attribute": "open"})


def test_a_file_cut_short_anywhere_is_a_data_error(tmp_path):
    root = write(tmp_path / "osr")
    whole = (root / "data.mat").read_bytes()
    for length in [0, 1, 60, 128, 140, *range(200, len(whole) - 1, 173)]:
        (root / "data.mat").write_bytes(whole[:length])
        Osr().needs(root)
        with pytest.raises(rankbench.DataError, match=r"data.mat: .*[Gg]et"):
            Osr().problem(root, {"attribute": "open"})


def test_an_unknown_attribute_is_refused(tmp_path):
    with pytest.raises(rankbench.DataError, match=r"osr has no problem .*attributes are natural, open"):
        Osr().problem(tmp_path, {"attribute": "ugly"})


@pytest.mark.realdata
def test_published_counts(shared_data):
    expected = {
        "natural": (18_900, 1_857_012),
        "open": (20_700, 2_154_896),
        "perspective": (24_300, 2_511_068),
        "size-large": (22_500, 2_334_124),
        "diagonal-plane": (23_400, 2_410_024),
        "depth-close": (16_200, 1_838_916),
    }
    found = {}
    for problem in Osr().problems(shared_data / "osr"):
        assert len(problem.train) == 28_680
        found[problem.facets["attribute"]] = (int(problem.train.ordered.sum()), len(problem.tests["test"]))
    assert found == expected
    assert len(problem.images) == 2688
    categories, counts = np.unique(problem.images.columns["category"], return_counts=True)
    assert dict(zip(categories.tolist(), counts.tolist(), strict=True)) == {
        "coast": 360, "forest": 328, "highway": 260, "insidecity": 308,
        "mountain": 374, "opencountry": 410, "street": 292, "tallbuilding": 356,
    }  # fmt: skip


@pytest.mark.realdata
def test_equal_files_are_test_images_only(shared_data):
    assert all(need.found for need in Osr().needs(shared_data / "osr"))
    canonical = Osr(test_pairs=1000).problem(shared_data / "osr", {"attribute": "depth-close"}).canonical()
    whole = {digest.tobytes() for digest in canonical.images.digests}
    assert len(canonical.train) == 28_680
    assert canonical.notes == ()
    full = rankbench.Images([*(shared_data / "osr" / FOLDERS[1]).glob("*.jpg")])
    assert len({digest.tobytes() for digest in full.digests}) == 2686
    assert len(whole) <= 2686
