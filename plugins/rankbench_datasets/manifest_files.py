"""What a manifest's tables say: the images in the order of their paths, and the pairs as arrays."""

from dataclasses import dataclass

import numpy as np

import rankbench
from rankbench_datasets.manifest_places import Several, Spellings, check_inside, look, plain
from rankbench_datasets.manifest_tables import nearest

LABELS = {
    "+1": 1, "1": 1, "1.0": 1, "left": 1,
    "-1": -1, "-1.0": -1, "right": -1,
    "0": 0, "0.0": 0, "tie": 0,
}  # fmt: skip
SIDES = {"left": 1, "right": -1, "tie": 0}


@dataclass(frozen=True)
class Listing:
    """The images in the order of their paths, so that the order of lines changes nothing.

    Attributes: paths, relative; texts, all that the file writes for each; names; columns (score, category); split and
    fold (n,) or None; rows, which image a path or name means; table and order, which line each image came from.
    """

    paths: list
    texts: list
    names: list
    columns: dict
    split: object
    fold: object
    rows: object
    table: object
    order: object

    @classmethod
    def of_images(cls, table):
        check_inside(table, "path")
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
        split, fold = table.array("split"), table.array("fold")
        return cls(
            [paths[k] for k in order],
            [(texts[k],) for k in order],
            [names[k] if "name" in table.columns else paths[k] for k in order],
            {name: values[order] for name, values in columns.items() if values is not None},
            None if split is None else split[order],
            None if fold is None else fold[order],
            Spellings({key: int(place[k]) for key, k in row_of.items()}),
            table,
            order,
        )

    @classmethod
    def of_pairs(cls, table):
        for side in ("left", "right"):
            check_inside(table, side)
        seen = {}
        for k, texts in enumerate(zip(table.columns["left"], table.columns["right"], strict=True)):
            for text in texts:
                seen.setdefault(text, k)
        alike = {}
        for text in seen:
            alike.setdefault(look(text), []).append(text)  # what looks the same is one image
        groups = {plain(texts[0]): texts for texts in alike.values()}
        paths = sorted(groups)
        rows = Spellings({text: k for k, path in enumerate(paths) for text in groups[path]})
        return cls(
            paths, [groups[path] for path in paths], paths, {}, None, None, rows, table,
            [seen[groups[path][0]] for path in paths],
        )  # fmt: skip


def check_unique(table, column, values):
    seen = {}
    for k, value in enumerate(values):
        if seen.setdefault(value, k) != k:
            raise table.wrong(k, f"{column} {value!r} is already in line {table.lines[seen[value]]}. Remove one")


