"""Datasets by name: what they need, their facets, their canonical problems; a memo makes a second plan read nothing.

The memo lies in the cache and may be deleted at any time. Digests of files are remembered by path, size, inode and the
times at which content and inode changed (no program puts the latter back); a problem's summary by the dataset's source
and parameters, the facets, and the state of what it needs.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankbench.cache import discard, recalled, remember, sound_chunks
from rankbench.cell import CORE_RESULTS, TestSet, key_of
from rankbench.errors import BenchmarkError, DataError, MissingData, PluginError, RankbenchError, StoreError, raised_at
from rankbench.files import canonical_json, write_folder
from rankbench.images import Images, digest_of, file_digests
from rankbench.plugin import Dataset, Need
from rankbench.problem import Problem, scalars
from rankbench.registry import Registry, plain
from rankbench.services import Fitting

KEPT_PROBLEMS = 2  # in memory: the one at hand, and one that a feature is fitted on
WALK_LIMIT = 100_000  # files of a needed folder whose state is looked at one by one
SETTLED = 2_000_000_000  # nanoseconds; a file written just now may change again within its time stamp


@dataclass(frozen=True)
class DatasetChoice:
    """A dataset as a benchmark names it. The folder says where to look and is part of no key."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    folder: str | None = None

    @classmethod
    def parse(cls, table: Mapping[str, Any]) -> DatasetChoice:
        """From a TOML table {name, folder, parameters…}."""
        rest = {key: plain(value) for key, value in table.items() if key not in ("name", "folder")}
        folder = table.get("folder")
        if folder is not None and not isinstance(folder, str):
            raise BenchmarkError(f"dataset {table['name']}: folder is {folder!r}; it must be a string.")
        return cls(str(table["name"]), rest, folder)

    @property
    def description(self) -> dict[str, Any]:
        """Name and parameters, without the folder."""
        return {"name": self.name, "parameters": dict(self.parameters)}

    @property
    def label(self) -> str:
        """`osr` or `manifest (folder=shoes)`, for messages."""
        folder = {"folder": self.folder} if self.folder else {}
        rest = [f"{k}={v}" for k, v in {**folder, **self.parameters}.items()]
        return f"{self.name} ({', '.join(rest)})" if rest else self.name


