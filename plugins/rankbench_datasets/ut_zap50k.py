"""ut-zap50k: catalogue photographs of shoes by four attributes, in both versions and with the given splits."""

import html
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

import rankbench
from rankbench_datasets.listed_images import (
    files_below,
    filled,
    images_need,
    note_on,
    rows_of,
    without_lost,
)
from rankbench_datasets.matlab import MatFile

ATTRIBUTES = ("open", "pointy", "sporty", "comfort")
IMAGES = 50_025
SPLITS = 10
SITE = "vision.cs.utexas.edu/projects/finegrained/utzap50k"
GET_LABELS = f"ut-zap50k-data.zip from {SITE} (non-commercial use only); unpack it here"
GET_IMAGES = f"ut-zap50k-images.zip or ut-zap50k-images-square.zip from {SITE}; unpack it here"
FOLDERS = ("ut-zap50k-images", "ut-zap50k-images-square")
PATHS, LABELS, FINE, SPLIT = "image-path.mat", "zappos-labels.mat", "zappos-labels-fg.mat", "train-test-splits.mat"
META = "meta-data.csv"
OVERLAP = "the published splits are by pairs, not by images: some images are in training and in test pairs"


@dataclass(frozen=True)
class UtZap50k(rankbench.Dataset):
    """Shoes by four attributes (open, pointy, sporty, comfort): 50,025 images, 6,751 ordered and 4,612 equal pairs.

    Source: Yu & Grauman, "Fine-grained visual comparisons with local learning", CVPR 2014; cite it.
    Licence: non-commercial use only.
    Layout: `ut-zap50k/` with the files of ut-zap50k-data.zip (there or in `ut-zap50k-data/`): `image-path.mat`,
    `zappos-labels.mat`, `zappos-labels-fg.mat` (version 2), `train-test-splits.mat` (version 1) and, for the column
    `category`, `meta-data.csv`; and the images under `ut-zap50k-images/` or `ut-zap50k-images-square/`.
    Protocol: version 1, for each attribute the 10 given splits of its ordered pairs; version 2, training on all pairs
    of version 1, tests on the fine-grained pairs. Labels are majorities of five workers; a pair's columns are
    `confidence` (1 very, 3 not) and `agreement`. Equal pairs train as ties: all of them in version 2; in version 1
    those without an image of the split's tests.
    Known problems: splits are by pairs, so that images are shared by training and test, which tables say. Some folders
    of the images are named otherwise than in `image-path.mat` (trailing dots, %2E, HTML entities); they are found all
    the same. Some published code uses the first split only.

    Args: version; train_ties, whether equal pairs are in training.
    """

    version: Literal[1, 2] = 1
    train_ties: bool = True

    folder = "ut-zap50k"
    get = GET_LABELS

    def facets(self, root):
        if self.version == 2:
            return [{"attribute": attribute} for attribute in ATTRIBUTES]
        return [{"attribute": attribute, "split": split} for attribute in ATTRIBUTES for split in range(SPLITS)]

    def needs(self, root):
        names = (PATHS, LABELS, FINE if self.version == 2 else SPLIT)
        needs = [rankbench.Need(located(root, name), located(root, name).is_file(), GET_LABELS) for name in names]
        meta = located(root, META)
        if meta.is_file():  # not needed, but named, so that a problem made without it is made again once it is there
            needs.append(rankbench.Need(meta, True, GET_LABELS))
        return [*needs, images_need(image_folder(root), lambda: self.judged(root), GET_IMAGES, looked_up)]

    def judged(self, root):
        """Paths of all images in a pair; none where a file cannot be read, which `problem` reports."""
        try:
            paths = image_paths(root)
            files = [(LABELS, ("mturkOrder", "mturkEqual")), *([(FINE, ("mturkHard",))] if self.version == 2 else [])]
            read = [(MatFile.read(located(root, name), names, GET_LABELS), names) for name, names in files]
            pairs = [judgements(file, name, at) for file, names in read for name in names for at in range(4)]
        except rankbench.DataError:
            return []
        rows = np.unique(np.concatenate(pairs)[:, :2]).astype(np.int64)
        return [paths[row - 1] for row in rows.tolist() if row <= len(paths)]

    def problem(self, root, facets):
        if dict(facets) not in self.facets(root):
            raise rankbench.DataError(
                f"ut-zap50k, version {self.version}, has no problem {dict(facets)}; attributes are "
                f"{', '.join(ATTRIBUTES)}{', splits 0 to 9' * (self.version == 1)}."
            )
        at = ATTRIBUTES.index(facets["attribute"])
        labels = MatFile.read(located(root, LABELS), ("mturkOrder", "mturkEqual"), GET_LABELS)
        ordered, equal = (judgements(labels, name, at) for name in ("mturkOrder", "mturkEqual"))
        if self.version == 2:
            train, test = (
                ordered,
                judgements(MatFile.read(located(root, FINE), ("mturkHard",), GET_LABELS), "mturkHard", at),
            )
        else:
            train, test = given_split(located(root, SPLIT), at, facets["split"], ordered)
            equal = equal[~np.isin(equal[:, :2], test[:, :2]).any(axis=1)]
        if self.train_ties:
            train = np.concatenate([train, equal])
        rows = np.unique(np.concatenate([train[:, :2], test[:, :2]])).astype(np.int64)  # from 1
        images, names, there = pictures(root, rows - 1)
        row, folder = rows_of(there), image_folder(root)
        train, test = (without_lost(as_pairs(part, rows), row, folder, names) for part in (train, test))
        shared = np.intersect1d(np.union1d(train.left, train.right), np.union1d(test.left, test.right))
        overlap = OVERLAP if len(shared) else None
        return rankbench.Problem(images, train, test, facets, overlap=overlap, notes=note_on(there))

    def counts(self, root):
        labels = MatFile.read(located(root, LABELS), ("mturkOrder", "mturkEqual"), GET_LABELS)
        found = [
            rankbench.Count("images listed", len(image_paths(root)), IMAGES),
            rankbench.Count("ordered pairs", sum(len(judgements(labels, "mturkOrder", at)) for at in range(4)), 6_751),
            rankbench.Count("equal pairs", sum(len(judgements(labels, "mturkEqual", at)) for at in range(4)), 4_612),
        ]
        if located(root, FINE).is_file():
            fine = MatFile.read(located(root, FINE), ("mturkHard",), GET_LABELS)
            number = sum(len(judgements(fine, "mturkHard", at)) for at in range(4))
            found.append(rankbench.Count("fine-grained pairs", number, 4_334))
        return found

    def downloads(self, root):
        *labels, images = self.needs(root)
        lacking = (not all(need.found for need in labels), not images.found)
        names = [
            name for name, gone in zip(("ut-zap50k-data.zip", "ut-zap50k-images.zip"), lacking, strict=True) if gone
        ]
        return [rankbench.Download((f"https://{SITE}/{name}",), ".", "archive", most=2 * 2**30) for name in names]


