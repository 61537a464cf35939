"""What `osr` and `pubfig` share: the data.mat of Parikh & Grauman, whose categories are ordered by each attribute."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import rankbench
from rankbench_datasets.listed_images import filled, images_need, names_there, pictures, rows_of, without_lost
from rankbench_datasets.matlab import MatFile
from rankbench_datasets.sampling import pairs_by_score, seeded

VARIABLES = (
    "im_names", "class_names", "attribute_names", "class_labels", "used_for_training", "relative_ordering",
)  # fmt: skip
ARCHIVE = "relative_attributes_v2.zip from www.cc.gatech.edu/~parikh/relative.html"


class RelativeAttributes(rankbench.Dataset):
    """Images in categories that each attribute orders; training and test images are given.

    Class attributes: attributes; release, the folder in the archive; image_folders, names that the images' folder may
    have, the archive's own last; get_images, where to get it.
    Fields of the inheriting dataclass: test_pairs, how many ordered test pairs are drawn (None: all); test_seed.
    """

    attributes: ClassVar[tuple[str, ...]]
    release: ClassVar[str]
    image_folders: ClassVar[tuple[str, ...]] = ("images",)
    get_images: ClassVar[str]

    @property
    def get_labels(self):
        return f"{ARCHIVE}; put relative_attributes/{self.release}/data.mat here"

    def facets(self, root):
        return [{"attribute": attribute} for attribute in self.attributes]

    def place(self, root):
        """Where data.mat lies: in the root, or where the archive unpacks it."""
        inside = root / "relative_attributes" / self.release
        return inside if not (root / "data.mat").is_file() and inside.is_dir() else root

    def image_folder(self, root):
        """The image folder under any of its names; under the last one where none is there."""
        places = [place / name for place in (self.place(root), root) for name in self.image_folders]
        return next((place for place in places if filled(place)), root / self.image_folders[-1])

    def needs(self, root):
        labels = self.place(root) / "data.mat"

        def listed():
            """None if the list itself cannot be read, which `problem` reports."""
            try:
                return MatFile.read(labels, ("im_names",), self.get_labels).texts("im_names")
            except rankbench.DataError:
                return []

        return [
            rankbench.Need(labels, labels.is_file(), self.get_labels),
            images_need(self.image_folder(root), listed, self.get_images),
        ]

    def problems(self, root):
        labels = self.read(root)
        for facets in self.facets(root):
            yield self._build(root, facets, labels)

    def problem(self, root, facets):
        if dict(facets) not in self.facets(root):
            raise rankbench.DataError(
                f"{self.release} has no problem {dict(facets)}; attributes are {', '.join(self.attributes)}."
            )
        return self._build(root, facets, self.read(root))

    def read(self, root):
        """Labels, checked."""
        return read_labels(self.place(root) / "data.mat", self.attributes, self.get_labels)

    def inputs(self, root, labels):
        """Evidence beside the pixels; none by default."""
        return {}

    def _build(self, root, facets, labels):
        score = labels.ranks[facets["attribute"]][labels.category]
        folder = self.image_folder(root)
        there, note = names_there(folder, labels.names)
        row = rows_of(there)
        images = pictures(
            folder,
            [name for name, found in zip(labels.names, there.tolist(), strict=True) if found],
            columns={"score": score[there], "category": labels.class_names[labels.category[there]]},
            inputs={name: values[there] for name, values in self.inputs(root, labels).items()},
        )
        train, test = (np.flatnonzero(side & there) for side in (labels.training, ~labels.training))
        rng = seeded(self.test_seed, self.attributes.index(facets["attribute"]))
        pairs = (pairs_by_score(score, train, ties=None), pairs_by_score(score, test, self.test_pairs, rng=rng))
        train_pairs, test_pairs = (without_lost(one, row, folder, labels.names) for one in pairs)
        return rankbench.Problem(images, train_pairs, test_pairs, facets, train_images=row[train], notes=note)


@dataclass(frozen=True)
class Labels:
    """data.mat: names [n], category (n,) int from 0, training (n,) bool, class_names (c,), ranks {attribute: (c,)}."""

    names: list
    category: np.ndarray
    training: np.ndarray
    class_names: np.ndarray
    ranks: dict


def read_labels(file, known, get):
    """Labels, checked. DataError names the file, the variable and the remedy."""
    content = MatFile.read(file, VARIABLES, get)
    names, classes, attributes = (content.texts(name) for name in VARIABLES[:3])
    n, c = len(names), len(classes)
    if len(set(names)) != n:
        twice = next(name for name in names if names.count(name) > 1)
        raise content.wrong("im_names", f"lists {twice!r} twice")
    absent = [attribute for attribute in known if attribute not in attributes]
    if absent:
        raise content.wrong("attribute_names", f"lacks {absent[0]!r}; it has {', '.join(attributes)}")
    category = content.whole_numbers("class_labels", (n, 1), 1, c).ravel() - 1
    training = content.whole_numbers("used_for_training", (n, 1), 0, 1).ravel() == 1
    if training.sum() < 2 or (~training).sum() < 2:
        raise content.wrong("used_for_training", f"marks {training.sum()} of {n} images; both sides need two or more")
    ranks = content.whole_numbers("relative_ordering", (len(attributes), c), 1, c)
    by_attribute = {name: ranks[attributes.index(name)].astype(np.float64) for name in known}
    return Labels(names, category, training, np.array(classes), by_attribute)
