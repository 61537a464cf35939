"""manifest: a user's own images and judgements, read from images.csv and pairs.csv in one folder.

Whatever is wrong with a row is reported with file, line, value and remedy; nothing is skipped silently.
"""

import csv
import difflib
import io
import math
import time
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath

import numpy as np

import rankbench
from rankbench_datasets.sampling import pairs_by_score, seeded, split_images

FILES = {
    "images": ("path", "name", "score", "category", "split"),
    "pairs": ("left", "right", "label", "weight", "attribute", "split"),
}
LABELS = {
    "+1": 1, "1": 1, "1.0": 1, "left": 1,
    "-1": -1, "-1.0": -1, "right": -1,
    "0": 0, "0.0": 0, "tie": 0,
}  # fmt: skip
GET = (
    "there is no images.csv or pairs.csv; make images.csv with the columns path and score (optional: name, category, "
    "split), or pairs.csv with the columns left, right and label, which is 1, -1 or 0 (optional: weight, attribute, "
    "split), or both; paths are relative to this folder"
)


@dataclass(frozen=True)
class Manifest(rankbench.Dataset):
    """Your own images and judgements: images.csv, pairs.csv or both in a folder.

    `images.csv`: path (relative to the folder), and optionally name (unique), score (a number), category, split.
    `pairs.csv`: left, right (a path or name of images.csv, or any path where there is no images.csv), label (1 or left:
    left shows more; -1 or right; 0 or tie), and optionally weight, attribute, split. Comma-separated UTF-8 with one
    header line; other columns are ignored, but not one that looks like a misspelt name.

    Problems: one per attribute of pairs.csv (facet `attribute`), else one. Without pairs.csv, pairs are drawn from the
    scores, inside each split. With neither pairs nor scores the images and their categories are one problem without
    pairs, for features to be fitted on.
    Splits: `split` is "train" for training; every other name is a test set of its own. A split column of pairs.csv goes
    by pairs; one of images.csv goes by images. Where neither file has one, images are split at random, and facet
    `split` = 0, 1, … numbers the splits. Pairs between two sides of a split by images are left out, and a note says
    how many: about a third at random 80:20. A split column that suits the pairs keeps more of them.

    Args: splits, how many random splits; test_share, of the images; train_pairs, train_ties, test_pairs, how many
    pairs are drawn from scores (a number above what there is means all); seed, of splits and draws; overlap, the reason
    why an image may be in training and in a test, where pairs.csv says so; exif, whether EXIF rotation is applied.
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

    def needs(self, root):
        paths = [root / f"{name}.csv" for name in FILES]
        if not any(path.is_file() for path in paths):
            return [rankbench.Need(root / " or ".join(path.name for path in paths), False, GET)]
        return [rankbench.Need(root, True, GET)]  # with all that lies in it, so that a changed image is noticed

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
        if self.splits < 1 or not 0 < self.test_share < 1:
            raise rankbench.DataError(
                f"manifest: splits is {self.splits} and test_share {self.test_share}; the images have no split of "
                "their own, so one random split or more is needed, with a share between 0 and 1."
            )
        return [{**one, "split": split} for one in facets for split in range(self.splits)]

    def _build(self, data, facets):
        listed = data.images
        images = rankbench.Images(
            [data.root / path for path in listed.paths], names=listed.names, columns=listed.columns, exif=self.exif
        )
        split, rng = listed.split, seeded(self.seed, facets.get("split", 0))
        if "split" in facets:
            split = np.full(len(images), "train", object)
            split[split_images(len(images), self.test_share, rng)[1]] = "test"
        train_images = np.flatnonzero(split == "train") if split is not None else None
        notes = ()
        if data.pairs:
            parts, dropped = data.pairs.parts(facets.get("attribute"), split)
            if dropped:
                sides = "a training and a test image" if len(set(split)) == 2 else "images of two splits"
                notes = (
                    f"{dropped} of {dropped + sum(map(len, parts.values()))} pairs join {sides} and were left out",
                )
        elif "score" in listed.columns:
            parts = self._drawn(listed.columns["score"], split, rng)
        else:
            return rankbench.Problem(images, train_images=np.arange(len(images)) if split is None else train_images)
        where = f"{data.root}" + "".join(f", {key} {value}" for key, value in facets.items())
        check_parts(where, parts, data.judged and misspelt_attribute(data.judged, facets.get("attribute")))
        if not self.overlap:
            check_overlap(where, images, parts, train_images)
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


def read(root):
    """Both files, read and checked; once for all problems, unless one of them was written just now."""
    states = tuple(state(root / f"{name}.csv") for name in FILES)
    old = time.time_ns() - 2_000_000_000  # within the step of its clock, a file may change and show the same time
    known = all(one is None or one[0] < old for one in states)
    return parsed(root, states) if known else parsed.__wrapped__(root, states)


def state(file):
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino


@lru_cache(maxsize=1)
def parsed(root, states):
    """Both files, read and checked; `states` tells one version of them from another."""
    tables = {name: Table.read(root / f"{name}.csv", columns) for name, columns in FILES.items()}
    if not any(tables.values()):
        raise rankbench.MissingData(f"{root}: {GET}.")
    images = Listing.of_images(tables["images"]) if tables["images"] else Listing.of_pairs(tables["pairs"])
    images.check_files(root)
    for table in filter(None, tables.values()):
        check_splits(table)
    return Data(root, images, tables["pairs"] and Judged.of(tables["pairs"], images), tables["pairs"])


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


def check_overlap(where, images, parts, train_images):
    """DataError where an image is in training and in a test."""
    training = touched(parts["train"]) if train_images is None else np.union1d(train_images, touched(parts["train"]))
    for name, pairs in parts.items():
        shared = np.intersect1d(training, touched(pairs))
        if name != "train" and len(shared):
            raise rankbench.DataError(
                f"{where}: {counted(len(shared), 'image')} both in training and in test {name!r} (first: "
                f"{images.names[shared[0]]}). Split by image, or say in the benchmark file why that is right: "
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


def counted(number, noun):
    """`1 pair`, `2 pairs`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


