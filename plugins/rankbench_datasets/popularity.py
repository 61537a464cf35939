"""popularity: photographs by how often they were viewed, from a manifest, in the three settings of the paper."""

import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

import rankbench
from rankbench_datasets.listed_images import images_need, lacking, names_there, pictures
from rankbench_datasets.manifest_tables import counted
from rankbench_datasets.sampling import pairs_by_score, seeded, split_images
from rankbench_datasets.tables import just_written, state

FEWEST = 4  # images of a problem: a pair on either side
COLUMNS = ("image", "user", "score", "views", "days")
GET_IMAGES = "the photographs that popularity.csv names, as images/<image>"
GET = (
    "write popularity.csv with the columns image, user and score, or image, user, views and days; images are paths "
    "below images/. No file of the published collection could be confirmed (popularity.csail.mit.edu): its images are "
    "fetched from Flickr by id, each under its owner's licence"
)


@dataclass(frozen=True)
class Popularity(rankbench.Dataset):
    """Photographs by popularity, from popularity.csv: one a user, all users mixed, or each user apart.

    Source: Khosla, Das Sarma & Hamid, "What makes an image popular?", WWW 2014; settings, Dubey & Agarwal, ACM MM 2017.
    Licence: each photograph's own; nothing is distributed.
    Layout: `popularity/popularity.csv` with the columns image, user and score, or image, user, views and days (then the
    score is log2(views / days + 1)), other columns are ignored; and `popularity/images/<image>`. Without the folder of
    images, rows that read no pixels run. Images that are not there are left out, and a note says how many.
    Protocol: `one-per-user` draws an image of each user; `user-mix` takes all; both are split 50:50 by image. In
    `user-specific` each user is a problem (facet `user`), and a column averages them; users with fewer than
    `min_images` are left out. Facet `split` numbers the random splits. 50,000 training and 20,000 test pairs are drawn
    inside each side; equal scores make no pair. A problem depends on its own images alone, not on their order.
    Known problems: the paper states neither how pairs were made nor how many, nor the split; its labels are said to be
    upvotes, Khosla's are views by days online. 930 thousand images of 400 thousand users are more than one a user.

    Args: setting; splits; train_pairs and test_pairs, how many are drawn (more than there are: all); min_gap, pairs
        whose scores differ by less are not drawn; test_share; min_images; seed, of all draws.
    """

    setting: Literal["one-per-user", "user-mix", "user-specific"] = "user-mix"
    splits: int = 3
    train_pairs: int = 50_000
    test_pairs: int = 20_000
    min_gap: float = 0.0
    test_share: float = 0.5
    min_images: int = 20
    seed: int = 0

    folder = "popularity"
    get = GET

    def __post_init__(self):
        if self.splits < 1 or not 0 < self.test_share < 1 or not self.min_gap >= 0 or self.seed < 0:
            raise rankbench.DataError(
                "popularity: splits is at least 1, test_share between 0 and 1, min_gap and seed not negative."
            )

    def needs(self, root):
        file, images = root / "popularity.csv", root / "images"

        def listed():
            """None where the manifest is not there or wrong, which `problem` reports."""
            try:
                data = read(root)
            except rankbench.DataError:
                return []
            return data.names(slice(None))

        return [rankbench.Need(file, file.is_file(), GET), images_need(images, listed, GET_IMAGES)]

    def facets(self, root):
        splits = [{"split": split} for split in range(self.splits)]
        if self.setting != "user-specific":
            return splits
        data = read(root)
        chosen = [user for user, rows in zip(data.users, data.rows, strict=True) if len(rows) >= self.min_images]
        if not chosen:
            raise rankbench.DataError(f"{root / 'popularity.csv'}: no user has {self.min_images} images or more.")
        return [{"user": user, **split} for user in sorted(chosen) for split in splits]

    def problem(self, root, facets):
        data, split = read(root), facets.get("split")
        wanted = {"split"} | ({"user"} if self.setting == "user-specific" else set())
        if set(facets) != wanted or split not in range(self.splits):
            raise rankbench.DataError(f"popularity ({self.setting}) has no problem {dict(facets)}.")
        rows, note = self._rows(data, facets, root)
        key = (self.seed, split, *([zlib.crc32(facets["user"].encode())] if "user" in facets else []))
        rng = seeded(*key)
        if len(rows) < FEWEST:
            raise rankbench.DataError(
                f"{root / 'popularity.csv'}: {len(rows)} images for {dict(facets)}; give {FEWEST} or more."
            )
        train, test = (rows[part] for part in split_images(len(rows), self.test_share, rng))
        train = pairs_by_score(data.score, train, self.train_pairs, 0, rng, self.min_gap)
        test = pairs_by_score(data.score, test, self.test_pairs, 0, rng, self.min_gap)
        if not len(train) or not len(test):
            raise rankbench.DataError(
                f"{root / 'popularity.csv'}: too few different scores for {dict(facets)}: no pair can be drawn."
            )
        used = np.unique(np.concatenate([train.left, train.right, test.left, test.right]))
        position = np.full(len(data.score), -1, np.int32)
        position[used] = np.arange(len(used))
        return rankbench.Problem(
            self._images(root, data, used), train.reindexed(position), test.reindexed(position), facets, notes=note
        )

    def _rows(self, data, facets, root):
        """Rows that the setting is about and whose images are there, and a note on those that are not."""
        if self.setting == "user-specific":
            if facets["user"] not in data.number:
                raise rankbench.DataError(f"{root / 'popularity.csv'}: has no user {facets['user']!r}.")
            rows = data.rows[data.number[facets["user"]]]
        else:
            rows = np.arange(len(data.score))
        names = data.names(rows)
        there, note = names_there(root / "images", names)
        if there.sum() < FEWEST <= len(rows):
            raise rankbench.MissingData(f"{root / 'images'}: {lacking(names, there)}. Get {GET_IMAGES}.")
        rows = rows[there]
        if self.setting == "one-per-user":
            rng = seeded(self.seed, facets["split"], 1)
            rows = rows[np.argsort(rng.random(len(rows)), kind="stable")]
            rows = np.sort(rows[np.unique(data.user[rows], return_index=True)[1]])
        return rows, note

    def _images(self, root, data, rows):
        return pictures(root / "images", data.names(rows), columns={"score": data.score[rows]})

    def counts(self, root):
        data = read(root)
        sizes = np.array([len(rows) for rows in data.rows])
        return [
            rankbench.Count("images listed", len(data.score)),
            rankbench.Count("users", len(data.users)),
            rankbench.Count(f"users with {self.min_images} images or more", int((sizes >= self.min_images).sum())),
        ]

    def downloads(self, root):
        if all(need.found for need in self.needs(root)):
            return []
        raise rankbench.DataError(f"nothing of popularity may be downloaded: {GET}.")


