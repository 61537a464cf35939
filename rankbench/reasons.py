"""Why a cell is stored or not: the part of its key that differs from the nearest stored cell."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rankbench.errors import counted
from rankbench.plan import DONE, FAILED, MISSING, NOT_APPLICABLE, STALE, TODO, PlannedCell, Planner
from rankbench.stale import changed_plugins
from rankbench.store import Record, ResultStore
from rankbench.visible import shortened

Parts = frozenset[tuple[str, str]]  # each part of a key by its dotted path, with its value as JSON
SCREEN = 18  # lines of reasons that fit on one beside what stands around them
WIDTH = 300  # characters of a line
SUMMED_UP = 800  # characters of a cause that a summary shows
WORDS = {"problem": "data (images, pairs, columns or splits)", "core_results": "results format of rankbench itself"}


class Stored:
    """Stored cells by their ranker, to find the nearest of a cell that is not stored."""

    def __init__(self, store: ResultStore) -> None:
        self.any = False
        self._by_ranker: dict[str, list[tuple[str, Record, Parts]]] = {}
        for key, record in store.records():
            if isinstance(record.get("key_parts"), Mapping):
                self.any = True
                parts = parts_of(record["key_parts"])
                self._by_ranker.setdefault(str(dict(parts).get("ranker.name")), []).append((key, record, parts))

    def has(self, ranker: str) -> bool:
        """Whether any cell of that ranker is stored."""
        return spelled(ranker) in self._by_ranker

    def nearest(self, cell: PlannedCell) -> tuple[str, Record]:
        """Key and record of the cell of the same ranker that differs in the fewest parts."""
        mine = parts_of(cell.parts)
        same = self._by_ranker[spelled(cell.ranker["name"])]
        key, record, _ = min(same, key=lambda one: len({name for name, _ in mine ^ one[2]}))
        return key, record


def reasons(planner: Planner, cells: list[PlannedCell]) -> list[tuple[PlannedCell, str]]:
    """Each cell with an explanation."""
    stored = Stored(planner.store)
    return [(cell, reason(planner, cell, stored)) for cell in cells]


def reason(planner: Planner, cell: PlannedCell, stored: Stored) -> str:
    """One cell's explanation."""
    if cell.status in (DONE, NOT_APPLICABLE):
        record = planner.store.record(cell.key or "") or {}
        because = f" ({record['error']['message']})" if cell.status == NOT_APPLICABLE else ""
        lost = "".join(f"\nleft out, as it cannot be read: {image}" for image in record.get("lost", []))
        return f"stored as {str(cell.key)[:12]}, computed {record.get('started', '?')}{because}{lost}"
    if cell.status == STALE:
        changed = ", ".join(changed_plugins(planner.store, cell)) or "its plugins"
        return f"stored as {str(cell.key)[:12]}, but the source of {changed} has changed since"
    if cell.status == MISSING:
        return cell.missing
    if cell.status == FAILED:
        return f"failed: {cell.reason}{told_in(planner.store, cell)}"
    if cell.damaged:
        return f"stored, but {cell.reason} The next run computes it again."
    if not stored.any:
        return "nothing is stored yet"
    if not stored.has(cell.ranker["name"]):
        return f"not stored, and no cell of ranker {cell.ranker['name']!r} is"
    key, record = stored.nearest(cell)
    mine, nearest = flat(cell.parts), flat(record["key_parts"])
    lines = [f"not stored; the nearest stored cell is {key[:12]} of row {record.get('row', '?')!r}, which differs in:"]
    lines += [
        f"{WORDS.get(name, name)}: {short(nearest.get(name))} there, {short(mine.get(name))} here"
        for name in sorted(mine.keys() | nearest.keys())
        if mine.get(name) != nearest.get(name)
    ]
    return "\n".join(lines)


def told_in(store: ResultStore, cell: PlannedCell) -> str:
    """A line that names the file with a failed cell's traceback and what its plugin printed; empty without one."""
    path = store.failure_file(cell.key) if cell.key else None
    return f"\nIts traceback and output: {from_here(path)}" if path is not None else ""


def from_here(path: Path) -> str:
    """A path as one would type it where one stands."""
    here = os.path.relpath(path)
    return str(path) if here.startswith("..") else here


# --------------------------------------------------------------------------------------------------------- in summary


