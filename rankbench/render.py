"""Numbers to text, Markdown, LaTeX, HTML, CSV and JSON."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field

from rankbench.plan import DONE, FAILED, MISSING, NOT_APPLICABLE, TODO
from rankbench.table import Entry, Head, Table

MARKS = {MISSING: "?", FAILED: "!", NOT_APPLICABLE: "–", TODO: "…"}
LEGEND = {
    MISSING: "data is missing",
    FAILED: "failed",
    NOT_APPLICABLE: "not applicable",
    TODO: "not run yet",
}
STALE_MARK = "†"


@dataclass
class Style:
    """How a format writes the few things a table is made of."""

    escape: Callable[[str], str] = lambda text: text
    bold: Callable[[str], str] = lambda text: f"*{text}*"
    raised: Callable[[str], str] = lambda text: f"[{text}]"
    plus_minus: str = " ± "
    stale: str = STALE_MARK
    marks: dict[str, str] = field(default_factory=lambda: dict(MARKS))


TEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
       "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "–": "--", "—": "---", "±": r"$\pm$", "…": r"\dots{}",
       "†": r"\dag{}", "×": r"$\times$", "≥": r"$\geq$", "≤": r"$\leq$", "·": r"$\cdot$", "<": r"\textless{}",
       ">": r"\textgreater{}", "|": r"\textbar{}", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "→": r"$\to$",
       "“": "``", "”": "''", "’": "'"}  # fmt: skip


def tex(text: str) -> str:
    """Text for LaTeX; characters pdfLaTeX has no glyph for become a question mark."""
    return "".join(TEX.get(c, c if c.isascii() or "\u00a1" <= c <= "\u017f" else "?") for c in text)


STYLES = {
    "text": Style(),
    "terminal": Style(bold=lambda text: f"\x1b[1m{text}\x1b[0m"),
    "markdown": Style(
        escape=lambda text: text.replace("|", "\\|").replace("*", "\\*").replace("_", "\\_").replace("\n", " "),
        bold=lambda text: f"**{text}**",
        raised=lambda text: f"<sup>{text}</sup>",
    ),
    "latex": Style(
        escape=tex,
        bold=lambda text: rf"\textbf{{{text}}}",
        raised=lambda text: rf"\textsuperscript{{{text}}}",
        plus_minus=r" $\pm$ ",
        stale=r"\dag{}",
        marks={MISSING: "?", FAILED: "!", NOT_APPLICABLE: "--", TODO: r"\dots{}"},
    ),
    "html": Style(escape=html.escape, bold=lambda text: f"<b>{text}</b>", raised=lambda text: f"<sup>{text}</sup>"),
}
FORMATS = ("text", "markdown", "latex", "html", "csv", "json")


def render(table: Table, form: str, terminal: bool = False) -> str:
    """A table in one of FORMATS. `terminal` allows bold type in text."""
    if form == "csv":
        return as_csv(table)
    if form == "json":
        return json.dumps(as_values(table), indent=1, ensure_ascii=False) + "\n"
    page = Page(table, STYLES["terminal" if form == "text" and terminal else form])
    return {"text": as_text, "markdown": as_markdown, "latex": as_latex, "html": as_html}[form](page)


class Page:
    """A table as strings of one style: heads, rows, legend."""

    def __init__(self, table: Table, style: Style) -> None:
        self.table, self.style = table, style
        self.footnotes: list[str] = []
        self.shown = self._columns()
        escape = style.escape
        self.groups = [escape(head.group or "") for head, _ in self.shown]
        self.heads = [self._head(head, reported) for head, reported in self.shown]
        self.rows = []
        for label, notes, entries in zip(table.rows, table.row_notes, table.entries, strict=True):
            by_head = dict(zip(map(id, table.heads), entries, strict=True))
            texts = [
                self._reported(by_head[id(h)], h) if r else self._measured(by_head[id(h)], h) for h, r in self.shown
            ]
            self.rows.append([escape(label) + self._refer(notes), *texts])
        self.legend = self._legend()

    def _columns(self) -> list[tuple[Head, bool]]:
        """Each head, followed by its reported figures where there are any."""
        shown = []
        for at, head in enumerate(self.table.heads):
            shown.append((head, False))
            if any(row[at].reported for row in self.table.entries):
                shown.append((head, True))
        return shown

    def _head(self, head: Head, reported: bool) -> str:
        return self.style.escape("reported") if reported else self.style.escape(head.label) + self._refer(head.notes)

    def _measured(self, entry: Entry, head: Head) -> str:
        style = self.style
        if entry.value is None:
            if entry.cells == 0:
                return ""
            text = style.marks.get(entry.status, "") + (f" {entry.done}/{entry.cells}" if entry.done else "")
            return text + self._refer(entry.notes)
        text = f"{entry.value:.{head.decimals}f}"
        text = style.bold(text) if entry.best else text
        if entry.spread is not None:
            text += f"{style.plus_minus}{entry.spread:.{head.decimals}f}"
        return text + (style.stale if entry.stale else "") + self._refer(entry.notes)

    def _reported(self, entry: Entry, head: Head) -> str:
        return f"{entry.reported.value:.{head.decimals}f}" if entry.reported else ""

    def _refer(self, notes: list[str]) -> str:
        numbers = []
        for text in notes:
            if text not in self.footnotes:
                self.footnotes.append(text)
            numbers.append(self.footnotes.index(text) + 1)
        return self.style.raised(",".join(map(str, sorted(numbers)))) if numbers else ""

    def _legend(self) -> list[str]:
        style, entries = self.style, [entry for row in self.table.entries for entry in row]
        metrics = list(
            dict.fromkeys(
                head.metric + ("" if head.higher_is_better else " (lower is better)") for head in self.table.heads
            )
        )
        lines = [style.escape(f"Metric: {', '.join(metrics)}.")]
        if any(entry.spread is not None for entry in entries):
            lines[0] += style.escape(" Mean ± standard deviation over seeds.")
        if any(entry.best for entry in entries):
            lines[0] += " " + style.bold(style.escape("Best"))
        statuses = {entry.status for entry in entries if entry.value is None and entry.cells}
        marks = [f"{style.marks[status]} {LEGEND[status]}" for status in MARKS if status in statuses]
        if any(entry.done and entry.value is None for entry in entries):
            marks.append("k/n: k of n cells are there, too few for a mean")
        if any(entry.stale for entry in entries):
            marks.append(f"{style.stale} computed by an earlier version of the plugin's source")
        if marks:
            lines.append("; ".join(marks) + ".")
        lines += [f"{style.raised(str(at))} {style.escape(text)}" for at, text in enumerate(self.footnotes, 1)]
        sources = sorted({entry.reported.source for entry in entries if entry.reported and entry.reported.source})
        if sources:
            lines.append(style.escape(f"Reported: {'; '.join(sources)}."))
        return lines + [style.escape(text) for text in self.table.notes]


def as_text(page: Page) -> str:
    from tabulate import tabulate

    heads = [
        f"{group}\n{head}" if any(page.groups) else head for group, head in zip(page.groups, page.heads, strict=True)
    ]
    align = ("left", *("right" for _ in heads))
    body = tabulate(page.rows, ["", *heads], "simple", colalign=align, disable_numparse=True)
    return "\n".join([page.table.title, "", body, "", *page.legend]) + "\n"


def as_markdown(page: Page) -> str:
    from tabulate import tabulate

    heads = [f"{group}: {head}" if group else head for group, head in zip(page.groups, page.heads, strict=True)]
    align = ("left", *("right" for _ in heads))
    body = tabulate(page.rows, ["", *heads], "pipe", colalign=align, disable_numparse=True)
    return "\n".join([f"**{page.style.escape(page.table.title)}**", "", body, "", "  \n".join(page.legend)]) + "\n"


def as_latex(page: Page) -> str:
    """A table environment; the preamble needs \\usepackage{booktabs} alone."""
    lines = ["% needs \\usepackage{booktabs}", "\\begin{table}", "\\centering", f"\\caption{{{tex(page.table.title)}}}"]
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
    lines += ["\\bottomrule", "\\end{tabular}", "\\par\\smallskip\\footnotesize"]
    lines += [f"{line}\\par" for line in page.legend]
    return "\n".join([*lines, "\\end{table}"]) + "\n"


def runs(values: list[str]) -> list[tuple[str, int]]:
    """Equal neighbors counted: a a b becomes (a, 2), (b, 1)."""
    found: list[tuple[str, int]] = []
    for value in values:
        if found and found[-1][0] == value:
            found[-1] = (value, found[-1][1] + 1)
        else:
            found.append((value, 1))
    return found


def as_html(page: Page) -> str:
    head = "".join(f"<th>{text}</th>" for text in ["", *page.heads])
    groups = "".join(f'<th colspan="{count}">{group}</th>' for group, count in runs(page.groups))
    lines = ["<table>", f"<caption>{html.escape(page.table.title)}</caption>", "<thead>"]
    lines += [f"<tr><th></th>{groups}</tr>"] if any(page.groups) else []
    lines += [f"<tr>{head}</tr>", "</thead>", "<tbody>"]
    for row in page.rows:
        cells = "".join(f'<td style="text-align:right">{text}</td>' for text in row[1:])
        lines.append(f'<tr><th style="text-align:left">{row[0]}</th>{cells}</tr>')
    return "\n".join([*lines, "</tbody>", "</table>", f"<p>{'<br>'.join(page.legend)}</p>"]) + "\n"


def as_values(table: Table) -> dict[str, object]:
    """Everything as JSON values, unrounded."""
    entries = []
    for label, notes, row in zip(table.rows, table.row_notes, table.entries, strict=True):
        for head, entry in zip(table.heads, row, strict=True):
            entries.append(
                {
                    "row": label,
                    "group": head.group,
                    "column": head.label,
                    "metric": head.metric,
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
            )
    return {"title": table.title, "source": table.source, "notes": table.notes, "entries": entries}


def as_csv(table: Table) -> str:
    """One line an entry."""
    entries = as_values(table)["entries"]
    assert isinstance(entries, list)
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(entries[0]) if entries else ["row"], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**entry, "notes": "; ".join(entry["notes"])} for entry in entries)
    return out.getvalue()
