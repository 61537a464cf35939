"""Where stored plans say that a cell lies: by its description, in this benchmark's newest plan, then in every other.

A new layout of stored results, or a renamed benchmark file, has no plan of its own, or one that knows less.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from rankbench.benchmark import Column
from rankbench.errors import RankbenchError
from rankbench.files import canonical_json
from rankbench.plan import place, placeholder
from rankbench.records import unsealed
from rankbench.store import ResultStore

Describe = Callable[[Mapping[str, Any], int | None], dict[str, Any]]  # facets and seed to a description
DIFFERING = (
    "plans of other benchmarks lead to different results of the same cells, as data or plugins changed between them; "
    "those of the newest plan are shown"
)


class Keys:
    """The stored plans of a store, asked by description for one benchmark.

    Attributes: differing, whether plans disagreed on a cell that this benchmark's own did not know.
    """

    def __init__(self, store: ResultStore, benchmark: str) -> None:
        self.store, self.benchmark = store, benchmark
        plan = store.plan(benchmark)
        self._number = plan.get("number") if plan else None
        self._own = known(plan) or Known({})
        self.differing = False

    def problems(self, column: Column) -> list[dict[str, Any]]:
        """Facets of the problems a column averages."""
        label = canonical_json(place(column.choice))
        for plan in (self._own, *self._others_if(not self._own.facets.get(label))):
            matching = [dict(facets) for facets in plan.facets.get(label) or [] if column.matches(facets)]
            if matching:
                return matching
        return [placeholder(column)]

    def deterministic(self, describe: Describe, problems: list[dict[str, Any]], seeds: list[int]) -> bool:
        """Whether the ranker's cells have no seed, by the first plan that knows any of them."""

        def knows(plan: Known, *these: int | None) -> bool:
            return any(plan.cell(describe(facets, seed)) for facets in problems for seed in these)

        if knows(self._own, None, *seeds):
            return knows(self._own, None)
        return next((knows(plan, None) for plan in self._others if knows(plan, None, *seeds)), False)

    def cell(
        self, describe: Describe, facets: Mapping[str, Any], seed: int | None, column: Column
    ) -> Mapping[str, Any] | None:
        """The planned cell, if there is one: with a key wherever any plan has one."""
        description = describe(facets, seed)
        own = self._own.cell(description)
        if own is not None and (own["key"] or own["error"]):
            return own
        found = [cell for plan in self._others if (cell := plan.cell(description)) and cell["key"]]
        self.differing = self.differing or len({cell["key"] for cell in found}) > 1
        if found:
            return found[0]
        return own or self._own.cell(describe(placeholder(column), seed))

    def _others_if(self, wanted: bool) -> list[Known]:
        return self._others if wanted else []

    @cached_property
    def _others(self) -> list[Known]:
        """Older plans of this benchmark, then those of all others, the newest first; damaged ones are passed over."""
        return list(self._read())

    def _read(self) -> Iterator[Known]:
        dated = []
        for path in (self.store.root / "plans").glob("*/[0-9]*.json"):
            mine = path.parent.name == self.benchmark
            if path.stem.isdecimal() and not path.parent.name.startswith(".") and not (mine and self._is_own(path)):
                with contextlib.suppress(OSError):
                    dated.append((mine, path.stat().st_mtime_ns, int(path.stem), str(path)))
        for *_, name in sorted(dated, reverse=True):
            with contextlib.suppress(RankbenchError, OSError):
                if (plan := known(unsealed(Path(name)))) is not None:
                    yield plan

    def _is_own(self, path: Path) -> bool:
        return int(path.stem) == self._number


class Known:
    """One plan: facets by dataset, and its cells."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.facets: dict[str, Any] = dict(plan.get("facets", {}))
        self._cells: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for cell in plan.get("cells", []):
            self._cells.setdefault(named_in(cell["description"]), []).append(cell)
            assert {"key", "error", "missing", "notes", "overlap"} <= cell.keys()
        self._found: dict[str, Mapping[str, Any]] = {}

    def cell(self, description: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The planned cell of that description, if there is one."""
        these = self._cells.pop(named_in(description), [])
        self._found |= {canonical_json(cell["description"]): cell for cell in these}
        return self._found.get(canonical_json(description))


def named_in(description: Mapping[str, Any]) -> tuple[str, str]:
    """Names of ranker and dataset: cells of others are not looked at closely."""
    return str(description["ranker"]["name"]), str(description["dataset"]["name"])


def known(plan: Any) -> Known | None:
    """A plan, or None where there is none or it is not what a plan should be."""
    try:
        return Known(plan)
    except (AttributeError, AssertionError, KeyError, LookupError, TypeError, ValueError):
        return None
