"""Photographs of market stalls: images.csv, pairs.csv and a folder of images."""

import csv
from dataclasses import dataclass

import numpy as np

import rankbench

ATTRIBUTES = ("busy", "bright")
SPLITS = ("train", "near", "far")


@dataclass(frozen=True)
class Market(rankbench.Dataset):
    """Judged pairs of market stalls, with the votes of five passers-by.

    images.csv: name, category, and a score for each attribute. pairs.csv: attribute, split, left, right (names), label,
    agreement, votes_left, votes_right. `released` are colors the authors published for every image. Protocol: of each
    attribute, train on `train`; judge on `near` and `far`. Images without pairs are for training on scores.
    """

    minimum_agreement: float = 0.0  # share of votes, in [0, 1]
    ties: bool = rankbench.added_later(True, old=True)

    get = "Ask the authors for market.zip and unpack it there."

    def needs(self, root):
        tables = [rankbench.Need(root / name, (root / name).exists(), self.get) for name in ("images.csv", "pairs.csv")]
        return [*tables, rankbench.Need(root / "images", (root / "images").is_dir(), self.get, images=True)]

    def facets(self, root):
        return [{"attribute": attribute} for attribute in ATTRIBUTES]

    def problem(self, root, facets):
        listed = rows_of(root / "images.csv")
        names = [row["name"] for row in listed]
        columns = {
            "score": np.array([float(row[facets["attribute"]]) for row in listed]),
            "category": np.array([row["category"] for row in listed]),
        }
        inputs = {"released": np.array([[float(row[c]) for c in ("red", "green", "blue")] for row in listed])}
        if (root / "images").is_dir():
            paths = [root / "images" / name for name in names]
            images = rankbench.Images(paths, names=names, columns=columns, inputs=inputs)
        else:
            images = rankbench.Images.from_names(names, columns=columns, inputs=inputs)
        judged = [row for row in rows_of(root / "pairs.csv") if row["attribute"] == facets["attribute"]]
        position = {name: at for at, name in enumerate(names)}
        splits = {split: self._pairs([row for row in judged if row["split"] == split], position) for split in SPLITS}
        spare = [at for at, row in enumerate(listed) if row["split"] == "spare"]
        return rankbench.Problem(images, splits.pop("train"), splits, facets, train_images=spare)

    def _pairs(self, rows, position):
        kept = [row for row in rows if float(row["agreement"]) >= self.minimum_agreement]
        kept = [row for row in kept if self.ties or row["label"] != "0"]
        votes = np.array([[int(row["votes_left"]), int(row["votes_right"])] for row in kept])
        return rankbench.Pairs(
            [position[row["left"]] for row in kept],
            [position[row["right"]] for row in kept],
            [int(row["label"]) for row in kept],
            weight=[float(row["agreement"]) for row in kept],
            columns={"agreement": [float(row["agreement"]) for row in kept], "lead": votes[:, 0] - votes[:, 1]},
            inputs={"votes": votes},
            sided={"lead": "negate", "votes": "swap"},
        )


@dataclass(frozen=True)
class Sizes(rankbench.Dataset):
    """Squares named in sizes.csv (split, side), drawn on noise: the least a dataset needs to say."""

    pixels: int = 24
    get = "Write sizes.csv with the columns split and side."

    def problems(self, root):
        listed = rows_of(root / "sizes.csv")
        sides = np.array([int(row["side"]) for row in listed])
        images = rankbench.Images.from_arrays(
            [square(side, self.pixels, row) for row, side in enumerate(sides)], columns={"score": sides}
        )
        for noise in (0, 1):
            splits = {}
            for split in ("train", "test"):
                rows = np.array([at for at, row in enumerate(listed) if row["split"] == split])
                a, b = np.triu_indices(len(rows), 1)
                gap = np.sign(sides[rows[a]] - sides[rows[b]])
                gap[:: 7 if noise and split == "train" else len(gap) + 1] *= -1
                splits[split] = rankbench.Pairs(rows[a], rows[b], gap)
            yield rankbench.Problem(images, splits.pop("train"), splits, facets={"noise": noise})


@dataclass(frozen=True)
class Categories(rankbench.Dataset):
    """Colored tiles with a category and no pairs: data for a feature to be fitted on."""

    tiles: int = 12
    folder = ""

    def problems(self, root):
        rng = np.random.default_rng(3)
        arrays = [rng.integers(0, 256, (8, 8, 3), dtype=np.uint8) for _ in range(self.tiles)]
        for at, array in enumerate(arrays):
            array[..., at % 3] = 255
        category = [("reds", "greens", "blues")[at % 3] for at in range(self.tiles)]
        yield rankbench.Problem(rankbench.Images.from_arrays(arrays, columns={"category": category}))


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def square(side, size, seed):
    pixels = np.random.default_rng(seed).integers(0, 96, (size, size, 3), dtype=np.uint8)
    pixels[:side, :side] += 128
    return pixels
