"""What stands behind Run: features, pixels, shared artefacts, hold-out, curves, all kept in the cache folder.

A Services object belongs to one process and one cache. For each cell it hands out a CellRun that knows the problem's
images (so that everything is extracted for training and test images at once) and the features the ranker declared.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankbench.cache import state_once
from rankbench.cell import CORE_RESULTS, key_of
from rankbench.door import Door
from rankbench.errors import NotApplicable, PluginError
from rankbench.features import Fit, RowStore, SideBySide, StoredRows, decoded
from rankbench.files import canonical_json
from rankbench.images import DigestMemo, Images, Ints, array_bytes, digest_of, file_digests, masked
from rankbench.memory import apart
from rankbench.pairs import Pairs, hold_out
from rankbench.plugin import Feature, FeatureChoice, Features, File, Rows, Run, State
from rankbench.registry import Registry, plain, resolved
from rankbench.sealed import same_source

Log = Callable[[float, dict[str, float]], None]
Expect = Callable[[float], None]
Ids = Callable[[Images], NDArray[np.uint8]]
Compute = Callable[[Ints], Iterator[NDArray[Any]]]
CURVES = "__curves__"  # under which a shared state keeps what was logged while it was built


@dataclass(frozen=True)
class Fitting:
    """Images a learned feature is fitted on: content digests and columns decide its key."""

    images: Images

    @cached_property
    def parts(self) -> dict[str, Any]:
        """Digest of the images, and of each column."""
        columns = {name: digest_of([array_bytes(array)]) for name, array in self.images.columns.items()}
        return {"images": digest_of([self.images.digests.tobytes(), bytes([self.images.exif])]), "columns": columns}


def fitted_on(parts: Mapping[str, Any], uses: Sequence[str]) -> str:
    """Hex digest of the images and of those columns a feature's fit uses, from `Fitting.parts`."""
    return key_of({"images": parts["images"], "columns": {k: v for k, v in parts["columns"].items() if k in uses}})


def build_feature(registry: Registry, choice: FeatureChoice) -> Feature:
    """The feature a choice names, with checked parameters."""
    feature = registry.build("features", choice.name, dict(choice.parameters))
    if not isinstance(feature, Feature):
        raise PluginError(f"{registry.find('features', choice.name)}: its class must inherit rankbench.Feature.")
    return feature


def file_parameters(plugin: Any) -> dict[str, File]:
    """Every parameter that names a file."""
    names = getattr(plugin, "__dataclass_fields__", {})
    return {name: getattr(plugin, name) for name in names if isinstance(getattr(plugin, name), File)}


def feature_key(
    registry: Registry,
    choice: FeatureChoice,
    learned_from: str | None,
    file_digest: Callable[[File], str],
    names: str | None = None,
) -> dict[str, Any]:
    """What a feature's rows depend on, as it enters a cell's key.

    Args: learned_from, digest of the images and columns a learned feature sees, None for one that learns nothing;
        file_digest, of a file that a parameter names; names, digest of the images' names, for a feature that reads
        them (left out for its row store, where each row goes by its own name).
    """
    feature = build_feature(registry, choice)
    plugin = registry.find("features", choice.name)
    files = file_parameters(feature)
    parameters = {name: value for name, value in resolved(feature).items() if name not in files}
    digests: dict[str, Any] = {"files": {name: file_digest(file) for name, file in files.items()}} if files else {}
    if feature.by_name and names is not None:
        digests["names"] = names
    return {
        "name": choice.name,
        "distribution": plugin.distribution,
        "version": type(feature).version,
        "parameters": parameters,
        "fitted_on": learned_from,
        **digests,
    }


