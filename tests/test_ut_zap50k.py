"""ut-zap50k: label files and image trees in the layouts of the release, written here."""

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

import rankbench
from rankbench.loading import Data, DatasetChoice
from rankbench.registry import Registry
from rankbench.testing import check_dataset
from rankbench_datasets.ut_zap50k import ATTRIBUTES, UtZap50k, resolved

FOLDERS = (
    "Shoes/Oxfords/Bostonian",
    "Boots/Ankle/Neil M.",
    "Shoes/Flats/Levi's Kids",
    "Boots/Knee High/W.A.G.",
    "Slippers/X",
)


def column(values):
    """A cell column of strings, as MATLAB writes `imagepath`."""
    found = np.empty((len(values), 1), object)
    found[:, 0] = values
    return found


def row(arrays):
    found = np.empty((1, len(arrays)), object)
    for at, array in enumerate(arrays):
        found[0, at] = array
    return found


def judged(rng, images, count, labels):
    """(count, 6) as in the label files: image numbers from 1, attribute, label, confidence, agreement."""
    ends = np.array([rng.permutation(images)[:2] + 1 for _ in range(count)])
    return ends, rng.choice(labels, count), rng.uniform(1, 2, count).round(2), rng.choice([0.6, 0.8, 1.0], count)


def write_zappos(root, images=60, count=20, seed=0, nested=False, disjoint=False, meta=True):
    """Labels and splits with the variables, nesting and numbering of the real files; returns the arrays."""
    rng = np.random.default_rng(seed)
    place = root / "ut-zap50k-data" if nested else root
    place.mkdir(parents=True, exist_ok=True)
    paths = [f"{FOLDERS[k % 5]}/{1000 + k}.{k % 90 + 10}.jpg" for k in range(images)]
    savemat(place / "image-path.mat", {"imagepath": column(paths)})
    truth = {"paths": paths, "mturkOrder": [], "mturkEqual": [], "mturkHard": [], "train": [], "test": []}
    for at in range(4):
        for name, labels in (("mturkOrder", [1, 2]), ("mturkEqual", [3]), ("mturkHard", [1, 2])):
            ends, label, confidence, agreement = judged(rng, images, count, labels)
            if name == "mturkOrder" and disjoint:
                ends = np.arange(2 * count).reshape(count, 2) + 1
            attribute = np.full(count, at + 1)
            truth[name].append(np.column_stack([ends, attribute, label, confidence, agreement]))
        parts = [rng.permutation(count) + 1 for _ in range(10)]
        truth["train"].append([np.sort(part[5:])[:, None] for part in parts])
        truth["test"].append([np.sort(part[:5])[:, None] for part in parts])
    savemat(place / "zappos-labels.mat", {name: row(truth[name]) for name in ("mturkOrder", "mturkEqual")})
    savemat(place / "zappos-labels-fg.mat", {"mturkHard": row(truth["mturkHard"])})
    splits = {f"{side}IndexAll": row([row(parts) for parts in truth[side]]) for side in ("train", "test")}
    savemat(place / "train-test-splits.mat", splits)
    if meta:
        lines = [f"{1000 + k}-{k % 90 + 10},{path.split('/')[0]},x" for k, path in enumerate(paths)]
        (place / "meta-data.csv").write_text("CID,Category,SubCategory\n" + "\n".join(lines) + "\n")
    return truth


def write_images(root, paths, square=False):
    """The tree as one of the archives has it, with its spelling of folders."""
    top = root / ("ut-zap50k-images-square" if square else "ut-zap50k-images")
    for k, path in enumerate(paths):
        folder, file = path.rsplit("/", 1)
        if square:
            folder = folder.removesuffix(".") + "%2E" * folder.endswith(".")
        else:
            folder = folder.rstrip(".").replace("Levi's ", "Levi's&#174; ")
        (top / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), (k, 0, 0)).save(top / folder / file, "PNG")
    return top


def seen(problem, pairs):
    names = problem.images.names
    columns = (pairs.columns["confidence"].tolist(), pairs.columns["agreement"].tolist())
    return {
        (names[left], names[right], label, *rest)
        for left, right, label, *rest in zip(pairs.left, pairs.right, pairs.label.tolist(), *columns, strict=True)
    }


def said(truth, rows):
    return {
        (truth["paths"][int(a) - 1], truth["paths"][int(b) - 1], {1: 1, 2: -1, 3: 0}[int(label)], sure, agree)
        for a, b, _, label, sure, agree in rows
    }


