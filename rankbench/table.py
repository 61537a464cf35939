"""Outcomes to numbers: a benchmark's table, drawn from the store alone, without images, data or torch.

Averages give every problem equal weight, then every seed; ± is the standard deviation (ddof 1) of the per-seed means.
A missing problem leaves a mark and k/n, never a silent partial mean.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankbench.benchmark import Benchmark, Column, Reported, Row, named
from rankbench.cell import TestSet, key_of
from rankbench.errors import BenchmarkError, NotApplicable, RankbenchError
from rankbench.files import canonical_json, read_json, write_file
from rankbench.plan import DONE, FAILED, MISSING, NOT_APPLICABLE, TODO, describe, is_stale
from rankbench.registry import Registry, plain
from rankbench.store import Record, ResultStore

if TYPE_CHECKING:
    import pandas as pd

    from rankbench.plugin import Metric

TIES_WORTH_A_NOTE = 0.001  # share of ordered pairs with a predicted tie
MIXED = ("torch", "numpy", "scipy", "scikit-learn", "scikit-image", "pillow")  # versions worth a note when mixed


@dataclass
class Entry:
    """One place of a table.

    Attributes:
        value: mean in displayed units, None where there is none. spread: ± over seeds, None with one seed.
        deterministic: the ranker does not depend on the seed. status: of the worst of its cells.
        done, cells: how many of its cells are there. best: whether it is the best measured one of its column.
    """

    value: float | None = None
    spread: float | None = None
    deterministic: bool = False
    status: str = TODO
    stale: bool = False
    done: int = 0
    cells: int = 0
    best: bool = False
    reported: Reported | None = None
    notes: list[str] = field(default_factory=list)


@dataclass
class Head:
    """A column's head."""

    label: str
    group: str | None
    metric: str
    decimals: int
    higher_is_better: bool
    notes: list[str] = field(default_factory=list)


@dataclass
class Table:
    """A benchmark's numbers."""

    title: str
    source: str
    heads: list[Head]
    rows: list[str]
    entries: list[list[Entry]]  # row by row
    row_notes: list[list[str]]
    notes: list[str]

    def frame(self) -> pd.DataFrame:
        """One row a ranker, one column a measured column, with `(sd)` and `(reported)` columns where there are any."""
        import pandas as pd

        columns: dict[str, list[float | None]] = {}
        for at, head in enumerate(self.heads):
            entries = [row[at] for row in self.entries]
            label = f"{head.group}: {head.label}" if head.group else head.label
            columns[label] = [entry.value for entry in entries]
            if any(entry.spread is not None for entry in entries):
                columns[f"{label} (sd)"] = [entry.spread for entry in entries]
            if any(entry.reported for entry in entries):
                columns[f"{label} (reported)"] = [entry.reported.value if entry.reported else None for entry in entries]
        return pd.DataFrame(columns, index=pd.Index(self.rows, name=None), dtype=float)


