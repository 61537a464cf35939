"""Toys for trying plugins out: a tiny problem every learner can solve, a bench that fits as the core would, spies."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, get_origin

import numpy as np
from numpy.typing import NDArray

from rankbench.cell import TestSet
from rankbench.images import Images
from rankbench.pairs import Pairs, coin
from rankbench.plan import feature_choices
from rankbench.plugin import Features, Ranker
from rankbench.problem import Problem
from rankbench.registry import Registry, parameter_fields
from rankbench.services import CellRun, Fitting, Services, build_feature, file_parameters
from rankbench.worker import judge


def bright_squares(train: int = 60, test: int = 40, pairs: int = 400, size: int = 32, seed: int = 0) -> Problem:
    """A tiny problem every learner can solve: a bright square on noise, its size is the attribute.

    Brightness, edges and layout all tell. Images carry a `score` and a `category` column.
    """
    rng = np.random.default_rng(seed)
    count = train + test
    sides = rng.uniform(4, size - 4, count)
    arrays = []
    for side in sides:
        pixels = rng.integers(0, 96, (size, size, 3), dtype=np.uint8)
        whole = round(float(side))
        top, left = rng.integers(0, size - whole + 1, 2)
        pixels[top : top + whole, left : left + whole] += 128
        arrays.append(pixels)
    names = [f"square-{at:03d}" for at in rng.permutation(count)]
    columns = {"score": sides, "category": np.where(sides > size / 2, "large", "small")}
    images = Images.from_arrays(arrays, names=names, columns=columns)
    tests = {"test": sampled(rng, np.arange(train, count), sides, pairs)}
    return Problem(images, sampled(rng, np.arange(train), sides, pairs), tests)


def sampled(rng: np.random.Generator, rows: NDArray[Any], values: NDArray[Any], count: int) -> Pairs:
    """Distinct ordered pairs of these rows, in random order and orientation."""
    left, right = np.triu_indices(len(rows), 1)
    chosen = rng.permutation(len(left))[:count]
    swap = rng.random(len(chosen)) < 0.5
    a, b = rows[left[chosen]], rows[right[chosen]]
    a, b = np.where(swap, b, a), np.where(swap, a, b)
    return Pairs(a, b, np.sign(values[a] - values[b]).astype(np.int8))


class Bench:
    """Fits rankers and features on toys as the core would, in a cache of its own; file parameters lie in `data`.

    Attributes: curves, the points that the last run logged.
    """

    def __init__(self, folder: Path, registry: Registry | None = None, data: str | Path = ".") -> None:
        self.folder = folder
        self.registry = registry or Registry.installed()
        self.services = Services(self.registry, folder / "cache", Path(data))
        self.curves: list[tuple[float, dict[str, float]]] = []
        self._runs = 0

    def apart(self) -> Bench:
        """A bench that shares only plugins and data with this one, for comparing what is built twice."""
        self._runs += 1
        return Bench(self.folder / f"apart-{self._runs}", self.registry, self.services.root)

    def run(self, problem: Problem, plugin: Any, seed: int = 0) -> CellRun:
        """A Run as the core hands it out, with a private folder of its own."""
        self._runs += 1
        self.services.located(plugin)
        declared = Features(feature_choices(plugin))
        folder, who = self.folder / f"run-{self._runs}", type(plugin).__name__
        files = file_parameters(plugin)
        curves = self.curves = []
        run = CellRun(
            self.services, problem.images, seed, "cpu", 1, folder, who, declared, files=files,
            logger=lambda *point: curves.append(point),
        )  # fmt: skip
        learned = [choice for choice in declared if build_feature(self.registry, choice).learned()]
        fitting = Fitting(problem.images.take(problem.training_rows()))
        run.fitting = dict.fromkeys(learned, fitting)
        return run

    def fit(self, ranker: Ranker, problem: Problem, seed: int = 0) -> tuple[Ranker, CellRun]:
        """A fitted ranker of a canonical problem, and its Run."""
        run = self.run(problem, ranker, seed)
        images, pairs = problem.training(inputs=ranker.inputs)
        run.fit_digest = images.fingerprint + pairs.digest
        fitted = ranker.fit(images, pairs, run.door)
        run.fit_digest = None
        return fitted, run

    def margins(self, ranker: Ranker, problem: Problem, run: CellRun) -> NDArray[np.float64]:
        """Margins of the first test set."""
        name = next(iter(problem.tests))
        test = TestSet.of(problem, name)
        return judge(ranker, problem, run, None, {name: test})[name].pair_margins(test[0].pairs)

    def accuracy(self, ranker: Ranker, problem: Problem, seed: int = 0) -> float:
        """Pairwise accuracy on the first test set; a predicted tie counts one half."""
        fitted, run = self.fit(ranker, problem, seed)
        return accuracy(self.margins(fitted, problem, run), next(iter(problem.tests.values())))


def accuracy(margins: NDArray[np.float64], pairs: Pairs) -> float:
    ordered = pairs.ordered
    return float((1 + np.sign(margins[ordered]) * pairs.judgement[ordered]).mean() / 2)


def fresh(plugin: Any) -> Any:
    """The same plugin, unfitted."""
    return type(plugin)(**{name: getattr(plugin, name) for name in parameter_fields(type(plugin))})


def undeclared(cls: type) -> list[str]:
    """What looks like a parameter of a plugin class but is no dataclass field, so that no benchmark can set it.

    That is an argument of `__init__`, or an annotated class attribute that no class of rankbench has.
    """
    fields = getattr(cls, "__dataclass_fields__", {})
    bases = cls.__mro__[1:]
    core = {name for base in bases if base.__module__.startswith("rankbench.") for name in dir(base)}
    annotated = [
        name
        for base in (cls, *bases)
        if not base.__module__.startswith("rankbench.")
        for name, kind in inspect.get_annotations(base).items()
        if not (name in core or name.startswith("_") or name.endswith("_") or class_variable(kind))
    ]
    arguments = inspect.signature(cls).parameters.values()
    named = [one.name for one in arguments if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    return [name for name in dict.fromkeys([*named, *annotated]) if name not in fields]


def class_variable(annotation: Any) -> bool:
    """Whether an annotation, which may be a string, says ClassVar."""
    if isinstance(annotation, str):
        return annotation.removeprefix("typing.").startswith("ClassVar")
    return annotation is ClassVar or get_origin(annotation) is ClassVar


def spread(values: NDArray[Any]) -> float:
    return float(np.std(values)) or 1.0


def disguised(problem: Problem) -> Problem:
    """The same problem to whoever looks at images and training pairs alone; all that must tell nothing is changed."""
    rng = np.random.default_rng(1)
    images, (name, pairs) = problem.images, next(iter(problem.tests.items()))
    tested = problem.test_rows()
    columns = {key: np.array(values) for key, values in images.columns.items()}
    for values in columns.values():
        values[tested] = values[rng.permutation(tested)]
    order = rng.permutation(len(images))
    position = np.argsort(order)
    arrays = [images[int(row)] for row in order]
    shuffled = Images.from_arrays(arrays, columns={key: values[order] for key, values in columns.items()})
    opposite = Pairs(position[pairs.left], position[pairs.right], -pairs.judgement)
    test = opposite.swapped(rng.random(len(pairs)) < 0.5).take(rng.permutation(len(pairs)))
    train = None if problem.train is None else problem.train.reindexed(position)
    return Problem(shuffled, train, {name: test}).canonical()


def odd_images() -> Images:
    """One pixel, two slivers, and a square."""
    rng = np.random.default_rng(0)
    shapes = [(1, 1, 3), (3, 90, 3), (90, 3, 3), (64, 64, 3)]
    return Images.from_arrays([rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes])


def spies(problem: Problem, name: str) -> Mapping[str, NDArray[np.float64]]:
    """Margins, in the canonical orientation, of rankers that use what must tell nothing."""
    images, rows = problem.judged()
    pairs = problem.tests[name]
    turned = coin(problem.images.digests, pairs)
    sign = np.where(turned, -1.0, 1.0)
    position = np.full(len(problem.images), -1)
    position[rows] = np.arange(len(rows))
    handed = pairs.swapped(turned).reindexed(position)
    unknown = np.zeros(len(images))
    looks = {
        **{
            f"column {key!r}": by_value(images.columns.get(key, np.zeros(len(images))))
            for key in problem.images.columns
        },
        "names": by_value(np.asarray(images.names)) if images.names is not None else unknown,
        "image index": np.arange(len(images), dtype=np.float64),
    }
    place = np.arange(len(pairs), dtype=np.float64)
    return {
        **{what: sign * (values[handed.left] - values[handed.right]) for what, values in looks.items()},
        "side": sign,
        "list position": sign * (place - place.mean()),
    }


def by_value(values: NDArray[Any]) -> NDArray[np.float64]:
    """(n,) numbers in the order of the values: themselves, or the rank among strings or vectors; unknown is 0."""
    if values.ndim == 1 and values.dtype.kind in "biuf":
        return np.nan_to_num(values.astype(np.float64))
    distinct = np.unique(values.reshape(len(values), -1), axis=0, return_inverse=True)
    return distinct[1].ravel().astype(np.float64)


def tolerance(pairs: Pairs) -> float:
    """Five standard errors of a blind guess; pairs that share an image are not independent, so images count."""
    images = len(np.unique(np.concatenate([pairs.left, pairs.right])))
    return float(2.5 / np.sqrt(max(1, min(int(pairs.ordered.sum()), images / 2))))
