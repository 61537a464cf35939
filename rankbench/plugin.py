"""All that a plugin author reads: Dataset, Ranker, Feature, Metric, the Run that serves them, and the hooks.

A plugin is a class, found through an entry point in the group `rankbench`. If it is a dataclass, its fields are its
parameters: JSON values, `Features` or `File`. The `version` of a ranker, feature or metric is raised when its results
change; it enters the keys of what they compute. What `fit` learns ends in `_`. Modules of plugin classes import neither
torch nor scikit-learn at their top: a plugin is listed and planned without them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from rankbench.errors import DataError, NotApplicable, PluginError
from rankbench.images import Images
from rankbench.pairs import Pairs
from rankbench.problem import Problem

Floats = NDArray[np.float64]
State = dict[str, Any]

# ------------------------------------------------------------------------------------------------------ parameters


def added_later(default: Any, *, old: Any) -> Any:
    """A parameter that did not exist in earlier releases, for a dataclass field.

    `old` is the value that means the old behaviour; at that value the parameter is left out of keys, so that an
    upgrade orphans no stored result.
    """
    metadata = {"rankbench.old": old}
    if isinstance(default, list | dict):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class FeatureChoice:
    """One feature of a list: its name, parameters, how its block is normalised, and what it is fitted on."""

    name: str
    parameters: tuple[tuple[str, Any], ...] = ()
    normalize: Literal["l2", "none"] = "l2"
    fit_on: tuple[tuple[str, Any], ...] | None = None

    def __hash__(self) -> int:
        return hash(self.name)  # parameters may be lists


class Features(tuple[FeatureChoice, ...]):
    """A parameter that names features: "hog", ["hog", "gist"], or [{name = "hog", cell = 4, normalize = "none"}].

    `normalize` ("l2" by default, or "none") and `fit_on` (a dataset table) belong to the list; every other key is a
    parameter of the feature itself.
    """

    def __new__(cls, *choices: str | Mapping[str, Any] | FeatureChoice | Sequence[Any]) -> Features:
        if len(choices) == 1 and isinstance(choices[0], list | tuple):
            choices = tuple(choices[0])
        return super().__new__(cls, tuple(cls._choice(choice) for choice in choices))

    @staticmethod
    def _choice(choice: Any) -> FeatureChoice:
        if isinstance(choice, FeatureChoice):
            return choice
        if isinstance(choice, str):
            return FeatureChoice(choice)
        if not isinstance(choice, Mapping) or not isinstance(choice.get("name"), str):
            raise DataError(f'a feature is a name or a table {{name = "…"}}, not {choice!r}.')
        rest = {key: value for key, value in choice.items() if key not in ("name", "normalize", "fit_on")}
        normalize, fit_on = choice.get("normalize", "l2"), choice.get("fit_on")
        if normalize not in ("l2", "none"):
            raise DataError(f"feature {choice['name']!r}: normalize is 'l2' or 'none', not {normalize!r}.")
        if fit_on is not None and not (isinstance(fit_on, Mapping) and isinstance(fit_on.get("name"), str)):
            raise DataError(f'feature {choice["name"]!r}: fit_on is a dataset table {{name = "…"}}, not {fit_on!r}.')
        on = None if fit_on is None else tuple(sorted(fit_on.items()))
        return FeatureChoice(choice["name"], tuple(sorted(rest.items())), normalize, on)


class File(str):
    """A parameter that names a file, relative to the data root. Its digest enters the key; its path does not.

    `path` is where it was found; only the core sets it, before the plugin is used.
    """

    path: Path


@dataclass(frozen=True)
class Resources:
    """What one cell takes: GPUs and CPU threads. A benchmark's `threads` overrides the latter.

    `gpu = 1` means: use one if there is one, and so on: a cell gets as many as there are up to this number. Where there
    is none it runs on the CPU.
    """

    gpu: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        if self.gpu < 0 or self.threads < 1:
            raise DataError(
                f"resources: gpu is not negative and threads at least 1, not {self.gpu} and {self.threads}."
            )


# ------------------------------------------------------------------------------------------------------------- run


class Rows(Protocol):
    """One row an image, kept once on disk and memory-mapped: index with rows (array, slice or int)."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: Any) -> NDArray[Any]: ...
    def blocks(self, rows: int) -> Iterator[NDArray[Any]]: ...


