"""Plugins that write down what they do, for the tests of the core's services; processes import them by name."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import rankbench
from rankbench.plugin import Features
from rankbench.registry import Registry
from rankbench.services import CellRun, Fitting, Services


def write(log, line):
    """One line, whole even where several processes write."""
    if log:
        with open(log, "a") as file:
            file.write(f"{line}\n")


def lines(log):
    return Path(log).read_text().splitlines() if Path(log).exists() else []


@dataclass(frozen=True)
class Level(rankbench.Feature):
    """Mean, and how many images came at once."""

    log: str = ""
    size: int = 4
    wait: float = 0
    bad: str = ""
    cells: list | None = None

    @property
    def batch_size(self):
        return self.size

    def extract(self, images, run):
        import time

        time.sleep(self.wait)
        rows = []
        for image in images:
            write(self.log, int(image[0, 0, 0]))
            rows.append([image.mean(), len(images), 3])
        found = np.array(rows, dtype=np.float32)
        if self.bad == "nan":
            found[found[:, 0] > 100, 0] = np.nan
        if self.bad == "wide" and found[0, 0] > 100:
            return np.repeat(found, 2, axis=1)
        if self.bad == "masked":
            return np.ma.array(found, mask=found > 100)
        return {"double": found.astype(float), "flat": found[:, 0], "short": found[1:]}.get(self.bad, found)


class Centered(rankbench.Feature):
    """Mean less that of the training images of its own category's share."""

    uses = ("category",)

    def fit(self, images, run):
        seen = [images.names, sorted(images.columns), sorted(images.inputs), len(images), run.seed]
        self.seen_ = [str(one) for one in seen]
        self.center_ = np.mean([image.mean() for image in images])
        assert run.pixels(images, 2)[:].mean() == self.center_
        self.draw_ = float(run.rng.random())
        run.log(1, loss=0)
        return self

    def extract(self, images, run):
        return np.array([[image.mean() - self.center_, self.draw_] for image in images], dtype=np.float32)


@dataclass(frozen=True)
class Weighted(rankbench.Feature):
    """Mean times a number from a file."""

    weight: rankbench.File

    def extract(self, images, run):
        weight = float(self.weight.path.read_text())
        return np.array([[image.mean() * weight] for image in images], dtype=np.float32)


class Named(rankbench.Feature):
    """Reads names and evidence."""

    by_name = True
    inputs = ("votes",)

    def extract(self, images, run):
        assert not images.columns
        found = zip(images.names, images.inputs["votes"], strict=True)
        return np.array([[float(name[1:]), votes] for name, votes in found], dtype=np.float32)


@dataclass(frozen=True)
class Files(rankbench.Dataset):
    """Grey images and pairs.csv with attribute, left, right, label, split."""

    log: str = ""
    wrong: str = ""

    def problems(self, root):
        write(self.log, "read")
        rows = [line.split(",") for line in (root / "pairs.csv").read_text().split()]
        paths = sorted((root / "images").glob("*"))
        images = rankbench.Images(paths, columns={"category": [path.stem[-1] for path in paths]})
        for attribute in sorted({row[0] for row in rows}):
            splits = {}
            for split in ("train", "test"):
                chosen = np.array([row[1:4] for row in rows if row[0] == attribute and row[4] == split], dtype=int)
                splits[split] = rankbench.Pairs(*chosen.T)
            facets = {"attribute": attribute} if self.wrong != "facets" else {"attribute": "same"}
            yield rankbench.Problem(images, splits["train"], splits["test"], facets)

    def problem(self, root, facets):
        if self.wrong == "type":
            return "a problem"
        if self.wrong == "error":
            return {}["key"]
        return super().problem(root, facets)

    def needs(self, root):
        places = [(root / "pairs.csv", False), (root / "images", True)]
        return [rankbench.Need(path, path.exists(), "https://example.org/files", images) for path, images in places]


class Fixed(Files):
    """Its facets are known without data."""

    def facets(self, root):
        return [{"attribute": "dark"}, {"attribute": "pale"}]


@rankbench.hookimpl
def rankbench_features():
    return {
        "level": Level,
        "centered": Centered,
        "named": Named,
        "weighted": Weighted,
        "metric": "rankbench.plugin:Metric",
    }


@rankbench.hookimpl
def rankbench_datasets():
    return {"files": Files, "fixed": Fixed, "ranker": "rankbench.plugin:Ranker"}


def registry():
    """These plugins alone."""
    import traced

    found = Registry()
    found.add(traced, "traced-plugins")
    assert not found.broken
    return found


def grey(levels, size=(6, 8)):
    """Images of one level each."""
    return [np.full((*size, 3), level, np.uint8) for level in levels]


def toy(levels=range(0, 240, 20)):
    """Half the images train, half test; names and evidence tell the level."""
    levels = list(levels)
    half, n = len(levels) // 2, len(levels)
    images = rankbench.Images.from_arrays(
        grey(levels),
        names=[f"i{level}" for level in levels],
        columns={"category": [level % 3 for level in levels], "score": levels},
        inputs={"votes": [level / 2 for level in levels]},
    )
    train = rankbench.Pairs(np.arange(half - 1), np.arange(1, half), -np.ones(half - 1))
    test = rankbench.Pairs(np.arange(half, n - 1), np.arange(half + 1, n), -np.ones(n - half - 1))
    return rankbench.Problem(images, train, test).canonical()


def files(root, levels=range(0, 240, 20), ending="png"):
    """The files of the dataset `files`: two attributes over the same images."""
    (root / "images").mkdir(parents=True)
    levels = list(levels)
    for level, array in zip(levels, grey(levels), strict=True):
        Image.fromarray(array).save(root / "images" / f"{level:03d}-{level % 3}.{ending}")
    half, n = len(levels) // 2, len(levels)
    rows = []
    for attribute, label in (("dark", 1), ("pale", -1)):
        for first, last, split in ((0, half, "train"), (half, n, "test")):
            rows += [f"{attribute},{k},{k + 1},{label},{split}" for k in range(first, last - 1)]
    (root / "pairs.csv").write_text("\n".join(rows))
    return root


def cell_run(problem, folder, features=(), seed=0, **more):
    """A Run as a ranker with these features gets it."""
    services = Services(registry(), folder / "cache")
    declared = Features(*features)
    run = CellRun(
        services, problem.images, seed, "cpu", 1, folder / "cell", "ranker 'x' of package y", declared, **more
    )
    run.fitting = dict.fromkeys(declared, Fitting(problem.images.take(problem.training_rows())))
    return run