class Data:
    """Loads datasets from one data root with one cache."""

    def __init__(self, registry: Registry, root: Path, cache: Path) -> None:
        self.registry, self.root, self.cache = registry, root, cache
        self.memo = FileMemo(cache / "digests")
        self._datasets: dict[str, Dataset] = {}
        self._needs: dict[str, list[Need]] = {}
        self._state: dict[str, str] = {}
        self._sources: dict[str, str] = {}  # digests of the datasets' sources: each costs a millisecond
        self._summaries: dict[Path, dict[str, Any]] = {}
        self._recent: dict[str, Problem] = {}  # the last few problems, the latest at the end

    def look_again(self) -> None:
        """Forget what was seen of the folders: files may have come, gone or changed since."""
        self._needs.clear()
        self._state.clear()
        self._sources.clear()
        self._summaries.clear()
        self._recent.clear()

    def dataset(self, choice: DatasetChoice) -> Dataset:
        """The dataset plugin with its parameters."""
        key = key_of(choice.description)
        if key not in self._datasets:
            dataset = self.registry.build("datasets", choice.name, choice.parameters)
            if not isinstance(dataset, Dataset):
                raise PluginError(
                    f"{self.registry.find('datasets', choice.name)}: its class must inherit rankbench.Dataset."
                )
            self._datasets[key] = dataset
        return self._datasets[key]

    def folder(self, choice: DatasetChoice) -> Path:
        """Where the dataset's files lie."""
        default = self.dataset(choice).folder
        return self.root / (choice.folder or (choice.name if default is None else default))

    def needs(self, choice: DatasetChoice) -> list[Need]:
        """What it looks for; asked once, as some datasets parse a file to tell."""
        place = canonical_json([str(self.folder(choice)), choice.description])
        if place not in self._needs:
            with blaming(self.registry, choice):
                self._needs[place] = list(self.dataset(choice).needs(self.folder(choice)))
        return self._needs[place]

    def missing(self, choice: DatasetChoice, pixels: bool = True) -> list[Need]:
        """What is not there; without `pixels` only what a row needs that reads none."""
        return [need for need in self.needs(choice) if not need.found and (pixels or not need.images)]

    def facets(self, choice: DatasetChoice) -> list[dict[str, Any]] | None:
        """Facets of every problem; None where they cannot be known without data that is missing."""
        dataset, folder = self.dataset(choice), self.folder(choice)
        if self.missing(choice, pixels=False):
            if type(dataset).facets is Dataset.facets:
                return None
            try:
                with blaming(self.registry, choice):
                    return distinct(dataset.facets(folder))
            except (RankbenchError, OSError):  # facets that are not fixed need the data
                return None
        path = self._memo_path(choice, {"facets": True})
        known = recalled(path, list)
        if known is None:
            with blaming(self.registry, choice):
                known = distinct(dataset.facets(folder))
            remember(path, known)
        return list(known)

    def problem(self, choice: DatasetChoice, facets: Mapping[str, Any]) -> Problem:
        """A canonical problem. Where only pixels are missing, a dataset may give images that are names alone."""
        key = key_of({"dataset": choice.description, "folder": choice.folder, "facets": dict(facets)})
        if key in self._recent:
            self._recent[key] = self._recent.pop(key)
            return self._recent[key]
        lacking = self.missing(choice, pixels=False)
        if lacking:
            raise MissingData(missing_message(choice, lacking))
        with blaming(self.registry, choice):
            problem = self.dataset(choice).problem(self.folder(choice), facets)
            if not isinstance(problem, Problem):
                raise TypeError(f"problem() gave {type(problem).__name__}, not a rankbench.Problem")
            problem = problem.canonical(self.memo)
        while len(self._recent) >= KEPT_PROBLEMS:
            del self._recent[next(iter(self._recent))]
        self._recent[key] = problem
        return problem

    def summary(self, choice: DatasetChoice, facets: Mapping[str, Any]) -> dict[str, Any]:
        """What planning needs to know of a problem, remembered: fingerprint, sizes, digests for learned features."""
        path = self._memo_path(choice, {"facets": dict(facets)})
        if path not in self._summaries:
            self._summaries[path] = self._summary(path, choice, facets)
        return dict(self._summaries[path])

    def _summary(self, path: Path, choice: DatasetChoice, facets: Mapping[str, Any]) -> dict[str, Any]:
        known = recalled(path, dict)
        if known is not None:
            return known
        problem = self.problem(choice, facets)
        tests = {}
        for name, pairs in problem.tests.items():
            test = TestSet.of(problem, name)[0]
            tests[name] = {
                "digest": test.digest,
                "pairs": len(pairs),
                "ordered": int(pairs.ordered.sum()),
                "images": len(test.digests),
            }
        summary = {
            "fingerprint": problem.fingerprint,
            "tests": tests,
            "train": {
                "images": len(problem.training_rows()),
                "pairs": 0 if problem.train is None else len(problem.train),
            },
            "fitting": self.fitting(problem).parts,
            "names": names_digest(problem.images),
            "overlap": problem.overlap,
            "notes": list(problem.notes),
        }
        remember(path, summary)
        return summary

    def forget(self, choice: DatasetChoice, facets: Mapping[str, Any]) -> None:
        """Drop what is remembered of a problem, because it turned out to be another."""
        path = self._memo_path(choice, {"facets": dict(facets)})
        self._summaries.pop(path, None)
        with contextlib.suppress(OSError):  # a cache that cannot be written
            path.unlink()

    def fitting(self, problem: Problem, lost: NDArray[np.bool_] | None = None) -> Fitting:
        """Training images of a problem, for a learned feature."""
        rows = problem.training_rows()
        return Fitting(problem.images.take(rows if lost is None else rows[~lost[rows]]))

    def fitting_on(self, on: Mapping[str, Any], problem: Problem) -> Fitting:
        """Training images of another dataset, less every image of this problem's tests."""
        choice = DatasetChoice.parse(on)
        tested = {d.tobytes() for d in problem.images.digests[problem.test_rows()]}
        facets = self.facets(choice) or [{}]
        if len(facets) > 1:
            raise DataError(f"fit_on: dataset {choice.label} has {len(facets)} problems; choose one by its parameters.")
        other = self.problem(choice, facets[0])
        images, rows = other.images, other.training_rows()
        keep = np.array([images.digests[row].tobytes() not in tested for row in rows], dtype=bool)
        if not keep.any():
            raise DataError(
                f"fit_on: dataset {choice.label} has no image that is not in a test of the problem at hand."
            )
        return Fitting(images.take(rows[keep]))

    def fitting_on_parts(
        self, on: Mapping[str, Any], choice: DatasetChoice, facets: Mapping[str, Any]
    ) -> dict[str, Any]:
        """`fitting_on(…).parts`, remembered."""
        other = DatasetChoice.parse(on)
        mine = self.summary(choice, facets)["fingerprint"]
        theirs = [self.summary(other, f)["fingerprint"] for f in self.facets(other) or [{}]]
        path = self.cache / "problems" / f"{key_of({'format': 2, 'fit_on': theirs, 'problem': mine})}.json"
        parts = recalled(path, dict)
        if parts is None:
            parts = self.fitting_on(on, self.problem(choice, facets)).parts
            remember(path, parts)
        return dict(parts)

    def _memo_path(self, choice: DatasetChoice, about: Mapping[str, Any]) -> Path:
        folder = str(self.folder(choice))
        place = canonical_json([folder, choice.description])
        if place not in self._state:
            self._state[place] = key_of({"state": [state_of(need.path) for need in self.needs(choice)]})
        if choice.name not in self._sources:
            self._sources[choice.name] = self.registry.source("datasets", choice.name)
        parts = {
            "format": 3,  # of what is remembered
            "core_results": CORE_RESULTS,
            "dataset": choice.description,
            "source": self._sources[choice.name],
            "folder": folder,
            "state": self._state[place],
            **about,
        }
        return self.cache / "problems" / f"{key_of(parts)}.json"