@pytest.mark.parametrize("nested", [False, True])
def test_version_1_uses_the_given_splits(tmp_path, nested):
    truth = write_zappos(tmp_path, nested=nested)
    dataset = UtZap50k()
    assert len(dataset.facets(tmp_path)) == 40
    for facets in dataset.facets(tmp_path)[::7]:
        at, split = ATTRIBUTES.index(facets["attribute"]), facets["split"]
        found = dataset.problem(tmp_path, facets)
        ordered, equal = truth["mturkOrder"][at], truth["mturkEqual"][at]
        train, test = (ordered[truth[side][at][split][:, 0] - 1] for side in ("train", "test"))
        ties = [tie for tie in equal if not set(tie[:2]) & set(test[:, :2].ravel())]
        assert seen(found, found.tests["test"]) == said(truth, test)
        assert seen(found, found.train) == said(truth, [*train, *ties])
        without = UtZap50k(train_ties=False).problem(tmp_path, facets)
        assert seen(without, without.train) == said(truth, train)
        assert "by pairs, not by images" in found.overlap


def test_without_shared_images_no_overlap_is_claimed(tmp_path):
    write_zappos(tmp_path, disjoint=True)
    assert UtZap50k().problem(tmp_path, {"attribute": "open", "split": 0}).overlap is None


def test_version_2_tests_the_fine_grained_pairs(tmp_path):
    truth = write_zappos(tmp_path)
    dataset = UtZap50k(version=2)
    assert dataset.facets(tmp_path) == [{"attribute": attribute} for attribute in ATTRIBUTES]
    found = dataset.problem(tmp_path, {"attribute": "sporty"})
    assert seen(found, found.tests["test"]) == said(truth, truth["mturkHard"][2])
    assert seen(found, found.train) == said(truth, [*truth["mturkOrder"][2], *truth["mturkEqual"][2]])


@pytest.mark.parametrize("square", [False, True])
def test_every_folder_is_found_in_the_spelling_of_its_archive(tmp_path, square):
    truth = write_zappos(tmp_path)
    write_images(tmp_path, truth["paths"], square)
    assert all(need.found for need in UtZap50k().needs(tmp_path))
    images = UtZap50k().problem(tmp_path, {"attribute": "open", "split": 0}).images
    for at, name in enumerate(images.names):
        assert images[at][0, 0, 0] == truth["paths"].index(name)
        assert images.columns["category"][at] == name.split("/")[0]


