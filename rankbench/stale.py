"""What is said, and asked, of stored cells whose plugins' source has changed since they were computed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence

from rankbench.errors import counted
from rankbench.plan import PlannedCell
from rankbench.progress import tell, terminal
from rankbench.registry import Registry
from rankbench.store import ResultStore


def changed_plugins(store: ResultStore, cell: PlannedCell) -> list[str]:
    """`rankers/ranksvm` of each plugin of a stale cell whose source has changed since it was stored."""
    record = store.record(cell.key or "") or {}
    return [place for place, digest in record.get("sources", {}).items() if cell.sources.get(place, digest) != digest]


def asked_about(registry: Registry, store: ResultStore, cells: Sequence[PlannedCell]) -> list[PlannedCell]:
    """Which of these stale cells are to be computed again.

    Those that only plugins under development made stale, if whoever sits at a terminal says so; of the others it is
    said what to type.
    """
    changed = {id(cell): changed_plugins(store, cell) for cell in cells}
    own = [cell for cell in cells if cell.parts and changed[id(cell)] and all(map(registry.at_hand, changed[id(cell)]))]
    again = own if own and somebody_is_there() and agreed(own, named(changed[id(cell)] for cell in own)) else []
    agreed_on = set(map(id, again))
    kept = [cell for cell in cells if id(cell) not in agreed_on]
    if kept:
        tell(
            f"Stale: {counted(len(kept), 'stored cell')}, as the source of {named(changed[id(cell)] for cell in kept)} "
            "has changed since. `--rerun stale` computes them again, `--accept-stale` keeps them."
        )
    return again


def named(places: Iterable[Sequence[str]]) -> str:
    """`hog and ranksvm`, of plugins in the order they come."""
    names = list(dict.fromkeys(place.partition("/")[2] for some in places for place in some))
    return " and ".join(filter(None, [", ".join(names[:-1][:5]), *names[-1:]])) or "their plugins"


def somebody_is_there() -> bool:
    """Whether a question is read and answered: at a terminal, and not in a service that runs checks."""
    return not os.environ.get("CI") and terminal() and sys.stdin is not None and sys.stdin.isatty()


def agreed(cells: Sequence[PlannedCell], names: str) -> bool:
    """Asks once."""
    import click

    was = "was" if len(cells) == 1 else "were"
    question = f"{counted(len(cells), 'stored cell')} {was} computed by an earlier version of {names}'s source. "
    try:
        return click.confirm(f"{question}Compute {'it' if len(cells) == 1 else 'them'} again?", default=True, err=True)
    except click.Abort:
        raise KeyboardInterrupt from None
