"""What others wrote, made fit to be shown: no control character reaches a terminal, and no message fills a screen."""

from __future__ import annotations

import re

# Controls but line feed and tab, lone surrogates, separators that some editors break lines at, marks that turn the
# direction of what follows, and signs without width but the joiners that Persian, Indic scripts and emoji are spelt by
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
SPACE = re.compile(r"[ \t\r\n\f\v]+")  # not the no-break space
LONGEST = 400  # characters of a message that a table or a summary shows


def visible(text: str) -> str:
    r"""Text with what a terminal would act on written out, as in `\x1b[31m`; lines and tabs stay."""
    return HIDDEN.sub(lambda found: escaped(found[0]), text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The same in one line."""
    return visible(SPACE.sub(" ", text).strip())


def shortened(text: str, whole: str, most: int = LONGEST) -> str:
    """A message, cut where it is longer than `most` characters. Args: whole, where all of it is, for the reader."""
    if len(text) <= most:
        return text
    return f"{text[:most].rstrip()} … ({len(text):,} characters; {whole})"


def escaped(character: str) -> str:
    r"""`\x1b`, `\u202e`, `\U000e0001`."""
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
