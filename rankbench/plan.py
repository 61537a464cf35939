"""Benchmark to cells with keys: what a run has to do, what is stored already, and what data is missing.

A planned cell has a description that needs no data (ranker, dataset, facets, seed, threads, as the file gives them)
and, where the data is there, a key. The stored plan maps one to the other, so that a table finds cells without data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rankbench.benchmark import Benchmark, Column, Row, named
from rankbench.cell import key_of, key_parts
from rankbench.errors import BenchmarkError, DamagedFile, MissingData, PluginError, RankbenchError, did_you_mean
from rankbench.evidence import Sight
from rankbench.files import canonical_json
from rankbench.loading import Data, DatasetChoice, missing_message, not_found
from rankbench.plugin import Features, File, Learner, Ranker, Resources
from rankbench.registry import Registry, as_toml, plain, resolved
from rankbench.services import build_feature, feature_key, file_parameters, fitted_on
from rankbench.store import AGAIN, Record, ResultStore

DONE, NOT_APPLICABLE, FAILED, STALE, MISSING, TODO = (
    "done",
    "not applicable",
    "failed",
    "stale",
    "missing data",
    "to do",
)


@dataclass(repr=False)
class PlannedCell:
    """One cell of a plan. `key` is None where data is missing or the problem or plugin is broken."""

    row: str
    dataset: DatasetChoice
    facets: dict[str, Any]
    ranker: dict[str, Any]  # name and parameters as the file gives them
    seed: int | None
    wanted_threads: int | None  # as the file gives them
    threads: int = 1
    key: str | None = None
    parts: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    missing: str = ""
    absent: str = ""  # what of it planning knows: files of ranker and features without which a run need not try
    gpu: int = 0
    pixels: bool = True
    timeout: float | None = None
    sources: dict[str, str] = field(default_factory=dict)
    distributions: list[str] = field(default_factory=list)  # whose code it runs, the core's own left out
    sight: Sight = field(default_factory=Sight)
    tests: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    overlap: str | None = None
    status: str = TODO
    reason: str = ""
    damaged: bool = False  # stored, but not as it was, or not what it can be

    def __repr__(self) -> str:
        return f"<PlannedCell {self.title}: {self.status}>"

    @property
    def description(self) -> dict[str, Any]:
        """What the cell is, without data."""
        return describe(self.ranker, self.dataset, self.facets, self.seed, self.wanted_threads)

    @property
    def inputs(self) -> list[str]:
        """Evidence given at test time that it reads."""
        return list(self.sight.inputs)

    @property
    def identity(self) -> str:
        """Row and description in one string: columns that overlap share the cell."""
        return canonical_json([self.row, self.description])

    def with_seed(self, seed: int | None) -> PlannedCell:
        """The same ranker and problem with another seed."""
        parts = self.parts and self.parts | {"seed": seed}
        return replace(self, seed=seed, parts=parts, key=key_of(parts) if parts else None)

    @property
    def title(self) -> str:
        """`HOG · elpv split=0 · seed 0`, for progress and messages."""
        facets = " ".join(f"{k}={v}" for k, v in self.facets.items())
        seed = "" if self.seed is None else f" · seed {self.seed}"
        return f"{self.row} · {self.dataset.name}{' ' if facets else ''}{facets}{seed}"


def describe(
    ranker: Mapping[str, Any], dataset: DatasetChoice, facets: Mapping[str, Any], seed: int | None, threads: int | None
) -> dict[str, Any]:
    """A cell's data-free description; `threads` as the benchmark file gives them."""
    return {
        "ranker": dict(ranker),
        "dataset": place(dataset),
        "facets": dict(facets),
        "seed": seed,
        **({} if threads is None else {"threads": threads}),
    }


def place(dataset: DatasetChoice) -> dict[str, Any]:
    """A dataset as a plan names it: with the folder, if the file gives one, as two folders hold different data."""
    return dataset.description | ({} if dataset.folder is None else {"folder": dataset.folder})


