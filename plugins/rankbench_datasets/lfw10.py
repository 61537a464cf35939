"""lfw10: faces of LFW by ten attributes, judged by five people a pair."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

import rankbench
from rankbench_datasets.listed_images import images_need, names_there, pictures, rows_of, without_lost
from rankbench_datasets.matlab import MatFile

ATTRIBUTES = (
    "baldhead", "darkhair", "eyesopen", "goodlooking", "masculinelooking", "mouthopen", "smile", "v_teeth",
    "vforehead", "young",
)  # fmt: skip
GET = "LFW10.zip from cvit.iiit.ac.in/projects/relativeParts; unpack it here"
PAIRS = 500  # of each side and attribute
ORDERED = {  # training pairs ordered by arg-max and by majority, test pairs by majority, as counted in a conversion
    "baldhead": (227, 180, 215), "darkhair": (341, 279, 264), "eyesopen": (156, 126, 95),
    "goodlooking": (275, 220, 270), "masculinelooking": (182, 147, 139), "mouthopen": (300, 239, 241),
    "smile": (328, 259, 273), "v_teeth": (305, 239, 269), "vforehead": (251, 191, 189), "young": (474, 380, 392),
}  # fmt: skip


@dataclass(frozen=True)
class Lfw10(rankbench.Dataset):
    """Faces by ten attributes (bald head, dark hair, eyes open, …): 2,000 images, 1,000 judged pairs an attribute.

    Source: Sandeep, Verma & Jawahar, "Relative parts", CVPR 2014; images from Labeled Faces in the Wild.
    Licence: no statement seen.
    Layout: `lfw10/` or `lfw10/LFW10/` with `images/1.jpg` to `2000.jpg` and `annotations/<attribute>train.mat` and
    `<attribute>test.mat`: `images_compare` (500 × 3 or more cells, file names in the second and third column) and
    `attribute_strengths` (500 × 4 or more, from the second column: votes for the first, for the second, for equal).
    Protocol: 500 training and 500 test pairs an attribute, each judged by five people. Label by `arg-max` of the three
    counts (of equal ones the first, so that a draw with "equal" is an order), as Souri et al.; or by `majority`, three
    votes or more, where pairs without one are left out. Ties train and are not counted in tests. A pair's column
    `votes` (n, 3): for left, for right, for equal.
    Known problems: the label rule changes the number of ordered test pairs by a factor of two to four; say it with
    every figure. Training pairs use images 1 to 1000 and test pairs 1001 to 2000, but for goodlooking, where they are
    swapped. Published tables order v_teeth and vforehead differently. Figures by raw votes are not comparable.

    Args: labels, the label rule.
    """

    labels: Literal["arg-max", "majority"] = "arg-max"

    folder = "lfw10"
    get = GET

    def facets(self, root):
        return [{"attribute": attribute} for attribute in ATTRIBUTES]

    def needs(self, root):
        place = located(root)
        files = [place / "annotations" / f"{name}{side}.mat" for name in ATTRIBUTES for side in ("train", "test")]
        needs = [rankbench.Need(file, file.is_file(), GET) for file in files]
        listed = list if not all(need.found for need in needs) else lambda: listed_names(place)
        return [*needs, images_need(place / "images", listed, GET)]

    def problem(self, root, facets):
        if dict(facets) not in self.facets(root):
            raise rankbench.DataError(f"lfw10 has no problem {dict(facets)}; attributes are {', '.join(ATTRIBUTES)}.")
        place, name = located(root), facets["attribute"]
        train, test = (Judged.read(place, name, side) for side in ("train", "test"))
        numbers = np.unique(np.concatenate([train.images, test.images]))
        names = [f"{number}.jpg" for number in numbers.tolist()]
        there, note = names_there(place / "images", names)
        row, kept = rows_of(there), [f"{number}.jpg" for number in numbers[there].tolist()]
        train, test = (
            without_lost(judged.pairs(self.labels, numbers), row, place / "images", names) for judged in (train, test)
        )
        return rankbench.Problem(pictures(place / "images", kept), train, test, facets, notes=note)

    def published(self, facets):
        return {"train pairs": PAIRS, "test pairs": PAIRS} if self.labels == "arg-max" else {}

    def counts(self, root):
        place, found = located(root), []
        note = "published: counted in a conversion of the release"
        for name in ATTRIBUTES:
            train, test = (Judged.read(place, name, side) for side in ("train", "test"))
            ordered = (train.labels("arg-max"), train.labels("majority"), test.labels("majority"))
            for (what, rule), labels, published in zip(
                (("train", "arg-max"), ("train", "majority"), ("test", "majority")), ordered, ORDERED[name], strict=True
            ):
                number = int(np.isin(labels, (-1, 1)).sum())
                found.append(rankbench.Count(f"{name} {what} pairs ordered by {rule}", number, published, note))
        return found

    def downloads(self, root):
        if all(need.found for need in self.needs(root)):
            return []
        place = "https://cvit.iiit.ac.in/images/Projects/relativeParts/LFW10.zip"  # as published loaders have it
        return [rankbench.Download((place,), ".", "archive", most=2**30)]


def located(root):
    """The release's own folder, as its archive has it, or the root."""
    return root / "LFW10" if (root / "LFW10").is_dir() else root


