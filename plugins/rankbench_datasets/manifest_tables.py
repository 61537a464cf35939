"""Tables that a user wrote or exported, as CSV or Parquet: columns of strings, and which line each row came from."""

import csv
import difflib
import io
import itertools
import math
from dataclasses import dataclass

import numpy as np

import rankbench


@dataclass(frozen=True)
class Table:
    """One file: columns {name: list of non-empty strings} and the line (of CSV) or row (of Parquet) each came from."""

    file: object
    columns: dict
    lines: list
    unit: str = "line"

    @classmethod
    def find(cls, root, name, known, required):
        """`name`.csv or `name`.parquet; None if neither is there."""
        file, packed = root / f"{name}.csv", root / f"{name}.parquet"
        if packed.exists() and file.exists():
            raise rankbench.DataError(f"{root}: holds {file.name} and {packed.name}. Remove one of them.")
        return cls.unpacked(packed, known, required) if packed.exists() else cls.read(file, known, required)

    @classmethod
    def unpacked(cls, file, known, required):
        """A Parquet file."""
        import pandas as pd

        try:
            frame = pd.read_parquet(file)
        except ImportError as error:
            raise rankbench.DataError(
                f"{file}: Parquet needs the package pyarrow. Install it (pip install pyarrow), or save as CSV."
            ) from error
        except Exception as error:  # a damaged file makes the reader raise nearly anything
            raise rankbench.DataError(f"{file}: cannot be read as Parquet ({error}).") from error
        header = [str(name) for name in frame.columns]
        if not len(frame):
            raise rankbench.DataError(f"{file}: has no rows. It needs one for each of its {file.stem}.")
        check_header(str(file), header, known, required)
        table = cls(file, {}, list(range(1, len(frame) + 1)), "row")
        for name in (name for name in known if name in header):
            values = frame.iloc[:, header.index(name)]
            missing = values.isna().to_numpy()
            table.columns[name] = ["" if gone else str(v) for v, gone in zip(values.tolist(), missing, strict=True)]
        table.check_filled()
        return table

    @classmethod
    def read(cls, file, known, required):
        """None if the file is not there. DataError for anything that is no table with columns of `known`."""
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise rankbench.DataError(f"{file}: cannot be read ({error.strerror}). Mend that, or remove it.") from error
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            byte = content[error.start : error.start + 1].hex()
            raise rankbench.DataError(f"{file}, line {line}: byte 0x{byte} is not UTF-8. Save it as UTF-8.") from None
        rows, lines, last = [], [], 0
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        try:
            for row in reader:
                if row:
                    rows.append([value.strip() for value in row])
                    lines.append(last + 1)
                last = reader.line_num
        except csv.Error as error:
            raise rankbench.DataError(f"{file}, line {last + 1}: {error}. Check its quotes.") from None
        if len(rows) < 2:
            raise rankbench.DataError(
                f"{file}: has no rows. It needs a header line and a line for each of its {file.stem}."
            )
        header, rows, where = rows[0], rows[1:], lines[0]
        check_header(f"{file}, line {where}", header, known, required)
        table = cls(file, {}, lines[1:])
        for k, row in enumerate(rows):
            if len(row) != len(header):
                remedy = "Fill in the rest" if len(row) < len(header) else "Put a value with a comma in quotes"
                raise table.wrong(k, f"{counted(len(row), 'field')} where the header has {len(header)}. {remedy}")
        columns = dict(zip(header, zip(*rows, strict=True), strict=True))
        table.columns.update({name: columns[name] for name in known if name in columns})
        table.check_filled()
        return table

    def check_filled(self):
        """DataError for an empty value."""
        for name, values in self.columns.items():
            if "" in values:
                raise self.wrong(values.index(""), f"{name} is empty. Fill it in, or remove the row")

    def wrong(self, row, what):
        """The DataError for one row."""
        return rankbench.DataError(f"{self.file}, {self.unit} {self.lines[row]}: {what}.")

    def array(self, name):
        """(n,) strings, or None without that column."""
        return np.array(self.columns[name], object) if name in self.columns else None

    def numbers(self, name, least=-math.inf, whole=False):
        """(n,) float64, finite, not below `least` and with `whole` without a fraction; None without that column."""
        if name not in self.columns:
            return None
        values = np.empty(len(self.lines))
        for k, text in enumerate(self.columns[name]):
            try:
                values[k] = float(text)
            except ValueError:
                values[k] = math.nan
            if not (math.isfinite(values[k]) and values[k] >= least) or (whole and values[k] % 1):
                kind = "a whole number" if whole else "a number"
                kind += "" if least == -math.inf else f" of at least {least}"
                like = "3" if whole else "0.5"
                raise self.wrong(k, f"{name} {text!r} is not {kind}. Write it like {like}, or remove the row")
        return values


def check_header(where, header, known, required):
    for name in header:
        if header.count(name) > 1:
            raise rankbench.DataError(f"{where}: column {name!r} is there twice. Remove one.")
        close = difflib.get_close_matches(name.lower(), [one for one in known if one not in header], 1, cutoff=0.8)
        if close == ["fold"] and name.lower() not in ("fold", "folds"):  # a folder, say
            close = []
        if name not in known and close:
            raise rankbench.DataError(f"{where}: no column is named {name!r}. Did you mean {close[0]!r}?")
    absent = [name for name in required if name not in header]
    if absent and len(header) == 1 and (sign := next((sign for sign in ";\t|" if sign in header[0]), None)):
        raise rankbench.DataError(
            f"{where}: columns are separated by {sign!r}. Save the file with commas between them."
        )
    if absent:
        raise rankbench.DataError(
            f"{where}: column {absent[0]!r} is missing; the header is {', '.join(header)}. "
            f"Separate columns by commas; these are read: {', '.join(known)}."
        )


def counted(number, noun):
    """`1 pair`, `2 pairs`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def nearest(text, known):
    """` (did you mean …?)`; searched only among the first few thousand, as it is slow."""
    close = difflib.get_close_matches(text, list(itertools.islice(known, 5000)), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""