class Run(Protocol):
    """The one door to services while a plugin works.

    Attributes:
        seed: the training seed. rng: a NumPy generator seeded from it. device: "cpu" or "cuda". threads: CPU threads.
        folder: private to this cell, survives a kill; for checkpoints.
    """

    seed: int
    device: str
    threads: int

    @property
    def rng(self) -> np.random.Generator: ...
    @property
    def folder(self) -> Path: ...

    def features(self, images: Images, names: Features | Sequence[Any] | str) -> Rows:
        """(n, d) float32 rows of the named features, each block normalised, side by side. Computed once per image."""
        ...

    def pixels(self, images: Images, size: int, fit: Literal["stretch", "crop", "long-side"] = "stretch") -> Rows:
        """(n, size, size, 3) uint8, decoded once per image. "crop" keeps the aspect and cuts the center square;
        "long-side" keeps the aspect and pads with black."""
        ...

    def log(self, step: float, **numbers: float) -> None:
        """Store a point of the cell's curves, such as log(3, loss=0.61); drives the progress display."""
        ...

    def expect(self, steps: float) -> None:
        """Say how many steps are to come, so that a run can tell the time that is left; nothing is stored of it."""
        ...

    def holdout(self, images: Images, pairs: Pairs, share: float) -> tuple[Pairs, Pairs]:
        """Training pairs to fit and pairs held out to choose settings by; disjoint images where possible."""
        ...

    def shared(
        self, name: str, parameters: Mapping[str, Any], build: Callable[[Run], State], features: Features | None = None
    ) -> State:
        """An artefact several cells need, built once: `build(run)` returns arrays and JSON values. In `fit` only.

        features: those that `build` reads; by default all that the ranker declares, so that cells with others share
        nothing. What `build` logs is in the curves of every cell that asks, as "name: loss".
        """
        ...


# --------------------------------------------------------------------------------------------------------- dataset


@dataclass(frozen=True)
class Need:
    """A path a dataset, ranker or feature looks for.

    Args:
        path: what is looked for. found: whether it is there. get: where to get it and where to put it.
        images: whether only rows that read pixels need it.
    """

    path: Path
    found: bool
    get: str = ""
    images: bool = False


@dataclass(frozen=True)
class Count:
    """Something counted in a dataset's files.

    Args:
        what: what was counted. found: how many there are. published: how many its authors say, None where they do not.
        note: what a difference means.
    """

    what: str
    found: float
    published: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Download:
    """A file that may be downloaded.

    Args:
        urls: tried in turn. path: where it goes, below the dataset's folder; where an archive is unpacked.
        kind: "image" (must decode), "archive" (zip or tar, unpacked and removed) or "file".
        sha256: hex digest of the bytes, or what of its beginning was published; empty where nothing was.
        most: bytes that are accepted.
        strip: whether the one folder at the top of an archive is left out.
    """

    urls: tuple[str, ...]
    path: str
    kind: Literal["file", "image", "archive"] = "file"
    sha256: str = ""
    most: int = 64 * 2**20
    strip: bool = False


