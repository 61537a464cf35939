"""Numbers to text, Markdown, LaTeX, HTML, CSV and JSON."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

from rankbench import text_table
from rankbench.evidence import apart
from rankbench.latex import TEX, needs, tex
from rankbench.plan import DONE, FAILED, MISSING, NOT_APPLICABLE, TODO
from rankbench.table import Entry, Head, Table
from rankbench.text_table import display_width
from rankbench.visible import HIDDEN, one_line, visible

MARKS = {MISSING: "?", FAILED: "!", NOT_APPLICABLE: "–", TODO: "…"}
LEGEND = {MISSING: "data is missing", FAILED: "failed", NOT_APPLICABLE: "not applicable", TODO: "not run yet"}
STALE_MARK = "†"
TEXT_WIDTH = 100  # characters of a line where no terminal says how many it shows
LATEX_WIDTH = 345  # points of a line of LaTeX's articles


@dataclass(frozen=True)
class Style:
    """How a format writes the few things a table is made of."""

    escape: Callable[[str], str] = lambda text: text
    bold: Callable[[str], str] = lambda text: f"*{text}*"
    raised: Callable[[str], str] = lambda text: f"[{text}]"
    best: str = "…"  # the word or sign that is set bold in the legend
    plus_minus: str = " ± "
    minus: str = "-"
    stale: str = STALE_MARK
    marks: dict[str, str] = field(default_factory=lambda: dict(MARKS))


STYLES = {
    "text": Style(),
    "terminal": Style(bold=lambda text: f"\x1b[1m{text}\x1b[0m", best="Bold"),
    "markdown": Style(
        escape=lambda text: re.sub(r"([\\`*_\[\]<>|~])", r"\\\1", text),
        bold=lambda text: f"**{text}**",
        raised=lambda text: f"<sup>{text}</sup>",
        best="Bold",
    ),
    "latex": Style(
        escape=tex,
        bold=lambda text: rf"\textbf{{{text}}}",
        raised=lambda text: rf"\textsuperscript{{{text}}}",
        best="Bold",
        plus_minus=r" $\pm$ ",
        minus="$-$",
        stale=r"\dag{}",
        marks={status: TEX.get(mark, mark) for status, mark in MARKS.items()},
    ),
    "html": Style(
        escape=html.escape,
        bold=lambda text: f"<b>{text}</b>",
        raised=lambda text: f"<sup>{text}</sup>",
        best="Bold",
    ),
}
FORMATS = ("text", "markdown", "latex", "html", "csv", "json")


def render(table: Table, form: str, terminal: bool = False) -> str:
    """A table in one of FORMATS. `terminal`: text may have bold type, and keeps to the width that is there."""
    if form == "json":
        return as_json(as_values(table))
    return render_all([table], form, terminal)


def render_all(tables: list[Table], form: str, terminal: bool = False) -> str:
    """Several tables as one text: a list in JSON, one page in HTML, one header line in CSV."""
    if form == "json":
        return as_json([as_values(table) for table in tables])
    if form == "csv":
        return as_csv(tables)
    titles = Counter(table.title for table in tables)
    told = [replace(t, title=f"{t.title} ({t.name})") if titles[t.title] > 1 and t.name else t for t in tables]
    pages = [Page(table, STYLES["terminal" if form == "text" and terminal else form]) for table in told]
    if form == "html":
        return as_html(pages)
    if form == "text":
        width = (shutil.get_terminal_size().columns if terminal else 0) or TEXT_WIDTH  # some terminals say 0
        return "\n".join(as_text(page, width) for page in pages)
    return "\n".join({"markdown": as_markdown, "latex": as_latex}[form](page) for page in pages)


@dataclass(frozen=True)
class Place:
    """One place of a table, in the style of a format: a number or a mark, ± over seeds, signs that refer below."""

    number: str = ""
    spread: str = ""
    signs: str = ""
    best: bool = False

    def join(self, style: Style) -> str:
        """As one string."""
        return (style.bold(self.number) if self.best else self.number) + self.spread + self.signs


class Page:
    """A table as strings of one style: heads, rows, legend."""

    def __init__(self, table: Table, style: Style) -> None:
        self.table, self.style = table, style
        self.footnotes: dict[str, int] = {}  # each with its number
        self.written: list[str] = []  # every text of it, before it was escaped
        self.title = self._text(table.title)
        self.sources = list(dict.fromkeys(e.reported.source for row in table.entries for e in row if e.reported))
        self.shown = self._columns()
        self.groups = [self._text(head.group or "") for head, _ in self.shown]
        self.heads = [
            "reported" if reported else self._text(head.label) + self._refer(head.notes)
            for head, reported in self.shown
        ]
        self.labels: list[str] = []
        self.places: list[list[Place]] = []
        for label, notes, entries in zip(table.rows, table.row_notes, table.entries, strict=True):
            by_head = dict(zip(map(id, table.heads), entries, strict=True))
            self.labels.append(self._text(label) + self._refer(notes))
            self.places.append([(self._reported if r else self._measured)(by_head[id(h)], h) for h, r in self.shown])
        self.legend = [*self._about_numbers(), *self._about_marks(), *self._about_sources()]

    @property
    def rows(self) -> list[list[str]]:
        """Label and places of each row as plain strings."""
        return [
            [label, *(place.join(self.style) for place in row)]
            for label, row in zip(self.labels, self.places, strict=True)
        ]

    def _text(self, text: str) -> str:
        self.written.append(one_line(text))
        return self.style.escape(self.written[-1])

    def _columns(self) -> list[tuple[Head, bool]]:
        """Each head, followed by its reported figures where there are any."""
        shown = []
        for at, head in enumerate(self.table.heads):
            shown.append((head, False))
            if any(row[at].reported for row in self.table.entries):
                shown.append((head, True))
        return shown

    def _measured(self, entry: Entry, head: Head) -> Place:
        style = self.style
        if entry.value is None:
            mark = style.marks.get(entry.status, "")
            counted = f" {entry.done}/{entry.cells}" if entry.done else ""
            return Place(mark + counted, signs=self._refer(entry.notes))
        spread = "" if entry.spread is None else style.plus_minus + self._number(entry.spread, head)
        signs = (style.stale if entry.stale else "") + self._refer(entry.notes)
        return Place(self._number(entry.value, head), spread, signs, entry.best)

    def _reported(self, entry: Entry, head: Head) -> Place:
        if entry.reported is None:
            return Place()
        source = [f"reported: {entry.reported.source}"] if len(self.sources) > 1 and entry.reported.source else []
        return Place(self._number(entry.reported.value, head), signs=self._refer(source))

    def _number(self, value: float, head: Head) -> str:
        return decimal(value, head).replace("-", self.style.minus)

    def _refer(self, notes: list[str]) -> str:
        numbers = [self.footnotes.setdefault(text, len(self.footnotes) + 1) for text in notes]
        return self.style.raised(",".join(map(str, sorted(numbers)))) if numbers else ""

    def _about_numbers(self) -> list[str]:
        columns: dict[str, list[str]] = {}
        for head in self.table.heads:
            unit = "%" if head.percent else head.unit
            about = ", ".join(filter(None, [unit, "lower is better" if head.higher_is_better is False else ""]))
            columns.setdefault(head.metric + (f" ({about})" if about else ""), []).append(head.label)
        if len(columns) == 1:
            about = f"Metric: {next(iter(columns))}."
        else:
            about = f"Metrics: {'; '.join(f'{name} in {all_of(labels)}' for name, labels in columns.items())}."
        lines = [self._text(about)]
        entries = [entry for row in self.table.entries for entry in row]
        if any(entry.spread is not None for entry in entries):
            lines[0] += " " + self._text("Mean ± standard deviation over seeds.")
        if any(entry.best for entry in entries):
            others = self._text(apart(entries))
            lines[0] += f" {self.style.bold(self.style.best)}: best measured in its column{others and '; ' + others}."
        return lines

    def _about_marks(self) -> list[str]:
        style, entries = self.style, [entry for row in self.table.entries for entry in row]
        statuses = {entry.status for entry in entries if entry.value is None and entry.cells}
        marks = [f"{style.marks[status]} {LEGEND[status]}" for status in MARKS if status in statuses]
        if any(entry.done and entry.value is None for entry in entries):
            marks.append("k/n: only k of n cells are there, so there is no mean")
        if any(entry.stale for entry in entries):
            marks.append(f"{style.stale} computed by an earlier version of the plugin's source")
        return ["; ".join(marks) + "."] if marks else []

    def _about_sources(self) -> list[str]:
        lines = [f"{self.style.raised(str(at))} {self._text(text)}" for at, text in enumerate(self.footnotes, 1)]
        if len(self.sources) == 1 and self.sources[0]:
            lines.append(self._text(f"Reported: {self.sources[0]}."))
        if self.table.source:
            lines.append(self._text(f"Source: {self.table.source}."))
        return lines + [self._text(text) for text in self.table.notes]


def all_of(labels: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(labels))


def decimal(value: float, head: Head) -> str:
    """A number as a column shows it; never -0.0."""
    text = f"{value:.{head.decimals}f}"
    return text if float(text) else text.lstrip("-")


# ------------------------------------------------------------------------------------------------------------ formats


def as_text(page: Page, width: int) -> str:
    """Lines of at most `width` characters, as far as numbers and words allow."""
    places = [aligned(list(column), page.style) for column in zip(*page.places, strict=True)]
    columns = [
        text_table.Column(head, group, place)
        for head, group, place in zip(page.heads, page.groups, places, strict=True)
    ]
    body = text_table.lines(page.labels, columns, width)
    around = min(width, TEXT_WIDTH)
    title = text_table.wrapped(page.title, around)
    legend = [line for text in page.legend for line in text_table.wrapped(text, around, "  ")]
    return "\n".join([*title, "", *body, "", *legend]) + "\n"


def aligned(places: list[Place], style: Style) -> list[str]:
    """A column whose numbers and spreads stand below each other; signs follow at once, a mark's too."""
    star = " " if any(place.best for place in places) and style.best != "Bold" else ""
    numbers, spreads = (max(len(getattr(place, part)) for place in places) for part in ("number", "spread"))
    texts = []
    for place in places:
        number = style.bold(place.number) if place.best else star + place.number + (star if place.spread else "")
        spread = place.spread and place.spread.ljust(spreads)
        texts.append(" " * (numbers - len(place.number)) + number + spread + place.signs)
    width = max(map(display_width, texts))
    return [text + " " * (width - display_width(text)) for text in texts]


