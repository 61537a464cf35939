"""LaTeX without a lost letter: what is written, and what real programs make of it."""

import re
import shutil
import subprocess
import unicodedata
from pathlib import Path

import pytest

from rankbench.benchmark import Benchmark, Reported
from rankbench.latex import DINGS, IN_T1, KNOWN, TEX, TURN, needs, tex
from rankbench.registry import Registry
from rankbench.render import render, render_all
from rankbench.store import ResultStore
from rankbench.table import Drawer, Entry, Head, Table

ROOT = Path(__file__).resolve().parents[1]
NASTY = r"[0] 50% & $5_000 #1 {a} ~b ^c \d <e> |f| *g* [h] `i` --jobs ?` ± é"
SIGNS = "α τ γ ΑΒΓ ήΐ ≈ ≠ ≤ ≥ ± × · ÷ ∞ → ← ↔ ⇒ ∈ ∑ √ ∆ ° µ ✓ ✗ † ‡ § ¶ • … − 5² x₁ ½ ¼ ⅓ « » “q” ‘r’ – — a b"
FAR = "Ж 日本語 שלום سلام ế"

needs_latex = pytest.mark.skipif(
    not all(map(shutil.which, ("pdflatex", "lualatex", "pdftotext"))), reason="needs pdflatex, lualatex and pdftotext"
)


def small(title="T", value=-0.5):
    entry = Entry(value=value, status="done", done=1, cells=1, reported=Reported(-0.25, "A"))
    return Table(title, "", [Head("A", None, "kendall-tau", 2, False)], ["row"], [[entry]], [[]], [])


def test_tex_leaves_nothing_special():
    shown = tex(NASTY)
    assert r"50\% \& \$5\_000 \#1 \{a\} \textasciitilde{}b \textasciicircum{}c \textbackslash{}d" in shown
    assert r"-{\kern0pt}-jobs" in shown, "two hyphens stay two hyphens"
    assert r"?{\kern0pt}`" in shown, "and no question mark is turned over"
    assert "é" in shown


def test_no_letter_is_lost_in_latex():
    assert tex("α ≈ τ, 2 µm ✓ −0.5 a-b") == r"$\alpha$ $\approx$ $\tau$, 2 $\mu$m \ding{51} $-$0.5 a-b"
    assert tex("10⁻³ x₁ ⅓") == r"10\textsuperscript{$-$}\textsuperscript{3} x\textsubscript{1} $^{1}\!/_{3}$"
    assert tex("ή") == tex("η\u0301") == r"$\acute{\eta}$"
    assert tex("e\u0301") == "é", "macOS keeps accents apart"
    assert tex("ą ł 日本 Ж ﬁ") == "ą ł 日本 Ж ﬁ"
    far = set("日本語العربية한ЖŦ🙂\u0335")
    assert all(letter in tex(letter) for letter in far)
    assert "?" not in tex(SIGNS + FAR + "".join(far))


def test_numbers_have_a_true_minus_in_latex():
    page = render(small(), "latex")
    assert "row & $-$0.50 & $-$0.25" in page
    assert "kendall-tau" in page
    assert "-0.50" in render(small(), "text")


def test_the_head_of_a_table_says_what_it_needs():
    assert needs(["plain é α"]) == ["% needs \\usepackage{booktabs}"]
    assert needs(["✓"]) == ["% needs \\usepackage{booktabs}, \\usepackage{pifont}"]
    assert needs(["Đorđe"])[1] == "% needs \\usepackage[T1]{fontenc} with pdflatex, for the letters Đ đ"
    head = render(small("Title 日本 ש"), "latex").split("\\begin{table}")[0].splitlines()
    assert head[1] == "% needs lualatex or xelatex, with fonts that have these letters: 日 本 ש"
    assert any("fontspec" in line for line in head)
    assert [line for line in head if not line.startswith("%")] == TURN
    assert "-0.50" not in render(small("Title שלום, עולם"), "latex")
    assert "{Title \\rightleft{שלום, עולם}}" in render(small("Title שלום, עולם"), "latex")
    many = "".join(map(chr, range(0x4E00, 0x4E40)))
    assert needs([many])[1].endswith("… (64 in all)")
    assert "U+0335" in needs(["x\u0335"])[1]


# -- compiled