class Dataset:
    """Yields one Problem per attribute, user or fold.

    A simple author writes only `problems`. A large dataset overrides `facets` (known without data where fixed),
    `problem` and `needs`, so that planning needs no data and one of many problems loads alone.

    `folder` is the default folder under the data root (None: the plugin's name). A dataset that reads no files, because
    its images are drawn or ship with a package, sets `folder = ""`: nothing is looked for then. A random split is a
    facet (`split = 0, 1, 2`), a property of the data, never a training seed.
    """

    folder: ClassVar[str | None] = None
    get: ClassVar[str] = ""  # where to get the data, for the message that says it is missing

    def problems(self, root: Path) -> Iterator[Problem]:
        """Every problem, in any order."""
        for facets in self.facets(root):
            yield self.problem(root, facets)

    def facets(self, root: Path) -> list[dict[str, Any]]:
        """The facets of every problem."""
        return [dict(problem.facets) for problem in self._yielded(root)]

    def problem(self, root: Path, facets: Mapping[str, Any]) -> Problem:
        """The problem with these facets."""
        for problem in self._yielded(root):
            if dict(problem.facets) == dict(facets):
                return problem
        raise DataError(f"{type(self).__name__} has no problem with facets {dict(facets)}.")

    def _yielded(self, root: Path) -> Iterator[Problem]:
        found: Any = self.problems(root)
        where = f"{type(self).__module__}.{type(self).__qualname__}: problems()"
        if not isinstance(found, Iterable):
            raise PluginError(f"{where} gave {type(found).__name__}; it must yield rankbench.Problem.")
        for problem in found:
            if not isinstance(problem, Problem):
                raise PluginError(f"{where} yielded {type(problem).__name__}; it must yield rankbench.Problem.")
            yield problem

    def needs(self, root: Path) -> list[Need]:
        """Paths looked for, found or not, and where to get them; without all of them the dataset is "missing data".

        By default the folder `root`, or nothing where `folder = ""`: a dataset that reads no files.
        """
        return [] if self.folder == "" else [Need(root, root.exists(), self.get)]

    def published(self, facets: Mapping[str, Any]) -> Mapping[str, float]:
        """Counts of a problem that its authors published, for `data check`, known without data.

        By the names that the check gives to what it counts in the problem as the dataset yields it: "images", "train
        images", "train pairs", "train ties", and for each test "NAME images", "NAME pairs", "NAME ties" (pairs count
        ties).
        """
        return {}

    def counts(self, root: Path) -> list[Count]:
        """Further counts for `data check`: of what the files hold beside the problems."""
        return []

    def downloads(self, root: Path) -> list[Download]:
        """What `data fetch` may download, in this order; called again once files have come, as links may lie in them.

        DataError or MissingData where nothing may be downloaded: the message says how the data is had instead.
        """
        return []


# ---------------------------------------------------------------------------------------------------------- learner


class Learner:
    """What rankers and features share: they may learn, and what they learned can be stored without pickle."""

    version: ClassVar[str] = "1"
    inputs: Any = ()  # names of `inputs` it reads; a row that reads any is marked in tables
    notes: Any = ()  # remarks that every table with a result of it carries: a class attribute, or from the parameters
    leaks: Any = ""  # why the label leaks into its scores, if it does: a footnote too, and such a row is never the best

    def state(self) -> State:
        """What `fit` learned: arrays and JSON values. By default every attribute whose name ends in `_`."""
        return {name: value for name, value in vars(self).items() if name.endswith("_")}

    def load(self, state: State) -> None:
        """Take over a state; afterwards scores equal those of the plugin it came from."""
        for name, value in state.items():
            object.__setattr__(self, name, value)

    def resources(self) -> Resources:
        """What one cell takes, from the parameters."""
        return Resources()

    def needs(self) -> list[Need]:
        """Files it needs beside data and file parameters (weights, say), found or not, and how to get them.

        Planning asks, so nothing is imported for it. Where one is not found the row's cells are missing data, and a run
        does not try them.
        """
        return []

    def downloads(self) -> list[Download]:
        """What `data fetch FILE.toml` may download of its needs; each `path` is the whole path of one."""
        return []


