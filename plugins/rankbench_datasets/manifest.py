"""manifest: a user's own images and judgements, read from images.csv and pairs.csv in one folder.

Whatever is wrong with a row is reported with file, line, value and remedy; nothing is skipped silently.
"""

import difflib
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

import rankbench
from rankbench_datasets.listed_images import note_on, rows_of, without_lost
from rankbench_datasets.manifest_files import Judged, Listing
from rankbench_datasets.manifest_places import located, respelled
from rankbench_datasets.manifest_tables import Table, counted
from rankbench_datasets.sampling import pairs_by_score, seeded, split_images
from rankbench_datasets.tables import just_written, state

FILES = {
    "images": ("path", "name", "score", "category", "split", "fold"),
    "pairs": (
        "left", "right", "label", "winner", "votes_left", "votes_right", "votes_tie", "weight", "attribute", "split",
        "fold",
    ),
}  # fmt: skip
REQUIRED = {"images": ("path",), "pairs": ("left", "right")}
GET = (
    "there is no images.csv or pairs.csv; make images.csv with the columns path and score (optional: name, category, "
    "split or fold), or pairs.csv with the columns left, right and label, which is 1, -1 or 0 (optional: weight, "
    "attribute, split or fold), or both; paths are relative to this folder"
)


@dataclass(frozen=True)
class Manifest(rankbench.Dataset):
    """Your own images and judgements: images.csv, pairs.csv or both in a folder; .parquet as well as .csv.

    Source: yours: what a labelling tool, a survey or an A/B test exports.
    Licence: yours.
    Layout: `images.csv`: path (relative to the folder), and optionally name (unique), score (a number), category, split
    or fold. `pairs.csv`: left, right (a path or name of images.csv, or any path where there is no images.csv), what was
    judged, and optionally weight, attribute, split or fold. What was judged is one of: label (1 or left: left shows
    more; -1 or right; 0 or tie); winner (the path or name of the one that shows more, or left, right, tie); votes_left,
    votes_right and optionally votes_tie (counts: the side with more wins, a draw or mostly tie votes make a tie).
    Comma-separated UTF-8 with one header line; other columns are ignored, but not one that looks like a misspelt name.
    Parquet needs the package pyarrow. Paths stay inside the folder: no `..`, none that is absolute; a link that lies
    in it may lead elsewhere. A name is taken as written, else as one that looks the same (macOS writes é as two
    characters, Windows separates by a backslash), else as the one file or image that differs in case alone.
    Protocol: one problem per attribute of pairs.csv (facet `attribute`), else one. Without pairs.csv, pairs are drawn
    from the scores, inside each split. With neither pairs nor scores the images and their categories are one problem
    without pairs, for features to be fitted on.
    Splits: `split` is "train" for training; every other name is a test set of its own. `fold`: each fold is the test of
    a problem (facet `fold`) whose training are the others. A column of pairs.csv goes by pairs; one of images.csv goes
    by images. Where neither file has one, images are split at random, and facet `split` = 0, 1, … numbers the splits;
    or, with `folds`, put into so many folds at random. Pairs between two sides of a split by images are left out, and a
    note says how many: about a third at random 80:20. A split column that suits the pairs keeps more of them.
    Up to 5 % of the images may be absent: they are left out with their pairs.
    Known problems: `rankbench data check manifest --folder FOLDER` finds them: pairs that contradict each other, images
    in no pair, parts that were never compared, images in training and in a test.

    Args: splits, how many random splits; test_share, of the images; folds, how many random folds instead; train_pairs,
    train_ties, test_pairs, how many pairs are drawn from scores (a number above what there is means all); seed, of
    splits, folds and draws; merge, whether all lines about the same two images become one pair, by majority; overlap,
    the reason why an image may be in training and in a test, where pairs.csv says so; exif, whether EXIF rotation is
    applied.
    Raises: DataError with file and line.
    """

    splits: int = 5
    test_share: float = 0.2
    train_pairs: int = 20_000
    train_ties: int = 2_000
    test_pairs: int = 100_000
    seed: int = 0
    overlap: str = ""
    exif: bool = True
    folds: int = 0
    merge: bool = False

    def needs(self, root):
        paths = [root / f"{name}.csv" for name in FILES]
        if not any(path.is_file() or path.with_suffix(".parquet").is_file() for path in paths):
            return [rankbench.Need(root / " or ".join(path.name for path in paths), False, GET)]
        files = [file for path in paths for file in (path, path.with_suffix(".parquet")) if file.is_file()]
        everything = rankbench.Need(root, True, GET)  # with all that lies in it, so that a changed image is noticed
        return [*(rankbench.Need(file, True, GET) for file in files), everything]

    def counts(self, root):
        data = read(root)
        return respelled(data.images, data.files)

    def problems(self, root):
        data = read(root)
        for facets in self._facets(data):
            yield self._build(data, facets)

    def problem(self, root, facets):
        data = read(root)
        if dict(facets) not in self._facets(data):
            known = ", ".join(str(one) for one in self._facets(data)[:5])
            raise rankbench.DataError(f"{root}: no problem has the facets {dict(facets)}. There are: {known} …")
        return self._build(data, facets)

    def _facets(self, data):
        kinds = np.unique(data.pairs.attribute).tolist() if data.pairs and data.pairs.attribute is not None else None
        facets = [{}] if kinds is None else [{"attribute": kind} for kind in kinds]
        if data.pairs is None and "score" not in data.images.columns:
            return facets
        if data.images.split is not None or (data.pairs and data.pairs.split is not None):
            return facets
        given = data.given_folds
        if given is not None:
            names = np.unique(given.astype(str)).tolist()
            if len(names) < 2:
                raise rankbench.DataError(f"{data.root}: there is only the fold {names[0]!r}; give two or more.")
            return [{**one, "fold": name} for one in facets for name in names]
        if self.folds:
            if not 2 <= self.folds <= len(data.images.paths):
                raise rankbench.DataError(f"manifest: folds is {self.folds}; give 2 or more, at most one an image.")
            return [{**one, "fold": number} for one in facets for number in range(self.folds)]
        if self.splits < 1 or not 0 < self.test_share < 1:
            raise rankbench.DataError(
                f"manifest: splits is {self.splits} and test_share {self.test_share}; the images have no split of "
                "their own, so one random split or more is needed, with a share between 0 and 1."
            )
        return [{**one, "split": split} for one in facets for split in range(self.splits)]

    def _sides(self, data, facets, rng):
        """(images,) the split of each image, or None where pairs.csv says it of the pairs."""
        count = len(data.images.paths)
        if "split" in facets:
            split = np.full(count, "train", object)
            split[split_images(count, self.test_share, rng)[1]] = "test"
            return split
        if "fold" not in facets:
            return data.images.split
        if data.pairs and data.pairs.fold is not None:
            return None
        fold = data.images.fold
        if fold is None:
            fold = np.empty(count, np.int64)
            for number, part in enumerate(np.array_split(seeded(self.seed).permutation(count), self.folds)):
                fold[part] = number
        return np.where(fold == facets["fold"], "test", "train").astype(object)

    def _build(self, data, facets):
        listed = data.images
        there = np.array([file is not None for file in data.files])
        images = rankbench.Images(
            [data.root / file for file in data.files if file is not None],
            names=[name for name, here in zip(listed.names, there, strict=True) if here],
            columns={name: values[there] for name, values in listed.columns.items()},
            exif=self.exif,
        )
        rng = seeded(self.seed, facets.get("split", 0))
        split = self._sides(data, facets, rng)
        train_images = np.flatnonzero(split == "train") if split is not None else None
        notes = note_on(there)
        if data.pairs:
            pairs = data.pairs.merged() if self.merge else data.pairs
            parts, dropped = pairs.parts(facets.get("attribute"), split, facets.get("fold"))
            if dropped:
                sides = "a training and a test image" if len(set(split)) == 2 else "images of two splits"
                notes += (
                    f"{dropped} of {dropped + sum(map(len, parts.values()))} pairs join {sides} and were left out",
                )
        elif "score" in listed.columns:
            parts = self._drawn(listed.columns["score"], split, rng)
        else:
            train_images = np.arange(len(there)) if split is None else train_images
            train_images, _ = left_over(train_images, {}, there, data.root, listed.names)
            return rankbench.Problem(images, train_images=train_images, notes=notes)
        where = f"{data.root}" + "".join(f", {key} {value}" for key, value in facets.items())
        check_parts(where, parts, data.judged and misspelt_attribute(data.judged, facets.get("attribute")))
        if not self.overlap:
            check_overlap(where, listed.names, parts, train_images)
        train_images, parts = left_over(train_images, parts, there, where, listed.names)
        return rankbench.Problem(
            images,
            parts.pop("train"),
            parts,
            facets,
            train_images=train_images,
            overlap=self.overlap or None,
            notes=notes,
        )

    def _drawn(self, scores, split, rng):
        """{split: pairs} drawn from the scores, training with ties."""
        wanted = {"train": (self.train_pairs, self.train_ties)}
        return {
            name: pairs_by_score(scores, np.flatnonzero(split == name), *wanted.get(name, (self.test_pairs, 0)), rng)
            for name in np.unique(split.astype(str)).tolist()
        }


