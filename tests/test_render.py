"""The six formats of a table, as they are printed."""

# ruff: noqa: E501, W291  (the golden outputs are as they are)

import csv
import io
import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from rankbench.benchmark import Reported
from rankbench.render import FORMATS, STYLES, decimal, render, render_all, runs
from rankbench.table import Entry, Head, Table

TEXT = """\
Shoes

                                          ------------- Shoes -------------
                        Open    reported    Pointy at the front[1]    Error
------------  --------------  ----------  ------------------------  -------
HOG            82.12  ± 0.50       81.00        *79.00* ± 10.25[2]     0.0†
GIST[3]       *82.13*                            ! 1/2                   ?
Votes & more       –                                 …                 0.5
Paper                              99.50

Metrics: pairwise-accuracy (%) in Open, Pointy at the front; error (lower is better) in Error. Mean
  ± standard deviation over seeds. *…*: best measured in its column.
? data is missing; ! failed; – not applicable; … not run yet; k/n: only k of n cells are there, so
  there is no mean; † computed by an earlier version of the plugin's source.
[1] 3 images could not be read
[2] here with C = 1.0
[3] deterministic: does not depend on the seed
Reported: A 2020.
Source: Conference 2020, table 3.
Trained for a day.
"""
MARKDOWN = """\
**Shoes**

|                  |         Open |   reported |   Shoes: Pointy at the front<sup>1</sup> |   Shoes: Error |
|:-----------------|-------------:|-----------:|-----------------------------------------:|---------------:|
| HOG              | 82.12 ± 0.50 |      81.00 |            **79.00** ± 10.25<sup>2</sup> |           0.0† |
| GIST<sup>3</sup> |    **82.13** |            |                                    ! 1/2 |              ? |
| Votes & more     |            – |            |                                        … |            0.5 |
| Paper            |              |      99.50 |                                          |                |

Metrics: pairwise-accuracy (%) in Open, Pointy at the front; error (lower is better) in Error. Mean ± standard deviation over seeds. **Bold**: best measured in its column.  
? data is missing; ! failed; – not applicable; … not run yet; k/n: only k of n cells are there, so there is no mean; † computed by an earlier version of the plugin's source.  
<sup>1</sup> 3 images could not be read  
<sup>2</sup> here with C = 1.0  
<sup>3</sup> deterministic: does not depend on the seed  
Reported: A 2020.  
Source: Conference 2020, table 3.  
Trained for a day.
"""
LATEX = r"""% needs \usepackage{booktabs}
\begin{table}
\centering
\caption{Shoes}\smallskip
\begin{tabular}{lrrrr}
\toprule
 & \multicolumn{2}{c}{} & \multicolumn{2}{c}{Shoes} \\
\cmidrule(lr){4-5}
 & Open & reported & Pointy at the front\textsuperscript{1} & Error \\
\midrule
HOG & 82.12 $\pm$ 0.50 & 81.00 & \textbf{79.00} $\pm$ 10.25\textsuperscript{2} & 0.0\dag{} \\
GIST\textsuperscript{3} & \textbf{82.13} &  & ! 1/2 & ? \\
Votes \& more & -- &  & \dots{} & 0.5 \\
Paper &  & 99.50 &  &  \\
\bottomrule
\end{tabular}
\par\smallskip{\footnotesize\raggedright
Metrics: pairwise-accuracy (\%) in Open, Pointy at the front; error (lower is better) in Error. Mean $\pm$ standard deviation over seeds. \textbf{Bold}: best measured in its column.\par
? data is missing; ! failed; -- not applicable; \dots{} not run yet; k/n: only k of n cells are there, so there is no mean; \dag{} computed by an earlier version of the plugin's source.\par
\textsuperscript{1} 3 images could not be read\par
\textsuperscript{2} here with C = 1.0\par
\textsuperscript{3} deterministic: does not depend on the seed\par
Reported: A 2020.\par
Source: Conference 2020, table 3.\par
Trained for a day.\par
}
\end{table}
"""
HTML = """\
<table>
<caption>Shoes</caption>
<thead>
<tr><td></td><td colspan="2"></td><th colspan="2" scope="colgroup">Shoes</th></tr>
<tr><td></td><th scope="col">Open</th><th scope="col">reported</th><th scope="col">Pointy at the front<sup>1</sup></th><th scope="col">Error</th></tr>
</thead>
<tbody>
<tr><th scope="row">HOG</th><td>82.12 ± 0.50</td><td>81.00</td><td><b>79.00</b> ± 10.25<sup>2</sup></td><td>0.0†</td></tr>
<tr><th scope="row">GIST<sup>3</sup></th><td><b>82.13</b></td><td></td><td>! 1/2</td><td>?</td></tr>
<tr><th scope="row">Votes &amp; more</th><td>–</td><td></td><td>…</td><td>0.5</td></tr>
<tr><th scope="row">Paper</th><td></td><td>99.50</td><td></td><td></td></tr>
</tbody>
</table>
<p>Metrics: pairwise-accuracy (%) in Open, Pointy at the front; error (lower is better) in Error. Mean ± standard deviation over seeds. <b>Bold</b>: best measured in its column.<br>? data is missing; ! failed; – not applicable; … not run yet; k/n: only k of n cells are there, so there is no mean; † computed by an earlier version of the plugin's source.<br><sup>1</sup> 3 images could not be read<br><sup>2</sup> here with C = 1.0<br><sup>3</sup> deterministic: does not depend on the seed<br>Reported: A 2020.<br>Source: Conference 2020, table 3.<br>Trained for a day.</p>
</body>
</html>
"""