def as_markdown(page: Page) -> str:
    from tabulate import tabulate

    heads = [f"{group}: {head}" if group else head for group, head in zip(page.groups, page.heads, strict=True)]
    align = ("left", *("right" for _ in heads))
    body = tabulate(page.rows, ["", *heads], "pipe", colalign=align, disable_numparse=True)
    return "\n".join([f"**{page.title}**", "", body, "", "  \n".join(page.legend)]) + "\n"


def as_latex(page: Page) -> str:
    """A table environment; comments at its head say what the preamble needs, most often booktabs alone.

    One that may be wider than a page is set closer, and in the end made smaller, if LaTeX finds that it has to be.
    """
    close = latex_width(page, 4.6, 12) > LATEX_WIDTH
    scaled = latex_width(page, 4.2, 6) > LATEX_WIDTH
    lines = [*needs(page.written, scaled), "\\begin{table}", "\\centering", f"\\caption{{{page.title}}}\\smallskip"]
    lines += ["\\small\\setlength{\\tabcolsep}{3pt}"] if close else []
    lines += ["\\sbox0{%"] if scaled else []
    lines += [f"\\begin{{tabular}}{{l{'r' * len(page.heads)}}}", "\\toprule"]
    if any(page.groups):
        cells, rules, at = [], [], 2
        for group, count in runs(page.groups):
            cells.append(f"\\multicolumn{{{count}}}{{c}}{{{group}}}")
            rules += [f"\\cmidrule(lr){{{at}-{at + count - 1}}}"] if group else []
            at += count
        lines += [" & ".join(["", *cells]) + r" \\", "".join(rules)]
    lines += [" & ".join(["", *page.heads]) + r" \\", "\\midrule"]
    lines += [" & ".join(row) + r" \\" for row in page.rows]
    lines += ["\\bottomrule", "\\end{tabular}" + "}" * scaled]
    lines += [r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi"] if scaled else []
    lines += ["\\par\\smallskip{\\footnotesize\\raggedright", *(f"{line}\\par" for line in page.legend)]
    return "\n".join([*lines, "}", "\\end{table}"]) + "\n"


def latex_width(page: Page, letter: float, gap: float) -> float:
    """Points that a table takes, about. Args: letter, of a letter; gap, between columns."""
    texts = [["", *page.heads], *page.rows]
    longest = [max(len(plain(text)) for text in column) for column in zip(*texts, strict=True)]
    return sum(letter * length + gap for length in longest)


def plain(text: str) -> str:
    """LaTeX with a letter for each that is set, about."""
    text = re.sub(r"\\(?:textbf|textsuperscript|textsubscript|rightleft)|[{}$]", "", text)
    return re.sub(r"\\[A-Za-z]+|\\.", "x", text)


def runs(values: Iterable[str]) -> list[tuple[str, int]]:
    """Equal neighbors counted: a a b becomes (a, 2), (b, 1)."""
    return [(value, len(list(same))) for value, same in groupby(values)]


HTML_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; max-width: 70em; margin: 2em auto; }}
table {{ border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid; }}
caption {{ font-weight: bold; text-align: left; padding-bottom: 0.5em; }}
th, td {{ padding: 0.2em 0.7em; text-align: right; white-space: nowrap; font-weight: normal; }}
td b {{ font-weight: bold; }}
thead {{ border-bottom: 1px solid; }}
th[scope=row] {{ text-align: left; }}
th[scope=colgroup] {{ text-align: center; }}
p {{ font-size: 85%; }}
</style>
</head>
<body>"""


def as_html(pages: list[Page]) -> str:
    """A whole document, which needs no other file."""
    lines = [HTML_HEAD.format(title="; ".join(page.title for page in pages))]
    for page in pages:
        lines += html_table(page)
    return "\n".join([*lines, "</body>", "</html>"]) + "\n"


def html_table(page: Page) -> list[str]:
    """Lines of one table and its legend."""
    lines = ["<table>", f"<caption>{page.title}</caption>", "<thead>"]
    if any(page.groups):
        groups = "".join(
            f'<th colspan="{count}" scope="colgroup">{group}</th>' if group else f'<td colspan="{count}"></td>'
            for group, count in runs(page.groups)
        )
        lines.append(f"<tr><td></td>{groups}</tr>")
    heads = "".join(f'<th scope="col">{head}</th>' for head in page.heads)
    lines += [f"<tr><td></td>{heads}</tr>", "</thead>", "<tbody>"]
    for label, *places in page.rows:
        cells = "".join(f"<td>{place}</td>" for place in places)
        lines.append(f'<tr><th scope="row">{label}</th>{cells}</tr>')
    return [*lines, "</tbody>", "</table>", f"<p>{'<br>'.join(page.legend)}</p>"]


def as_json(values: Any) -> str:
    """JSON as people read it, with what a terminal would act on in JSON's own escapes."""
    text = json.dumps(values, indent=1, ensure_ascii=False)
    return HIDDEN.sub(lambda found: json.dumps(found[0])[1:-1], text) + "\n"