def located(root, name):
    """A label file's place: in the root, or in the folder its archive makes."""
    inside = root / "ut-zap50k-data" / name
    return inside if inside.exists() else root / name


def image_folder(root):
    return next((root / name for name in FOLDERS if filled(root / name)), root / FOLDERS[0])


def cell(file, variable, *places):
    """The array in nested cells (1 × n each), by their numbers from 0."""
    found = file.content[variable]
    for place in places:
        if found.dtype != object or found.ndim != 2 or 1 not in found.shape or place >= found.size:
            raise file.wrong(
                variable, f"is {found.shape} {found.dtype} where a cell array of {place + 1} or more belongs"
            )
        found = found.ravel()[place]
    return np.asarray(found)


def judgements(file, variable, at):
    """(n, 6) of one attribute: image 1, image 2 (from 1), attribute, label (1, 2 or 3), confidence, agreement."""
    rows = cell(file, variable, at)
    if rows.ndim != 2 or rows.shape[1] < 6 or rows.dtype.kind not in "iuf":
        raise file.wrong(variable, f"of {ATTRIBUTES[at]} is {rows.shape} {rows.dtype}, not n × 6 numbers")
    rows = rows[:, :6].astype(np.float64)
    ends, label = rows[:, :2], rows[:, 3]
    known = (3,) if variable == "mturkEqual" else (1, 2)
    bad = np.flatnonzero(
        (ends < 1).any(axis=1)
        | (ends != np.floor(ends)).any(axis=1)
        | (ends[:, 0] == ends[:, 1])
        | ~np.isin(label, known)
    )
    if len(bad):
        raise file.wrong(variable, f"of {ATTRIBUTES[at]}, row {bad[0] + 1}, is no judged pair: {rows[bad[0]].tolist()}")
    return rows


