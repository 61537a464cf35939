"""The benchmark file: TOML to Benchmark. The one place that knows the file format."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from rankbench.errors import BenchmarkError, did_you_mean
from rankbench.loading import DatasetChoice

Table = dict[str, Any]


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
            text = file.read_text(encoding="utf-8-sig")  # some editors on Windows begin a file with a mark
        except (OSError, UnicodeDecodeError) as error:
            known = [str(p) for p in sorted(Path("benchmarks").glob("*.toml"))]
            reason = getattr(error, "strerror", None) or error
            raise BenchmarkError(f"{file}: cannot be read ({reason}).{did_you_mean(str(file), known)}") from error
        return cls.parse(text, file.stem, str(file))

    @classmethod
    def parse(cls, text: str, name: str, where: str) -> Benchmark:
        """A benchmark from TOML text; `where` stands in messages."""
        try:
            raw = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise BenchmarkError(f"{where}: is not valid TOML: {error}.") from error
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
        for what, entries in (("column", self.column), ("row", self.row)):
            labels = [entry.label for entry in entries]
            if not labels:
                raise BenchmarkError(f"{where}: has no [[{what}]].")
            for number, label in enumerate(labels, 1):
                if label in labels[: number - 1] and (what == "row" or self._same_group(number)):
                    raise BenchmarkError(
                        f"{where}, {what} {number}: label {label!r} is used twice; labels tell {what}s apart."
                    )
        if not self.seeds or len(set(self.seeds)) != len(self.seeds) or min(self.seeds) < 0:
            raise BenchmarkError(f"{where}: seeds must be different numbers of at least 0, one or more.")
        self._check_limits(self, where)
        if self.decimals is not None and self.decimals < 0:
            raise BenchmarkError(f"{where}: decimals must be at least 0, not {self.decimals}.")
        for number, row in enumerate(self.row, 1):
            self._check_row(row, f"{where}, row {number}")

    def _same_group(self, number: int) -> bool:
        column = self.column[number - 1]
        return any((c.label, c.group) == (column.label, column.group) for c in self.column[: number - 1])

    def _check_row(self, row: Row, where: str) -> None:
        self._check_limits(row, where)
        if row.ranker is not None:
            self._check_named(row.ranker, f"{where}: ranker")
        elif not row.reported:
            raise BenchmarkError(f"{where}: has neither a ranker nor reported figures.")
        for label, figure in row.reported.items():
            if not math.isfinite(figure.value):
                raise BenchmarkError(f"{where}: reported {label!r} is {figure.value}; leave out what is not known.")
        places = {column.label for column in self.column} | {column.group for column in self.column if column.group}
        labels = {column.label for column in self.column} | set(self.addresses)
        for what, keys in (("reported", row.reported), ("at", row.at), ("columns", row.columns or ())):
            for key in keys:
                if key not in (labels if what == "reported" else places):
                    known = ", ".join(sorted(places))
                    raise BenchmarkError(
                        f"{where}: {what} names {key!r}.{did_you_mean(key, sorted(places))} Known: {known}."
                    )

    @staticmethod
    def _check_limits(entry: Any, where: str) -> None:
        if entry.timeout is not None and not (entry.timeout > 0 and math.isfinite(entry.timeout)):
            raise BenchmarkError(f"{where}: timeout must be more than 0 seconds, not {entry.timeout}.")
        if entry.threads is not None and entry.threads < 1:
            raise BenchmarkError(f"{where}: threads must be at least 1, not {entry.threads}.")

    def metric_place(self, column: Column) -> str:
        """Where the metric of a column is named, for messages."""
        at = "at the top" if column.metric == self.metric else f"column {column.label!r}"
        return f"benchmark {self.name}, {at}"

    @property
    def addresses(self) -> list[str]:
        """`Group: Label` of each column, or its label; how `reported` names a column whose label stands twice."""
        return [f"{column.group}: {column.label}" if column.group else column.label for column in self.column]


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