@dataclass(frozen=True)
class Judged:
    """The pairs as arrays (m,): rows of images, labels, and weight, attribute, split, fold, votes (m, 3) or None."""

    left: np.ndarray
    right: np.ndarray
    label: np.ndarray
    weight: object
    attribute: object
    split: object
    fold: object
    votes: object

    @classmethod
    def of(cls, table, images):
        left, right = (cls._rows(table, images, side) for side in ("left", "right"))
        same = np.flatnonzero(left == right)
        if len(same):
            value = table.columns["left"][same[0]]
            raise table.wrong(same[0], f"{value!r} is paired with itself. Remove the row")
        votes = votes_of(table)
        label = majority(votes) if votes is not None else labels_of(table, left, right, images)
        weight = table.numbers("weight", least=0)
        several = (table.array(name) for name in ("attribute", "split", "fold"))
        return cls(left, right, np.array(label, np.int8), weight, *several, votes)

    @staticmethod
    def _rows(table, images, side):
        texts = table.columns[side]
        row_of = {}
        for k, text in enumerate(texts):
            if text not in row_of:
                row_of[text] = row_in(table, images, k, f"{side} image", text)
            if row_of[text] is None:
                remedy = "Add it to images.csv, or correct it" + nearest(text, images.rows.values)
                raise table.wrong(k, f"{side} image {text!r} is no path or name in images.csv. {remedy}")
        rows = [row_of[text] for text in texts]
        return np.array(rows)

    def merged(self):
        """One pair for all lines about the same two images (and attribute, split and fold), in either order: majority.

        A line without votes is one vote. The lower row is left, and pairs are in the order of their rows.
        """
        votes = self.votes if self.votes is not None else np.eye(3, dtype=np.int64)[np.array([2, 0, 1])[self.label]]
        turned = self.left > self.right
        votes = np.where(turned[:, None], votes[:, [1, 0, 2]], votes)
        low, high = np.minimum(self.left, self.right), np.maximum(self.left, self.right)
        several = [one for one in (self.attribute, self.split, self.fold) if one is not None]
        code = low.astype(np.int64) * (int(high.max()) + 1) + high
        for one in several:
            values, place = np.unique(one.astype(str), return_inverse=True)
            code = np.unique(code, return_inverse=True)[1] * len(values) + place
        _, first, group = np.unique(code, return_index=True, return_inverse=True)
        total = np.zeros((len(first), 3), np.int64)
        np.add.at(total, group.ravel(), votes)
        kept = (None if one is None else one[first] for one in (self.attribute, self.split, self.fold))
        weight = None if self.weight is None else np.bincount(group.ravel(), self.weight)
        return Judged(low[first], high[first], majority(total), weight, *kept, total)

    def parts(self, attribute, split, fold=None):
        """{split name: Pairs} of one attribute (None: all pairs), and how many pairs lie between two splits.

        A split column of pairs.csv rules, or its fold column, of which `fold` is the test; else `split` (images,) does.
        """
        rows = np.arange(len(self.left)) if attribute is None else np.flatnonzero(self.attribute == attribute)
        dropped = 0
        if self.split is not None:
            part = self.split[rows]
        elif self.fold is not None:
            part = np.where(self.fold[rows] == fold, "test", "train")
        else:
            inside = split[self.left[rows]] == split[self.right[rows]]
            dropped = int((~inside).sum())
            rows = rows[inside]
            part = split[self.left[rows]]
        names = np.unique(part.astype(str)).tolist()
        return {name: self._pairs(rows[part == name]) for name in names}, dropped

    def _pairs(self, rows):
        weight = None if self.weight is None else self.weight[rows]
        votes = {} if self.votes is None else {"votes": self.votes[rows]}
        sided = dict.fromkeys(votes, "swap")
        return rankbench.Pairs(self.left[rows], self.right[rows], self.label[rows], weight, columns=votes, sided=sided)


def votes_of(table):
    """(m, 3) votes for left, right and tie; None without such columns."""
    if "votes_left" not in table.columns:
        return None
    columns = [table.numbers(f"votes_{side}", least=0, whole=True) for side in ("left", "right", "tie")]
    votes = np.stack([np.zeros(len(table.lines)) if one is None else one for one in columns], axis=1)
    none = np.flatnonzero(~votes.any(axis=1))
    if len(none):
        raise table.wrong(none[0], "nobody voted. Correct the votes, or remove the row")
    return votes.astype(np.int64)


def majority(votes):
    """(m,) the side with more votes; a tie where neither has, or where most voted for a tie."""
    sides = np.sign(votes[:, 0] - votes[:, 1])
    return np.where(votes[:, 2] > np.maximum(votes[:, 0], votes[:, 1]), 0, sides).astype(np.int8)


def labels_of(table, left, right, images):
    """(m,) labels, from `label` or from the name of the `winner`."""
    if "label" in table.columns:
        label = [LABELS.get(text.lower()) for text in table.columns["label"]]
        if None in label:
            text = table.columns["label"][label.index(None)]
            raise table.wrong(
                label.index(None),
                f"label {text!r} is unknown. Write 1 or left where left shows more, -1 or right, 0 or tie",
            )
        return label
    label = []
    for k, text in enumerate(table.columns["winner"]):
        row = row_in(table, images, k, "winner", text)
        if row not in (left[k], right[k]) and text.lower() not in SIDES:
            both = " nor ".join(repr(table.columns[side][k]) for side in ("left", "right"))
            raise table.wrong(
                k, f"winner {text!r} is neither {both}, left, right or tie. Correct it, or remove the row"
            )
        label.append(1 if row == left[k] else -1 if row == right[k] else SIDES[text.lower()])
    return label


def row_in(table, images, k, what, text):
    """The row of the image that a name means, None where it means none; DataError where it may mean two."""
    try:
        return images.rows.find(text)
    except Several as several:
        raise table.wrong(k, f"{what} {text!r} {several}") from None