def left_over(train_images, parts, there, where, names):
    """Training images (or None) and pairs over the rows of those images that are there."""
    if there.all():
        return train_images, parts
    row = rows_of(there)
    parts = {name: without_lost(pairs, row, where, names) for name, pairs in parts.items()}
    if train_images is not None:
        train_images = row[train_images][row[train_images] >= 0]
    return train_images, parts


def read(root):
    """Both files, read and checked, and where the images lie.

    The files are read once for all problems, unless one of them was written just now.
    MissingData where more images are not there than may be.
    """
    states = tuple(state(root / f"{name}.{kind}") for name in FILES for kind in ("csv", "parquet"))
    data = parsed.__wrapped__(root, states) if any(map(just_written, states)) else parsed(root, states)
    return replace(data, files=located(root, data.images))


@lru_cache(maxsize=1)
def parsed(root, states):
    """Both files, read and checked; `states` tells one version of them from another."""
    tables = {name: Table.find(root, name, columns, REQUIRED[name]) for name, columns in FILES.items()}
    if not any(tables.values()):
        raise rankbench.MissingData(f"{root}: {GET}.")
    if tables["pairs"]:
        check_judgement(tables["pairs"])
    images = Listing.of_images(tables["images"]) if tables["images"] else Listing.of_pairs(tables["pairs"])
    for table in filter(None, tables.values()):
        check_splits(table)
    sided = [table.file.name for table in filter(None, tables.values()) if {"split", "fold"} & set(table.columns)]
    kinds = {name for table in filter(None, tables.values()) for name in ("split", "fold") if name in table.columns}
    if len(kinds) > 1:
        raise rankbench.DataError(f"{root}: {' and '.join(sided)} give a split and a fold. Remove one of the columns.")
    return Data(root, images, tables["pairs"] and Judged.of(tables["pairs"], images), tables["pairs"])


