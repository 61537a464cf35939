"""Text for LaTeX in which no letter is lost.

What pdflatex knows stays as it is, signs become math or a macro, and letters that pdflatex has no glyph for stay too:
what they need is said at the head of the table.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

SPECIAL = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}", "[": "{[}", "]": "{]}",
           "*": "{*}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}",
           "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "\0": r"{\kern0pt}"}  # fmt: skip
SPACES = {"\u00a0": "~", "\u2002": r"\enspace{}", "\u2003": r"\quad{}", "\u2007": r"\phantom{0}", "\u3000": r"\quad{}",
          "\u00ad": r"\-", **dict.fromkeys("\u2004\u2005\u2006\u2008\u2009\u200a\u202f\u205f", r"\,")}  # fmt: skip
PUNCTUATION = {"‐": "-", "‑": r"\mbox{-}", "‒": "--", "–": "--", "—": "---", "―": "---", "‘": "`", "’": "'", "‚": ",",
               "“": "``", "”": "''", "„": ",,", "…": r"\dots{}", "•": r"\textbullet{}", "†": r"\dag{}",
               "‡": r"\ddag{}", "§": r"\S{}", "¶": r"\P{}", "′": "$'$", "″": "$''$"}  # fmt: skip
GREEK = {"α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "δ": r"\delta", "ε": r"\varepsilon", "ζ": r"\zeta",
         "η": r"\eta", "θ": r"\theta", "ι": r"\iota", "κ": r"\kappa", "λ": r"\lambda", "μ": r"\mu", "ν": r"\nu",
         "ξ": r"\xi", "ο": "o", "π": r"\pi", "ρ": r"\rho", "σ": r"\sigma", "ς": r"\varsigma", "τ": r"\tau",
         "υ": r"\upsilon", "φ": r"\varphi", "χ": r"\chi", "ψ": r"\psi", "ω": r"\omega", "Γ": r"\Gamma",
         "Δ": r"\Delta", "Θ": r"\Theta", "Λ": r"\Lambda", "Ξ": r"\Xi", "Π": r"\Pi", "Σ": r"\Sigma", "Υ": r"\Upsilon",
         "Φ": r"\Phi", "Ψ": r"\Psi", "Ω": r"\Omega", "ϵ": r"\epsilon", "ϑ": r"\vartheta", "ϕ": r"\phi",
         "ϖ": r"\varpi", "ϱ": r"\varrho", "µ": r"\mu"}  # fmt: skip
GREEK |= {greek: rf"\mathrm{{{latin}}}" for greek, latin in zip("ΑΒΕΖΗΙΚΜΝΟΡΤΧ", "ABEZHIKMNOPTX", strict=True)}
ACCENTS = {"\u0301": r"\acute", "\u0308": r"\ddot", "\u0300": r"\grave", "\u0342": r"\tilde"}  # over a Greek letter
MATH = {"−": "-", "±": r"\pm", "∓": r"\mp", "×": r"\times", "÷": r"\div", "·": r"\cdot", "⋅": r"\cdot", "∗": r"\ast",
        "∘": r"\circ", "°": r"^\circ", "≈": r"\approx", "≠": r"\neq", "≡": r"\equiv", "≤": r"\leq", "≥": r"\geq",
        "≪": r"\ll", "≫": r"\gg", "∼": r"\sim", "≃": r"\simeq", "≅": r"\cong", "∝": r"\propto", "∞": r"\infty",
        "→": r"\to", "←": r"\leftarrow", "↔": r"\leftrightarrow", "↑": r"\uparrow", "↓": r"\downarrow",
        "↕": r"\updownarrow", "↗": r"\nearrow", "↘": r"\searrow", "↖": r"\nwarrow", "↙": r"\swarrow",
        "↦": r"\mapsto", "⇒": r"\Rightarrow", "⇐": r"\Leftarrow", "⇔": r"\Leftrightarrow", "∈": r"\in", "∉": r"\notin",
        "∋": r"\ni", "⊂": r"\subset", "⊃": r"\supset", "⊆": r"\subseteq", "⊇": r"\supseteq", "∩": r"\cap",
        "∪": r"\cup", "∅": r"\emptyset", "∖": r"\setminus", "∀": r"\forall", "∃": r"\exists", "∧": r"\wedge",
        "∨": r"\vee", "¬": r"\neg", "∑": r"\sum", "∏": r"\prod", "∫": r"\int", "∂": r"\partial", "∇": r"\nabla",
        "∆": r"\Delta", "√": r"\surd", "⊕": r"\oplus", "⊗": r"\otimes", "⊥": r"\perp", "∥": r"\parallel",
        "∠": r"\angle", "⟨": r"\langle", "⟩": r"\rangle", "ℓ": r"\ell", "ℏ": r"\hbar", "ℜ": r"\Re", "ℑ": r"\Im",
        "ℵ": r"\aleph", "⋆": r"\star", "♯": r"\sharp", "♭": r"\flat", "♮": r"\natural", "♠": r"\spadesuit",
        "♡": r"\heartsuit", "♢": r"\diamondsuit", "♣": r"\clubsuit", "△": r"\triangle", "◇": r"\diamond",
        "○": r"\circ"}  # fmt: skip
DINGS = {"✓": 51, "✔": 52, "✗": 55, "✘": 56, "★": 72, "●": 108, "■": 110, "▲": 115, "▼": 116, "◆": 117, "♥": 170,
         "♦": 169, "✚": 58, "✖": 54, "➔": 212}  # fmt: skip
RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni", strict=True))
LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₐₑₒₓₕₖₗₘₙₚₛₜ", "0123456789+-()aeoxhklmnpst", strict=True))
THIRDS = {letter: unicodedata.normalize("NFKC", letter).split("⁄") for letter in "⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"}

TEX = {
    **SPECIAL,
    **SPACES,
    **PUNCTUATION,
    **{letter: f"${macro}$" for letter, macro in {**GREEK, **MATH}.items()},
    **{letter: rf"\ding{{{code}}}" for letter, code in DINGS.items()},
    **{letter: rf"\textsuperscript{{{below.replace('-', '$-$')}}}" for letter, below in RAISED.items()},
    **{letter: rf"\textsubscript{{{above.replace('-', '$-$')}}}" for letter, above in LOWERED.items()},
    **{letter: rf"$^{{{above}}}\!/_{{{below}}}$" for letter, (above, below) in THIRDS.items()},
}
IN_T1 = "«»ÐÞðþĄąĐđĘęĮįŊŋŲųǪǫ‹›"  # that LaTeX's default font encoding has no glyph for
IN_NEITHER = "ĦħĸĿŀŉŦŧſ"
KNOWN = frozenset(  # that pdflatex and lualatex both set with their own fonts
    [chr(code) for code in (*range(0x20, 0x7F), *range(0xA1, 0x180)) if chr(code) not in IN_T1 + IN_NEITHER]
    + list("ǍǎǏǐǑǒǓǔǦǧǰǴǵȘșȚțḍḥḷṃṅṇṛṣṭẞỲỳ‰‱₩₫€№™ﬀﬁﬂﬃﬄ")
)
NAMED = 24  # letters that a comment names
RIGHT_TO_LEFT = "\u0590-\u08ff\ufb1d-\ufdfc\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff"
TURNED = re.compile(f"[{RIGHT_TO_LEFT}](?:[^0-9A-Za-z]*[{RIGHT_TO_LEFT}])*")
TURN = [  # in the table itself: the comment may go unread, and then these letters would stand in the wrong order
    r"\DeclareRobustCommand\rightleft[1]{\leavevmode{\ifdefined\rightleftfont\rightleftfont\fi",
    r"  \ifdefined\textdir\textdir TRT #1\else\TeXXeTstate=1 \beginR #1\endR\fi}}",
]


def tex(text: str) -> str:
    """Text for LaTeX: every letter is there, as it is or as the sign that stands for it."""
    apart = re.sub(r"(?<=[-'`,?!])(?=[-'`,])", "\0", composed(text))  # two hyphens stay two, and no quotes come about
    turned, at = "", 0
    for found in TURNED.finditer(apart):
        turned += signs(apart[at : found.start()]) + rf"\rightleft{{{signs(found[0])}}}"
        at = found.end()
    return turned + signs(apart[at:])


def signs(text: str) -> str:
    """Letter by letter."""
    return "".join(TEX.get(letter) or accented(letter) or letter for letter in text)


def composed(text: str) -> str:
    """Letters with their accents, as far as there are such: names from macOS have them apart."""
    return unicodedata.normalize("NFC", text)


def accented(letter: str) -> str:
    """A Greek letter with accents, in math; empty where it is none."""
    base, *marks = list(unicodedata.normalize("NFD", letter))
    if not marks or base not in GREEK or not all(mark in ACCENTS for mark in marks):
        return ""
    sign = GREEK[base]
    for mark in marks:
        sign = f"{ACCENTS[mark]}{{{sign}}}"
    return f"${sign}$"


def needs(texts: Iterable[str], scaled: bool = False) -> list[str]:
    """Comment lines that say which packages, fonts or program a table needs.

    Args: texts, before `tex`; scaled, whether its size is.
    """
    letters = dict.fromkeys("".join(map(composed, texts)))
    packages = ["booktabs", *(["graphicx"] if scaled else []), *(["pifont"] if DINGS.keys() & letters else [])]
    lines = ["% needs " + ", ".join(f"\\usepackage{{{name}}}" for name in packages)]
    far = [one for one in letters if one not in KNOWN and one not in TEX and one not in IN_T1 and not accented(one)]
    if far:
        lines += beyond(far)
    elif t1 := [letter for letter in letters if letter in IN_T1]:
        lines.append(f"% needs \\usepackage[T1]{{fontenc}} with pdflatex, for the letters {' '.join(t1)}")
    return lines


def beyond(letters: list[str]) -> list[str]:
    """What letters that pdflatex does not know need."""
    named = [letter if letter.isprintable() and not unicodedata.combining(letter) else f"U+{ord(letter):04X}"
             for letter in letters[:NAMED]]  # fmt: skip
    turned = any(TURNED.match(letter) for letter in letters)
    return [
        f"% needs lualatex or xelatex, with fonts that have these letters: {' '.join(named)}"
        + (f" … ({len(letters)} in all)" if len(letters) > NAMED else ""),
        "% with lualatex, for instance (leave out fonts that `fc-list` does not show: one that is missing stops all):",
        r"%   \usepackage{fontspec}",
        r'%   \directlua{luaotfload.add_fallback("more", {"DejaVu Sans:mode=harf;", "Noto Sans CJK SC:mode=harf;"})}',
        r"%   \setmainfont{Latin Modern Roman}[RawFeature={fallback=more}]",
        *([r"%   \newfontfamily\rightleftfont{DejaVu Sans}[Script=Arabic]", *TURN] if turned else []),
    ]
