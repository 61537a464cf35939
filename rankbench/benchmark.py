"""The benchmark file: TOML to Benchmark. The one place that knows the file format."""

from __future__ import annotations

import io
import math
import os
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from rankbench.errors import BenchmarkError, DamagedFile, did_you_mean
from rankbench.files import open_regular
from rankbench.loading import DatasetChoice

Table = dict[str, Any]
LARGEST = 64 * 2**20  # bytes of a file: a million rows
MOST_PLACES = 1_000_000  # rows × columns × seeds: what can be planned in minutes and held in memory
DEEPEST = 32  # levels of tables and lists in each other
LONGEST_LABEL = 1000  # characters of what stands at the head of a row or column
LONGEST_TEXT = 100_000
LONGEST_TIMEOUT = 1e9  # seconds, 31 years: a clock can still wait for it
MOST_THREADS = 1024
MOST_DECIMALS = 12
# A key of many parts would keep the parser busy for hours: it looks at every part once more for each of them.
LONG_KEY = re.compile(r"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){100}""")


class Reported(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A published figure, in the units a table shows."""

    value: float
    source: str = ""


class Column(msgspec.Struct, forbid_unknown_fields=True):
    """Problems, a test set and a metric: what stands at the head of a column.

    dataset and metric are inherited from the top of the file. where selects problems by their facets (a value, or a
    list of them); the column averages every match. test names the test set where a problem has several.
    """

    label: str
    dataset: Table | str | None = None
    metric: Table | str | None = None
    where: dict[str, Any] = {}
    test: str | None = None
    group: str | None = None

    @property
    def choice(self) -> DatasetChoice:
        """The dataset."""
        return DatasetChoice.parse(named(self.dataset))

    def matches(self, facets: Mapping[str, Any]) -> bool:
        """Whether a problem with these facets belongs to the column."""
        return all(
            key in facets and (facets[key] in value if isinstance(value, list) else facets[key] == value)
            for key, value in self.where.items()
        )


class Row(msgspec.Struct, forbid_unknown_fields=True):
    """A ranker, and what was published of it. Without a ranker the row shows published figures alone.

    columns, labels or groups, limits what is computed; the row's other places stay empty, or show what was published.
    package brings the ranker: where it is not installed the row is missing, and the other rows go on.
    """

    label: str
    ranker: Table | str | None = None
    reported: dict[str, Reported] = {}
    at: dict[str, Table] = {}
    columns: list[str] | None = None
    timeout: float | None = None
    threads: int | None = None
    notes: str = ""
    package: str | None = None

    def fills(self, column: Column) -> bool:
        """Whether the row's ranker is to be judged in this column."""
        return self.ranker is not None and (
            self.columns is None or column.label in self.columns or column.group in self.columns
        )

    def parameters(self, column: Column) -> Table:
        """The ranker's parameters in a column: its own, with those of `at` for the column's group and label on top."""
        merged = {key: value for key, value in named(self.ranker).items() if key != "name"}
        for place in (column.group, column.label):
            if place is not None:
                merged |= self.at.get(place, {})
        return merged


class Benchmark(msgspec.Struct, forbid_unknown_fields=True):
    """One table to fill: rows by columns."""

    title: str
    column: list[Column]
    row: list[Row]
    source: str = ""
    dataset: Table | str | None = None
    metric: Table | str | None = None
    seeds: list[int] = msgspec.field(default_factory=lambda: [0])
    timeout: float | None = None
    threads: int | None = None
    keep: Literal["models", "scores"] | None = None
    notes: str = ""
    decimals: int | None = None
    name: str = ""
    text: str = ""

    @classmethod
    def read(cls, path: str | Path) -> Benchmark:
        """A benchmark from a file. BenchmarkError says which row or column is wrong, and how."""
        file = Path(path)
        try:
            text = text_of(file)
        except (OSError, ValueError) as error:
            known = [str(p) for p in sorted(Path("benchmarks").glob("*.toml"))]
            reason = getattr(error, "strerror", None) or error
            raise BenchmarkError(f"{file}: cannot be read ({reason}).{did_you_mean(str(file), known)}") from error
        return cls.parse(text, file.stem, str(file))

    @classmethod
    def parse(cls, text: str, name: str, where: str) -> Benchmark:
        """A benchmark from TOML text; `where` stands in messages."""
        raw = parsed(text, where)
        check_names(raw, where)
        try:
            benchmark = msgspec.convert(raw, cls)
        except msgspec.ValidationError as error:
            message = place_of(str(error))
            keep = " Write one of: models, scores." if message.startswith(", keep: invalid enum") else ""
            raise BenchmarkError(f"{where}{message}{keep}") from error
        benchmark.name, benchmark.text = name, text
        benchmark._inherit(where)
        benchmark._check(where)
        return benchmark

    def _inherit(self, where: str) -> None:
        for number, column in enumerate(self.column, 1):
            for what in ("dataset", "metric"):
                if getattr(column, what) is None:
                    setattr(column, what, getattr(self, what))
                if getattr(column, what) is None:
                    raise BenchmarkError(
                        f'{where}, column {number}: no {what}. Add {what} = {{ name = "…" }} here or at the top.'
                    )
                of_column = getattr(column, what) is not getattr(self, what)
                self._check_named(getattr(column, what), f"{where}{f', column {number}' * of_column}: {what}")

    @staticmethod
    def _check_named(value: Any, where: str) -> None:
        if not isinstance(value, str) and not isinstance(value.get("name"), str):
            raise BenchmarkError(f'{where} needs a name: {{ name = "…" }}.')

    def _check(self, where: str) -> None:
        listed: dict[str, list[Any]] = {"column": self.column, "row": self.row}
        for what, entries in listed.items():
            if not entries:
                raise BenchmarkError(f"{where}: has no [[{what}]].")
            seen: set[tuple[str, str | None]] = set()
            for number, entry in enumerate(entries, 1):
                name = (entry.label, getattr(entry, "group", None))
                if name in seen:
                    raise BenchmarkError(
                        f"{where}, {what} {number}: label {entry.label!r} is used twice; labels tell {what}s apart."
                    )
                seen.add(name)
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise BenchmarkError(f"{where}: seeds must be different numbers of at least 0, one or more.")
        self._check_limits(self, where)
        if self.decimals is not None and self.decimals < 0:
            raise BenchmarkError(f"{where}: decimals must be at least 0, not {self.decimals}.")
        if self.decimals is not None and self.decimals > MOST_DECIMALS:
            raise BenchmarkError(f"{where}: decimals must be at most {MOST_DECIMALS}, not {self.decimals}.")
        self._check_size(where)
        places = {column.label for column in self.column} | {column.group for column in self.column if column.group}
        labels = {column.label for column in self.column} | set(self.addresses)
        for number, column in enumerate(self.column, 1):
            check_where(column.where, f"{where}, column {number}")
        for number, row in enumerate(self.row, 1):
            self._check_row(row, f"{where}, row {number}", places, labels)

    def _check_size(self, where: str) -> None:
        """BenchmarkError for a table nobody could compute or look at."""
        for what, entries in (("", [self]), ("column", self.column), ("row", self.row)):
            for number, entry in enumerate(entries, 1):
                for key in ("label", "group", "title"):
                    text = getattr(entry, key, None) or ""
                    if len(text) > LONGEST_LABEL:
                        place = f", {what} {number}" if what else ""
                        raise BenchmarkError(
                            f"{where}{place}: {key} has {len(text):,} characters; it may have {LONGEST_LABEL:,}."
                        )
        count = len(self.row) * len(self.column) * len(self.seeds)
        if count > MOST_PLACES:
            raise BenchmarkError(
                f"{where}: {len(self.row):,} rows × {len(self.column):,} columns × {len(self.seeds):,} seeds are "
                f"{count:,} cells; a file may have {MOST_PLACES:,}. Split it into several."
            )

    def _check_row(self, row: Row, where: str, places: Collection[str], labels: Collection[str]) -> None:
        self._check_limits(row, where)
        if row.ranker is not None:
            self._check_named(row.ranker, f"{where}: ranker")
        elif not row.reported:
            raise BenchmarkError(f"{where}: has neither a ranker nor reported figures.")
        for label, figure in row.reported.items():
            if not math.isfinite(figure.value):
                raise BenchmarkError(f"{where}: reported {label!r} is {figure.value}; leave out what is not known.")
        for what, keys in (("reported", row.reported), ("at", row.at), ("columns", row.columns or ())):
            for key in keys:
                if key not in (labels if what == "reported" else places):
                    known = sorted(places)
                    more = f" and {len(known) - 50:,} more" if len(known) > 50 else ""
                    raise BenchmarkError(
                        f"{where}: {what} names {key[:LONGEST_LABEL]!r}.{did_you_mean(key, known)} "
                        f"Known: {', '.join(known[:50])}{more}."
                    )

    @staticmethod
    def _check_limits(entry: Any, where: str) -> None:
        if entry.timeout is not None and not (entry.timeout > 0 and math.isfinite(entry.timeout)):
            raise BenchmarkError(f"{where}: timeout must be more than 0 seconds, not {entry.timeout}.")
        if entry.timeout is not None and entry.timeout > LONGEST_TIMEOUT:
            raise BenchmarkError(
                f"{where}: timeout must be at most {LONGEST_TIMEOUT:.0f} seconds, not {entry.timeout:g}; "
                "leave it out where there shall be none."
            )
        if entry.threads is not None and entry.threads < 1:
            raise BenchmarkError(f"{where}: threads must be at least 1, not {entry.threads}.")
        if entry.threads is not None and entry.threads > MOST_THREADS:
            raise BenchmarkError(f"{where}: threads must be at most {MOST_THREADS}, not {entry.threads}.")

    def metric_place(self, column: Column) -> str:
        """Where the metric of a column is named, for messages."""
        at = "at the top" if column.metric == self.metric else f"column {column.label!r}"
        return f"benchmark {self.name}, {at}"

    @property
    def addresses(self) -> list[str]:
        """`Group: Label` of each column, or its label; how `reported` names a column whose label stands twice."""
        return [f"{column.group}: {column.label}" if column.group else column.label for column in self.column]


def text_of(file: Path) -> str:
    """A benchmark file's text. OSError or ValueError where it is none."""
    try:
        with io.TextIOWrapper(open_regular(file), encoding="utf-8-sig") as lines:  # some editors begin with a mark
            if os.fstat(lines.fileno()).st_size > LARGEST:
                raise ValueError(f"it is larger than {LARGEST / 2**20:.0f} MiB")
            return lines.read()
    except DamagedFile as error:
        raise ValueError("Is a directory" if file.is_dir() else "it is no regular file") from error


def parsed(text: str, where: str) -> Table:
    """TOML text as Python values, none of which anything later stumbles over."""
    if long := LONG_KEY.search(text):
        line = text.count("\n", 0, long.start()) + 1
        raise BenchmarkError(f"{where}, line {line}: a key of more than 100 parts.")
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BenchmarkError(f"{where}: is not valid TOML: {str(error)[:LONGEST_LABEL]}.") from error
    except RecursionError as error:
        raise BenchmarkError(f"{where}: tables or lists are nested more than {DEEPEST} levels deep.") from error
    except ValueError as error:  # a number of thousands of digits
        raise BenchmarkError(f"{where}: holds a value that cannot be read: {error}.") from error
    waiting: list[tuple[Any, int, str]] = [(raw, 0, "")]
    while waiting:
        value, depth, key = waiting.pop()
        complaint = wrong_with(value, depth)
        if complaint:
            raise BenchmarkError(f"{where}: {complaint} (under {key[:80]!r}).")
        if isinstance(value, dict):
            waiting += [pair for name, part in value.items() for pair in ((name, 0, name), (part, depth + 1, name))]
        elif isinstance(value, list):
            waiting += [(part, depth + 1, key) for part in value]
    return raw


def wrong_with(value: Any, depth: int) -> str:
    """What no file, key or generator of random numbers could hold; else empty."""
    if depth > DEEPEST:
        return f"tables or lists are nested more than {DEEPEST} levels deep"
    if isinstance(value, str) and "\0" in value:
        return "a text holds the character NUL, which no file name and no terminal can"
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        return f"a text has {len(value):,} characters; it may have {LONGEST_TEXT:,}"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "a whole number does not fit into 64 bits"
    return ""


def check_where(where: Mapping[str, Any], place: str) -> None:
    """BenchmarkError for what no facet can be."""
    for key, value in where.items():
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, str | int | float) or (isinstance(one, float) and not math.isfinite(one)):
                raise BenchmarkError(f"{place}: where: {key!r} must be text, numbers, true or false, not {one!r}.")


