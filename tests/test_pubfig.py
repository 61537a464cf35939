"""pubfig: a data.mat in the layout of the release, written here; `given` and RankSVM run on it without an image."""

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from test_osr import cells

import rankbench
from rankbench.testing import check_dataset
from rankbench_datasets.osr import Osr
from rankbench_datasets.pubfig import ATTRIBUTES, PubFig
from rankbench_features.given import Given

PEOPLE = ("AlexRodriguez", "CliveOwen", "HughLaurie", "JaredLeto")


def write(root, each=8, width=12, seed=0, predictor=True, **changes):
    """data.mat of four people; features that follow each attribute's order but for noise."""
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    names = [f"{person}_{k}.jpg" for person in PEOPLE for k in range(1, each + 1)]
    labels = np.repeat(np.arange(4), each)
    ordering = np.array([rng.permutation(4) + 1 for _ in ATTRIBUTES])
    ordering[3] = [1, 1, 2, 3]  # with ties
    weights = np.linalg.qr(rng.normal(size=(width, len(ATTRIBUTES))))[0]
    features = ordering[:, labels].T @ weights.T + rng.normal(0, 0.02, (len(names), width))
    content = {
        "im_names": cells(names),
        "class_names": cells(PEOPLE),
        "attribute_names": cells(ATTRIBUTES),
        "class_labels": labels[:, None] + 1,
        "used_for_training": (np.arange(len(names)) % each < 3)[:, None].astype(np.uint8),
        "relative_ordering": ordering.astype(np.uint8),
        "feat": features,
    }
    if predictor:
        content |= {"relative_att_predictor": weights}
    savemat(root / "data.mat", {k: v for k, v in (content | changes).items() if v is not None})
    return content


def test_problems(tmp_path):
    truth = write(tmp_path)
    dataset = PubFig()
    assert len(dataset.facets(tmp_path)) == 11
    for at, problem in enumerate(dataset.problems(tmp_path)):
        assert problem.facets == {"attribute": ATTRIBUTES[at]}
        score = truth["relative_ordering"][at][truth["class_labels"].ravel() - 1]
        assert problem.images.columns["score"].tolist() == score.tolist()
        assert problem.images.columns["category"].tolist() == [n.split("_")[0] for n in problem.images.names]
        assert problem.images.inputs["released_features"].tolist() == truth["feat"].astype(np.float32).tolist()
        assert (len(problem.train), len(problem.train_images)) == (12 * 11 // 2, 12)
        test = problem.tests["test"]
        assert test.ordered.all()
        assert (np.sign(score[test.left].astype(int) - score[test.right].astype(int)) == test.label).all()
        assert problem.train.ordered.sum() < len(problem.train)


@pytest.mark.parametrize("nested", [True, False])
def test_images_and_layouts(tmp_path, nested):
    place = tmp_path / "relative_attributes" / "pubfig" if nested else tmp_path
    write(place)
    assert [need.found for need in PubFig().needs(tmp_path)] == [True, False]
    (place / "images").mkdir()
    facets = {"attribute": "Male"}
    for number, name in enumerate(PubFig().problem(tmp_path, facets).images.names):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(place / "images" / name, "PNG")
    assert [need.found for need in PubFig().needs(tmp_path)] == [True, True]
    assert PubFig().problem(tmp_path, facets).images[5][0, 0, 0] == 5
    assert PubFig().downloads(tmp_path) == []
    check_dataset(PubFig(), tmp_path)


def test_counts_and_downloads(tmp_path):
    write(tmp_path)
    (count,) = PubFig().counts(tmp_path)
    assert count.found > 99, "the predictors that the features were made from"
    assert count.published == 81.48
    write(tmp_path, predictor=False)
    assert PubFig().counts(tmp_path) == []
    assert PubFig().published({"attribute": "Smiling"})["test pairs"] == 114_502
    assert PubFig(test_pairs=100).published({"attribute": "Male"})["test pairs"] == 100
    (archive,) = PubFig().downloads(tmp_path)
    assert archive.urls[0].endswith("/relative_attributes_v2.zip")
    labels, images = Osr().downloads(tmp_path / "osr")
    assert labels == archive
    assert images.urls[0].endswith("/spatial_envelope_256x256_static_8outdoorcategories.zip")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feat": None}, "variable 'feat' is missing"),
        ({"feat": np.ones((3, 2))}, "variable 'feat' is 3 × 2, not 32 × n"),
        ({"feat": np.full((32, 2), np.nan)}, "variable 'feat' holds what is no finite number"),
        ({"attribute_names": cells((*ATTRIBUTES[:10], "x"))}, "variable 'attribute_names' lacks 'RoundFace'"),
    ],
)
def test_wrong_files_are_named(tmp_path, changes, message):
    write(tmp_path, **changes)
    with pytest.raises(rankbench.DataError, match=message):
        PubFig().problem(tmp_path, {"attribute": "Male"})


def test_ranksvm_runs_on_the_released_features_without_an_image(lab):
    write(lab.data / "pubfig")
    result = lab.run(
        """
title = "PubFig"
dataset = "pubfig"
metric = "pairwise-accuracy"
[[column]]
label = "Mean"
[[row]]
label = "Parikh & Grauman"
ranker = { name = "ranksvm", features = [{ name = "given", normalize = "none" }], C = 0.1 }
[[row]]
label = "Needs images"
ranker = { name = "ranksvm", features = ["hog"], C = 0.1 }
[[row]]
label = "Another input"
ranker = { name = "ranksvm", features = [{ name = "given", input = "nothing" }], C = 0.1 }
"""
    )
    status = {}
    for cell in result.cells:
        status.setdefault(cell.row, set()).add(cell.status)
    assert status == {
        "Parikh & Grauman": {"done"},
        "Needs images": {"missing data"},
        "Another input": {"not applicable"},
    }
    assert float(result.table().loc["Parikh & Grauman"].iloc[0]) > 0.97


def test_given_refuses_what_is_no_table(tmp_path):
    images = rankbench.Images.from_names(["a", "b"], inputs={"released_features": np.ones((2, 3, 4))})
    with pytest.raises(rankbench.DataError, match=r"must be \(n, d\) numbers, not \(2, 3, 4\)"):
        Given().extract(images, None)