def test_other_spellings_and_a_file_that_moved(tmp_path):
    for path in ("A/W%2EA%2EG/1.jpg", "B/Plain/2.jpg", "elsewhere/3.jpg", "one/4.jpg", "two/4.jpg"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    found = resolved(tmp_path, ["A/W.A.G/1.jpg", "B/Plain/2.jpg", "C/3.jpg"])
    assert found == ["A/W%2EA%2EG/1.jpg", "B/Plain/2.jpg", "elsewhere/3.jpg"]
    two = resolved(tmp_path, ["C/4.jpg", "C/3.jpg"])
    assert two == [None, "elsewhere/3.jpg"], "two files of the name: it could be either"


@pytest.mark.parametrize("version", [1, 2])
def test_images_that_are_not_there_are_left_out(tmp_path, version):
    truth = write_zappos(tmp_path)
    top, dataset = write_images(tmp_path, truth["paths"]), UtZap50k(version)
    facets = dataset.facets(tmp_path)[0]
    files = {int(path.name.split(".")[0]): path for path in top.rglob("*.jpg")}
    gone = dataset.problem(tmp_path, facets).images.names[3]
    files[int(gone.rsplit("/", 1)[1].split(".")[0])].unlink()
    assert all(need.found for need in dataset.needs(tmp_path)), "1 of 60 is tolerated"
    found = dataset.problem(tmp_path, facets)
    assert gone not in found.images.names
    assert found.notes[0].startswith("1 of ")
    for at, name in enumerate(found.images.names):
        assert found.images[at][0, 0, 0] == truth["paths"].index(name)
        assert found.images.columns["category"][at] == name.split("/")[0]
    for path in list(top.rglob("*.jpg"))[:10]:
        path.unlink()
    (lacking,) = [need for need in dataset.needs(tmp_path) if not need.found]
    assert "images are not there (first: " in lacking.get
    assert [one.urls[0].rsplit("/", 1)[1] for one in dataset.downloads(tmp_path)] == ["ut-zap50k-images.zip"]


def test_the_catalogue_is_no_need_but_planning_notices_it(tmp_path):
    truth = write_zappos(tmp_path / "ut-zap50k", meta=False)
    write_images(tmp_path / "ut-zap50k", truth["paths"])

    def planned():
        data = Data(Registry.installed(), tmp_path, tmp_path / "cache")
        choice = DatasetChoice("ut-zap50k", {"version": 2})
        assert data.missing(choice) == []
        return data.summary(choice, {"attribute": "open"})["fingerprint"]

    without = planned()
    assert planned() == without
    lines = [f"{1000 + k}-{k % 90 + 10},{path.split('/')[0]}" for k, path in enumerate(truth["paths"])]
    (tmp_path / "ut-zap50k" / "meta-data.csv").write_text("CID,Category\n" + "\n".join(lines) + "\n")
    assert planned() != without, "the images have a category now"


def test_it_conforms_and_plans_without_data(tmp_path):
    for dataset in (UtZap50k(), UtZap50k(version=2)):
        lacking = [need.path.name for need in dataset.needs(tmp_path) if not need.found]
        assert lacking[-1] == "ut-zap50k-images"
        assert len(lacking) == 4
        assert "non-commercial" in dataset.needs(tmp_path)[0].get
    write_zappos(tmp_path, meta=False)
    check_dataset(UtZap50k(), tmp_path)
    check_dataset(UtZap50k(version=2), tmp_path)


def test_counts_and_downloads(tmp_path):
    write_zappos(tmp_path)
    found = [(count.what, count.found, count.published) for count in UtZap50k().counts(tmp_path)]
    assert found == [
        ("images listed", 60, 50_025), ("ordered pairs", 80, 6_751), ("equal pairs", 80, 4_612),
        ("fine-grained pairs", 80, 4_334),
    ]  # fmt: skip
    assert [one.kind for one in UtZap50k().downloads(tmp_path / "nowhere")] == ["archive", "archive"]


def bad(**changes):
    base = np.array([[1, 2, 1, 1, 1, 1.0]])
    for at, value in changes.items():
        base[0, int(at[1:])] = value
    return base


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"mturkOrder": row([bad()] * 4)}, "variable 'mturkEqual' is missing"),
        ({"mturkOrder": np.ones((2, 2)), "mturkEqual": row([bad()] * 4)}, "where a cell array of 1 or more belongs"),
        ({"mturkOrder": row([np.ones((2, 3))] * 4), "mturkEqual": row([bad()] * 4)}, "not n × 6 numbers"),
        ({"mturkOrder": row([bad(_0=0)] * 4), "mturkEqual": row([bad(_3=3)] * 4)}, "of open, row 1, is no judged pair"),
        ({"mturkOrder": row([bad(_3=3)] * 4), "mturkEqual": row([bad(_3=3)] * 4)}, "of open, row 1, is no judged pair"),
        ({"mturkOrder": row([bad()] * 4), "mturkEqual": row([bad(_3=3)] * 4)}, "must hold different rows from 1 to 1"),
    ],
)  # fmt: skip
def test_wrong_labels_are_named(tmp_path, variables, message):
    write_zappos(tmp_path)
    savemat(tmp_path / "zappos-labels.mat", variables)
    with pytest.raises(rankbench.DataError, match=message) as raised:
        UtZap50k().problem(tmp_path, {"attribute": "open", "split": 0})
    assert ".mat" in str(raised.value)


def test_other_wrong_files_are_named(tmp_path):
    truth = write_zappos(tmp_path)
    same = [[np.array([[1], [2]])] * 10] * 4
    savemat(
        tmp_path / "train-test-splits.mat",
        {f"{side}IndexAll": row([row(p) for p in same]) for side in ("train", "test")},
    )
    facets = {"attribute": "open", "split": 3}
    with pytest.raises(rankbench.DataError, match="split 3, shares row 1 with training"):
        UtZap50k().problem(tmp_path, facets)
    savemat(tmp_path / "image-path.mat", {"imagepath": column(truth["paths"][:5])})
    with pytest.raises(rankbench.DataError, match=r"zappos-labels.mat: names image \d+, and image-path.mat lists 5"):
        UtZap50k(version=2).problem(tmp_path, {"attribute": "open"})
    write_zappos(tmp_path)
    (tmp_path / "meta-data.csv").write_text("a,b\n1,2\n")
    with pytest.raises(rankbench.DataError, match="has no columns CID and Category"):
        UtZap50k().problem(tmp_path, facets)
    with pytest.raises(rankbench.DataError, match="ut-zap50k, version 1, has no problem"):
        UtZap50k().problem(tmp_path, {"attribute": "open"})
