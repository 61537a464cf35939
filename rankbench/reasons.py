"""Why a cell is stored or not: the part of its key that differs from the nearest stored cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rankbench.plan import DONE, FAILED, MISSING, NOT_APPLICABLE, STALE, PlannedCell, Planner
from rankbench.store import Record

WORDS = {"problem": "data (images, pairs, columns or splits)", "core_results": "results format of rankbench itself"}


def reasons(planner: Planner, cells: list[PlannedCell]) -> list[tuple[PlannedCell, str]]:
    """Each cell with an explanation."""
    stored = [(key, record) for key, record in planner.store.records() if "key_parts" in record]
    return [(cell, reason(planner, cell, stored)) for cell in cells]


def reason(planner: Planner, cell: PlannedCell, stored: list[tuple[str, Record]]) -> str:
    """One cell's explanation."""
    if cell.status in (DONE, NOT_APPLICABLE):
        record = planner.store.record(cell.key or "") or {}
        because = f" ({record['error']['message']})" if cell.status == NOT_APPLICABLE else ""
        lost = "".join(f"\nleft out, as it cannot be read: {image}" for image in record.get("lost", []))
        return f"stored as {str(cell.key)[:12]}, computed {record.get('started', '?')}{because}{lost}"
    if cell.status == STALE:
        record = planner.store.record(cell.key or "") or {}
        changed = [
            place for place, digest in record.get("sources", {}).items() if cell.sources.get(place, digest) != digest
        ]
        return (
            f"stored as {str(cell.key)[:12]}, but the source of {', '.join(changed) or 'its plugins'} has changed since"
        )
    if cell.status == MISSING:
        return cell.missing
    if cell.status == FAILED:
        return f"failed: {cell.reason}"
    if cell.damaged:
        return f"stored, but {cell.reason} The next run computes it again."
    if not stored:
        return "nothing is stored yet"
    mine = flat(cell.parts)
    same = [one for one in stored if flat(one[1]["key_parts"]).get("ranker.name") == mine.get("ranker.name")]
    if not same:
        return f"not stored, and no cell of ranker {cell.ranker['name']!r} is"
    key, record = min(same, key=lambda one: differing(mine, flat(one[1]["key_parts"])))
    nearest = flat(record["key_parts"])
    lines = [f"not stored; the nearest stored cell is {key[:12]} of row {record.get('row', '?')!r}, which differs in:"]
    lines += [
        f"{WORDS.get(name, name)}: {short(nearest.get(name))} there, {short(mine.get(name))} here"
        for name in sorted(mine.keys() | nearest.keys())
        if mine.get(name) != nearest.get(name)
    ]
    return "\n".join(lines)


def failures(cells: Sequence[PlannedCell]) -> list[tuple[str, str]]:
    """Each cause of failed cells once, after whose it is: `: Title`, or ` (8 cells)`."""
    by_cause: dict[str, list[PlannedCell]] = {}
    for cell in cells:
        if cell.status == FAILED:
            by_cause.setdefault(cell.reason, []).append(cell)
    return [(whose(failed), cause) for cause, failed in by_cause.items()]


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


def differing(mine: Mapping[str, Any], other: Mapping[str, Any]) -> int:
    """In how many parts two keys differ."""
    return sum(mine.get(name) != other.get(name) for name in mine.keys() | other.keys())


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