NASTY = r"[0] 50% & $5_000 #1 {a} ~b ^c \d <e> |f| *g* [h] `i` --jobs ± é ł 中"


def done(value, **rest):
    return Entry(value=value, status="done", done=2, cells=2, **rest)


@pytest.fixture
def table():
    """Everything a table can show."""
    heads = [
        Head("Open", None, "pairwise-accuracy", 2, True, True),
        Head("Pointy at the front", "Shoes", "pairwise-accuracy", 2, True, True, ["3 images could not be read"]),
        Head("Error", "Shoes", "error", 1, False),
    ]
    entries = [
        [
            done(82.125, spread=0.5, reported=Reported(81.0, "A 2020")),
            done(79.0, spread=10.25, best=True, notes=["here with C = 1.0"]),
            done(-0.01, stale=True),
        ],
        [done(82.13, best=True), Entry(status="failed", done=1, cells=2), Entry(status="missing data", cells=2)],
        [Entry(status="not applicable", cells=1), Entry(cells=1), done(0.5)],
        [Entry(status="done", reported=Reported(99.5, "A 2020")), Entry(status="done"), Entry(status="done")],
    ]
    notes = [[], ["deterministic: does not depend on the seed"], [], []]
    rows = ["HOG", "GIST", "Votes & more", "Paper"]
    return Table("Shoes", "Conference 2020, table 3", heads, rows, entries, notes, ["Trained\n  for a day."])


def test_text(table):
    assert render(table, "text") == TEXT


def test_markdown(table):
    assert render(table, "markdown") == MARKDOWN


def test_latex(table):
    assert render(table, "latex") == LATEX


def test_html(table):
    assert render(table, "html").split("<body>\n")[1] == HTML


def test_csv_is_unrounded(table):
    lines = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert len(lines) == 12
    assert [line["column"] for line in lines[:3]] == ["Open", "Pointy at the front", "Error"]
    assert (lines[0]["value"], lines[0]["sd"], lines[0]["reported"]) == ("82.125", "0.5", "81.0")
    assert lines[1]["notes"] == "3 images could not be read; here with C = 1.0"
    assert (lines[2]["status"], lines[4]["value"], lines[4]["done"]) == ("stale", "", "1")
    assert {line["title"] for line in lines} == {"Shoes"}


def test_json_is_unrounded(table):
    values = json.loads(render(table, "json"))
    assert (values["title"], values["source"]) == ("Shoes", "Conference 2020, table 3")
    first = values["entries"][0]
    assert first == {
        "row": "HOG", "group": None, "column": "Open", "metric": "pairwise-accuracy", "percent": True,
        "value": 82.125, "sd": 0.5, "deterministic": False, "best": False, "status": "done", "done": 2, "cells": 2,
        "reported": 81.0, "reported_source": "A 2020", "notes": [],
    }  # fmt: skip
    assert values["entries"][4]["status"] == "failed"


def test_a_terminal_gets_bold_type_and_aligned_numbers(table):
    text = render(table, "text", terminal=True)
    assert "\x1b[1m79.00\x1b[0m ± 10.25" in text
    assert "\x1b[1mBold\x1b[0m: best" in text
    plain = text.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines()
    rows = plain[plain.index(next(line for line in plain if line.startswith("---"))) + 1 :][:3]
    assert len({row.index(".") for row in rows[:2]}) == 1


def test_long_heads_go_on_in_the_next_line_only_where_room_is_short(table):
    assert max(map(len, render(table, "text").splitlines())) <= 100
    table.heads[0].label = "Open to the wind and the weather"
    table.heads[2].label = "Error in the last of all years"
    lines = render(table, "text").splitlines()
    assert max(map(len, lines)) <= 100
    assert not any("Pointy at the front[1]" in line for line in lines[:9])
    assert lines[2].split() == ["----------", "Shoes", "-----------"]