def as_values(table: Table) -> dict[str, Any]:
    """Everything as JSON values, unrounded."""
    about = {"benchmark": table.name, "title": table.title, "source": table.source, "notes": table.notes}
    return {**about, "entries": entry_values(table)}


def entry_values(table: Table) -> list[dict[str, Any]]:
    """One place of a table each, row by row."""
    return [
        {
            "row": label,
            "group": head.group,
            "column": head.label,
            "metric": head.metric,
            "percent": head.percent,
            "value": entry.value,
            "sd": entry.spread,
            "deterministic": entry.deterministic,
            "best": entry.best,
            "status": "stale" if entry.stale and entry.status == DONE else entry.status,
            "done": entry.done,
            "cells": entry.cells,
            "reported": entry.reported.value if entry.reported else None,
            "reported_source": entry.reported.source if entry.reported else None,
            "notes": [*head.notes, *notes, *entry.notes],
        }
        for label, notes, row in zip(table.rows, table.row_notes, table.entries, strict=True)
        for head, entry in zip(table.heads, row, strict=True)
    ]


def as_csv(tables: list[Table]) -> str:
    """One line an entry."""
    lines = [
        {"benchmark": table.name, "title": table.title, **entry, "notes": "; ".join(entry["notes"])}
        for table in tables
        for entry in entry_values(table)
    ]
    lines = [{k: visible(v) if isinstance(v, str) else v for k, v in line.items()} for line in lines]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()