@dataclass(repr=False)
class Plan:
    """Every cell of a benchmark, and the facets of its datasets."""

    benchmark: Benchmark
    cells: list[PlannedCell]
    facets: dict[str, list[dict[str, Any]] | None]  # by canonical dataset description
    fitted: int = 0  # cells a run has worked on, good or bad
    accepted: int = 0  # stale cells that `accept_stale` has declared valid

    def __repr__(self) -> str:
        return f"<Plan of {self.benchmark.name}: {len(self.cells)} cells>"

    def to_json(self) -> dict[str, Any]:
        """What the store keeps."""
        return {
            "number": 0,
            "benchmark": self.benchmark.name,
            "toml": self.benchmark.text,
            "facets": self.facets,
            "cells": [
                {
                    "row": cell.row,
                    "description": cell.description,
                    "key": cell.key,
                    "error": cell.error,
                    "missing": cell.missing,
                    "tests": cell.tests,
                    "notes": cell.notes,
                    "overlap": cell.overlap,
                    "inputs": cell.inputs,
                }
                for cell in self.cells
            ],
        }


class Planner:
    """Plans benchmarks against one registry, data root and store."""

    def __init__(self, registry: Registry, data: Data, store: ResultStore) -> None:
        self.registry, self.data, self.store = registry, data, store
        self._sources: dict[tuple[str, str], str] = {}
        self._resolved: tuple[Ranker, dict[str, Any]] | None = None  # of the ranker last seen: it serves many problems

    def plan(self, benchmark: Benchmark) -> Plan:
        """Every cell, whatever part of it will be run. BenchmarkError for names and parameters that cannot be right."""
        self.data.look_again()
        earlier = Earlier(self.store.plan(benchmark.name))
        check_metrics(self.registry, benchmark)
        problems = {canonical_json(place(column.choice)): column.choice for column in benchmark.column}
        known = {label: self._known(choice, earlier.facets.get(label)) for label, choice in problems.items()}
        cells: dict[str, PlannedCell] = {}
        for row in benchmark.row:
            for column in filter(row.fills, benchmark.column):
                there = known[canonical_json(place(column.choice))]
                for cell in self._cells(benchmark, row, column, there, earlier, cells):
                    cells[cell.identity] = cell
        return Plan(benchmark, list(cells.values()), {label: one.facets for label, one in known.items()})

    def _known(self, choice: DatasetChoice, before: list[dict[str, Any]] | None) -> Known:
        """What can be said of a dataset's problems; `before`, their facets in the earlier plan."""
        try:
            facets = self.data.facets(choice)
        except BenchmarkError:
            raise
        except MissingData as error:  # found out by reading: too many of the images that a file lists, say
            return Known(before, False, missing=str(error))
        except RankbenchError as error:
            return Known(before, False, str(error))
        if facets == []:
            return Known(before, False, f"dataset {choice.label} has no problems: there is nothing to rank.")
        return Known(before, False) if facets is None else Known(facets, True)

    def _cells(
        self,
        benchmark: Benchmark,
        row: Row,
        column: Column,
        known: Known,
        earlier: Earlier,
        planned: Mapping[str, PlannedCell],
    ) -> Iterator[PlannedCell]:
        """The cells of one row and column that no other column has `planned`."""
        where = f"benchmark {benchmark.name}, row {row.label!r}"
        try:
            table = {"name": named(row.ranker)["name"], "parameters": plain(row.parameters(column))}
        except BenchmarkError as error:
            raise BenchmarkError(f"{where}: {error}") from error
        matching = [facets for facets in known.facets or [] if column.matches(facets)]
        if known.sure and not matching:
            raise BenchmarkError(no_match(benchmark, column, known.facets or []))
        absent = self._absent(row, table["name"])
        built = absent or self._ranker(table, where)
        seeds = benchmark.seeds if isinstance(built, str) or built.seeded else [None]
        threads = row.threads or benchmark.threads
        for facets in matching or [placeholder(column)]:
            first = PlannedCell(row.label, column.choice, facets, table, seeds[0], threads)
            if first.identity in planned:
                if planned[first.identity].parts:
                    check_test(benchmark, column, planned[first.identity])
                continue
            first.timeout = row.timeout or benchmark.timeout
            first.missing = "\n\n".join(filter(None, [absent, absent and self._lacking(column.choice)]))
            first.error = known.error or (built if isinstance(built, str) and not absent else "")
            if not isinstance(built, str) and not known.error:
                self._fill(first, built, known)
            for cell in (first, *map(first.with_seed, seeds[1:])):
                if cell.key is None:
                    earlier.recall(cell)
                else:
                    check_test(benchmark, column, cell)
                self.judge(cell)
                yield cell

    def _absent(self, row: Row, name: str) -> str:
        """Why a row whose package is not installed has no ranker; empty where it has, or names no package."""
        if row.package is None or ("rankers", name) in self.registry.plugins:
            return ""
        return f"ranker {name!r} of row {row.label!r} is not installed; it comes with the package {row.package}."

    def _lacking(self, choice: DatasetChoice) -> str:
        """What data is missing besides; empty where none is, or nobody can tell."""
        try:
            lacking = self.data.missing(choice)
        except RankbenchError:
            return ""
        return missing_message(choice, lacking) if lacking else ""

    def _fill(self, cell: PlannedCell, ranker: Ranker, known: Known) -> None:
        try:
            self._resources(cell, ranker)
        except Exception as error:  # a plugin's own code: it spoils its row, not the plan
            plugin = self.registry.find("rankers", cell.ranker["name"])
            cell.error = f"{plugin} cannot be planned: {type(error).__name__}: {error}"
            return
        self._key(cell, ranker, known)
        cell.missing = "\n\n".join(filter(None, [cell.missing, cell.absent]))

    def _ranker(self, table: Mapping[str, Any], where: str) -> Ranker | str:
        """The ranker, or why its package cannot give it: that row's cells fail and the others go on."""
        try:
            ranker = self.registry.build("rankers", table["name"], table["parameters"])
            if not isinstance(ranker, Ranker):
                raise PluginError(
                    f"{self.registry.find('rankers', table['name'])}: its class must inherit rankbench.Ranker."
                )
            for choice in feature_choices(ranker):
                build_feature(self.registry, choice)
            return ranker
        except PluginError as error:
            return str(error)
        except BenchmarkError as error:
            raise BenchmarkError(f"{where}: {error}") from error

    def _resources(self, cell: PlannedCell, ranker: Ranker) -> None:
        needed: Resources = ranker.resources()
        choices = feature_choices(ranker)
        features = [build_feature(self.registry, choice) for choice in choices]
        cell.gpu = max([needed.gpu, *(feature.resources().gpu for feature in features)])
        cell.threads = cell.wanted_threads or needed.threads
        cell.sight = Sight.of(ranker, [(choice.name, one) for choice, one in zip(choices, features, strict=True)])
        cell.pixels = cell.sight.pixels
        labels = [f"ranker {cell.ranker['name']}", *(f"feature {choice.name}" for choice in choices)]
        absent = [absent_files(label, learner) for label, learner in zip(labels, (ranker, *features), strict=True)]
        cell.absent = "\n\n".join(dict.fromkeys(filter(None, absent)))
        for kind, name in [("rankers", cell.ranker["name"]), *(("features", choice.name) for choice in choices)]:
            if (kind, name) not in self._sources:
                self._sources[kind, name] = self.registry.source(kind, name)
            cell.sources[f"{kind}/{name}"] = self._sources[kind, name]
        data = [cell.dataset.name, *(dict(choice.fit_on)["name"] for choice in choices if choice.fit_on is not None)]
        used = [*(tuple(place.split("/", 1)) for place in cell.sources), *(("datasets", name) for name in data)]
        known = [self.registry.plugins[kind, name] for kind, name in used if (kind, name) in self.registry.plugins]
        cell.distributions = sorted({plugin.distribution for plugin in known} - {"rankbench"})

    def _key(self, cell: PlannedCell, ranker: Ranker, known: Known) -> None:
        try:
            lacking = self.data.missing(cell.dataset, cell.pixels)
            if lacking or not known.sure:
                raise MissingData(known.missing or missing_message(cell.dataset, lacking))
            summary = self.data.summary(cell.dataset, cell.facets)
            features = [key_of(self._feature(cell, choice, summary)) for choice in feature_choices(ranker)]
            files = {name: self._file(file) for name, file in file_parameters(ranker).items()}
        except MissingData as error:
            cell.missing = str(error)
            return
        except RankbenchError as error:
            cell.error = str(error)
            return
        cell.tests = {name: test["digest"] for name, test in summary["tests"].items()}
        cell.notes, cell.overlap = list(summary["notes"]), summary["overlap"]
        plugin = self.registry.find("rankers", cell.ranker["name"])
        about = {
            "name": plugin.name,
            "distribution": plugin.distribution,
            "version": type(ranker).version,
            "parameters": self._parameters(ranker),
        }
        threads = None if ranker.resources().gpu else cell.threads
        cell.parts = key_parts(summary["fingerprint"], cell.facets, about, features, files, cell.seed, threads)
        cell.key = key_of(cell.parts)

    def _feature(self, cell: PlannedCell, choice: Any, summary: Mapping[str, Any]) -> dict[str, Any]:
        feature = build_feature(self.registry, choice)
        parts = summary["fitting"]
        if choice.fit_on is not None:
            lacking = self.data.missing(DatasetChoice.parse(dict(choice.fit_on)))
            if lacking:
                raise MissingData(missing_message(DatasetChoice.parse(dict(choice.fit_on)), lacking))
            parts = self.data.fitting_on_parts(dict(choice.fit_on), cell.dataset, cell.facets)
        learned = fitted_on(parts, feature.uses) if feature.learned() else None
        parts = feature_key(self.registry, choice, learned, self._file, summary["names"])
        return {**parts, "normalize": choice.normalize}

    def _file(self, file: File) -> str:
        path = self.data.root / file
        if not path.exists():
            raise MissingData(f"file {file!r}, named by a parameter: not found:\n  {path}")
        return self.data.memo.digests([path]).tobytes().hex()

    def _parameters(self, ranker: Ranker) -> dict[str, Any]:
        """Resolved parameters without what enters no key: where files and the datasets of features lie."""
        if self._resolved is not None and self._resolved[0] is ranker:
            return self._resolved[1]
        files = file_parameters(ranker)
        kept = {name: without_folders(value) for name, value in resolved(ranker).items() if name not in files}
        for name in kept:
            if isinstance(choices := getattr(ranker, name), Features):
                for entry, choice in zip(kept[name], choices, strict=True):
                    feature = build_feature(self.registry, choice)
                    own = {key: entry[key] for key in ("name", "normalize", "fit_on") if key in entry}
                    named_files = file_parameters(feature)
                    entry.clear()
                    entry |= {k: v for k, v in resolved(feature).items() if k not in named_files} | own
        self._resolved = (ranker, kept)
        return kept

    def judge(self, cell: PlannedCell) -> None:
        """What the store says of the cell. An error of plugin or data outweighs a result stored before it."""
        record, damage = self._stored(cell)
        cell.damaged = bool(damage)
        if record is not None and not cell.error:
            good = DONE if record["status"] == DONE else NOT_APPLICABLE
            cell.status = STALE if self.is_stale(cell.key or "", record) else good
            cell.reason = record.get("error", {}).get("message", "")
        elif cell.error:
            cell.status, cell.reason = FAILED, cell.error
        elif cell.missing and damage:
            cell.status, cell.reason = FAILED, f"{damage} It cannot be computed again now. {cell.missing}"
        elif cell.missing:
            cell.status, cell.reason = MISSING, cell.missing
        else:
            cell.reason = damage
            failure = self.store.failure(cell.key) if cell.key else None
            if failure is not None and word_for(failure) == MISSING and not damage:
                cell.status, cell.missing = MISSING, failure["error"]["message"]  # found out by trying
            elif failure is not None:
                cell.status, cell.reason = FAILED, failure["error"]["message"]

    def _stored(self, cell: PlannedCell) -> tuple[Record | None, str]:
        """The cell's record, if it is stored whole; else what of it is damaged."""
        try:
            stored = self.store.stored(cell.key) if cell.key else None
            if stored is not None and cell.parts:
                self.store.check_tests(cell.key or "", stored.record, cell.tests)
        except DamagedFile as error:
            self.store.name(error, AGAIN)
            return None, str(error)
        return (None if stored is None else stored.record), ""

    def is_stale(self, key: str, record: Record) -> bool:
        """Whether the source of a stored cell's plugins has changed since, and nobody has accepted the edit."""
        return is_stale(self.registry, self.store, key, record, self._sources)


