"""Benchmark to cells with keys: what a run has to do, what is stored already, and what data is missing.

A planned cell has a description that needs no data (row's ranker, dataset, facets, seed, threads) and, where the data
is there, a key. The stored plan maps one to the other, so that a table finds its cells without data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankbench.benchmark import Benchmark, Column, Row, named
from rankbench.cell import key_of, key_parts
from rankbench.errors import BenchmarkError, MissingData, PluginError, RankbenchError
from rankbench.files import canonical_json
from rankbench.images import file_digests
from rankbench.loading import Data, DatasetChoice, missing_message
from rankbench.plugin import Features, File, Need, Ranker, Resources
from rankbench.registry import Registry, plain, resolved
from rankbench.services import build_feature, feature_key, fitted_on
from rankbench.store import Record, ResultStore

DONE, NOT_APPLICABLE, FAILED, STALE, MISSING, TODO = (
    "done",
    "not applicable",
    "failed",
    "stale",
    "missing data",
    "to do",
)


@dataclass
class PlannedCell:
    """One cell of a plan. `key` is None where data is missing or the problem or plugin is broken."""

    row: str
    dataset: DatasetChoice
    facets: dict[str, Any]
    ranker: dict[str, Any]  # name and parameters as the file gives them
    seed: int | None
    threads: int
    key: str | None = None
    parts: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    missing: str = ""
    gpu: int = 0
    pixels: bool = True
    timeout: float | None = None
    sources: dict[str, str] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    tests: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    overlap: str | None = None
    status: str = TODO
    reason: str = ""

    @property
    def description(self) -> dict[str, Any]:
        """What the cell is, without data."""
        return describe(self.ranker, self.dataset, self.facets, self.seed)

    @property
    def title(self) -> str:
        """`HOG · elpv split=0 · seed 0`, for progress and messages."""
        facets = " ".join(f"{k}={v}" for k, v in self.facets.items())
        seed = "" if self.seed is None else f" · seed {self.seed}"
        return f"{self.row} · {self.dataset.name}{' ' if facets else ''}{facets}{seed}"


def describe(
    ranker: Mapping[str, Any], dataset: DatasetChoice, facets: Mapping[str, Any], seed: int | None
) -> dict[str, Any]:
    """A cell's data-free description."""
    return {"ranker": dict(ranker), "dataset": dataset.description, "facets": dict(facets), "seed": seed}