def named(value: Table | str | None) -> Table:
    """A table {name = …}; a bare string is the name."""
    return {"name": value} if isinstance(value, str) else dict(value or {})


KNOWN: dict[str, list[str]] = {
    "": [f for f in Benchmark.__struct_fields__ if f not in ("name", "text")],
    "column": list(Column.__struct_fields__),
    "row": list(Row.__struct_fields__),
}


def check_names(raw: Mapping[str, Any], where: str) -> None:
    """BenchmarkError for a key nobody knows, with the closest known one."""
    places: list[tuple[str, str, Any]] = [("", where, raw)]
    for what in ("column", "row"):
        entries = raw.get(what, [])
        if isinstance(entries, list):
            places += [(what, f"{where}, {what} {number}", entry) for number, entry in enumerate(entries, 1)]
        else:
            raise BenchmarkError(f"{where}: write [[{what}]] with two brackets, once for each {what}.")
    for what, place, table in places:
        for key in table if isinstance(table, dict) else ():
            if key not in KNOWN[what]:
                known = ", ".join(KNOWN[what])
                raise BenchmarkError(f"{place}: unknown key {key!r}.{did_you_mean(key, KNOWN[what])} Known: {known}.")


def place_of(message: str) -> str:
    """A validator's message with its path in the words of the file: `, row 1: expected …`."""
    text, _, path = message.partition(" - at `$")
    for what in ("row", "column"):
        if path.startswith(f".{what}["):
            number, _, rest = path[len(what) + 2 :].partition("]")
            key = rest.strip(".`")
            return f", {what} {int(number) + 1}{f', {key}' if key else ''}: {text[:1].lower()}{text[1:]}."
    key = path.strip(".`")
    return f"{f', {key}' if key else ''}: {text[:1].lower()}{text[1:]}."