def word_for(record: Record) -> str:
    """What became of a cell that was tried, in the word that plan, summary and table have for it."""
    return MISSING if record.get("error", {}).get("type") == MissingData.__name__ else str(record["status"])


def is_stale(
    registry: Registry, store: ResultStore, key: str, record: Record, known: dict[tuple[str, str], str]
) -> bool:
    """Whether plugins changed since the cell was stored. `known` remembers digests of sources by kind and name."""
    changed = {}
    for place, digest in record.get("sources", {}).items():
        kind, _, name = place.partition("/")
        if (kind, name) not in known:
            known[kind, name] = registry.source(kind, name)
        if known[kind, name] and known[kind, name] != digest:
            changed[place] = known[kind, name]
    return bool(changed) and not store.accepted(key, edit_of({**record["sources"], **changed}))


def edit_of(sources: Mapping[str, str]) -> str:
    """One digest for the present source of all plugins of a cell."""
    return key_of({"sources": dict(sources)})


@dataclass(frozen=True)
class Known:
    """Facets of a dataset's problems, None where nobody knows; whether they are `sure` or only an earlier plan's.

    `error` says what is wrong with the dataset, `missing` what of it was found to be missing as it was read.
    """

    facets: list[dict[str, Any]] | None
    sure: bool
    error: str = ""
    missing: str = ""