class Clock:
    """Wall and CPU seconds by phase; a phase inside another is not counted twice."""

    def __init__(self) -> None:
        self.phases: dict[str, dict[str, float]] = {}
        self._open: list[str] = []
        self._last = (time.perf_counter(), time.process_time())

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what happens inside under this name."""
        self._count()
        self._open.append(name)
        try:
            yield
        finally:
            self._count()
            self._open.pop()

    def _count(self) -> None:
        now = (time.perf_counter(), time.process_time())
        if self._open:
            spent = self.phases.setdefault(self._open[-1], {"wall_seconds": 0.0, "cpu_seconds": 0.0})
            spent["wall_seconds"] += now[0] - self._last[0]
            spent["cpu_seconds"] += now[1] - self._last[1]
        self._last = now


@dataclass
class Services:
    """The cache of one process: row stores opened once, features fitted once. `root` is where file parameters lie."""

    registry: Registry
    cache: Path
    root: Path = Path()
    memo: DigestMemo | None = None
    stores: dict[str, RowStore] = field(default_factory=dict)
    scratch: Path | None = None  # where private folders lie; by default in the cache

    def private(self, kind: str, key: str) -> Path:
        """The private folder of whoever builds this: of this cache alone, as others build the same in theirs."""
        ours = key_of({"cache": str(self.cache)})[:8]
        return (self.scratch or self.cache / "running") / f"{kind}-{key}-{ours}.run"

    def located(self, plugin: Any) -> None:
        """Tell a plugin's file parameters where they are."""
        for file in file_parameters(plugin).values():
            file.path = self.root / file

    def file_digest(self, file: File) -> str:
        """Hex digest of a file that a parameter names."""
        path = [self.root / file]
        return (self.memo.digests(path) if self.memo else file_digests(path)).tobytes().hex()

    def store(self, kind: str, parts: Mapping[str, Any]) -> RowStore:
        """The row store for these parts."""
        key = key_of({"core_results": CORE_RESULTS, **parts})
        if key not in self.stores:
            self.stores[key] = RowStore(self.cache / kind / key)
        return self.stores[key]

    def state_once(
        self, kind: str, parts: Mapping[str, Any], who: str, build: Callable[[], State], scratch: Path
    ) -> State:
        """A state of arrays and JSON values, built by one process and read by the others.

        Args: scratch, the builder's private folder, removed by the one who built and once the state is stored.
        """
        folder = self.cache / kind / key_of({"core_results": CORE_RESULTS, **parts})
        return state_once(folder, apart()(build), who, scratch)


