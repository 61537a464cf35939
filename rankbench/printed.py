"""What a worker process prints while it works on a cell: kept where the cell fails."""

from __future__ import annotations

import contextlib
import os
import stat
import sys

TAIL = 8192  # bytes of a cell's output that its failure record keeps


class Printed:
    """What this process prints after it was made, where its standard error is a file that can be read back.

    A worker's is: the supervisor opens its log so. Elsewhere (a terminal, a file of the user's) nothing is known.
    """

    def __init__(self) -> None:
        self._since = log_size()

    def tail(self) -> str:
        """The end of it; empty where nothing was printed or nothing is known."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):  # closed by a plugin, say
                stream.flush()
        begin, end = self._since, log_size()
        if begin is None or end is None:
            return ""
        with contextlib.suppress(OSError):  # it cannot be read
            begin = max(begin, end - TAIL)
            return os.pread(2, max(0, end - begin), begin).decode(errors="replace")
        return ""


def log_size() -> int | None:
    """Bytes in what standard error goes to; None where that is no file."""
    with contextlib.suppress(OSError):
        found = os.fstat(2)
        return found.st_size if stat.S_ISREG(found.st_mode) else None
    return None