class Earlier:
    """The plan stored before: where data is absent its keys stay, so that a table of stored results is not emptied."""

    def __init__(self, plan: Mapping[str, Any] | None) -> None:
        self.facets: dict[str, Any] = dict(plan["facets"]) if plan else {}
        self._cells = {canonical_json(cell["description"]): cell for cell in (plan["cells"] if plan else [])}

    def recall(self, cell: PlannedCell) -> None:
        """Take over the key an absent cell had."""
        before = self._cells.get(canonical_json(cell.description))
        if before is not None and before["key"]:
            cell.key, cell.tests = before["key"], before["tests"]
            cell.notes, cell.overlap = before["notes"], before["overlap"]


def placeholder(column: Column) -> dict[str, Any]:
    """Facets of a problem nobody knows yet: what the column asks for."""
    return {key: value for key, value in column.where.items() if not isinstance(value, list)}


def without_folders(value: Any) -> Any:
    """A parameter without the folders of datasets that features are fitted on: where data lies enters no key."""
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    if isinstance(value, dict) and isinstance(value.get("fit_on"), dict):
        return value | {"fit_on": {name: part for name, part in value["fit_on"].items() if name != "folder"}}
    return value


def absent_files(who: str, learner: Learner) -> str:
    """Which of the files that a ranker or feature needs are not there; nothing where all are."""
    lacking = [need for need in learner.needs() if not need.found]
    return not_found(who, lacking) if lacking else ""


