"""osr: the MATLAB file and the image folder of Outdoor Scene Recognition with relative attributes."""

import os
from dataclasses import dataclass

import numpy as np

import rankbench
from rankbench_datasets.matlab import MatFile
from rankbench_datasets.sampling import pairs_by_score, seeded

ATTRIBUTES = ("natural", "open", "perspective", "size-large", "diagonal-plane", "depth-close")
FOLDERS = ("images", "spatial_envelope_256x256_static_8outdoorcategories")
VARIABLES = (
    "im_names", "class_names", "attribute_names", "class_labels", "used_for_training", "relative_ordering",
)  # fmt: skip
GET_LABELS = (
    "relative_attributes_v2.zip from www.cc.gatech.edu/~parikh/relative.html; put relative_attributes/osr/data.mat here"
)
GET_IMAGES = (
    f"{FOLDERS[1]}.zip from people.csail.mit.edu/torralba/code/spatialenvelope; unpack it beside data.mat "
    "(the folder may also be named images)"
)


@dataclass(frozen=True)
class Osr(rankbench.Dataset):
    """Outdoor scenes by six attributes: 2,688 images, relative attributes of their 8 categories.

    Source: images, Oliva & Torralba, IJCV 42, 2001 (the spatial envelope); labels, Parikh & Grauman, ICCV 2011
    (Relative attributes). Cite both. Licence: no text seen; released for research.
    Layout: `osr/data.mat` and beside it `images/` or, under its original name,
    `spatial_envelope_256x256_static_8outdoorcategories/`; only images that `im_names` lists are read. Columns:
    `category`, and `score`, the rank of the category in the attribute.
    Protocol: that of Parikh & Grauman. 240 training images (30 a category) and 2,448 test images; training pairs are
    all 28,680 pairs inside the training images, ties included; tests are all ordered pairs inside the test images.
    Known problems: labels are judgements of categories, not of images, so that a scene classifier solves the task, and
    features learned from scene categories see the label almost directly. Two pairs of files are equal byte by byte,
    one of them in two categories (insidecity and tallbuilding); all four are test images. Other splits are in use.

    Args: test_pairs, how many ordered test pairs are drawn (None: all, 1.8 to 2.5 million); test_seed, of that draw.
    """

    test_pairs: int | None = None
    test_seed: int = 0

    def facets(self, root):
        return [{"attribute": attribute} for attribute in ATTRIBUTES]

    def needs(self, root):
        labels, folder = root / "data.mat", image_folder(root)
        needs = [rankbench.Need(labels, labels.is_file(), GET_LABELS)]
        get = GET_IMAGES
        found = folder.is_dir()
        if found and labels.is_file():
            missing = missing_images(labels, folder)
            if missing:
                get = f"{len(missing)} images that data.mat lists are not there (first: {missing[0]}). {GET_IMAGES}"
            found = not missing
        return [*needs, rankbench.Need(folder, found, get, images=True)]

    def problems(self, root):
        content = self._read(root)
        for facets in self.facets(root):
            yield self._build(facets, *content)

    def problem(self, root, facets):
        if dict(facets) not in self.facets(root):
            raise rankbench.DataError(f"osr has no problem {dict(facets)}; attributes are {', '.join(ATTRIBUTES)}.")
        return self._build(facets, *self._read(root))

    def _read(self, root):
        return root, read_labels(root / "data.mat")

    def _build(self, facets, root, labels):
        score = labels.ranks[facets["attribute"]][labels.category]
        columns = {"score": score, "category": labels.class_names[labels.category]}
        folder = image_folder(root)
        if folder.is_dir():
            images = rankbench.Images([folder / name for name in labels.names], names=labels.names, columns=columns)
        else:
            images = rankbench.Images.from_names(labels.names, columns=columns)
        train, test = np.flatnonzero(labels.training), np.flatnonzero(~labels.training)
        rng = seeded(self.test_seed, ATTRIBUTES.index(facets["attribute"]))
        return rankbench.Problem(
            images,
            pairs_by_score(score, train, ties=None),
            pairs_by_score(score, test, self.test_pairs, rng=rng),
            facets,
            train_images=train,
        )


@dataclass(frozen=True)
class Labels:
    """data.mat: names [n], category (n,) int from 0, training (n,) bool, class_names (c,), ranks {attribute: (c,)}."""

    names: list
    category: np.ndarray
    training: np.ndarray
    class_names: np.ndarray
    ranks: dict


def image_folder(root):
    """The image folder under either name; the original one where neither is there."""
    return next((root / name for name in FOLDERS if (root / name).is_dir()), root / FOLDERS[1])


def missing_images(labels, folder):
    """Listed images that are not in the folder; none if the list itself cannot be read, which `problem` reports."""
    try:
        names = MatFile.read(labels, ("im_names",), GET_LABELS).texts("im_names")
    except rankbench.DataError:
        return []
    there = set(os.listdir(folder))
    return [name for name in names if name not in there]


def read_labels(file):
    """Labels, checked. DataError names the file, the variable and the remedy."""
    content = MatFile.read(file, VARIABLES, GET_LABELS)
    names, classes, attributes = (content.texts(name) for name in VARIABLES[:3])
    n, c = len(names), len(classes)
    if len(set(names)) != n:
        twice = next(name for name in names if names.count(name) > 1)
        raise content.wrong("im_names", f"lists {twice!r} twice")
    absent = [attribute for attribute in ATTRIBUTES if attribute not in attributes]
    if absent:
        raise content.wrong("attribute_names", f"lacks {absent[0]!r}; it has {', '.join(attributes)}")
    category = content.whole_numbers("class_labels", (n, 1), 1, c).ravel() - 1
    training = content.whole_numbers("used_for_training", (n, 1), 0, 1).ravel() == 1
    if training.sum() < 2 or (~training).sum() < 2:
        raise content.wrong("used_for_training", f"marks {training.sum()} of {n} images; both sides need two or more")
    ranks = content.whole_numbers("relative_ordering", (len(attributes), c), 1, c)
    by_attribute = {name: ranks[attributes.index(name)].astype(np.float64) for name in ATTRIBUTES}
    return Labels(names, category, training, np.array(classes), by_attribute)
