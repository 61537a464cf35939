"""Footnotes of a place in a table: what must be known of its cells, each said once, with counts of what there is.

A place averages problems that may share their images, as random splits do: what is counted in each of them is never
added up, but for images that are known to be different ones.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from rankbench.store import Record

TIES_WORTH_A_NOTE = 0.001  # share of ordered pairs with a predicted tie
NUMBER = r"\d[\d,]*"
COUNTED = rf"(?s)(?:({NUMBER} of {NUMBER}|{NUMBER}(?= (?:training )?(?:images?|pairs?)\b)) )?(.*)"  # a count, of what
PLURALS = {"split": "splits", "fold": "folds", "attribute": "attributes", "user": "users"}


class Remarks:
    """Footnotes of one entry. Numbers of `37 images …` and `37 of 120 …` are the largest of its problems."""

    def __init__(self) -> None:
        self._counted: dict[str, dict[str, str]] = {}  # text without its numbers: numbers by problem
        self._problems: dict[str, None] = {}
        self._records: list[tuple[str, Record]] = []
        self._tied: list[float] = []

    def add(self, problem: str, text: str) -> None:
        """One remark on one problem; on none of them where that is empty."""
        if problem:
            self._problems[problem] = None
        numbers, rest = re.fullmatch(COUNTED, text).groups()  # type: ignore[union-attr]
        by_problem = self._counted.setdefault(rest, {})
        if numbers is not None:
            by_problem[problem] = max(numbers, by_problem.get(problem, "0"), key=first_number)

    def stored(self, problem: str, record: Record) -> None:
        """A cell whose number is shown: its images, and those that could not be read."""
        self._problems[problem] = None
        self._records.append((problem, record))

    def tied(self, share: float) -> None:
        """Share of a cell's ordered pairs that got no order."""
        self._tied.append(share)

    def notes(self) -> list[str]:
        """The footnotes, in the order they came up."""
        notes = [unreadable(self._records)] if any(record.get("lost") for _, record in self._records) else []
        notes += [self._told(text, numbers) for text, numbers in self._counted.items()]
        if max(self._tied, default=0.0) > TIES_WORTH_A_NOTE:
            mean = math.fsum(self._tied) / len(self._tied)
            notes.append(f"predicted ties: {100 * mean:.3g} % of the ordered pairs")
        return notes

    def _told(self, text: str, numbers: Mapping[str, str]) -> str:
        if not numbers:
            return text
        largest = max(numbers.values(), key=first_number)
        if len(self._problems) == 1:
            return f"{largest} {text}"
        of = len(numbers), len(self._problems)
        where = f"in each of {of[1]}" if of[0] == of[1] else f"in {of[0]} of {of[1]}"
        most = "" if len(set(numbers.values())) == 1 else "up to "
        return f"{where} {called(self._problems)}, {most}{largest} {text}"


def first_number(text: str) -> int:
    return int(text.split()[0].replace(",", ""))


def called(problems: Mapping[str, Any]) -> str:
    """What problems are called, by the one facet in which they differ: splits, say."""
    with contextlib.suppress(ValueError, AttributeError):
        said = [json.loads(problem).items() for problem in problems]
        every = {item for facets in said for item in facets}
        differing = {key for key, value in every if any((key, value) not in facets for facets in said)}
        if len(differing) == 1:
            return PLURALS.get(differing.pop(), "problems")
    return "problems"


def unreadable(records: list[tuple[str, Record]]) -> str:
    """How many different images could not be read, and of how many, where that is known.

    Records stored before they named the images of a dataset tell it of one problem alone.
    """
    named = all("listed" in record for _, record in records)
    lost = {image for _, record in records for image in (lost_images(record) if named else record.get("lost", []))}
    problems = {problem for problem, _ in records}
    total: int | None = None
    if named:
        total = sum({record["listed"]["digest"]: record["listed"]["images"] for _, record in records}.values())
    elif len(problems) == 1:
        total = max((record.get("images") or 0 for _, record in records), default=0) or None
    count = f"{len(lost)} of {total}" if total is not None else f"{len(lost)}"
    images = "image" if (total or len(lost)) == 1 else "images"
    left = "was left out with its pairs" if len(lost) == 1 else "were left out with their pairs"
    return f"{count} {images} could not be read and {left}"


def lost_images(record: Record) -> list[str]:
    """What tells the unreadable images of a cell from all others: digest and name, or the path as it was there."""
    named = record.get("listed", {}).get("lost", [])
    return list(named if len(named) == len(record["lost"]) else record["lost"]) if record.get("lost") else []


def remark(remarks: Remarks, problem: str, planned: Mapping[str, Any], record: Record, test: str) -> None:
    """What a reader must know of a stored cell."""
    remarks.tied(record["tests"][test]["tied"])
    remarks.stored(problem, record)
    if planned["overlap"]:
        remarks.add(problem, f"training and test share images: {planned['overlap']}")
    for text in planned["notes"]:
        remarks.add(problem, text)
    for text in record.get("remarks", []):
        remarks.add(problem, text)
    if left := record.get("left_changed"):
        remarks.add(problem, f"changes the state of its process, which is used for no other cell: {'; '.join(left)}")