@dataclass(frozen=True)
class Manifest:
    """popularity.csv, in the order of the image names.

    Attributes: image (n,) UTF-8 bytes; user (n,) number of each user; score (n,) float64; users [u] names, ascending;
        rows [u], the images of each user; number {user: its number}.
    """

    image: np.ndarray
    user: np.ndarray
    score: np.ndarray
    users: list
    rows: list
    number: dict

    def names(self, rows):
        return [name.decode() for name in self.image[rows].tolist()]


def read(root):
    """The manifest, read and checked; once for all problems, unless it was written just now."""
    path = root / "popularity.csv"
    if not path.is_file():
        raise rankbench.MissingData(f"{path}: not found: {GET}.")
    known = state(path)
    return parsed.__wrapped__(path, known) if just_written(known) else parsed(path, known)


@lru_cache(maxsize=1)
def parsed(path, _state):
    """The manifest; `_state` tells one version of the file from another."""
    table = as_frame(path)
    image = encoded(table["image"])
    order = np.argsort(image, kind="stable")
    again = np.flatnonzero(image[order][1:] == image[order][:-1])
    if len(again):
        first, second = sorted(order[again[0] : again[0] + 2].tolist())
        raise rankbench.DataError(
            f"{path}, line {line_of(path, second)}: image {image[first].decode()!r} is already in line "
            f"{line_of(path, first)}. Remove one of the rows."
        )
    codes, names = table["user"].cat.codes.to_numpy(), table["user"].cat.categories.astype(str)
    rank = np.argsort(np.argsort(names.to_numpy(dtype=str), kind="stable"), kind="stable")
    user = rank[codes][order].astype(np.int32)
    users = sorted(names)
    by_user = np.argsort(user, kind="stable")
    rows = np.split(by_user, np.cumsum(np.bincount(user, minlength=len(users)))[:-1])
    return Manifest(image[order], user, score_of(path, table)[order], users, rows, {u: k for k, u in enumerate(users)})


def encoded(column):
    """(n,) UTF-8 bytes of a column of strings, a quarter of what NumPy's own strings take."""
    return np.array([text.encode() for text in column.array])