def listed_names(place):
    """File names of every pair; none where an annotation cannot be read, which `problem` reports."""
    try:
        judged = [Judged.read(place, name, side) for name in ATTRIBUTES for side in ("train", "test")]
    except rankbench.DataError:
        return []
    return [f"{number}.jpg" for number in np.unique(np.concatenate([one.images for one in judged])).tolist()]


@dataclass(frozen=True)
class Judged:
    """The pairs of one file: first and second (n,) numbers of the images, votes (n, 3) for first, second, equal."""

    first: np.ndarray
    second: np.ndarray
    votes: np.ndarray

    @classmethod
    def read(cls, place, attribute, side):
        """DataError names the file, the variable and the row."""
        file = MatFile.read(
            place / "annotations" / f"{attribute}{side}.mat", ("images_compare", "attribute_strengths"), GET
        )
        cells, strengths = file.content["images_compare"], file.content["attribute_strengths"]
        if cells.dtype != object or cells.ndim != 2 or cells.shape[1] < 3:
            raise file.wrong("images_compare", f"is {cells.shape} {cells.dtype}, not a cell array of n × 3 or more")
        if strengths.ndim != 2 or strengths.shape[1] < 4 or len(strengths) != len(cells):
            raise file.wrong("attribute_strengths", f"is {strengths.shape}, not {len(cells)} × 4 or more")
        votes = np.asarray(strengths[:, 1:4], dtype=np.float64)
        bad = np.flatnonzero(~((votes >= 0) & (votes == np.floor(votes))).all(axis=1) | ~votes.any(axis=1))
        if len(bad):
            raise file.wrong("attribute_strengths", f"row {bad[0] + 1} holds {votes[bad[0]].tolist()}, no votes")
        first, second = (np.array([number(file, cell) for cell in cells[:, at]]) for at in (1, 2))
        same = np.flatnonzero(first == second)
        if len(same):
            raise file.wrong("images_compare", f"row {same[0] + 1} pairs image {first[same[0]]} with itself")
        return cls(first, second, votes.astype(np.int64))

    @property
    def images(self):
        return np.concatenate([self.first, self.second])

    def labels(self, rule):
        """(n,) 1 first, −1 second, 0 equal; 2 where there is no majority."""
        label = np.array([1, -1, 0])[self.votes.argmax(axis=1)]
        return label if rule == "arg-max" else np.where(self.votes.max(axis=1) >= 3, label, 2)

    def pairs(self, rule, numbers):
        """Pairs over the images with these numbers, ascending."""
        label = self.labels(rule)
        kept = label != 2
        left, right = (np.searchsorted(numbers, side[kept]) for side in (self.first, self.second))
        votes = {"votes": self.votes[kept]}
        return rankbench.Pairs(left, right, label[kept], columns=votes, sided={"votes": "swap"})


def number(file, cell):
    """123 for the cell "123.jpg"."""
    text = str(np.asarray(cell).item()) if np.asarray(cell).size == 1 else ""
    stem = text.rsplit("/", 1)[-1].removesuffix(".jpg")
    if not stem.isdecimal() or int(stem) < 1:
        raise file.wrong("images_compare", f"holds {text!r} where a file name such as '123.jpg' belongs")
    return int(stem)
