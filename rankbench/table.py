"""Outcomes to numbers: a benchmark's table, drawn from the store alone, without images, data or torch.

Averages give every problem equal weight, then every seed; ± is the standard deviation (ddof 1) of the per-seed means.
A missing problem leaves a mark and k/n, never a silent partial mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankbench.benchmark import Benchmark, Column, Reported, Row, named
from rankbench.cache import recalled, remember
from rankbench.cell import TestSet, key_of
from rankbench.errors import BenchmarkError, DamagedFile, MissingData, NotApplicable, PluginError, RankbenchError
from rankbench.evidence import Sight, mark_best, together
from rankbench.files import canonical_json
from rankbench.footnotes import Remarks, remark
from rankbench.keys import DIFFERING, Keys
from rankbench.plan import DONE, FAILED, MISSING, NOT_APPLICABLE, TODO, describe, is_stale
from rankbench.records import Stored
from rankbench.registry import Registry, plain
from rankbench.store import Record, ResultStore
from rankbench.visible import shortened

if TYPE_CHECKING:
    import pandas as pd

    from rankbench.plugin import Metric

WORST_FIRST = (FAILED, MISSING, TODO, NOT_APPLICABLE)  # a place shows the worst status of its cells
SHARED_PHASES = ("load", "decode", "features")  # what the first cell that needs it spends for all
REPORTED = "reported"  # status of a published figure in a row without a ranker
DETERMINISTIC = "deterministic: does not depend on the seed"
MIXED = ("torch", "numpy", "scipy", "scikit-learn", "scikit-image", "pillow")  # versions worth a note when mixed


@dataclass
class Entry:
    """One place of a table.

    Attributes:
        value: mean in displayed units, None where there is none. spread: ± over seeds, None with one seed.
        deterministic: the ranker does not depend on the seed. status: of the worst of its cells.
            In a row without a ranker: "reported", or empty where there is no figure.
        done, cells: how many of its cells are there. best: whether it is the best measured one of its column.
        sight: what its cells see. apart: measured, and does not compete for the best.
    """

    value: float | None = None
    spread: float | None = None
    deterministic: bool = False
    status: str = TODO
    stale: bool = False
    done: int = 0
    cells: int = 0
    best: bool = False
    sight: Sight = field(default_factory=Sight)
    apart: bool = False
    reported: Reported | None = None
    notes: list[str] = field(default_factory=list)


@dataclass
class Head:
    """A column's head."""

    label: str
    group: str | None
    metric: str
    decimals: int
    higher_is_better: bool | None
    percent: bool = False
    notes: list[str] = field(default_factory=list)
    unit: str = ""


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
    name: str = ""  # of the benchmark

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
        self._stored: dict[str, Stored | None] = {}
        self._classes: dict[tuple[str, str], type | None] = {}  # of plugins, for records that do not tell
        self._shown: list[Record] = []  # whose numbers are in the table being drawn

    def every(self) -> Iterator[Table | RankbenchError]:
        """The table of each benchmark the store has a plan of, as it was last run, or why it cannot be drawn."""
        for name in self.store.benchmarks():
            plan = self.store.plan(name) or {}
            try:
                yield self.draw(Benchmark.parse(plan["toml"], name, f"plan {plan['number']} of {name}"))
            except RankbenchError as error:  # a metric that is not installed any more, say
                yield error

    def draw(self, benchmark: Benchmark) -> Table:
        """The table: layout and reported figures from the benchmark, keys from the stored plan."""
        plan = Keys(self.store, benchmark.name)
        self._shown.clear()
        metrics = [self._metric(column, benchmark) for column in benchmark.column]
        heads = []
        for column, metric in zip(benchmark.column, metrics, strict=True):
            shown = (benchmark.decimals, metric.decimals, 2 if metric.percent else 3)
            decimals = next(number for number in shown if number is not None)
            name = named(column.metric)["name"]
            better, percent = metric.higher_is_better, metric.percent
            heads.append(Head(column.label, column.group, name, decimals, better, percent, unit=metric.unit))
        table = Table(benchmark.title, benchmark.source, heads, [], [], [], [], benchmark.name)
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
        table.notes += [DIFFERING] if plan.differing else []
        table.notes += self._mixtures()
        return table

    def _metric(self, column: Column, benchmark: Benchmark) -> Metric:
        table = named(column.metric)
        parameters = {key: value for key, value in table.items() if key != "name"}
        try:
            metric: Metric = self.registry.build("metrics", table["name"], parameters)
        except BenchmarkError as error:
            raise BenchmarkError(f"{benchmark.metric_place(column)}: {error}") from error
        return metric

    def _entry(self, benchmark: Benchmark, row: Row, column: Column, metric: Metric, plan: Keys) -> Entry:
        address = f"{column.group}: {column.label}" if column.group else column.label
        entry = Entry(reported=row.reported.get(address) or row.reported.get(column.label))
        if not row.fills(column):
            entry.status = REPORTED if entry.reported else ""
            return entry
        ranker = {"name": named(row.ranker)["name"], "parameters": plain(row.parameters(column))}
        threads, problems = row.threads or benchmark.threads, plan.problems(column)

        def described(facets: Mapping[str, Any], seed: int | None) -> dict[str, Any]:
            return describe(ranker, column.choice, facets, seed, threads)

        entry.deterministic = plan.deterministic(described, problems, benchmark.seeds)
        seeds = [None] if entry.deterministic else list(benchmark.seeds)
        found: dict[int | None, list[float]] = {seed: [] for seed in seeds}
        statuses, remarks, sights = set(), Remarks(), list[Sight]()
        for seed in seeds:
            for facets in problems:
                planned = plan.cell(described, facets, seed, column)
                status, value = self._cell(planned, column, metric, entry, remarks)
                if planned is not None and value is not None:
                    sights.append(self._sight(planned, remarks))
                statuses.add(status)
                found[seed] += [] if value is None else [value]
        entry.sight = together(sights) if sights else entry.sight
        entry.cells, entry.done = len(seeds) * len(problems), sum(map(len, found.values()))
        entry.status = next((bad for bad in WORST_FIRST if bad in statuses), DONE)
        if entry.status == DONE:
            summarize(entry, list(found.values()), 100.0 if metric.percent else 1.0)
            if entry.deterministic and len(benchmark.seeds) > 1:
                remarks.add("", DETERMINISTIC)
        own = row.at.get(column.group or "", {}) | row.at.get(column.label, {})
        if own:
            remarks.add("", "here with " + ", ".join(f"{name} = {json.dumps(value)}" for name, value in own.items()))
        entry.notes = remarks.notes()
        return entry

    def _cell(
        self, planned: Mapping[str, Any] | None, column: Column, metric: Metric, entry: Entry, remarks: Remarks
    ) -> tuple[str, float | None]:
        """Status and value of one cell; what is worth a footnote goes to the remarks."""
        if planned is None:
            return TODO, None
        problem = canonical_json(planned["description"]["facets"])
        try:
            record = self._record(planned["key"])
        except DamagedFile as error:
            remarks.add(problem, damaged(error))
            return FAILED, None
        if record is None:
            failure = self.store.failure(planned["key"]) if planned["key"] else None
            message = failure["error"]["message"] if failure else planned["error"]
            if failure and failure["error"].get("type") == MissingData.__name__:
                remarks.add(problem, f"missing: {message.splitlines()[0]}")
                return MISSING, None
            if planned["missing"] and not planned["error"]:  # what planning knew outweighs what an earlier try met
                return MISSING, None
            if message:
                whole = f"whole in failures/{planned['key']} of the results" if failure else "`rankbench why` shows it"
                remarks.add(problem, f"failed: {shortened(message.splitlines()[0], whole)}")
            return (FAILED if message else TODO), None
        if record["status"] == NOT_APPLICABLE:
            whole = f"whole in cells/{planned['key']} of the results"
            remarks.add(problem, f"not applicable: {shortened(record['error']['message'], whole)}")
            return NOT_APPLICABLE, None
        try:
            test = test_of(column, record)
            value = self._value(planned["key"], test, record, column, metric)
        except NotApplicable as error:
            remarks.add(problem, f"not applicable: {error}")
            return NOT_APPLICABLE, None
        except DamagedFile as error:
            remarks.add(problem, damaged(error))
            return FAILED, None
        except RankbenchError as error:
            remarks.add(problem, f"failed: {str(error).splitlines()[0]}")
            return FAILED, None
        self._shown.append(record)
        entry.stale = entry.stale or is_stale(self.registry, self.store, planned["key"], record, self._sources)
        remark(remarks, problem, planned, record, test)
        return DONE, value

    def _sight(self, planned: Mapping[str, Any], remarks: Remarks) -> Sight:
        """What a stored cell sees; of an old record, as far as the installed plugins tell."""
        record, problem = self._record(planned["key"]) or {}, canonical_json(planned["description"]["facets"])
        sight = Sight.recorded(record) or self._declared(record)
        for text in sight.remarks:
            remarks.add(problem, text)
        overlap = (f"training and test share images: {planned['overlap']}",) if planned["overlap"] else ()
        return replace(sight, leaks=sight.leaks + overlap) if overlap else sight

    def _declared(self, record: Record) -> Sight:
        """What the plugins of a cell declare today, by their classes. A leak was always said in a remark, too."""
        by_name, leaks = [], []
        for label in record.get("sources", {}):
            kind, _, name = label.partition("/")
            if kind == "features" and self._attribute(kind, name, "by_name") is True:
                by_name.append(name)
            if record.get("remarks") and isinstance(leak := self._attribute(kind, name, "leaks"), str) and leak:
                leaks.append(leak)
        return Sight(True, tuple(record.get("inputs") or ()), tuple(by_name), tuple(leaks))

    def _attribute(self, kind: str, name: str, attribute: str) -> Any:
        """Of a plugin's class; None where the plugin is not installed any more, or broken."""
        if (kind, name) not in self._classes:
            try:
                self._classes[kind, name] = self.registry.find(kind, name).load()
            except (Exception, SystemExit):
                self._classes[kind, name] = None
        return getattr(self._classes[kind, name], attribute, None)

    def _record(self, key: str | None) -> Record | None:
        if key is None:
            return None
        if key not in self._stored:
            self._stored[key] = self.store.stored(key, thorough=False)
        stored = self._stored[key]
        return None if stored is None else stored.record

    def _value(self, key: str, test: str, record: Record, column: Column, metric: Metric) -> float:
        """The metric of one cell, in natural units; remembered in the cache."""
        path = self._memo(key, test, record, column, metric)
        remembered = recalled(path, dict) or {}
        if "not_applicable" in remembered:
            raise NotApplicable(remembered["not_applicable"])
        if "value" in remembered:
            return float(remembered["value"])
        answer: dict[str, Any] = {}
        try:
            answer["value"] = self._compute(key, test, record, column, metric)
        except NotApplicable as error:
            answer["not_applicable"] = str(error)
            raise
        finally:
            if path is not None and answer:
                remember(path, answer)
        return float(answer["value"])

    def _compute(self, key: str, name: str, record: Record, column: Column, metric: Metric) -> float:
        digest = record["tests"][name]["digest"]
        if digest not in self._tests:
            self._tests[digest] = self.store.test(digest)
        test, outcome = self._tests[digest], self.store.outcome(key, name)
        if flaw := outcome.flaw(len(test.digests), len(test.pairs), len(record.get("lost", []))):
            raise self.store.flawed(key, flaw)
        judged = replace(outcome.judged(test), **costs(record))
        try:
            value = float(metric(judged))
        except RankbenchError:
            raise
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            plugin = self.registry.find("metrics", named(column.metric)["name"])
            raise PluginError(f"{plugin} failed: {type(error).__name__}: {error}") from error
        if not math.isfinite(value):
            raise NotApplicable(f"{type(metric).__name__} is {value} here")
        return value

    def _memo(self, key: str, test: str, record: Record, column: Column, metric: Metric) -> Path | None:
        """Where a value is remembered: under the content of record, scores and test set, so that it hides no damage."""
        judged_on = self.store.test_content(record["tests"][test]["digest"])
        stored = self._stored[key]
        if self.cache is None or not self.cache.exists() or stored is None:
            return None
        table = named(column.metric)
        plugin = ("metrics", table["name"])
        if plugin not in self._sources:
            self._sources[plugin] = self.registry.source(*plugin)
        parts = {
            "format": 2,  # of what is remembered
            "cell": key,
            "content": [stored.content, judged_on],
            "test": test,
            "metric": plain(table),
            "version": type(metric).version,
            "source": self._sources[plugin],
        }
        return self.cache / "metrics" / f"{key_of(parts)}.json"

    def _hoist(self, table: Table) -> None:
        """What is noted in every measured place of a column, or of a row, is noted once."""
        for at, head in enumerate(table.heads):
            hoist([row[at] for row in table.entries if row[at].value is not None], head.notes)
        for entries, notes in zip(table.entries, table.row_notes, strict=True):
            hoist([entry for entry in entries if entry.value is not None or entry.notes], notes)

    def _mixtures(self) -> list[str]:
        notes = []
        devices = sorted({record.get("device_name") or record["device"] for record in self._shown})
        if len(devices) > 1:
            notes.append(f"cells ran on different devices: {', '.join(devices)}")
        for name in MIXED:
            versions = sorted({record.get("versions", {}).get(name, "?") for record in self._shown})
            if len(versions) > 1:
                notes.append(f"cells ran with different versions of {name}: {', '.join(versions)}")
        return notes