def as_frame(path):
    """The known columns of the file. DataError for a header or a line that is wrong."""
    import difflib

    import pandas as pd

    try:
        header = list(pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns)
    except UnicodeDecodeError as error:
        raise rankbench.DataError(f"{path}: is not UTF-8 ({error}). Save it as UTF-8.") from error
    except ValueError as error:
        raise rankbench.DataError(f"{path}: cannot be read as a table ({error}). {GET}.") from error
    for name in header:
        close = difflib.get_close_matches(name.strip().lower(), [one for one in COLUMNS if one not in header], 1, 0.75)
        if name not in COLUMNS and close:
            raise rankbench.DataError(f"{path}, line 1: no column is named {name!r}. Did you mean {close[0]!r}?")
    check_fields(path, len(header))
    scored = "score" in header
    wanted = ["image", "user", *(["score"] if scored else ["views", "days"])]
    absent = [name for name in wanted if name not in header]
    if absent:
        raise rankbench.DataError(
            f"{path}, line 1: column {absent[0]!r} is missing; there are {', '.join(header)}. {GET}."
        )
    kinds = {"image": str, "user": "category"}
    numbers = dict.fromkeys(wanted[2:], np.float64)
    how = {"usecols": wanted, "encoding": "utf-8-sig", "engine": "c", "keep_default_na": False, "na_values": []}
    try:
        table = pd.read_csv(path, dtype=kinds | numbers, **how)
    except UnicodeDecodeError as error:
        raise rankbench.DataError(f"{path}: is not UTF-8 ({error}). Save it as UTF-8.") from error
    except ValueError as error:
        raise first_wrong(path, wanted, how, error) from error
    if not len(table):
        raise rankbench.DataError(f"{path}: has no rows.")
    for name in ("image", "user"):
        empty = np.flatnonzero((table[name].astype(str) if name == "user" else table[name]).to_numpy() == "")
        if len(empty):
            line = line_of(path, empty[0])
            raise rankbench.DataError(f"{path}, line {line}: {name} is empty. Fill it in, or remove the row.")
    if not pd.api.types.is_string_dtype(table["user"].cat.categories):
        table["user"] = table["user"].cat.rename_categories(table["user"].cat.categories.astype(str))
    return table


def rows_with_lines(path):
    """The number of each line that is not blank, and its fields; the header first."""
    import csv

    with open(path, encoding="utf-8-sig", newline="") as lines:
        reader, before = csv.reader(lines), 0
        for row in reader:
            if len(row) > 1 or "".join(row).strip():
                yield before + 1, row
            before = reader.line_num


def line_of(path, row):
    """The line on which row `row` of the table begins, counted from 0; blank lines and quoted line ends count."""
    return next(line for number, (line, _) in enumerate(rows_with_lines(path)) if number == row + 1)


def check_fields(path, wanted):
    """DataError for a row with another number of fields than the header: pandas takes one with more for whole."""
    import csv

    try:
        with open(path, encoding="utf-8-sig", newline="") as lines:
            sizes = set(map(len, csv.reader(lines)))  # one pass without a loop of ours: a million rows a second
        if sizes <= {0, wanted}:
            return
        line, row = next(((line, row) for line, row in rows_with_lines(path) if len(row) != wanted), (0, []))
    except UnicodeDecodeError as error:
        raise rankbench.DataError(f"{path}: is not UTF-8 ({error}). Save it as UTF-8.") from error
    except csv.Error as error:
        raise rankbench.DataError(f"{path}: cannot be read as a table ({error}). Check its quotes.") from error
    if line:
        remedy = "Fill in the rest" if len(row) < wanted else "Put a value with a comma in quotes"
        fields = counted(len(row), "field")
        raise rankbench.DataError(f"{path}, line {line}: {fields} where the header has {wanted}. {remedy}.")


def first_wrong(path, wanted, how, error):
    """The DataError for the first line that has no number where one belongs."""
    import pandas as pd

    try:
        texts = pd.read_csv(path, dtype=str, **how)
    except ValueError:
        return rankbench.DataError(f"{path}: {error}. Check that line's commas and quotes.")
    for name in wanted[2:]:
        bad = np.flatnonzero(pd.to_numeric(texts[name], errors="coerce").isna().to_numpy())
        if len(bad):
            return rankbench.DataError(
                f"{path}, line {line_of(path, bad[0])}: {name} {texts[name].iloc[bad[0]]!r} is not a number. Write it "
                "like 0.5, or remove the row."
            )
    return rankbench.DataError(f"{path}: {error}.")


def score_of(path, table):
    """(n,) the score column, or log2(views / days + 1)."""
    checks = [("score", -np.inf, "finite")] if "score" in table else [("views", 0, "0 or more"), ("days", 0, "above 0")]
    for name, least, what in checks:
        values = table[name].to_numpy()
        bad = np.flatnonzero(~np.isfinite(values) | (values < least) | ((values == 0) & (name == "days")))
        if len(bad):
            raise rankbench.DataError(
                f"{path}, line {line_of(path, bad[0])}: {name} is {values[bad[0]]:g}; it must be {what}. Correct it, "
                "or remove the row."
            )
    if "score" in table:
        return table["score"].to_numpy(dtype=np.float64)
    return np.log2(table["views"].to_numpy() / table["days"].to_numpy() + 1)