class Ranker(Learner):
    """Learns to order images from judged pairs.

    Class attributes, or properties that depend on the parameters:
        learns: False for a baseline that need not beat chance on a toy.
        seeded: False where results do not depend on the seed: one cell then serves all seeds.
    """

    learns: Any = True
    seeded: Any = True

    def fit(self, images: Images, pairs: Pairs, run: Run) -> Self:
        """Learn from training images and pairs only. Returns self."""
        raise NotImplementedError(f"{type(self).__name__} defines no fit")

    def score(self, images: Images, run: Run) -> Floats:
        """(n,) float64, higher shows more of the attribute."""
        raise NotImplementedError(f"{type(self).__name__} defines no score")

    def compare(self, images: Images, pairs: Pairs, run: Run) -> Floats:
        """(m,) margins, left's lead. Override only if both images must be seen together; `pairs` has no labels."""
        scores = np.asarray(self.score(images, run), dtype=np.float64)
        return scores[pairs.left] - scores[pairs.right]

    def needs_images(self) -> bool | Literal["features"]:
        """Whether pixels are read, from the parameters; False for rows that use only inputs.

        "features" where pixels are only read by its features: then it is theirs to say.
        """
        return True

    def locate(self, images: Images, run: Run) -> list[list[tuple[str, tuple[float, float, float, float]]]]:
        """Per image, labeled boxes (left, top, right, bottom) in [0, 1] of width and height."""
        raise NotApplicable(f"{type(self).__name__} locates nothing")

    def embed(self, images: Images, run: Run) -> NDArray[np.float32]:
        """(n, d) activations before the last layer."""
        raise NotApplicable(f"{type(self).__name__} has no embedding")

    def export_onnx(self, path: Path) -> None:
        """Write the fitted scorer as an ONNX file."""
        raise NotApplicable(f"{type(self).__name__} cannot be exported to ONNX")


class Feature(Learner):
    """Turns images into vectors, once per image.

    Class attributes:
        batch_size: `extract` always gets this many images (the last batch is padded), so that neighbours do not matter.
        by_name: the images keep their names, for matching vectors made elsewhere.
        uses: columns its `fit` reads.
    """

    batch_size: ClassVar[int] = 16
    by_name: ClassVar[bool] = False
    uses: ClassVar[tuple[str, ...]] = ()

    def fit(self, images: Images, run: Run) -> Self:
        """Learn from training images (a dictionary, say). Left out by a feature that learns nothing."""
        return self

    def needs_images(self) -> bool:
        """Whether `extract` or `fit` read pixels; False for vectors that were made elsewhere."""
        return True

    def extract(self, images: Images, run: Run) -> NDArray[np.float32]:
        """(n, d) float32, one row an image; finite."""
        raise NotImplementedError(f"{type(self).__name__} defines no extract")

    @classmethod
    def learned(cls) -> bool:
        """Whether it has a `fit` of its own."""
        return cls.fit is not Feature.fit


@dataclass(frozen=True)
class Judged:
    """What a metric sees of one test set.

    Attributes:
        margins: (n,) float64, left's lead. labels: (n,) int8 in {+1, 0, -1}. weights: (n,) float64 or None.
        scores: (k,) float64 image scores, or None where the ranker compares pairs.
        targets: (k,) float64, the images' `score` column in the same order, or None.
        seconds: what the cell took, wall seconds by phase: "fit", "score", "shared" (artefacts built for several
            cells), and "features", all that its features took for the problem's images, whichever cell computed them.
        peak_memory: private bytes above what the process held before the fit; None where it is not known.
    """

    margins: Floats
    labels: NDArray[np.int8]
    weights: Floats | None = None
    scores: Floats | None = None
    targets: Floats | None = None
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    peak_memory: int | None = None


class Metric:
    """A pure function of what was judged, in natural units.

    Class attributes:
        percent: whether a table shows it times 100. higher_is_better: which way is better, None where neither is and
            no place is marked best. decimals: shown digits, by default 2 for percent and 3 otherwise. unit: of the
            value, for the legend.
    """

    version: ClassVar[str] = "1"
    percent: ClassVar[bool] = False
    higher_is_better: ClassVar[bool | None] = True
    decimals: ClassVar[int | None] = None
    unit: ClassVar[str] = ""

    def __call__(self, judged: Judged) -> float:
        """The value. Raises NotApplicable where it is not defined."""
        raise NotImplementedError(f"{type(self).__name__} defines no value")