def damaged(error: DamagedFile) -> str:
    """The footnote of a place whose stored files are damaged."""
    return f"failed: {str(error).splitlines()[0]} Run the benchmark again, or copy the file from where it came from."


def costs(record: Record) -> dict[str, Any]:
    """What a cell took, as a metric sees it."""
    spent = {name: phase["wall_seconds"] for name, phase in record["phases"].items() if name not in SHARED_PHASES}
    features = record.get("feature_seconds")
    if features is not None:
        spent["features"] = math.fsum(features.values())
    before, after = record.get("memory_bytes_before"), record.get("peak_memory_bytes")
    ours = record.get("peak_memory_of") == "cell"
    peak = after - before if ours and before is not None and after is not None else -1
    return {"seconds": spent, "peak_memory": None if peak < 0 else peak}  # earlier versions stored negative ones


def test_of(column: Column, record: Record) -> str:
    """The test set a column means. BenchmarkError if the problem has several and the column names none of them.

    NotApplicable for a test that the ranker could not treat.
    """
    tests = record["tests"]
    name = next(iter(tests)) if column.test is None and len(tests) == 1 else column.test
    if name is not None and name in record.get("not_applicable", {}):
        raise NotApplicable(record["not_applicable"][name])
    if name is None or name not in tests:
        wrong = "does not say which test it means" if name is None else f"there is no test {name!r}"
        raise BenchmarkError(f"{wrong}; the tests are {', '.join(sorted(tests))}")
    return name


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