def test_footnotes_of_marks_and_numbers_follow_at_once(table):
    entries = [[done(82.125, best=True, notes=["a"])], [done(5.0, notes=["a"])]]
    entries.append([Entry(status="failed", cells=1, notes=["b"])])
    head = Head("A", None, "m", 2, True)
    text = render(Table("T", "", [head], ["x", "y", "z"], entries, [[], [], []], []), "text")
    rows = text.splitlines()[4:7]
    assert [row.split()[1] for row in rows] == ["*82.12*[1]", "5.00[1]", "![2]"]
    assert rows[0].index(".") == rows[1].index(".")


def test_tables_of_one_title_are_told_apart_by_their_files(table):
    table.name = "first"
    other = replace(table, name="second")
    text = render_all([table, other], "text")
    assert [line for line in text.splitlines() if line.startswith("Shoes (")] == ["Shoes (first)", "Shoes (second)"]
    assert [one["benchmark"] for one in json.loads(render_all([table, other], "json"))] == ["first", "second"]
    lines = csv.DictReader(io.StringIO(render_all([table, other], "csv")))
    assert {(line["benchmark"], line["title"]) for line in lines} == {("first", "Shoes"), ("second", "Shoes")}
    assert render(table, "text").startswith("Shoes\n")


def test_several_tables_are_one_document(table):
    assert json.loads(render_all([table, table], "json"))[1]["title"] == "Shoes"
    assert json.loads(render_all([], "json")) == []
    assert len(list(csv.DictReader(io.StringIO(render_all([table, table], "csv"))))) == 24
    assert render_all([], "csv") == "\n"
    page = render_all([table, table], "html")
    assert (page.count("<table>"), page.count("<body>")) == (2, 1)
    for form in ("text", "markdown", "latex"):
        assert render_all([table, table], form) == render(table, form) + "\n" + render(table, form)


def test_reported_figures_from_several_places_have_a_footnote_each(table):
    table.entries[3][0].reported = Reported(99.5, "B 2021")
    lines = render(table, "text").splitlines()
    assert "81.00[2]" in next(line for line in lines if line.startswith("HOG"))
    assert "99.50[5]" in next(line for line in lines if line.startswith("Paper"))
    assert {"[2] reported: A 2020", "[5] reported: B 2021"} <= set(lines)
    table.entries[3][0].reported = table.entries[0][0].reported = Reported(99.5)
    assert "eported:" not in render(table, "text"), "no source is given"


def test_a_number_is_never_minus_zero():
    head = Head("x", None, "m", 1, True)
    assert [decimal(value, head) for value in (-0.04, -0.0, 0.04, -0.06)] == ["0.0", "0.0", "0.0", "-0.1"]


def test_one_plain_column_needs_no_legend_beyond_its_metric():
    table = Table("T", "", [Head("A", None, "kendall-tau", 3, True)], ["r"], [[done(0.5)]], [[]], [])
    assert render(table, "text").splitlines()[-1] == "Metric: kendall-tau."


def test_equal_neighbors_are_counted():
    assert runs(["a", "a", "", "b", "a"]) == [("a", 2), ("", 1), ("b", 1), ("a", 1)]


# -- escaping


def test_markdown_shows_what_was_written():
    escaped = STYLES["markdown"].escape(NASTY)
    assert r"\<e\> \|f\| \*g\* \[h\] \`i\`" in escaped
    assert r"5\_000" in escaped


def test_a_wide_cell_in_markdown_breaks_no_row(table):
    table.rows[0] = NASTY
    lines = [line for line in render(table, "markdown").splitlines() if line.startswith("|")]
    assert len(lines) == 6
    assert {line.replace(r"\|", "").count("|") for line in lines} == {6}


class Balanced(HTMLParser):
    """Checks that every element is closed in order; collects the text."""

    EMPTY = ("meta", "br")

    def __init__(self):
        super().__init__()
        self.open, self.text, self.rows = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.EMPTY:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append(0)
        if tag in ("td", "th"):
            self.rows[-1] += int(dict(attrs).get("colspan", 1))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_html_is_balanced_and_every_row_has_all_columns(table):
    table.title = table.rows[0] = NASTY
    page = Balanced()
    page.feed(render(table, "html"))
    page.close()
    assert not page.open
    assert set(page.rows) == {5}
    assert NASTY in page.text


def test_every_format_has_a_golden_output_here():
    assert FORMATS == ("text", "markdown", "latex", "html", "csv", "json")
