"""A dataset whose labels are random, and a ranker that looks for them wherever it can reach."""

from __future__ import annotations

import json
import os
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import numpy as np

import rankbench


@dataclass(frozen=True)
class Coins(rankbench.Dataset):
    """Noise, 4 × 4 px, with a random score: nobody can know the order. The name of an image gives it away."""

    drawn: bool = True

    folder = ""

    def problems(self, root):
        rng = np.random.default_rng(7)
        self_like = rng.integers(0, 256, (60, 4, 4, 3)).astype(np.uint8)
        scores = rng.permutation(60) + 0.5
        about = {"names": [f"{score:04.1f}" for score in scores], "columns": {"score": scores}}
        if self.drawn:
            digests = [bytes([at]) * 32 for at in range(60)]
            images = rankbench.Images.from_decoder(digests, Drawer(self_like, scores).draw, **about)
        else:
            images = rankbench.Images.from_arrays(self_like, **about)
        yield rankbench.Problem(images, judged(scores, 0, 30), judged(scores, 30, 60))


class Drawer:
    """What draws an image knows its score."""

    def __init__(self, pictures, scores):
        self.pictures, self.scores = pictures, scores

    def draw(self, row):
        return self.pictures[row]


def judged(scores, begin, end):
    a, b = np.triu_indices(end - begin, 1)
    a, b = a + begin, b + begin
    wins = np.sign(scores[a] - scores[b])
    return rankbench.Pairs(a, b, wins, np.ones(len(a)), columns={"votes": wins})


@dataclass
class Honest(rankbench.Ranker):
    """Brightness, which tells nothing here."""

    seeded = False

    def fit(self, images, pairs, run):
        return self

    def score(self, images, run):
        return np.array([image.mean() for image in images])