def check_judgement(table):
    """DataError where what was judged is said in no way, or in two."""
    votes = {"votes_left", "votes_right", "votes_tie"} & set(table.columns)
    ways = [name for name in ("label", "winner") if name in table.columns] + ["votes_left"] * bool(votes)
    where = f"{table.file}, {table.unit} 1"
    if not ways:
        raise rankbench.DataError(
            f"{where}: column 'label' is missing; read were {', '.join(table.columns)}. Separate columns by commas; "
            "instead of label there may be winner, or votes_left and votes_right."
        )
    if len(ways) > 1:
        raise rankbench.DataError(f"{where}: {ways[0]} and {ways[1]} both say who won. Remove one of them.")
    if votes and not {"votes_left", "votes_right"} <= votes:
        raise rankbench.DataError(f"{where}: votes need the two columns votes_left and votes_right.")


def check_parts(where, parts, cause):
    """DataError where training or every test lacks pairs, or a test has ties only; `cause` may say why."""
    where = f"{cause} As it stands: {where}" if cause else where
    if not len(parts.get("train", ())):
        names = ", ".join(repr(name) for name in parts if name != "train") or "none"
        raise rankbench.DataError(
            f"{where}: no training pairs. Splits with pairs: {names}; name the one for training 'train'."
        )
    for name, pairs in parts.items():
        if name != "train" and not (len(pairs) and pairs.ordered.any()):
            raise rankbench.DataError(
                f"{where}: test {name!r} has no ordered pair. Give it images that differ, or more of them; a split "
                "column decides which images are for test."
            )
    if len(parts) < 2:
        raise rankbench.DataError(
            f"{where}: no test pairs. Give some pairs (or images) a split such as 'test', or give more pairs."
        )


def check_overlap(where, names, parts, train_images):
    """DataError where an image is in training and in a test."""
    training = touched(parts["train"]) if train_images is None else np.union1d(train_images, touched(parts["train"]))
    for name, pairs in parts.items():
        shared = np.intersect1d(training, touched(pairs))
        if name != "train" and len(shared):
            raise rankbench.DataError(
                f"{where}: {counted(len(shared), 'image')} both in training and in test {name!r} (first: "
                f"{names[shared[0]]}). Split by image, or say in the benchmark file why that is right: "
                'dataset = { name = "manifest", …, overlap = "…" }.'
            )


def touched(pairs):
    return np.union1d(pairs.left, pairs.right)


def check_splits(table):
    """DataError for a split in few lines whose name looks like a misspelt "train"."""
    splits = table.columns.get("split", ())
    counts = Counter(splits)
    for name in counts:
        rare = 10 * counts[name] <= counts["train"]
        if rare and name[0] in "tT" and difflib.get_close_matches(name.lower(), ["train"], cutoff=0.75):
            what = counted(counts[name], table.file.stem.removesuffix("s"))
            raise table.wrong(
                splits.index(name),
                f"split {name!r} ({what}) is taken for a test set. Did you mean 'train'? If not, rename it",
            )


def misspelt_attribute(table, attribute):
    """What to say of an attribute in few lines, named much like one in ten times as many; empty for another."""
    counts = Counter(table.columns.get("attribute", ()))
    common = [name for name, count in counts.items() if count >= 10 * counts[attribute]]
    close = difflib.get_close_matches(str(attribute), common, 1)
    if attribute is None or not close:
        return ""
    line = table.lines[table.columns["attribute"].index(attribute)]
    return (
        f"attribute {attribute!r} has {counted(counts[attribute], 'pair')} ({table.file.name}, line {line}); did you "
        f"mean {close[0]!r} ({counted(counts[close[0]], 'pair')})?"
    )


@dataclass(frozen=True)
class Data:
    """Both files, read and checked; `pairs` and the table `judged` they come from are None without pairs.csv.

    `files` are those of the images, below `root`; None for one that is not there.
    """

    root: object
    images: object
    pairs: object
    judged: object
    files: object = None

    @property
    def given_folds(self):
        """Fold names of the pairs, else of the images; None where neither file has any."""
        return self.pairs.fold if self.pairs and self.pairs.fold is not None else self.images.fold
