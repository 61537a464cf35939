"""Fits the cells the store lacks, in parallel worker processes; a failing, hanging or dying one never harms the others.

The runner plans, decides which cells are due, has them computed, and says what became of each. Workers store their own
cells: what was finished survives any kill.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from rankbench import drafts
from rankbench.benchmark import Benchmark
from rankbench.cell import TestSet, key_of
from rankbench.errors import BenchmarkError, RankbenchError
from rankbench.loading import Data
from rankbench.machine import git_provenance, visible_gpus
from rankbench.plan import (
    DONE,
    FAILED,
    MISSING,
    NOT_APPLICABLE,
    STALE,
    TODO,
    Plan,
    PlannedCell,
    Planner,
    default_cache,
    edit_of,
)
from rankbench.progress import Progress
from rankbench.registry import Registry
from rankbench.scratch import scratch_root, sweep_private
from rankbench.stale import asked_about
from rankbench.store import ResultStore
from rankbench.supervisor import Slots
from rankbench.worker import Workshop, load_registry

Task = dict[str, Any]


@dataclass
class Options:
    """How to run, not what: nothing here changes a result.

    Args:
        data, results, cache: folders. only: glob on row labels. jobs: CPU threads to use at once (default: all cores).
        device: "auto", "cpu" or "cuda". gpus: ids of the GPUs to use (default: those of this machine).
        rerun: "stale" or "all" stored cells again. accept_stale: edits of the source leave stored results valid.
        retry: run failed cells again. strict_data: no unreadable image is tolerated.
        in_process: fit in this process, one cell after another; for debugging.
        plugins: importable modules with hooks, on top of the installed packages.
        quiet: no progress.
    """

    data: str | Path | None = None
    results: str | Path = "results"
    cache: str | Path | None = None
    only: str = "*"
    jobs: int | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gpus: Sequence[str] | None = None
    rerun: Literal["", "stale", "all"] = ""
    accept_stale: bool = False
    retry: bool = True
    strict_data: bool = False
    in_process: bool = False
    plugins: Sequence[str] = ()
    quiet: bool = False

    @property
    def data_root(self) -> Path:
        """The data root: `data`, `$RANKBENCH_DATA`, or ./data."""
        return Path(self.data or os.environ.get("RANKBENCH_DATA", "data")).absolute()

    @property
    def cache_root(self) -> Path:
        """The cache folder: `cache`, `$RANKBENCH_CACHE`, or ./cache."""
        return Path(self.cache or default_cache()).absolute()


class Runner:
    """Runs one benchmark."""

    def __init__(self, options: Options) -> None:
        self.options = options
        if options.cache_root.exists() and not options.cache_root.is_dir():
            raise BenchmarkError(f"{options.cache_root}: is no folder; --cache names the folder of the cache.")
        self.registry: Registry = load_registry(list(options.plugins))
        self.store = ResultStore(Path(options.results).absolute(), options.cache_root)
        self.data = Data(self.registry, options.data_root, options.cache_root)
        self.planner = Planner(self.registry, self.data, self.store)

    def __repr__(self) -> str:
        return f"<Runner of {self.options}>"

    @cached_property
    def scratch(self) -> Path:
        """Where plugins at work have their private folders."""
        return scratch_root(self.options.cache_root, self.store.root)

    def plan(self, benchmark: Benchmark) -> Plan:
        """What there is to do; stores nothing but memos in the cache."""
        labels = [row.label for row in benchmark.row]
        if not any(fnmatch.fnmatchcase(label, self.options.only) for label in labels):
            raise BenchmarkError(
                f"--only {self.options.only!r} matches no row. The rows are:\n  " + "\n  ".join(labels)
            )
        return self.planner.plan(benchmark)

    def selected(self, plan: Plan) -> list[PlannedCell]:
        """The cells `only` asks for."""
        return [cell for cell in plan.cells if fnmatch.fnmatchcase(cell.row, self.options.only)]

    def due(self, plan: Plan, again: Collection[str | None] = ()) -> list[PlannedCell]:
        """The cells to fit now, those with a key in `again` too, each key once.

        Together those that one process may serve, then those of one problem.
        """
        statuses = {TODO}
        if self.options.retry:
            statuses |= {FAILED, MISSING}  # a cell whose data is known to be missing has no key yet
        if self.options.rerun:
            statuses.add(STALE)
        if self.options.rerun == "all":
            statuses |= {DONE, NOT_APPLICABLE}
        due: dict[str | None, PlannedCell] = {}
        for cell in self.selected(plan):
            wanted = cell.status in statuses or cell.key in again
            wanted = wanted or (self.options.strict_data and self._lost_images(cell))
            if cell.parts and wanted and not cell.absent:
                due.setdefault(cell.key, cell)
        order: dict[str, int] = {}
        for cell in plan.cells:
            for what in (str(cell.distributions), str(cell.parts.get("problem"))):
                order.setdefault(what, len(order))
        return sorted(
            due.values(), key=lambda cell: (order[str(cell.distributions)], order[str(cell.parts["problem"])])
        )

    def _lost_images(self, cell: PlannedCell) -> bool:
        """Whether a stored cell was computed without images that could not be read."""
        record = self.store.record(cell.key or "") if cell.status in (DONE, STALE) else None
        return bool(record and record.get("lost"))

    def run(self, benchmark: Benchmark) -> Plan:
        """Fit what is due and return the plan with every cell's status afterwards."""
        options = self.options
        gpus = visible_gpus(options.device, options.gpus) if options.device == "cuda" else None
        plan = self.plan(benchmark)
        if options.accept_stale:
            self._accept(plan)
        self.store.save_plan(benchmark.name, plan.to_json())
        due = self.due(plan, self._again(plan))
        self.store.sweep()
        self._restore_tests(plan)
        if not due:
            return plan
        self._sweep_cache()
        if gpus is None:
            gpus = visible_gpus(options.device, options.gpus)
        sweep_private(self.scratch)
        tasks = [self._task(plan, cell, bool(gpus)) for cell in due]
        threads = options.jobs or os.cpu_count() or 1
        slots = Slots(tasks, threads, gpus, Progress([cell.row for cell in due], options.quiet), self.store)
        try:
            if options.in_process:
                slots.run_here(Workshop.open(tasks[0]["place"], self.registry))
            else:
                slots.run()
        finally:
            plan.fitted = slots.progress.fitted
            self.rejudge(plan, slots.failed)
        return plan

    def _again(self, plan: Plan) -> set[str | None]:
        """Keys of stale cells that are computed again though no option says so: whoever sits there was asked."""
        stale = [cell for cell in self.selected(plan) if cell.status == STALE]
        if self.options.rerun or self.options.quiet or not stale:
            return set()
        return {cell.key for cell in asked_about(self.registry, self.store, stale)}

    def _restore_tests(self, plan: Plan) -> None:
        """Store again the test sets of stored cells that have gone or are damaged: that needs data, but no fit."""
        needed: dict[str, PlannedCell] = {}
        for cell in plan.cells:
            for digest in cell.tests.values() if cell.parts and cell.status in (DONE, STALE) else ():
                needed.setdefault(digest, cell)
        for digest, cell in needed.items():
            if self.store.has_test(digest):
                continue
            self.store.name_absent_test(digest)
            try:
                problem = self.data.problem(cell.dataset, cell.facets)
            except RankbenchError:  # its table says that the test set is damaged
                continue
            for name in problem.tests:
                self.store.save_test(TestSet.of(problem, name)[0])

    def _sweep_cache(self) -> None:
        """Delete what writers that were killed left unfinished in the cache."""
        for kind in self.options.cache_root.glob("[!.]*"):
            drafts.sweep(kind, unsigned=True)
            for folder in kind.glob("[!.]*/") if kind.name != "running" else ():  # private to plugins
                drafts.sweep(folder, unsigned=True)

    def rejudge(self, plan: Plan, failed: Mapping[str, str]) -> None:
        """Read every cell's status from the store again; what failed just now has failed, whatever is stored."""
        for cell in plan.cells:
            cell.status, cell.reason = TODO, ""
            self.planner.judge(cell)
            if cell.status == MISSING:
                continue
            if cell.key is not None and cell.key in failed:
                cell.status, cell.reason = FAILED, failed[cell.key]

    def _accept(self, plan: Plan) -> None:
        for cell in self.selected(plan):
            if cell.status == STALE and cell.key:
                record = self.store.record(cell.key) or {}
                self.store.accept(cell.key, edit_of({**record["sources"], **cell.sources}))
                self.planner.judge(cell)
                plan.accepted += 1

    def _task(self, plan: Plan, cell: PlannedCell, gpus: bool) -> Task:
        benchmark, options = plan.benchmark, self.options
        place = {
            "data": str(options.data_root),
            "results": str(self.store.root),
            "cache": str(options.cache_root),
            "scratch": str(self.scratch),
            "plugins": list(options.plugins),
        }
        ours = key_of({"results": place["results"]})[:8]  # a run into other results works in a folder of its own
        about = {
            "benchmark": benchmark.name,
            "row": cell.row,
            **cell.description,
            "key_parts": cell.parts,
            "sources": cell.sources,
            **cell.sight.record(),
            "threads": cell.threads,
            "notes": cell.notes,
        }
        return {
            "key": cell.key,
            "title": cell.title,
            "place": place,
            "about": about,
            "dataset": {
                "name": cell.dataset.name,
                "parameters": dict(cell.dataset.parameters),
                "folder": cell.dataset.folder,
            },
            "facets": cell.facets,
            "ranker": cell.ranker,
            "seed": cell.seed,
            "threads": cell.threads,
            "fingerprint": cell.parts["problem"],
            "device": "cuda" if cell.gpu and gpus else "cpu",
            "gpus": cell.gpu,
            "gpu": None,
            "distributions": cell.distributions,
            "timeout": cell.timeout,
            "folder": str(self.scratch / f"{cell.key}-{edit_of(cell.sources)[:12]}-{ours}"),
            "keep": benchmark.keep,
            "first_seed": cell.seed in (None, benchmark.seeds[0]),
            "replace": cell.damaged or cell.status in (STALE, DONE, NOT_APPLICABLE),
            "strict_data": options.strict_data,
            "provenance": git_provenance(),
        }


def exit_code(cells: Sequence[PlannedCell]) -> int:
    """0 all good or not applicable, 1 some failed, 3 nothing failed but data is missing."""
    statuses = {cell.status for cell in cells}
    return 1 if statuses & {FAILED, TODO} else 3 if MISSING in statuses else 0
