"""A cell's own peak of memory: equal work gives equal figures, in whatever process and after whatever cell.

Counted is private memory (anonymous and shared-memory pages; of child processes the pages that are theirs alone), above
what the process held when the fit began, its garbage collected and its free memory given back. Left out is what only
the first cell of a process or of a cache pays: imported modules, features, pixels and artefacts that several cells
share, and the pages of mapped files, which the system may drop.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rankbench.imports import WATCH

SHORTEST, LONGEST = 0.004, 0.05  # seconds between two looks, which come less often as a cell goes on
LEFTOVERS = 2**22  # bytes: what earlier cells may leave behind before it is collected
SHARE = 0.05  # of the time that may be spent on looking at child processes
LINES = re.compile(rb"^(VmHWM|RssAnon|RssFile|RssShmem):\s*(\d+) kB", re.M)
PRIVATE = re.compile(rb"^Private_Dirty:\s*(\d+) kB", re.M)


class PeakMemory:
    """The peak of one cell, from `begin` to `end`.

    Attributes: before, bytes held at the beginning; own, bytes above that. None where the system does not tell.
    """

    def __init__(self) -> None:
        self.before: int | None = None
        self.own: int | None = None
        self._process = os.getpid()
        self._lock = threading.RLock()  # a plugin's `__del__` that imports may come at any moment
        self._aside = 0
        self._left = (0, 0)  # private and mapped bytes when work apart from the cell's began
        self._file = 0  # mapped bytes at the last look
        self._held = 0
        self._imported = 0
        self._children, self._looked, self._took = 0, 0.0, 0.0

    @property
    def peak(self) -> int | None:
        """What was held before, and the cell's own."""
        return None if self.before is None or self.own is None else self.before + self.own

    def record(self) -> dict[str, Any]:
        """What a cell's record says of it."""
        return {"peak_memory_bytes": self.peak, "peak_memory_of": "cell", "memory_bytes_before": self.before}

    def begin(self) -> None:
        """Measure from here on, anew if it was begun before."""
        if PROCESS.measured is not None:
            PROCESS.measured.end()
        self.before = self.own = None
        looked = free()
        if looked is None or not reset():
            return
        _, private, self._file = looked
        self._children = self._of_children()
        self.before = self._held = private + self._children
        self.own = self._imported = 0
        WATCH.listeners.add(self)
        WATCH.begin()
        PROCESS.measure(self)

    def end(self) -> None:
        """Measure no more."""
        if PROCESS.measured is not self or os.getpid() != self._process:
            return
        self.look()
        PROCESS.measured = None
        WATCH.listeners.discard(self)
        PROCESS.floor += self._imported

    def look(self) -> None:
        """Take the peak since the last look into account."""
        with self._lock:
            if self._aside or PROCESS.measured is not self or (looked := look()) is None:
                return
            peak, private, file = looked
            if time.monotonic() - self._looked > self._took / SHARE:
                self._children = self._of_children()
            highest = max(private, peak - max(self._file, file)) + self._children
            self.own = max(self.own or 0, highest - self._held)
            self._file = file
            reset()

    def _of_children(self) -> int:
        began = time.monotonic()
        found = children_memory() if has_children() else 0
        self._looked = time.monotonic()
        self._took = self._looked - began
        return found

    # -- what is not the cell's own

    def leave(self) -> None:
        """What follows is no work of the cell's own."""
        if os.getpid() != self._process:
            return
        if not self._aside:
            self.look()
        with self._lock:
            self._aside += 1
            if self._aside == 1 and (looked := look()) is not None:
                self._left = looked[1:]

    def resume(self) -> int:
        """The cell's own work goes on. Returns the bytes that were added meanwhile."""
        if os.getpid() != self._process or not self._aside:
            return 0
        with self._lock:
            self._aside -= 1
            if self._aside:
                return 0
            looked = look()
            if looked is not None and looked[1] - self._left[0] > LEFTOVERS:
                trim()  # else the cell would work in what that has freed, at no cost
                looked = look()
            if looked is None:
                return 0
            added = looked[1] - self._left[0]
            self._held += added
            self._file = looked[2]
            reset()
        return added

    def importing(self, name: str) -> None:
        """A module's code is about to run."""
        self.leave()

    def imported(self, name: str) -> None:
        """A module's code has run."""
        self._imported += self.resume()


class Process:
    """What lasts from cell to cell.

    Attributes: measured, the peak that is being measured; floor, private bytes when memory was last given back, and of
        modules imported since.
    """

    def __init__(self) -> None:
        self.measured: PeakMemory | None = None
        self.floor = 0
        self._turn = threading.Condition()
        self._looking: threading.Thread | None = None

    def measure(self, peak: PeakMemory) -> None:
        """Look at this one from time to time: one thread does so for every cell."""
        with self._turn:
            self.measured = peak
            self._turn.notify()
        if self._looking is None:
            self._looking = threading.Thread(target=self._look, daemon=True)
            self._looking.start()

    def _look(self) -> None:
        peak, wait = None, SHORTEST
        while True:
            with self._turn:
                if self.measured is peak:
                    self._turn.wait(None if peak is None else wait)
                if self.measured is not peak:
                    peak, wait = self.measured, SHORTEST
                    continue
            if peak is not None:
                peak.look()
                wait = min(LONGEST, 1.2 * wait)


PROCESS = Process()


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """What happens inside is done once for several cells: its memory is none of theirs."""
    measured = PROCESS.measured
    if measured is None:
        yield
        return
    measured.leave()
    try:
        yield
    finally:
        measured.resume()


def free() -> tuple[int, int, int] | None:
    """Give back what earlier cells have freed; collect their garbage where that leaves much. Returns a last look."""
    for step in (trim, gc.collect, trim):
        looked = look()
        if looked is None or looked[1] <= PROCESS.floor + LEFTOVERS:
            return looked
        step()
    looked = look()
    PROCESS.floor = looked[1] if looked else 0
    return looked


def trim() -> None:
    """Give the memory that C libraries have freed back to the system."""
    with contextlib.suppress(AttributeError, OSError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def look() -> tuple[int, int, int] | None:
    """Bytes of this process: the peak since `reset`, private ones, those of mapped files; None where unknown."""
    try:
        with open("/proc/self/status", "rb") as file:
            found = {name: 1024 * int(number) for name, number in LINES.findall(file.read())}
        return found[b"VmHWM"], found[b"RssAnon"] + found[b"RssShmem"], found[b"RssFile"]
    except (OSError, KeyError):
        return None


def reset() -> bool:
    """Let the peak start anew; False where the system cannot."""
    try:
        with open("/proc/self/clear_refs", "wb", buffering=0) as file:
            file.write(b"5")
    except OSError:
        return False
    return True


def has_children() -> bool:
    """Whether this process has any child, running or ended."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except (OSError, AttributeError):
        return False
    return True


def children_memory() -> int:
    """Bytes that belong to this process's children and theirs alone; a forked child's are those it has written to."""
    parents: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                stat = Path(entry.path, "stat").read_bytes()
                parents.setdefault(int(stat.rpartition(b")")[2].split()[1]), []).append(int(entry.name))
    total, found = 0, list(parents.get(os.getpid(), []))
    while found:
        child = found.pop()
        found += parents.get(child, [])
        with contextlib.suppress(OSError):
            match = PRIVATE.search(Path(f"/proc/{child}/smaps_rollup").read_bytes())
            total += 1024 * int(match[1]) if match else 0
    return total