def summary(planner: Planner, cells: Sequence[PlannedCell]) -> list[str]:
    """Cells counted by status, then by reason, on one screen."""
    counts = Counter(cell.status for cell in cells)
    statuses = [status for status in (FAILED, MISSING, STALE, TODO, NOT_APPLICABLE, DONE) if counts[status]]
    lines = [f"{counted(len(cells), 'cell')}: {', '.join(f'{counts[status]:,} {status}' for status in statuses)}"]
    groups = grouped(planner, cells)
    room = max(1, SCREEN // max(1, len(groups)))
    for status, text, some in groups[:SCREEN]:
        told = excerpt(text, min(room, 8))
        lines += [f"  {len(some):,} {status}: {told[0]}", *(f"      {line}" for line in told[1:])]
    if len(groups) > SCREEN:
        lines.append(f"  … and {len(groups) - SCREEN:,} more reasons")
    return lines


def grouped(planner: Planner, cells: Sequence[PlannedCell]) -> list[tuple[str, str, list[PlannedCell]]]:
    """Status, reason and cells of each reason; those that are stored have none."""
    by_reason: dict[tuple[str, str], list[PlannedCell]] = {}
    for cell in cells:
        if cell.status in (FAILED, NOT_APPLICABLE):
            by_reason.setdefault((cell.status, cell.reason), []).append(cell)
        elif cell.status == MISSING:  # those that read no pixels lack some of what the others do
            by_reason.setdefault((cell.status, cell.missing.split("\n")[0]), []).append(cell)
        elif cell.status == STALE:
            changed = ", ".join(changed_plugins(planner.store, cell)) or "its plugins"
            by_reason.setdefault((cell.status, f"the source of {changed} has changed since"), []).append(cell)
        elif cell.status == TODO:
            by_reason.setdefault((cell.status, str(cell.ranker["name"])), []).append(cell)
    stored = Stored(planner.store) if any(status == TODO for status, _ in by_reason) else None
    order = {status: at for at, status in enumerate((FAILED, MISSING, STALE, TODO, NOT_APPLICABLE))}
    found: list[tuple[str, str, list[PlannedCell]]] = []
    for (status, text), some in sorted(by_reason.items(), key=lambda one: (order[one[0][0]], -len(one[1]))):
        if status == TODO and stored is not None:
            text = why_to_do(text, some, stored) if len(found) < SCREEN else text
        elif status == MISSING:
            text = max((cell.missing for cell in some), key=len)
        elif status == FAILED:
            text += told_in(planner.store, some[0])
        if found and found[-1][:2] == (status, text):
            found[-1][2].extend(some)
        else:
            found.append((status, text, some))
    return found


def why_to_do(ranker: str, cells: list[PlannedCell], stored: Stored) -> str:
    """Why cells of one ranker are not stored; of the first of them, in what it differs from the nearest that is."""
    if not stored.any:
        return "nothing is stored yet"
    if not stored.has(ranker):
        return f"nothing is stored of ranker {ranker!r}"
    key, record = stored.nearest(cells[0])
    mine, nearest = flat(cells[0].parts), flat(record["key_parts"])
    names = [WORDS.get(n, n) for n in sorted(mine.keys() | nearest.keys()) if mine.get(n) != nearest.get(n)]
    more = f" and {len(names) - 4} more" if len(names) > 5 else ""
    parts = ", ".join(names[: 4 if more else 5]) + more
    first = f"{cells[0].title} differs" if len(cells) == 1 else f"the first of them, {cells[0].title}, differs"
    return f"{first} from the nearest stored cell, {key[:12]} of row {record.get('row', '?')!r}, in {parts}"


def excerpt(text: str, most: int) -> list[str]:
    """The first lines of a text and its last, which says what to do, or as much as there is room for."""
    lines = [line if len(line) <= WIDTH else f"{line[:WIDTH]}…" for line in text.splitlines()] or [""]
    if len(lines) <= most:
        return lines
    if most < 3:
        return lines[:most]
    return [*lines[: most - 2], f"… {len(lines) - most + 1} lines more", lines[-1]]


# ---------------------------------------------------------------------------------------------------- at a run's end


def failures(cells: Sequence[PlannedCell], store: ResultStore | None = None) -> list[tuple[str, str]]:
    """Each cause of failed cells once, a long one cut, after whose it is: `: Title`, or ` (8 cells)`.

    Args: store, where the file with the traceback lies that is named after a cause.
    """
    by_cause: dict[str, list[PlannedCell]] = {}
    for cell in cells:
        if cell.status == FAILED:
            by_cause.setdefault(cell.reason, []).append(cell)
    told = {cause: told_in(store, failed[0]) if store is not None else "" for cause, failed in by_cause.items()}
    whole = {cause: "whole in the file below" if text else "`rankbench why` shows it" for cause, text in told.items()}
    return [
        (whose(failed), shortened(cause, whole[cause], SUMMED_UP) + told[cause]) for cause, failed in by_cause.items()
    ]


def whose(cells: list[PlannedCell]) -> str:
    rows = {cell.row for cell in cells}
    if len(cells) == 1:
        return f": {cells[0].title}"
    return f" ({len(cells)} cells{f' of {rows.pop()}' if len(rows) == 1 else ''})"


def lacking(cells: Sequence[PlannedCell]) -> list[str]:
    """What data is missing, each path once: without the messages that a longer one contains."""
    every = [text for cell in cells if cell.status == MISSING for text in cell.missing.split("\n\n")]
    texts = {text: set(text.splitlines()) for text in every}
    return [text for text, lines in texts.items() if not any(lines < others for others in texts.values())]


def parts_of(key_parts: Mapping[str, Any]) -> Parts:
    """What a key is made of, as a set: what differs between two is quickly told."""
    return frozenset((name, spelled(value)) for name, value in flat(key_parts).items())


def spelled(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of nested JSON by dotted path."""
    if isinstance(value, Mapping):
        return {
            k: v for name, part in value.items() for k, v in flat(part, f"{prefix}.{name}" if prefix else name).items()
        }
    if isinstance(value, list) and value:
        return {k: v for at, part in enumerate(value) for k, v in flat(part, f"{prefix}[{at}]").items()}
    return {prefix: value}


def short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