@dataclass(frozen=True)
class Data:
    """Both files, read and checked; `pairs` and the table `judged` they come from are None without pairs.csv."""

    root: object
    images: object
    pairs: object
    judged: object


@dataclass(frozen=True)
class Table:
    """One CSV file: columns {name: list of non-empty strings} and the line each row begins on."""

    file: object
    columns: dict
    lines: list

    @classmethod
    def read(cls, file, known):
        """None if the file is not there. DataError for anything that is no table with columns of `known`."""
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise rankbench.DataError(f"{file}: cannot be read ({error.strerror}). Mend that, or remove it.") from error
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            byte = content[error.start : error.start + 1].hex()
            raise rankbench.DataError(f"{file}, line {line}: byte 0x{byte} is not UTF-8. Save it as UTF-8.") from None
        rows, lines, last = [], [], 0
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        try:
            for row in reader:
                if row:
                    rows.append([value.strip() for value in row])
                    lines.append(last + 1)
                last = reader.line_num
        except csv.Error as error:
            raise rankbench.DataError(f"{file}, line {last + 1}: {error}. Check its quotes.") from None
        if len(rows) < 2:
            raise rankbench.DataError(
                f"{file}: has no rows. It needs a header line and a line for each of its {file.stem}."
            )
        header, rows, where = rows[0], rows[1:], lines[0]
        check_header(f"{file}, line {where}", header, known, known[: {"images": 1, "pairs": 3}[file.stem]])
        table = cls(file, {}, lines[1:])
        for k, row in enumerate(rows):
            if len(row) != len(header):
                remedy = "Fill in the rest" if len(row) < len(header) else "Put a value with a comma in quotes"
                raise table.wrong(k, f"{counted(len(row), 'field')} where the header has {len(header)}. {remedy}")
        columns = dict(zip(header, zip(*rows, strict=True), strict=True))
        table.columns.update({name: columns[name] for name in known if name in columns})
        for name, values in table.columns.items():
            if "" in values:
                raise table.wrong(values.index(""), f"{name} is empty. Fill it in, or remove the row")
        return table

    def wrong(self, row, what):
        """The DataError for one row."""
        return rankbench.DataError(f"{self.file}, line {self.lines[row]}: {what}.")

    def array(self, name):
        """(n,) strings, or None without that column."""
        return np.array(self.columns[name], object) if name in self.columns else None

    def numbers(self, name, least=-math.inf):
        """(n,) float64, finite and not below `least`, or None without that column."""
        if name not in self.columns:
            return None
        values = np.empty(len(self.lines))
        for k, text in enumerate(self.columns[name]):
            try:
                values[k] = float(text)
            except ValueError:
                values[k] = math.nan
            if not (math.isfinite(values[k]) and values[k] >= least):
                kind = "a number" if least == -math.inf else f"a number of at least {least}"
                raise self.wrong(k, f"{name} {text!r} is not {kind}. Write it like 0.5, or remove the row")
        return values


def check_header(where, header, known, required):
    for name in header:
        if header.count(name) > 1:
            raise rankbench.DataError(f"{where}: column {name!r} is there twice. Remove one.")
        close = difflib.get_close_matches(name.lower(), [one for one in known if one not in header], 1, cutoff=0.8)
        if name not in known and close:
            raise rankbench.DataError(f"{where}: no column is named {name!r}. Did you mean {close[0]!r}?")
    absent = [name for name in required if name not in header]
    if absent:
        raise rankbench.DataError(
            f"{where}: column {absent[0]!r} is missing; the header is {', '.join(header)}. "
            f"Separate columns by commas; these are read: {', '.join(known)}."
        )