class Drawer:
    """Draws tables from one store."""

    def __init__(self, registry: Registry, store: ResultStore, cache: Path | None = None) -> None:
        self.registry, self.store, self.cache = registry, store, cache
        self._tests: dict[str, TestSet] = {}
        self._sources: dict[tuple[str, str], str] = {}
        self._records: dict[str, Record | None] = {}

    def stored(self) -> Iterator[Benchmark]:
        """Every benchmark the store has a plan of, as it was when it was last run."""
        for name in self.store.benchmarks():
            plan = self.store.plan(name)
            if plan is not None:
                yield Benchmark.parse(plan["toml"], name, f"plan {plan['number']} of {name}")

    def draw(self, benchmark: Benchmark) -> Table:
        """The table: layout and reported figures from the benchmark, keys from the stored plan."""
        plan = Keys(self.store.plan(benchmark.name))
        metrics = [self._metric(column, benchmark) for column in benchmark.column]
        heads = []
        for column, metric in zip(benchmark.column, metrics, strict=True):
            decimals = metric.decimals if benchmark.decimals is None else benchmark.decimals
            name = named(column.metric)["name"]
            heads.append(Head(column.label, column.group, name, decimals, metric.higher_is_better))
        table = Table(benchmark.title, benchmark.source, heads, [], [], [], [])
        for row in benchmark.row:
            table.rows.append(row.label)
            entries = [
                self._entry(benchmark, row, column, metric, plan)
                for column, metric in zip(benchmark.column, metrics, strict=True)
            ]
            table.entries.append(entries)
            table.row_notes.append([row.notes] if row.notes else [])
        self._hoist(table)
        for at, head in enumerate(heads):
            mark_best([row[at] for row in table.entries], head)
        table.notes += [benchmark.notes] if benchmark.notes else []
        table.notes += self._mixtures()
        return table

    def _metric(self, column: Column, benchmark: Benchmark) -> Metric:
        table = named(column.metric)
        parameters = {key: value for key, value in table.items() if key != "name"}
        try:
            metric: Metric = self.registry.build("metrics", table["name"], parameters)
        except BenchmarkError as error:
            raise BenchmarkError(f"benchmark {benchmark.name}, column {column.label!r}: {error}") from error
        return metric

    def _entry(self, benchmark: Benchmark, row: Row, column: Column, metric: Metric, plan: Keys) -> Entry:
        address = f"{column.group}: {column.label}" if column.group else column.label
        entry = Entry(reported=row.reported.get(column.label) or row.reported.get(address))
        if row.ranker is None:
            entry.status = DONE
            return entry
        ranker = {"name": named(row.ranker)["name"], "parameters": plain(row.parameters(column))}
        problems = plan.problems(column)
        entry.deterministic = any(plan.cell(describe(ranker, column.choice, facets, None)) for facets in problems)
        seeds = [None] if entry.deterministic else list(benchmark.seeds)
        found: dict[int | None, list[float]] = {seed: [] for seed in seeds}
        statuses = set()
        entry.cells = len(seeds) * max(1, len(problems))
        for seed in seeds:
            for facets in problems:
                planned = plan.cell(describe(ranker, column.choice, facets, seed))
                status, value = self._cell(planned, column, metric, entry)
                statuses.add(status)
                if value is not None:
                    found[seed].append(value)
        entry.done = sum(map(len, found.values()))
        for bad in (FAILED, MISSING, TODO, NOT_APPLICABLE):
            if bad in statuses:
                entry.status = bad
                return entry
        if entry.done == entry.cells:
            entry.status = DONE
            summarize(entry, list(found.values()), 100.0 if metric.percent else 1.0)
            if entry.deterministic and len(benchmark.seeds) > 1:
                entry.notes.append("deterministic: does not depend on the seed")
            if any(place in row.at for place in (column.label, column.group or column.label)):
                entry.notes.append(
                    f"parameters of its own here: {row.at.get(column.label) or row.at[str(column.group)]}"
                )
        return entry

    def _cell(
        self, planned: Mapping[str, Any] | None, column: Column, metric: Metric, entry: Entry
    ) -> tuple[str, float | None]:
        """Status and value of one cell; what is worth a footnote goes to the entry."""
        if planned is None:
            return TODO, None
        record = self._record(planned["key"])
        if record is None:
            failure = self.store.failure(planned["key"]) if planned["key"] else None
            message = failure["error"]["message"] if failure else planned["error"]
            if message:
                note(entry, f"failed: {message.splitlines()[0]}")
            return (FAILED if message else MISSING if planned["missing"] else TODO), None
        if record["status"] == NOT_APPLICABLE:
            note(entry, f"not applicable: {record['error']['message']}")
            return NOT_APPLICABLE, None
        self._footnotes(planned, record, entry)
        try:
            return DONE, self._value(planned["key"], record, column, metric)
        except NotApplicable as error:
            note(entry, f"not applicable: {error}")
            return NOT_APPLICABLE, None
        except RankbenchError as error:
            note(entry, f"failed: {error}")
            return FAILED, None

    def _record(self, key: str | None) -> Record | None:
        if key is None:
            return None
        if key not in self._records:
            self._records[key] = self.store.record(key)
        return self._records[key]

    def _footnotes(self, planned: Mapping[str, Any], record: Record, entry: Entry) -> None:
        entry.stale = entry.stale or is_stale(self.registry, self.store, planned["key"], record, self._sources)
        lost = len(record.get("lost", ()))
        if lost:
            note(entry, f"{lost} of {record['images']} images could not be read; their pairs were dropped")
        if planned["overlap"]:
            note(entry, f"training and test share images: {planned['overlap']}")
        for text in planned["notes"]:
            note(entry, text)
        if record.get("inputs"):
            note(entry, f"reads evidence given at test time: {', '.join(record['inputs'])}")

    def _value(self, key: str, record: Record, column: Column, metric: Metric) -> float:
        """The metric of one cell, in natural units; remembered in the cache."""
        tests = record["tests"]
        name = column.test or (next(iter(tests)) if len(tests) == 1 else "")
        if name not in tests:
            raise BenchmarkError(
                f"column {column.label!r}: test = {name!r}, but the problem's tests are: {', '.join(tests)}."
            )
        path = self._memo(key, name, column, metric)
        if path is not None and path.exists():
            remembered = read_json(path)
            if "not_applicable" in remembered:
                raise NotApplicable(remembered["not_applicable"])
            return float(remembered["value"])
        try:
            value = self._compute(key, name, tests[name], metric)
            answer: dict[str, Any] = {"value": value}
        except NotApplicable as error:
            answer = {"not_applicable": str(error)}
            raise
        finally:
            if path is not None and "answer" in locals():
                with contextlib.suppress(RankbenchError):
                    write_file(path, json.dumps(answer))
        return value

    def _compute(self, key: str, name: str, test: Mapping[str, Any], metric: Metric) -> float:
        if test["digest"] not in self._tests:
            self._tests[test["digest"]] = self.store.test(test["digest"])
        value = metric(self.store.outcome(key, name).judged(self._tests[test["digest"]]))
        if not math.isfinite(value):
            raise NotApplicable(f"{type(metric).__name__} is {value} here")
        return float(value)

    def _memo(self, key: str, test: str, column: Column, metric: Metric) -> Path | None:
        if self.cache is None or not self.cache.exists():
            return None
        table = named(column.metric)
        stat = (self.store.cell(key) / "scores.npz").stat()
        parts = {
            "cell": key,
            "written": [stat.st_mtime_ns, stat.st_size],
            "test": test,
            "metric": plain(table),
            "version": type(metric).version,
            "source": self.registry.source("metrics", table["name"]),
        }
        return self.cache / "metrics" / f"{key_of(parts)}.json"

    def _hoist(self, table: Table) -> None:
        """What is noted in every measured place of a column, or of a row, is noted once."""
        for at, head in enumerate(table.heads):
            hoist([row[at] for row in table.entries if row[at].value is not None], head.notes)
        for entries, notes in zip(table.entries, table.row_notes, strict=True):
            hoist([entry for entry in entries if entry.value is not None or entry.notes], notes)

    def _mixtures(self) -> list[str]:
        records = [record for record in self._records.values() if record and record["status"] == DONE]
        notes = []
        devices = sorted({record["device"] for record in records})
        if len(devices) > 1:
            notes.append(f"cells ran on different devices: {', '.join(devices)}")
        for name in MIXED:
            versions = sorted({record.get("versions", {}).get(name, "?") for record in records})
            if len(versions) > 1:
                notes.append(f"cells ran with different versions of {name}: {', '.join(versions)}")
        return notes


