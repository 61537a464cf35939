"""pubfig: faces of eight public figures, with the relative attributes of each person and the released features."""

from dataclasses import dataclass

import numpy as np

import rankbench
from rankbench_datasets.matlab import MatFile
from rankbench_datasets.osr import archive
from rankbench_datasets.relative_attributes import ARCHIVE, RelativeAttributes

ATTRIBUTES = (
    "Male", "White", "Young", "Smiling", "Chubby", "VisibleForehead", "BushyEyebrows", "NarrowEyes", "PointyNose",
    "BigLips", "RoundFace",
)  # fmt: skip
ORDERED = {"Smiling": 114_502, "VisibleForehead": 96_817, "PointyNose": 110_287}  # of the test pairs; others:
ORDERED_ELSE = 123_348
FEATURES = 542  # GIST (512) and a Lab histogram (30)


@dataclass(frozen=True)
class PubFig(RelativeAttributes):
    """Faces of eight public figures by eleven attributes: 772 images, and the features of the release.

    Source: labels and features, Parikh & Grauman, ICCV 2011 (Relative attributes); images, Kumar et al., ICCV 2009
    (Public Figures). Cite both.
    Licence: no text seen; released for research.
    Layout: `pubfig/data.mat` and beside it `images/`, or both where their archive unpacks them, in
    `pubfig/relative_attributes/pubfig/`; only images that `im_names` lists are read. Columns: `category`, the person,
    and `score`, the person's rank in the attribute. Input `released_features` (n, 542), GIST and color, for the feature
    `given`: `ranksvm` on it needs no images.
    Protocol: that of Parikh & Grauman. 241 training images and 531 test images; training pairs are all 28,920 pairs
    inside the training images, ties included; tests are all ordered pairs inside the test images.
    Known problems: labels are judgements of persons, not of images, so that who recognises the person solves the task.

    Args: test_pairs, how many ordered test pairs are drawn (None: all); test_seed, of that draw.
    """

    test_pairs: int | None = None
    test_seed: int = 0

    attributes = ATTRIBUTES
    release = "pubfig"
    get_images = f"{ARCHIVE}; put relative_attributes/pubfig/images here"

    def inputs(self, root, labels):
        file = MatFile.read(self.place(root) / "data.mat", ("feat",), self.get_labels)
        features = file.array("feat", (len(labels.names), None))
        if features.dtype.kind not in "iuf" or not np.isfinite(features).all():
            raise file.wrong("feat", "holds what is no finite number")
        return {"released_features": features.astype(np.float32)}

    def published(self, facets):
        test = ORDERED.get(facets["attribute"], ORDERED_ELSE)
        return {
            "images": 772,
            "train images": 241,
            "train pairs": 28_920,
            "test images": 531,
            "test pairs": test if self.test_pairs is None else min(test, self.test_pairs),
        }

    def counts(self, root):
        labels, place = self.read(root), self.place(root) / "data.mat"
        predictor = ("relative_att_predictor", "attribute_names")
        try:
            file = MatFile.read(place, predictor, self.get_labels)
        except rankbench.MissingData:
            raise
        except rankbench.DataError:  # without the released predictors
            return []
        names, weights = file.texts("attribute_names"), file.array("relative_att_predictor", (None, None))
        scores = self.inputs(root, labels)["released_features"].astype(np.float64) @ weights
        shares = []
        for attribute in ATTRIBUTES:
            problem = self._build(root, {"attribute": attribute}, labels)
            score, test = scores[:, names.index(attribute)], problem.tests["test"]
            shares.append(np.mean((score[test.left] > score[test.right]) == (test.label > 0)))
        return [
            rankbench.Count(
                "released predictors, mean test accuracy (%)", round(100 * float(np.mean(shares)), 2), 81.48
            )
        ]

    def downloads(self, root):
        return [] if all(need.found for need in self.needs(root)) else [archive()]
