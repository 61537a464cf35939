"""A table in lines of a width: heads and labels fold, columns go on in a second block, numbers stay whole."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

GAP = "  "  # between columns
HEAD_WIDTH = 10  # characters after which a head goes on in the next line
LABEL_WIDTH = 20  # the least that is left to row labels before columns go into a second block
WIDE = "WF"  # classes of letters that take two columns of a terminal
FILLER = "\ufdd0"  # stands for the second of them while lines are counted in characters


@dataclass(frozen=True)
class Column:
    """A column of a text table. Args: places, one a row, all of one width."""

    head: str
    group: str
    places: Sequence[str]


@dataclass(frozen=True)
class Set:
    """A column as it is set: the lines of its head and its width."""

    column: Column
    head: Sequence[str]
    width: int


def lines(labels: Sequence[str], columns: Sequence[Column], width: int) -> list[str]:
    """Heads, a rule and the rows. What is too wide is folded step by step: heads, then labels, then the table."""
    longest = max(map(display_width, labels), default=0)
    for fold in (False, True):
        set_columns = grouped([folded(column) if fold else airy(column) for column in columns], fold)
        if longest + taken(set_columns) <= width:
            return block(labels, set_columns, longest)
    room = width - taken(set_columns)
    if room < LABEL_WIDTH:
        room = min(longest, max(LABEL_WIDTH, width // 3))
    text: list[str] = []
    for some in blocks(set_columns, width - room):
        text += ["", *block(labels, some, room)] if text else block(labels, some, room)
    return text


def taken(columns: Iterable[Set]) -> int:
    """Characters of a line that columns and the gaps before them take."""
    return sum(len(GAP) + column.width for column in columns)


def airy(column: Column) -> Set:
    """With its head in one line, and some air."""
    return Set(column, [column.head], max(display_width(column.head) + 2, *map(display_width, column.places), 0))


def folded(column: Column) -> Set:
    """With its head in lines of about HEAD_WIDTH characters."""
    head = wrapped(column.head, HEAD_WIDTH, whole_words=True)
    return Set(column, head, max(map(display_width, [*head, *column.places])))


def spans(columns: Sequence[Set]) -> list[list[Set]]:
    """Neighbors of one group together; each column without a group alone."""
    found: list[list[Set]] = []
    for group, neighbors in groupby(columns, key=lambda column: column.column.group):
        same = list(neighbors)
        found += [same] if group else [[column] for column in same]
    return found


def grouped(columns: Sequence[Set], fold: bool) -> list[Set]:
    """The columns, widened where their group's name needs it: in one line, or its longest word."""
    wide: list[Set] = []
    for span in spans(columns):
        words = span[0].column.group.split() if fold else [span[0].column.group]
        lacking = max(map(display_width, words), default=0) + 2 - (taken(span) - len(GAP)) if any(words) else 0
        for at, column in enumerate(span):
            more = max(0, lacking) // len(span) + (at < max(0, lacking) % len(span))
            wide.append(Set(column.column, column.head, column.width + more))
    return wide


def blocks(columns: Sequence[Set], room: int) -> list[list[Set]]:
    """Columns that stand side by side, a group in one block where it fits into one."""
    found: list[list[Set]] = [[]]
    for span in spans(columns):
        for some in [span] if taken(span) <= room else [[column] for column in span]:
            if found[-1] and taken([*found[-1], *some]) > room:
                found.append([])
            found[-1] += some
    return found


def block(labels: Sequence[str], columns: Sequence[Set], room: int) -> list[str]:
    """Heads, rule and rows of columns that stand side by side. Args: room, characters for the labels."""
    text = [joined("", parts, room) for parts in group_lines(columns)]
    deep = max((len(column.head) for column in columns), default=0)
    heads = [[right(head_line(column, at, deep), column.width) for column in columns] for at in range(deep)]
    text += [joined("", parts, room) for parts in heads]
    text.append(joined("-" * room, ["-" * column.width for column in columns], room))
    for row, label in enumerate(labels):
        first, *rest = wrapped(label, room, "  ")
        text.append(joined(first, [right(column.column.places[row], column.width) for column in columns], room))
        text += rest
    return [line.rstrip() for line in text]


def head_line(column: Set, at: int, deep: int) -> str:
    """A line of a column's head, which stands on the rule."""
    missing = deep - len(column.head)
    return column.head[at - missing] if at >= missing else ""


def group_lines(columns: Sequence[Set]) -> list[list[str]]:
    """Each group's name once over its columns, in a rule that spans them."""
    named: list[list[str]] = []
    for span in spans(columns):
        width = taken(span) - len(GAP)
        named.append(wrapped(span[0].column.group, width - 2, whole_words=True))
    deep = max(map(len, named), default=0) if any(map(any, named)) else 0
    found = []
    for at in range(deep):
        parts = []
        for span, name in zip(spans(columns), named, strict=True):
            width, missing = taken(span) - len(GAP), deep - len(name)
            words = name[at - missing] if at >= missing else ""
            last = at == deep - 1 and words
            over = centered(f" {words} " if last else words, width, "-" if last else " ")
            parts.append(over if len(span) > 1 else right(words, width))
        found.append(parts)
    return found


def joined(label: str, parts: Iterable[str], room: int) -> str:
    return GAP.join([label + " " * (room - display_width(label)), *parts])


def right(text: str, width: int) -> str:
    return " " * (width - display_width(text)) + text


def centered(text: str, width: int, fill: str) -> str:
    lacking = width - display_width(text)
    return fill * (lacking // 2) + text + fill * (lacking - lacking // 2)


def wrapped(text: str, width: int, indent: str = "", whole_words: bool = False) -> list[str]:
    """Lines of at most `width`; those after the first are indented."""
    if display_width(text) <= width:
        return [text]
    wide = "".join(one + FILLER if unicodedata.east_asian_width(one) in WIDE else one for one in text)
    width = max(width, len(indent) + 2)
    found = textwrap.wrap(wide, width, subsequent_indent=indent, break_long_words=not whole_words)
    return [line.replace(FILLER, "") for line in found]


def display_width(text: str) -> int:
    """Columns of a terminal that a text takes: two for most East Asian signs, none for what sets bold type."""
    text = re.sub(r"\x1b\[\d+m", "", text)
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) or unicodedata.category(one) == "Cf"
        else 2 if unicodedata.east_asian_width(one) in WIDE else 1
        for one in text
    )  # fmt: skip
