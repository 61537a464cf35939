"""The few exceptions a user can meet, all under RankbenchError.

Each message says what was wrong, where, and what to do. The command line prints it without a traceback.
"""

import os
import traceback
from collections.abc import Collection

LONGEST_WORD, MOST_WORDS = 200, 1000  # what a suggestion is looked for, and among how many


class RankbenchError(Exception):
    """Anything rankbench tells its user about on purpose."""


class BenchmarkError(RankbenchError):
    """A benchmark file, a name or an option is wrong. Exit code 2."""


class PluginError(RankbenchError):
    """A plugin is broken, or broke its contract. The message names the plugin and its package."""


class DataError(RankbenchError):
    """A dataset's files or arrays are there, but wrong."""


class MissingData(DataError):
    """A dataset's files are not there. The message says which path was looked for and where to get it."""


class UnreadableImage(DataError):
    """One image cannot be decoded. The core drops it with its pairs, and says so."""


class NotApplicable(RankbenchError):
    """Raised by a plugin that cannot treat this problem at all: a table shows a dash with the reason, not a failure."""


class StoreError(RankbenchError):
    """The results folder cannot be read or written (a full disk, say). Nothing stored was harmed."""


class DamagedFile(StoreError):
    """A stored file is not what was written. `path` is the file; the message names it.

    In the cache it is built again, in the results computed again by the next run.
    """

    def __init__(self, message: str, path: "os.PathLike[str] | str" = "") -> None:
        super().__init__(message)
        self.path = os.fspath(path)


class Interrupted(RankbenchError):
    """The user asked to stop; what was finished is stored and the same command resumes. Exit code 130."""


def counted(number: int, noun: str) -> str:
    """`1 image`, `2 images`, for messages."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def raised_at(error: BaseException, packages: Collection[str] = ()) -> str:
    """` (mean_color.py, line 11)`: the innermost place, in these top-level packages if some are named; or nothing."""
    places = [
        (frame, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if not packages or str(frame.f_globals.get("__name__")).split(".")[0] in packages
    ]
    if not places:
        return ""
    frame, line = places[-1]
    return f" ({os.path.basename(frame.f_code.co_filename)}, line {line})"


def did_you_mean(word: str, known: list[str]) -> str:
    """` Did you mean 'x'?` for the closest known word, or an empty string."""
    import difflib

    if len(word) > LONGEST_WORD or len(known) > MOST_WORDS:  # comparing takes the product of the lengths
        return ""
    close = difflib.get_close_matches(word, [one for one in known if len(one) <= LONGEST_WORD], n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""