@dataclass(frozen=True)
class Listing:
    """The images in the order of their paths, so that the order of lines changes nothing.

    Attributes: paths, relative; names, or None; columns (score, category); split (n,) or None; row_of, where a path or
    name of the file is; table and order, which line each image came from.
    """

    paths: list
    names: list
    columns: dict
    split: object
    row_of: dict
    table: object
    order: object

    @classmethod
    def of_images(cls, table):
        texts = table.columns["path"]
        paths = [plain(text) for text in texts]
        check_unique(table, "path", paths)
        names = table.columns.get("name", texts)
        check_unique(table, "name", names)
        row_of = {path: k for k, path in enumerate(paths)}
        for k, name in enumerate(names):
            if row_of.setdefault(name, k) != k and "name" in table.columns:
                other = table.lines[row_of[name]]
                raise table.wrong(k, f"name {name!r} is the path of line {other}. Give it a name of its own")
        order = np.array(sorted(range(len(paths)), key=paths.__getitem__))
        place = np.argsort(order)
        columns = {"score": table.numbers("score"), "category": table.array("category")}
        split = table.array("split")
        return cls(
            [paths[k] for k in order],
            [names[k] if "name" in table.columns else paths[k] for k in order],
            {name: values[order] for name, values in columns.items() if values is not None},
            None if split is None else split[order],
            {key: int(place[k]) for key, k in row_of.items()},
            table,
            order,
        )

    @classmethod
    def of_pairs(cls, table):
        seen = {}
        for k, texts in enumerate(zip(table.columns["left"], table.columns["right"], strict=True)):
            for text in texts:
                seen.setdefault(text, k)
        first = {}
        for text, k in seen.items():
            first.setdefault(plain(text), k)
        paths = sorted(first)
        row_of = {path: k for k, path in enumerate(paths)}
        return cls(paths, paths, {}, None, row_of, table, [first[path] for path in paths])

    def check_files(self, root):
        """DataError if image files are not there: how many, and the first line that lists one."""
        missing = [k for k, path in enumerate(self.paths) if not (root / path).is_file()]
        if missing:
            line, path = min((self.order[k], self.paths[k]) for k in missing)
            raise self.table.wrong(
                line,
                f"image {path!r} is not in {root} ({len(missing)} of {counted(len(self.paths), 'listed image')} not "
                "there). Put it there, or correct its path",
            )


def plain(path):
    """One spelling of a relative path: ./a//b.png is a/b.png."""
    return PurePosixPath(path).as_posix()


def check_unique(table, column, values):
    seen = {}
    for k, value in enumerate(values):
        if seen.setdefault(value, k) != k:
            raise table.wrong(k, f"{column} {value!r} is already in line {table.lines[seen[value]]}. Remove one")


@dataclass(frozen=True)
class Judged:
    """The pairs as arrays (m,): rows of the images, labels, and weight, attribute, split or None."""

    left: np.ndarray
    right: np.ndarray
    label: np.ndarray
    weight: object
    attribute: object
    split: object

    @classmethod
    def of(cls, table, images):
        left, right = (cls._rows(table, images, side) for side in ("left", "right"))
        same = np.flatnonzero(left == right)
        if len(same):
            value = table.columns["left"][same[0]]
            raise table.wrong(same[0], f"{value!r} is paired with itself. Remove the row")
        label = [LABELS.get(text.lower()) for text in table.columns["label"]]
        if None in label:
            text = table.columns["label"][label.index(None)]
            raise table.wrong(
                label.index(None),
                f"label {text!r} is unknown. Write 1 or left where left shows more, -1 or right, 0 or tie",
            )
        weight = table.numbers("weight", least=0)
        return cls(left, right, np.array(label, np.int8), weight, table.array("attribute"), table.array("split"))

    @staticmethod
    def _rows(table, images, side):
        texts = table.columns[side]
        row_of = {text: images.row_of.get(text, images.row_of.get(plain(text))) for text in set(texts)}
        rows = [row_of[text] for text in texts]
        if None in rows:
            k = rows.index(None)
            remedy = "Add it to images.csv, or correct it" + nearest(texts[k], images.row_of)
            raise table.wrong(k, f"{side} image {texts[k]!r} is no path or name in images.csv. {remedy}")
        return np.array(rows)

    def parts(self, attribute, split):
        """{split name: Pairs} of one attribute (None: all pairs), and how many pairs lie between two splits.

        A split column of pairs.csv rules; else `split` (images,) does.
        """
        rows = np.arange(len(self.left)) if attribute is None else np.flatnonzero(self.attribute == attribute)
        if self.split is not None:
            part = self.split[rows]
        else:
            inside = split[self.left[rows]] == split[self.right[rows]]
            dropped = int((~inside).sum())
            rows = rows[inside]
            part = split[self.left[rows]]
        names = np.unique(part.astype(str)).tolist()
        return {name: self._pairs(rows[part == name]) for name in names}, 0 if self.split is not None else dropped

    def _pairs(self, rows):
        weight = None if self.weight is None else self.weight[rows]
        return rankbench.Pairs(self.left[rows], self.right[rows], self.label[rows], weight)


def nearest(text, known):
    """` (did you mean …?)`; searched only among the first few thousand, as it is slow."""
    close = difflib.get_close_matches(text, list(known)[:5000], 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