def feature_choices(plugin: Any) -> list[Any]:
    """Every feature named by a plugin's parameters, in their order."""
    return [choice for value in values(plugin) if isinstance(value, Features) for choice in value]


def values(plugin: Any) -> list[Any]:
    return [getattr(plugin, name) for name in getattr(plugin, "__dataclass_fields__", {})]


def check_metrics(registry: Registry, benchmark: Benchmark) -> None:
    """BenchmarkError for a metric no column can be filled with."""
    for column in benchmark.column:
        table = named(column.metric)
        try:
            registry.build("metrics", table["name"], {k: v for k, v in table.items() if k != "name"})
        except BenchmarkError as error:
            raise BenchmarkError(f"{benchmark.metric_place(column)}: {error}") from error


def check_test(benchmark: Benchmark, column: Column, cell: PlannedCell) -> None:
    """BenchmarkError where a column does not say which of several tests it means, or names one there is not."""
    if column.test in cell.tests or (column.test is None and len(cell.tests) == 1):
        return
    where, names = f"benchmark {benchmark.name}, column {column.label!r}", sorted(cell.tests)
    if not names:
        raise BenchmarkError(f"{where}: {column.choice.label} has no test pairs, only data to learn from.")
    wrong = "does not say which test it means" if column.test is None else f"there is no test {column.test!r}"
    raise BenchmarkError(
        f"{where}: {wrong}. Tests of {column.choice.label}: {', '.join(names)}. Write one of them, as test = "
        f'"{names[0]}".'
    )


def no_match(benchmark: Benchmark, column: Column, known: list[dict[str, Any]]) -> str:
    """Which facets there are, where `where` matches none."""
    seen: dict[str, list[Any]] = {}
    for facets in known:
        for key, value in facets.items():
            if value not in seen.setdefault(key, []):
                seen[key].append(value)
    there = "; ".join(f"{key} is one of {', '.join(map(str, found[:12]))}" for key, found in seen.items()) or "none"
    meant = ""
    for key, value in column.where.items():
        if key not in seen:
            meant = meant or did_you_mean(key, list(seen))
        for one in value if isinstance(value, list) else [value]:
            if one not in seen.get(key, [one]):
                meant = meant or did_you_mean(str(one), list(map(str, seen[key])))
    return (
        f"benchmark {benchmark.name}, column {column.label!r}: no problem of {column.choice.label} matches "
        f"where = {as_toml(column.where)}.{meant} Its facets: {there}."
    )


def default_cache() -> Path:
    """`$RANKBENCH_CACHE`, or ./cache."""
    import os

    return Path(os.environ.get("RANKBENCH_CACHE", "cache"))