@dataclass
class CellRun:
    """What stands behind a plugin's Run (`rankbench.plugin.Run`), which it reaches through a Door alone."""

    services: Services
    scope: Images  # every image of the problem, with names: extraction covers all of them at once
    seed: int
    device: str
    threads: int
    folder_path: Path
    who: str
    declared: Features = field(default_factory=lambda: Features())
    fitting: Mapping[FeatureChoice, Fitting] = field(default_factory=dict)
    source: str = ""
    version: str = ""
    fit_digest: str | None = None  # set while `fit` runs
    logger: Log = lambda step, numbers: None
    expecter: Expect = lambda steps: None
    clock: Clock = field(default_factory=Clock)
    holdouts: list[dict[str, Any]] = field(default_factory=list)
    lost: NDArray[np.bool_] | None = None
    filled: set[str] = field(default_factory=set)  # stores that hold every image of the scope
    refused: dict[str, str] = field(default_factory=dict)  # tests that the ranker cannot treat, and why
    files: Mapping[str, File] = field(default_factory=dict)  # parameters of the plugin that name a file
    feature_seconds: dict[str, float] = field(default_factory=dict)  # what features and pixels took for the scope
    told: set[str] = field(default_factory=set)  # shared work whose curves this cell's have already

    @property
    def door(self) -> Run:
        """What the plugin itself is handed."""
        return Door(self)

    @cached_property
    def rng(self) -> np.random.Generator:
        """Generator seeded from the seed."""
        return np.random.default_rng(self.seed)

    @property
    def folder(self) -> Path:
        """Private folder, made when asked for."""
        self.folder_path.mkdir(parents=True, exist_ok=True)
        return self.folder_path

    def log(self, step: float, **numbers: float) -> None:
        """Store a point of the curves."""
        self.logger(float(step), {name: float(value) for name, value in numbers.items()})

    def expect(self, steps: float) -> None:
        """Say how many steps are to come."""
        self.expecter(float(steps))

    def holdout(self, images: Images, pairs: Pairs, share: float) -> tuple[Pairs, Pairs]:
        """Pairs to fit and pairs held out."""
        fitted, held, record = hold_out(pairs, len(images), share, self.rng)
        self.holdouts.append(record)
        return fitted, held

    # -- rows

    def pixels(self, images: Images, size: int, fit: Fit = "stretch") -> Rows:
        """(n, size, size, 3) uint8."""
        with self.clock.phase("decode"):
            store = self.services.store("pixels", {"size": size, "fit": fit})
            if self._fill(store, images, image_ids, lambda wanted: decoded(wanted, size, fit, self.threads)):
                self.feature_seconds[f"pixels {size} {fit}"] = store.seconds(image_ids(self._scoped(images)))
            return store.rows(image_ids(images))

    def features(self, images: Images, names: Features | Sequence[Any] | str) -> Rows:
        """(n, d) float32 rows of the named features."""
        choices = names if isinstance(names, Features) else Features(names)
        if not choices:
            raise PluginError(f"{self.who} asked for an empty list of features.")
        for choice in choices:
            if choice not in self.declared:
                raise PluginError(
                    f"{self.who} asked for feature {choice.name!r}, which none of its parameters of type "
                    "rankbench.Features names with these parameters; it would be missing from the cell's key."
                )
        with self.clock.phase("features"):
            parts = [self._rows(images, choice) for choice in choices]
        return parts[0] if len(parts) == 1 else SideBySide(parts)

    def _feature(self, choice: FeatureChoice) -> tuple[Feature, dict[str, Any]]:
        """A declared feature, and what its rows depend on, its source included."""
        registry = self.services.registry
        feature = build_feature(registry, choice)
        fitting = self.fitting.get(choice) if feature.learned() else None
        learned = fitted_on(fitting.parts, feature.uses) if fitting else None
        parts = feature_key(registry, choice, learned, self.services.file_digest)
        return feature, parts | {"source": registry.source("features", choice.name)}

    def _rows(self, images: Images, choice: FeatureChoice) -> StoredRows:
        feature, parts = self._feature(choice)
        self.services.located(feature)
        folder = self.services.private("features", key_of(parts))
        run = replace(self.apart(int(parts["parameters"].get("seed", 0)), folder), declared=Features(), fit_digest=None)
        run.who, run.source = str(self.services.registry.find("features", choice.name)), parts["source"]
        run.version, run.files = parts["version"], file_parameters(feature)
        if (fitting := self.fitting.get(choice)) is not None and feature.learned():
            self._learn(feature, fitting, parts, run)

        run.folder_path = folder.with_name(f"{folder.name}.{os.getpid()}")  # other processes may be at other rows

        def compute(wanted: Images, rows: Ints) -> Iterator[NDArray[np.float32]]:
            yield from extracted(feature, wanted, rows, run)
            shutil.rmtree(run.folder_path, ignore_errors=True)

        store = self.services.store("features", parts)
        ids = partial(feature_ids, feature=feature)
        label = canonical_json(plain(choice))
        if self._fill(store, images, ids, lambda wanted: partial(compute, wanted)):
            self.feature_seconds[label] = store.seconds(ids(self._scoped(images)))
        told = self._named(images) if feature.by_name or feature.inputs else images  # a look-up over the whole problem
        return store.rows(ids(told), choice.normalize == "l2")

    def _fill(self, store: RowStore, images: Images, ids: Ids, compute: Callable[[Images], Compute]) -> bool:
        """Rows for every image of the problem, the first time one of them is asked for; True if this was it."""
        ours = same_source(images, self.scope)
        if ours and str(store.folder) in self.filled:
            return False
        wanted = self._scoped(images)
        with apart():
            store.fill(ids(wanted), compute(wanted))
        if ours:
            self.filled.add(str(store.folder))
        return ours

    def _learn(self, feature: Feature, fitting: Fitting, parts: Mapping[str, Any], run: CellRun) -> None:
        missing = [name for name in feature.uses if name not in fitting.images.columns]
        if missing:
            raise NotApplicable(
                f"feature {parts['name']!r} learns from the column {missing[0]!r}, which the training images lack"
            )

        def build() -> State:
            rows = np.arange(len(fitting.images))
            learner = replace(run, scope=fitting.images, filled=set(), lost=None)
            learner.fit_digest = fitted_on(fitting.parts, feature.uses)
            feature.fit(fitting.images.take(rows, names=False, columns=feature.uses, inputs=()), learner.door)
            return feature.state()

        feature.load(self._once("fitted", parts, parts["name"], build, run))

    def _scoped(self, images: Images) -> Images:
        """All images of the problem but the unreadable ones, if these images belong to it; else these."""
        if not same_source(images, self.scope):
            return images
        scope = self.scope if self.lost is None else self.scope.take(np.flatnonzero(~self.lost))
        return scope if np.isin(images._rows, scope._rows).all() else self._named(images)

    def _named(self, images: Images) -> Images:
        """The same images with the names and inputs that were withheld from the ranker."""
        if not same_source(images, self.scope):
            return images
        order = np.argsort(self.scope._rows)
        return self.scope.take(order[np.searchsorted(self.scope._rows, images._rows, sorter=order)])

    # -- shared artefacts

    def shared(
        self, name: str, parameters: Mapping[str, Any], build: Callable[[Run], State], features: Features | None = None
    ) -> State:
        """An artefact several cells need, built once."""
        declared = self.declared if features is None else features
        if self.fit_digest is None:
            raise PluginError(f"{self.who} called run.shared({name!r}) outside fit.")
        parts = {
            "name": name,
            "parameters": plain(dict(parameters)),
            "plugin": self.who,
            "version": self.version,
            "source": self.source,
            "seed": self.seed,
            "threads": self.threads,
            "device": self.device.split(":")[0],
            "given": self.fit_digest,
            **self._read(declared),
        }
        key = key_of(parts)
        run = self.apart(int(key[:15], 16), self.services.private("shared", key))
        run.declared = declared
        with self.clock.phase("shared"):
            return self._once("shared", parts, name, lambda: build(run.door), run)

    def _read(self, declared: Features) -> dict[str, Any]:
        """What else `build` may read: these features, and the ranker's files. Left out where there is none."""
        features = []
        for choice in declared:
            feature, parts = self._feature(choice)
            if feature.inputs or (feature.by_name and self.scope.names is not None):
                parts["rows"] = digest_of([feature_ids(self.scope, feature).tobytes()])
            features.append({**parts, "normalize": choice.normalize})
        files = {name: self.services.file_digest(file) for name, file in self.files.items()}
        return ({"features": features} if features else {}) | ({"files": files} if files else {})

    def apart(self, seed: int, folder: Path) -> CellRun:
        """A Run for work that several cells share: nothing of it is noted for whichever cell came first."""
        nowhere: Log = lambda step, numbers: None  # noqa: E731
        return replace(self, seed=seed, folder_path=folder, holdouts=[], feature_seconds={}, told=set(), logger=nowhere)

    def _once(self, kind: str, parts: Mapping[str, Any], label: str, build: Callable[[], State], run: CellRun) -> State:
        """`Services.state_once`; what was logged while it was built is in the curves of every cell that uses it."""
        points: list[tuple[float, dict[str, float]]] = []

        def tell(step: float, numbers: Mapping[str, float]) -> None:
            self.logger(step, {f"{label}: {name}": value for name, value in numbers.items()})

        def log(step: float, numbers: dict[str, float]) -> None:
            points.append((step, numbers))
            tell(step, numbers)

        run.logger = log
        built = lambda: {**build(), CURVES: points}  # noqa: E731
        state = self.services.state_once(kind, parts, self.who, built, run.folder_path)
        logged, key = state.pop(CURVES, []), key_of(parts)
        if not points and key not in self.told:  # built before, or by another process
            for step, numbers in logged:
                tell(step, numbers)
        self.told.add(key)
        return state