def compiled(folder, program, preamble, body):
    """The text of the page; no error, and no letter without a glyph."""
    document = f"\\documentclass{{article}}\n{preamble}\n\\begin{{document}}\n{body}\\end{{document}}\n"
    (folder / "table.tex").write_text(document, encoding="utf-8")
    ran = subprocess.run(
        [program, "-interaction=nonstopmode", "-halt-on-error", "table.tex"],
        cwd=folder, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-2000:]
    log = (folder / "table.log").read_text(errors="replace")
    assert not re.findall("Missing character.*", log)
    subprocess.run(["pdftotext", "-layout", "table.pdf"], cwd=folder, check=True)
    return bare((folder / "table.txt").read_text(encoding="utf-8"))


def bare(text):
    """Letters alone, as they compare; two of one shape are one."""
    apart = re.sub(r"\s", "", unicodedata.normalize("NFKC", text))
    return unicodedata.normalize("NFKC", apart).replace("⁄", "/").replace("\u00d0", "Đ")


def wanted(page):
    """The preamble that the comments of tables ask for, with fonts that are installed."""
    lines = [line for line in page.splitlines() if line.startswith("%")]
    packages = re.findall(r"\\usepackage\{\w+\}", "".join(lines))
    more = [line.removeprefix("%   ") for line in lines if line.startswith("%   ")]
    return "\n".join([*dict.fromkeys(packages), *more]).replace("Noto Sans CJK SC", "Droid Sans Fallback")


@pytest.fixture
def odd():
    """A table with every sign that LaTeX is known to have, in heads, labels and footnotes."""
    done = Entry(value=-82.13, spread=0.5, status="done", done=2, cells=2, best=True, notes=["C ≤ 10² ✓"])
    heads = [Head(text, "Größe λ", "m", 2, True) for text in ("α ≈ 0", "Ŝ½", "x₁")]
    rows = [NASTY, SIGNS.replace("«", "").replace("»", "")]
    return Table("Tables of τ", "Erdős, Łódź", heads, rows, [[done] * 3] * 2, [[], []], [" ".join(KNOWN | TEX.keys())])


VECTORS = r"\usepackage[T1]{fontenc}\usepackage{lmodern}"  # fonts that pdftotext reads accents of


@pytest.fixture(scope="module")
def classical(tmp_path_factory):
    """Some rows of it: to judge all of them takes seconds."""
    benchmark = Benchmark.read(ROOT / "benchmarks/classical.toml")
    benchmark.row[:] = [benchmark.row[at] for at in (0, 7, 10, -1)]
    return Drawer(Registry.installed(), ResultStore(ROOT / "results"), tmp_path_factory.mktemp("cache")).draw(benchmark)


@needs_latex
@pytest.mark.parametrize(("program", "fonts"), [("pdflatex", ""), ("pdflatex", VECTORS), ("lualatex", "")])
def test_signs_and_stored_tables_compile(odd, classical, program, fonts, tmp_path):
    page = render_all([odd, classical], "latex")
    shown = compiled(tmp_path, program, wanted(page) + fonts, page)
    texts = ["α≈0", "Größeλ", "−82.13", "--jobs", "?‘", "±", "ABΓ", "RankSVM,HOG2×2", "91.49", "SVR,objects"]
    texts += ["✓✗"] if program == "pdflatex" else ["Erdős,Łódź", "½", "†‡§¶•"]  # lualatex names no dings
    for text in texts + (["Erdős,Łódź", "½", "†‡§¶•", "µ"] if fonts else []):
        assert bare(text) in shown, text


@needs_latex
@pytest.mark.parametrize(("program", "fonts"), [("pdflatex", VECTORS), ("lualatex", "")])
def test_letters_of_t1_compile(program, fonts, tmp_path):
    page = render(small(IN_T1), "latex")
    assert "[T1]{fontenc} with pdflatex" in page
    shown = compiled(tmp_path, program, wanted(page) + fonts, page)
    assert bare(IN_T1) in shown


@needs_latex
def test_other_letters_compile_as_the_comment_says(tmp_path):
    page = render(small(FAR), "latex")
    shown = compiled(tmp_path, "lualatex", wanted(page), page)
    assert all(letter in shown for letter in bare(FAR))


@needs_latex
def test_a_wide_table_keeps_to_the_line(odd, tmp_path):
    page = render(odd, "latex")
    assert "graphicx" in page
    compiled(tmp_path, "pdflatex", wanted(page), page)
    assert "Overfull" not in (tmp_path / "table.log").read_text(errors="replace")


def test_every_ding_is_named_once():
    assert len(set(DINGS.values())) == len(DINGS)