@dataclass
class Spy(rankbench.Ranker):
    """Reads test sets from relative paths, from its own folder and those above, and from all it is handed."""

    features: rankbench.Features = field(default_factory=lambda: rankbench.Features("spied"))
    seeded = False

    def fit(self, images, pairs, run):
        self.found_ = {}
        self._look("fit", images, pairs, run)
        run.shared("words", {}, lambda inner: self._look("build", inner) or {})
        return self

    def score(self, images, run):
        self._look("score", images, run)
        known = np.array([self.found_.get(digest.tobytes().hex(), np.nan) for digest in images.digests])
        return np.where(np.isnan(known), [image.mean() / 1000 for image in images], known)

    def _look(self, where, *handed):
        run = handed[-1]
        images = [one for one in handed if isinstance(one, rankbench.Images)]
        rows = [run.pixels(one, 4) for one in images] + [run.features(one, self.features) for one in images]
        more = [run.holdout(*handed[:2], 0.5)] if where == "fit" else []
        reached = list(reachable([*handed, *rows, *more]))
        note(where=where, told=[*told(reached)])
        for place in places(run):
            for folder in place.glob("*"):
                self._read(folder)

    def _read(self, folder):
        with np.load(folder / "test.npz") as test:
            code, n = np.cumsum(test["steps"].astype(np.int64)), len(test["digests"])
            wins = np.zeros(n)
            np.add.at(wins, code // n, test["label"])
            np.add.at(wins, code % n, -test["label"].astype(float))
            self.found_ |= {digest.tobytes().hex(): win for digest, win in zip(test["digests"], wins, strict=True)}


class Boom(rankbench.Ranker):
    def fit(self, images, pairs, run):
        raise rankbench.DataError(f"no tests there: {list(Path('results').glob('tests/*'))}")


class Standing(rankbench.Ranker):
    """Says where it is, and leaves something there."""

    seeded = False

    def fit(self, images, pairs, run):
        self.here_ = os.getcwd()
        self.pwd_, self.empty_, self.folder_ = os.environ["PWD"], os.listdir(), str(run.folder)
        Path("left.txt").write_text("x")
        return self

    def score(self, images, run):
        return np.zeros(len(images))


@dataclass(frozen=True)
class Votes(rankbench.Dataset):
    """Grey images; their names and an input tell the level."""

    overlap: str = ""

    folder = ""

    def problems(self, root):
        levels = np.random.default_rng(0).permutation(256)[:24]
        images = rankbench.Images.from_arrays(
            [np.full((4, 4, 3), level, np.uint8) for level in levels],
            names=[str(level) for level in levels],
            columns={"score": levels},
            inputs={"votes": levels},
        )
        yield rankbench.Problem(images, judged(levels, 0, 12), judged(levels, 12, 24), overlap=self.overlap or None)


@dataclass
class Told(rankbench.Ranker):
    """Scores by pixels (worse by `less`), a name or an input; `leaking` says that the label leaks."""

    features: rankbench.Features = field(default_factory=rankbench.Features)
    leaking: str = ""
    votes: bool = False
    less: int = 0
    seeded = False

    @property
    def inputs(self):
        return ("votes",) if self.votes else ()

    @property
    def leaks(self):
        return self.leaking

    def needs_images(self):
        return not self.votes and not self.features

    def fit(self, images, pairs, run):
        self.seen_ = [float(image.mean()) for image in images] if self.needs_images() else []
        return self

    def score(self, images, run):
        if self.features:
            return run.features(images, self.features)[:][:, 0].astype(np.float64)
        levels = images.inputs["votes"] if self.votes else np.array([image.mean() for image in images])
        return levels.astype(np.float64) % (256 - self.less)


class ByName(rankbench.Feature):
    """The number that is an image's name."""

    by_name = True

    def needs_images(self):
        return False

    def extract(self, images, run):
        return np.array([[float(name)] for name in images.names], np.float32)


class Leaky(rankbench.Ranker):
    """Says so by a class attribute."""

    leaks = "its authors trained on the test pairs"
    notes = (leaks,)
    seeded = False

    def fit(self, images, pairs, run):
        return self

    def score(self, images, run):
        return np.array([image.mean() for image in images])


class Spied(rankbench.Feature):
    """Means; looks about as the spy does."""

    def fit(self, images, run):
        note(where="feature fit", told=[*told(reachable([images, run]))])
        return self

    def extract(self, images, run):
        note(where="extract", told=[*told(reachable([images, run]))])
        return np.array([[image.mean()] for image in images], np.float32)


def places(run):
    """Folders where test sets would be if one went there by a relative path, or up from one's own folder."""
    here = [Path(), Path(os.environ.get("PWD", ".")), run.folder]
    for start in here:
        for above in (start, *start.absolute().parents, *(Path(*[".."] * k) for k in range(6))):
            yield above / "results" / "tests"
            yield above / "tests"


def told(reached):
    """What of all that was reached a plugin must not have. Scores of tests end in .5 and sum up to what these do."""
    rng = np.random.default_rng(7)
    rng.integers(0, 256, (60, 4, 4, 3))
    scores = rng.permutation(60) + 0.5
    tests = set(scores[30:].tolist())
    for path, one in reached:
        if isinstance(one, rankbench.Pairs) and one.label is not None and int(one.right.max(initial=0)) >= 30:
            yield f"{path}: labels of tests"
        if isinstance(one, np.ndarray) and one.dtype.kind == "f" and tests & set(np.ravel(one).tolist()):
            yield f"{path}: scores of tests"
        if (
            isinstance(one, np.ndarray)
            and one.dtype.kind in "if"
            and one.size > 30 * 29 / 2
            and set(np.unique(one).tolist()) <= {-1, 1}
        ):
            yield f"{path}: judgements of more than the training pairs"
        if isinstance(one, str | PurePath) and "/results" in str(one):
            yield f"{path}: the results' place"
        if isinstance(one, str) and one.endswith(".5") and one[:-2].isdigit():
            yield f"{path}: a name"


def reachable(start):
    """Everything attributes, slots, bases, containers and bound methods lead to, with the way there."""
    skipped = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, np.dtype, np.generic)
    seen, todo = set(), [(str(at), one) for at, one in enumerate(start)]
    kept = []  # so that no id is given twice
    while todo:
        path, one = todo.pop()
        if id(one) in seen or isinstance(one, skipped) or one is None or isinstance(one, int | float | bytes):
            continue
        seen.add(id(one))
        kept.append(one)
        yield path, one
        if isinstance(one, str):
            continue
        if isinstance(one, Mapping):
            todo += [(f"{path}[{key!r}]", value) for key, value in one.items()]
        elif isinstance(one, list | tuple | set | frozenset):
            todo += [(f"{path}[{at}]", value) for at, value in enumerate(one)]
        if isinstance(one, np.ndarray):
            todo.append((f"{path}.base", one.base))
            todo.append((f"{path}.filename", getattr(one, "filename", None)))
            continue
        for name in dir(one):
            if name.startswith("__") and name not in ("__self__", "__dict__", "__wrapped__"):
                continue
            try:
                todo.append((f"{path}.{name}", getattr(one, name)))
            except Exception:  # a property that does not apply
                continue


def note(**facts):
    """One line more in the file that $SPY_LOG names."""
    with open(os.environ["SPY_LOG"], "a") as file:
        file.write(json.dumps(facts) + "\n")


@rankbench.hookimpl
def rankbench_datasets():
    return {"coins": Coins, "votes": Votes}


@rankbench.hookimpl
def rankbench_rankers():
    return {"honest": Honest, "spy": Spy, "boom": Boom, "standing": Standing, "told": Told, "leaky": Leaky}


@rankbench.hookimpl
def rankbench_features():
    return {"spied": Spied, "by-name": ByName}