def image_ids(images: Images) -> NDArray[np.uint8]:
    """What a decoded image is stored under: its digest, and the EXIF policy it was decoded with."""
    if not images.exif:
        return images.digests
    return np.frombuffer(
        b"".join(hashlib.sha256(b"exif:" + d.tobytes()).digest() for d in images.digests), np.uint8
    ).reshape(-1, 32)


def feature_ids(images: Images, feature: Feature) -> NDArray[np.uint8]:
    """What a feature's row is stored under: the image, or its name, and the inputs the feature reads."""
    ids = image_ids(images)
    if not feature.by_name and not feature.inputs:
        return ids
    if feature.by_name and images.names is None:
        raise NotApplicable(f"{type(feature).__name__} matches images by name, and these have none")
    rows = []
    for row in range(len(images)):
        first = f"name:{images.names[row]}".encode() if feature.by_name and images.names else ids[row].tobytes()
        inputs = [array_bytes(images.inputs[name][row]) for name in feature.inputs if name in images.inputs]
        rows.append(hashlib.sha256(digest_of([first, *inputs]).encode()).digest())
    return np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 32)


def extracted(feature: Feature, images: Images, rows: Ints, run: CellRun) -> Iterator[NDArray[np.float32]]:
    """Batches of a feature's rows. Every call gets `batch_size` images; the last batch repeats its last image."""
    size = feature.batch_size
    width: int | None = None
    for begin in range(0, len(rows), size):
        batch = rows[begin : begin + size]
        padded = np.concatenate([batch, np.repeat(batch[-1:], size - len(batch))])
        view = images.take(
            padded, names=feature.by_name, columns=(), inputs=[n for n in feature.inputs if n in images.inputs]
        )
        given = feature.extract(view, run.door)
        if said := masked(given):
            raise PluginError(f"{run.who}: extract: {said}; a masked value is no number.")
        found = np.asarray(given)
        if found.ndim != 2 or len(found) != size or found.dtype != np.float32 or width not in (None, found.shape[1]):
            raise PluginError(
                f"{run.who}: extract must give ({size}, {width or 'd'}) float32, not {found.shape} {found.dtype}."
            )
        bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
        if len(bad):
            where = images.describe(int(padded[bad[0]]))
            raise PluginError(f"{run.who}: extract gave NaN or infinity for {where}.")
        width = found.shape[1]
        yield found[: len(batch)]