def names_digest(images: Images) -> str | None:
    """Hex digest of the names, in the images' order; None where they have none."""
    if images.names is None:
        return None
    return digest_of(name.encode("utf-8", "surrogatepass") for name in images.names)


def distinct(listed: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Facets as JSON can say them. DataError where two problems have the same."""
    every = [scalars(facets) for facets in listed]
    seen: set[str] = set()
    for facets in every:
        if canonical_json(facets) in seen:
            raise DataError(f"two problems have the facets {facets}; add one that tells them apart.")
        seen.add(canonical_json(facets))
    return every


def missing_message(choice: DatasetChoice, lacking: Sequence[Need]) -> str:
    """Which paths were looked for, and where to get them."""
    return not_found(f"dataset {choice.label}", lacking)


def not_found(who: str, lacking: Sequence[Need]) -> str:
    """Which paths were looked for by whom, and where to get them."""
    return f"{who}: not found:\n" + "\n".join(listed_needs(lacking))


def listed_needs(needs: Sequence[Need], most: int | None = None) -> list[str]:
    """Lines with the paths, of one place the first `most`, and once below them where to get them."""
    silent = 'The dataset does not say where to get it. If it reads no files, its class says so by folder = "".'
    by_get: dict[str, list[str]] = {}
    for need in needs:
        by_get.setdefault(need.get or silent, []).append(f"  {at_home(need.path)}")
    for paths in by_get.values():
        if most is not None and len(paths) > most + 1:
            paths[most:] = [f"  … and {len(paths) - most} more"]
    return [line for get, paths in by_get.items() for line in (*paths, f"    {get}")]


def at_home(path: Path) -> str:
    """A path as a plan may keep it, which others read: the user's own folder is `~`."""
    home = os.path.expanduser("~")
    return "~" + str(path)[len(home) :] if home != "~" and str(path).startswith(home + os.sep) else str(path)


class blaming:
    """Gives errors that come out of a dataset the dataset's name and package."""

    def __init__(self, registry: Registry, choice: DatasetChoice) -> None:
        self.registry, self.choice = registry, choice

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, PluginError | KeyboardInterrupt):
            return
        if isinstance(error, RankbenchError):
            prefix = f"dataset {self.choice.label}: "
            if not str(error).startswith(prefix):  # facets are asked for inside what is blamed already
                raise type(error)(prefix + str(error)) from error
            return
        plugin = self.registry.find("datasets", self.choice.name)
        raise PluginError(
            f"{plugin} failed: {type(error).__name__}: {error}{raised_at(error, plugin.packages)}"
        ) from error


