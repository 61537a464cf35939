"""The same from Python: run a benchmark, read its table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankbench.benchmark import Benchmark
from rankbench.plan import Plan, PlannedCell
from rankbench.runner import Options, Runner, exit_code
from rankbench.table import Drawer, Table

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Result:
    """A benchmark after a run."""

    runner: Runner
    plan: Plan

    @property
    def cells(self) -> list[PlannedCell]:
        """The cells that were asked for, each with its status and, where it failed, the reason."""
        return self.runner.selected(self.plan)

    @property
    def exit_code(self) -> int:
        """0 all good or not applicable, 1 some failed, 3 nothing failed but data is missing."""
        return exit_code(self.cells)

    def drawn(self) -> Table:
        """The table with its marks, spreads and footnotes."""
        runner = self.runner
        return Drawer(runner.registry, runner.store, runner.options.cache_root).draw(self.plan.benchmark)

    def table(self) -> pd.DataFrame:
        """One row a ranker, one column a measured column."""
        return self.drawn().frame()


def run(benchmark: str | Path | Benchmark, **options: Any) -> Result:
    """Run a benchmark file and give its results.

    Args:
        benchmark: path of the TOML file, or a Benchmark. options: see `rankbench.runner.Options`.
    Raises: BenchmarkError for a wrong file; a failing cell raises nothing, see `Result.cells`.
    """
    loaded = benchmark if isinstance(benchmark, Benchmark) else Benchmark.read(benchmark)
    runner = Runner(Options(**options))
    return Result(runner, runner.run(loaded))
