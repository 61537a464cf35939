"""Text tables keep to a width: what folds, in which order, and that numbers stay whole and aligned."""

import re

import pytest

from rankbench.render import render
from rankbench.table import Entry, Head, Table
from rankbench.text_table import display_width

LABELS = [
    "Chance",
    "RankSVM, gradient (HOG 2×2 and 3×3), combined with GIST",
    "日本語のラベル 日本語のラベル 日本語のラベル",
]


@pytest.fixture
def wide():
    """Two groups of three columns and one column of its own."""
    heads = [Head(head, group, "m", 2, False) for group in ("OSR, 6 attributes", "Solar cells, 5 splits")
             for head in ("Accuracy of pairs", "Seconds", "GB")]  # fmt: skip
    heads.append(Head("Alone", None, "m", 1, False))
    entries = [
        [Entry(value=10.0**row + at / 7, spread=0.25, status="done", done=1, cells=1) for at in range(len(heads))]
        for row in range(3)
    ]
    return Table("A title that is long enough for two lines of a narrow terminal", "", heads, LABELS, entries,
                 [[], [], []], ["word " * 60])  # fmt: skip


def drawn(table, width, monkeypatch):
    """Its lines, as on a terminal of that width."""
    monkeypatch.setenv("COLUMNS", str(width))
    return render(table, "text", terminal=True).splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 130, 200])
def test_no_line_is_wider_than_the_terminal(wide, width, monkeypatch):
    lines = drawn(wide, width, monkeypatch)
    assert max(map(display_width, lines)) <= width
    shown = " ".join(lines)
    numbers = [f"{entry.value:.{head.decimals}f}" for row in wide.entries
               for head, entry in zip(wide.heads, row, strict=True)]  # fmt: skip
    assert all(number in shown for number in numbers), "numbers are never folded"
    letters = "".join(re.findall(r"\w", shown))
    for label in LABELS:
        assert all(word in letters for word in re.findall(r"[a-zA-Z]{3,}", label))


def test_a_group_stands_once_over_its_columns(wide, monkeypatch):
    lines = drawn(wide, 200, monkeypatch)
    assert " ".join(lines).count("OSR, 6 attributes") == 1
    group, heads, rule = lines[2:5]
    assert re.fullmatch(r" +-+ OSR, 6 attributes -+  -+ Solar cells, 5 splits -+", group)
    begin, end = group.index("-"), group.index("-  -")
    assert rule[begin - 1 : begin + 1] == " -"
    assert rule[end : end + 4] == "-  -"
    assert heads[begin : end + 1].split() == ["Accuracy", "of", "pairs", "Seconds", "GB"]


def test_columns_go_on_in_a_second_block_with_the_labels_again(wide, monkeypatch):
    lines = drawn(wide, 100, monkeypatch)
    assert sum(line.startswith("Chance") for line in lines) == 2
    first = next(at for at, line in enumerate(lines) if "Solar" in line)
    assert lines[first - 1] == "", "a group is not torn apart"


def test_numbers_of_a_column_stay_below_each_other(wide, monkeypatch):
    for width in (50, 100, 200):
        rows = [line for line in drawn(wide, width, monkeypatch) if line.startswith(("Chance", "RankSVM,"))]
        for one, other in zip(rows[::2], rows[1::2], strict=True):
            assert [found.start() for found in re.finditer(" ± ", one)] == [
                found.start() for found in re.finditer(" ± ", other)
            ]


def test_a_table_that_fits_is_left_as_it_was(monkeypatch):
    table = Table("T", "", [Head("A", None, "m", 1, True)], ["a row"], [[Entry(value=0.5, status="done")]], [[]], [])
    assert drawn(table, 80, monkeypatch)[:5] == ["T", "", "         A", "-----  ---", "a row  0.5"]
    assert render(table, "text").splitlines()[:5] == drawn(table, 80, monkeypatch)[:5]


def test_width_counts_what_a_terminal_shows():
    assert display_width("\x1b[1mab\x1b[0m") == 2
    assert display_width("日本e\u0301") == 5