@dataclass
class Plan:
    """Every cell of a benchmark, and the facets of its datasets."""

    benchmark: Benchmark
    cells: list[PlannedCell]
    facets: dict[str, list[dict[str, Any]] | None]  # by canonical dataset description
    missing: dict[str, list[Need]] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """How many cells have each status."""
        found: dict[str, int] = {}
        for cell in self.cells:
            found[cell.status] = found.get(cell.status, 0) + 1
        return found

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

    def plan(self, benchmark: Benchmark) -> Plan:
        """Every cell, whatever part of it will be run. BenchmarkError for names and parameters that cannot be right."""
        earlier = Earlier(self.store.plan(benchmark.name))
        check_metrics(self.registry, benchmark)
        facets: dict[str, list[dict[str, Any]] | None] = {}
        missing: dict[str, list[Need]] = {}
        broken: dict[str, str] = {}
        for column in benchmark.column:
            label = canonical_json(column.choice.description)
            if label in facets or label in broken:
                continue
            try:
                known = self.data.facets(column.choice)
                lacking = self.data.missing(column.choice)
                facets[label] = earlier.facets.get(label) if known is None else known
                if lacking:
                    missing[label] = lacking
            except BenchmarkError:
                raise
            except RankbenchError as error:
                broken[label], facets[label] = str(error), earlier.facets.get(label)
        cells: dict[str, PlannedCell] = {}
        for row in benchmark.row:
            if row.ranker is not None:
                for cell in self._row(benchmark, row, facets, broken, earlier):
                    cells.setdefault(canonical_json([cell.row, cell.description]), cell)
        return Plan(benchmark, list(cells.values()), facets, missing)

    def _row(
        self, benchmark: Benchmark, row: Row, facets: Mapping[str, Any], broken: Mapping[str, str], earlier: Earlier
    ) -> Iterator[PlannedCell]:
        for column in benchmark.column:
            table = {"name": named(row.ranker)["name"], "parameters": plain(row.parameters(column))}
            label = canonical_json(column.choice.description)
            known = facets.get(label)
            matching = [f for f in known or [] if column.matches(f)]
            if known and not matching and label not in broken:
                raise BenchmarkError(no_match(benchmark, column, known))
            if not matching:
                matching = [{key: value for key, value in column.where.items() if not isinstance(value, list)}]
            built = self._ranker(table, f"benchmark {benchmark.name}, row {row.label!r}")
            seeds = benchmark.seeds if isinstance(built, str) or built.seeded else [None]
            for one in matching:
                for seed in seeds:
                    cell = PlannedCell(row.label, column.choice, one, table, seed, 1)
                    cell.timeout = row.timeout or benchmark.timeout
                    if isinstance(built, str):
                        cell.error = built
                    elif label in broken:
                        cell.error = broken[label]
                    else:
                        self._resources(cell, built, row.threads or benchmark.threads)
                        self._key(cell, built, known is not None)
                    if cell.key is None and not cell.error:
                        earlier.recall(cell)
                    self.judge(cell)
                    yield cell

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

    def _resources(self, cell: PlannedCell, ranker: Ranker, threads: int | None) -> None:
        needed: Resources = ranker.resources()
        choices = feature_choices(ranker)
        cell.gpu = max([needed.gpu, *(build_feature(self.registry, choice).resources().gpu for choice in choices)])
        cell.threads = threads or needed.threads
        cell.pixels = ranker.needs_images()
        reading = [build_feature(self.registry, choice) for choice in choices]
        cell.inputs = sorted({name for learner in (ranker, *reading) for name in learner.inputs})
        for kind, name in [("rankers", cell.ranker["name"]), *(("features", choice.name) for choice in choices)]:
            if (kind, name) not in self._sources:
                self._sources[kind, name] = self.registry.source(kind, name)
            cell.sources[f"{kind}/{name}"] = self._sources[kind, name]

    def _key(self, cell: PlannedCell, ranker: Ranker, facets_known: bool) -> None:
        try:
            lacking = self.data.missing(cell.dataset, cell.pixels)
            if lacking or not facets_known:
                raise MissingData(missing_message(cell.dataset, lacking))
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
        parameters = {name: value for name, value in resolved(ranker).items() if name not in files}
        about = {
            "name": plugin.name,
            "distribution": plugin.distribution,
            "version": type(ranker).version,
            "parameters": parameters,
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
        return {**feature_key(self.registry, choice, learned), "normalize": choice.normalize}

    def _file(self, file: File) -> str:
        path = self.data.root / file
        if not path.exists():
            raise MissingData(f"file {file!r}, named by a parameter: not found:\n  {path}")
        return file_digests([path]).tobytes().hex()

    def judge(self, cell: PlannedCell) -> None:
        """What the store says of the cell."""
        record = self.store.record(cell.key) if cell.key else None
        if record is not None:
            good = DONE if record["status"] == DONE else NOT_APPLICABLE
            cell.status = STALE if self.is_stale(cell.key or "", record) else good
            cell.reason = record.get("error", {}).get("message", "")
        elif cell.error:
            cell.status, cell.reason = FAILED, cell.error
        elif cell.missing:
            cell.status, cell.reason = MISSING, cell.missing
        else:
            failure = self.store.failure(cell.key) if cell.key else None
            if failure is not None:
                cell.status, cell.reason = FAILED, failure["error"]["message"]

    def is_stale(self, key: str, record: Record) -> bool:
        """Whether the source of a stored cell's plugins has changed since, and nobody has accepted the edit."""
        return is_stale(self.registry, self.store, key, record, self._sources)


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


def feature_choices(plugin: Any) -> list[Any]:
    """Every feature named by a plugin's parameters, in their order."""
    return [choice for value in values(plugin) if isinstance(value, Features) for choice in value]


def file_parameters(plugin: Any) -> dict[str, File]:
    """Every parameter that names a file."""
    names = getattr(plugin, "__dataclass_fields__", {})
    return {name: getattr(plugin, name) for name in names if isinstance(getattr(plugin, name), File)}


def values(plugin: Any) -> list[Any]:
    return [getattr(plugin, name) for name in getattr(plugin, "__dataclass_fields__", {})]


def check_metrics(registry: Registry, benchmark: Benchmark) -> None:
    """BenchmarkError for a metric no column can be filled with."""
    for number, column in enumerate(benchmark.column, 1):
        table = named(column.metric)
        try:
            registry.build("metrics", table["name"], {k: v for k, v in table.items() if k != "name"})
        except BenchmarkError as error:
            raise BenchmarkError(f"benchmark {benchmark.name}, column {number}: {error}") from error


def no_match(benchmark: Benchmark, column: Column, known: list[dict[str, Any]]) -> str:
    """Which facets there are, where `where` matches none."""
    seen: dict[str, list[Any]] = {}
    for facets in known:
        for key, value in facets.items():
            if value not in seen.setdefault(key, []):
                seen[key].append(value)
    there = "; ".join(f"{key} is one of {', '.join(map(str, found[:12]))}" for key, found in seen.items()) or "none"
    return (
        f"benchmark {benchmark.name}, column {column.label!r}: no problem of {column.choice.label} matches "
        f"where = {column.where}. Its facets: {there}."
    )


def default_cache() -> Path:
    """`$RANKBENCH_CACHE`, or ./cache."""
    import os

    return Path(os.environ.get("RANKBENCH_CACHE", "cache"))