class Keys:
    """A stored plan, asked by description."""

    def __init__(self, plan: Mapping[str, Any] | None) -> None:
        self._facets: dict[str, Any] = dict(plan["facets"]) if plan else {}
        self._cells = {canonical_json(cell["description"]): cell for cell in (plan["cells"] if plan else [])}

    def problems(self, column: Column) -> list[dict[str, Any]]:
        """Facets of the problems a column averages."""
        known = self._facets.get(canonical_json(column.choice.description)) or []
        matching = [dict(facets) for facets in known if column.matches(facets)]
        return matching or [{key: value for key, value in column.where.items() if not isinstance(value, list)}]

    def cell(self, description: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The planned cell of that description, if there is one."""
        return self._cells.get(canonical_json(description))


def note(entry: Entry, text: str) -> None:
    if text not in entry.notes:
        entry.notes.append(text)


def hoist(entries: list[Entry], notes: list[str]) -> None:
    if len(entries) < 2:
        return
    for text in list(entries[0].notes):
        if all(text in entry.notes for entry in entries):
            notes.append(text)
            for entry in entries:
                entry.notes.remove(text)


def summarize(entry: Entry, by_seed: list[list[float]], scale: float) -> None:
    """Mean over problems, then over seeds; ± over seeds."""
    means = [scale * math.fsum(values) / len(values) for values in by_seed]
    entry.value = math.fsum(means) / len(means)
    if len(means) > 1:
        entry.spread = math.sqrt(math.fsum((mean - entry.value) ** 2 for mean in means) / (len(means) - 1))


def mark_best(entries: list[Entry], head: Head) -> None:
    """Mark the best measured values of a column; equal at the shown precision is equal."""
    shown = {at: round(entry.value, head.decimals) for at, entry in enumerate(entries) if entry.value is not None}
    if len(shown) > 1:
        best = max(shown.values()) if head.higher_is_better else min(shown.values())
        for at, value in shown.items():
            entries[at].best = value == best
