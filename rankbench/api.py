"""The same from Python: run a benchmark, read its table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankbench.benchmark import Benchmark
from rankbench.errors import BenchmarkError, did_you_mean
from rankbench.plan import FAILED, Plan, PlannedCell
from rankbench.runner import Options, Runner, exit_code
from rankbench.table import Drawer, Table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(repr=False)
class Result:
    """A benchmark after a run."""

    runner: Runner
    plan: Plan
    _drawn: Table | None = None

    def __repr__(self) -> str:
        counts = Counter(cell.status for cell in self.cells)
        told = ", ".join(f"{count} {status}" for status, count in counts.items())
        return f"<Result of {self.plan.benchmark.name}: {told}; table() gives the numbers>"

    @property
    def cells(self) -> list[PlannedCell]:
        """The cells that were asked for, each with its status and, where it failed, the reason."""
        return self.runner.selected(self.plan)

    @property
    def exit_code(self) -> int:
        """0 all good or not applicable, 1 some failed, 3 nothing failed but data is missing.

        A cell whose stored scores are damaged, or on which a metric fails, has failed too.
        """
        asked = {cell.row for cell in self.cells}
        table = self.drawn()
        places = [row for label, row in zip(table.rows, table.entries, strict=True) if label in asked]
        return 1 if any(entry.status == FAILED for row in places for entry in row) else exit_code(self.cells)

    def drawn(self) -> Table:
        """The table with its marks, spreads and footnotes, drawn once."""
        if self._drawn is None:
            runner = self.runner
            drawer = Drawer(runner.registry, runner.store, runner.options.cache_root)
            self._drawn = drawer.draw(self.plan.benchmark)
        return self._drawn

    def table(self) -> pd.DataFrame:
        """One row a ranker, one column a measured column."""
        return self.drawn().frame()


def run(benchmark: str | Path | Benchmark, **options: Any) -> Result:
    """Run a benchmark file and give its results.

    Args:
        benchmark: path of the TOML file, or a Benchmark.
        data, results, cache: folders; by default $RANKBENCH_DATA or ./data, ./results, $RANKBENCH_CACHE or ./cache.
        only: glob on row labels; other rows are not fitted.
        jobs: CPU threads to use at once, by default all cores.
        device: "auto", "cpu" or "cuda". gpus: ids of the GPUs to use, by default all.
        rerun: "stale" or "all" computes stored cells again.
        accept_stale: True records that edits of plugins leave stored results valid.
        retry: False leaves failed cells as they are.
        strict_data: True tolerates no unreadable image.
        in_process: True fits in this process, where a debugger reaches it.
        plugins: importable modules with hooks, on top of the installed packages.
        quiet: True shows no progress.
    Raises: BenchmarkError for a wrong file or option; a failing cell raises nothing, see `Result.cells`.
    """
    known = [one.name for one in fields(Options)]
    for name in options:
        if name not in known:
            meant = did_you_mean(name, known)
            raise BenchmarkError(f"rankbench.run has no option {name!r}.{meant} It has: {', '.join(known)}.")
    loaded = benchmark if isinstance(benchmark, Benchmark) else Benchmark.read(benchmark)
    runner = Runner(Options(**options))
    return Result(runner, runner.run(loaded))