def state_of(path: Path) -> Any:
    """What tells whether a file or a folder's files changed: sizes, times, inodes; None if it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return None
    own = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    if not path.is_dir():
        return own
    found: list[tuple[Any, ...]] = []
    seen = {(stat.st_dev, stat.st_ino)}
    for folder, inner, names in os.walk(path, followlinks=True):
        inner[:] = [name for name in sorted(inner) if first_sight(os.path.join(folder, name), seen)]
        if len(found) >= WALK_LIMIT:  # a file that is added, removed or renamed still shows
            with contextlib.suppress(OSError):
                there = os.stat(folder)
                found.append((folder, there.st_mtime_ns, there.st_ctime_ns, len(names), len(inner)))
            continue
        for name in names:
            place = os.path.join(folder, name)
            with contextlib.suppress(OSError):  # a link that leads nowhere
                there = os.stat(place)
                found.append((place, there.st_size, there.st_mtime_ns, there.st_ctime_ns, there.st_ino))
    return [own, sorted(found)]


def first_sight(folder: str, seen: set[tuple[int, int]]) -> bool:
    """Whether a folder was not come upon before, by its own name or through a link that leads back to it."""
    try:
        stat = os.stat(folder)
    except OSError:
        return False
    new = (stat.st_dev, stat.st_ino) not in seen
    seen.add((stat.st_dev, stat.st_ino))
    return new


class FileMemo:
    """Content digests of files, remembered in small files that are only ever added."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[str, bytes] = {}
        self._read: set[str] = set()

    def digests(
        self, paths: Sequence[Path], advance: Callable[[int, int], None] = lambda done, of: None
    ) -> NDArray[np.uint8]:
        """(n, 32) uint8 sha-256 of each file; `advance` is told of each that had to be read, and of how many."""
        self._refresh()
        keys, changed = [""] * len(paths), np.zeros(len(paths), np.int64)
        for row, path in enumerate(paths):  # no tuple an image: there may be millions
            keys[row], changed[row] = self._key(path)
        unknown = [row for row, key in enumerate(keys) if key not in self._known]
        fresh = file_digests([paths[row] for row in unknown], advance)
        old_enough = time.time_ns() - SETTLED
        remembered = {}
        for row, digest in zip(unknown, fresh, strict=True):
            self._known[keys[row]] = digest.tobytes()
            if changed[row] < old_enough:
                remembered[keys[row]] = digest
        if remembered:
            self._store(remembered)
        found = b"".join(self._known[key] for key in keys)
        return np.frombuffer(found, np.uint8).reshape(-1, 32)

    @staticmethod
    def _key(path: Path) -> tuple[str, int]:
        """What the digest is remembered under, and when the file or what is known of it last changed."""
        try:
            stat = os.stat(path)
        except OSError:
            return str(path), 0
        key = f"{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}|{stat.st_ino}|{os.path.abspath(path)}"
        return key, max(stat.st_mtime_ns, stat.st_ctime_ns)

    def _refresh(self) -> None:
        for chunk in sound_chunks(self.folder, self._read, ("keys.npy", "digests.npy")):
            self._read.add(chunk.name)
            try:
                known, rows = np.load(chunk / "keys.npy"), np.load(chunk / "digests.npy")
            except (OSError, ValueError) as error:  # it went this moment, or is none of ours
                discard(chunk, StoreError(f"{chunk}: cannot be read ({error})."))
                continue
            self._known.update(zip(known.tolist(), (row.tobytes() for row in rows), strict=True))

    def _store(self, remembered: Mapping[str, NDArray[np.uint8]]) -> None:
        def write(draft: Path) -> None:
            np.save(draft / "keys.npy", np.array(list(remembered)))
            np.save(draft / "digests.npy", np.stack(list(remembered.values())))

        with contextlib.suppress(StoreError):  # a cache that cannot be written
            write_folder(self.folder / uuid.uuid4().hex, write)