def given_split(path, at, split, ordered):
    """Training and test rows of the ordered pairs, by the given 1-based row numbers."""
    file = MatFile.read(path, ("trainIndexAll", "testIndexAll"), GET_LABELS)
    parts = []
    for variable in ("trainIndexAll", "testIndexAll"):
        rows = cell(file, variable, at, split).ravel()
        if not len(rows) or rows.min() < 1 or rows.max() > len(ordered) or len(np.unique(rows)) < len(rows):
            raise file.wrong(
                variable, f"of {ATTRIBUTES[at]}, split {split}, must hold different rows from 1 to {len(ordered)}"
            )
        parts.append(rows.astype(np.int64) - 1)
    both = np.intersect1d(*parts)
    if len(both):
        raise file.wrong("testIndexAll", f"of {ATTRIBUTES[at]}, split {split}, shares row {both[0] + 1} with training")
    return ordered[parts[0]], ordered[parts[1]]


def as_pairs(rows, images):
    """Pairs over the images with these 1-based numbers, ascending."""
    left, right = (np.searchsorted(images, rows[:, side].astype(np.int64)) for side in (0, 1))
    columns = {"confidence": rows[:, 4], "agreement": rows[:, 5]}
    return rankbench.Pairs(left, right, np.array([0, 1, -1, 0])[rows[:, 3].astype(int)], columns=columns)


# ------------------------------------------------------------------------------------------------------------ images


def image_paths(root):
    """The listed relative paths, in file order."""
    file = located(root, PATHS)
    return listed(file, os.stat(file).st_mtime_ns if file.is_file() else 0)


@lru_cache(maxsize=2)
def listed(file, _changed):
    return MatFile.read(file, ("imagepath",), GET_LABELS).texts("imagepath")


def pictures(root, rows):
    """Images of these rows, from 0, all names, and which are there: by files where there is a folder, else by name."""
    paths = image_paths(root)
    if rows.max() >= len(paths):
        raise rankbench.DataError(
            f"{located(root, LABELS)}: names image {rows.max() + 1}, and {PATHS} lists {len(paths)}. Get both again: "
            f"{GET_LABELS}."
        )
    names = [paths[row] for row in rows.tolist()]
    columns = {}
    if located(root, META).is_file():
        columns["category"] = categories(located(root, META), names)
    folder = image_folder(root)
    if not filled(folder):
        return rankbench.Images.from_names(names, columns=columns), names, np.ones(len(names), bool)
    found = dict(zip(names, resolved(folder, names), strict=True))
    there = np.array([place is not None for place in found.values()])
    paths = {name: folder / place for name, place in found.items() if place is not None}
    columns = {name: values[there] for name, values in columns.items()}
    return rankbench.Images(list(paths.values()), names=list(paths), columns=columns), names, there


def resolved(folder, names):
    """Where each listed image lies: in folders spelt otherwise, or else the only file of its name; else None."""
    present = files_below(folder)
    by_file, found = {}, []
    for path in present:
        by_file.setdefault(path.rsplit("/", 1)[-1], []).append(path)
    for name in names:
        there = next((spelt for spelt in spellings(name) if spelt in present), None)
        if there is None:
            alike = by_file.get(name.rsplit("/", 1)[-1], [])
            there = alike[0] if len(alike) == 1 else None
        found.append(there)
    return found


def looked_up(folder, names):
    """(n,) whether each image is there, and the note, as `names_there` gives them."""
    there = np.array([place is not None for place in resolved(folder, names)], bool)
    return there, note_on(there)


def spellings(name):
    """How the archives may spell a listed path: as it is, folders without trailing dots, with %2E, with entities."""
    *folders, file = name.split("/")
    yield name
    yield "/".join([*(part.rstrip(".") for part in folders), file])
    yield "/".join(
        [*(part[: len(part.rstrip("."))] + "%2E" * (len(part) - len(part.rstrip("."))) for part in folders), file]
    )
    yield "/".join([*(part.replace(".", "%2E") for part in folders), file])
    yield name.replace("Levi's ", "Levi's&#174; ")
    yield html.unescape(name)


def categories(file, names):
    """(n,) the catalogue's category of each image, by the CID in its file name; empty where it has none."""
    import csv

    with open(file, encoding="utf-8", errors="replace", newline="") as lines:
        rows = csv.DictReader(lines)
        if not {"CID", "Category"} <= set(rows.fieldnames or ()):
            raise rankbench.DataError(f"{file}: has no columns CID and Category. Get it again: {GET_LABELS}.")
        known = {row["CID"]: row["Category"] for row in rows}
    cids = (name.rsplit("/", 1)[-1].rsplit(".", 1)[0].replace(".", "-") for name in names)
    return np.array([known.get(cid, "") for cid in cids])
