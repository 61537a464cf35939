"""What a run shows while it works, on standard error: a bar on a terminal, elsewhere a line a cell and a minute.

A thread of its own keeps it going while a cell computes: time left counts down, and silence never means anything.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rankbench.visible import one_line, shortened, visible

GOOD = ("done", "not applicable")
BAR = "{l_bar}{bar:8}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
BESIDE = 34  # characters of the bar that are not what is said of the cells
REFRESHED = 1.0  # seconds after which a terminal shows time again
QUICK = 0.1  # seconds between two points of curves that a terminal shows
SILENCE = 60.0  # seconds after which a line comes elsewhere
NAMED = 3  # running cells that are named
REPLAYED = 1.0  # seconds after a start in which points that come all at once are those of an earlier try
AT_ONCE = 0.005  # seconds between such points
TOO_EARLY = 2.0  # seconds of steps that tell nothing yet
WRONG = 2.0  # times as much as was promised: then the promise was wrong, and is made anew
SLIGHT = 30.0  # seconds more that are no reason to
ENDLESS = 1e12  # seconds that no plugin's steps can take; a step that is no number leads to none, either
OVERDUE = 0.1  # share of what a cell took already that is believed to be left once it should have ended


@dataclass
class Running:
    """A cell that computes.

    Attributes:
        since: when it began. steps: that it expects in all, 0 where it did not say. begun, base: time, and time and
            step from which its pace is measured. last: time and step of its last point; gap, seconds to the one before.
        numbers: what it last logged.
    """

    row: str
    since: float
    steps: float = 0.0
    begun: float = 0.0
    base: tuple[float, float] | None = None
    last: tuple[float, float] | None = None
    gap: float = 0.0
    numbers: dict[str, float] = field(default_factory=dict)

    def expect(self, steps: float, now: float) -> None:
        """So many steps are to come, from now on."""
        self.steps, self.begun, self.base, self.last = steps, now, (now, 0.0), None

    def log(self, step: float, numbers: Mapping[str, float], now: float) -> None:
        """A point of its curves."""
        self.numbers |= numbers
        before, self.last = self.last, (now, step)
        previous = before or self.base
        self.gap = now - previous[0] if previous else 0.0
        if previous is None or step < previous[1] or (now - self.begun < REPLAYED and now - previous[0] < AT_ONCE):
            self.base = self.last
        elif before is not None and self.base is not None and self.base[1] == 0.0:
            self.base = before  # until the first point something was set up

    def left(self, now: float) -> float | None:
        """Seconds of its steps, None where they do not tell."""
        if not self.steps or self.base is None or self.last is None or self.last[1] <= self.base[1]:
            return None
        if now - self.begun < TOO_EARLY:
            return None
        pace = (self.last[0] - self.base[0]) / (self.last[1] - self.base[1])
        left = max(pace * (self.steps - self.last[1]) - min(now - self.last[0], self.gap), 0.0)
        return left if left < ENDLESS else None

    def __str__(self) -> str:
        if self.last is None:
            return one_line(self.row)
        of = f"/{self.steps:g}" if self.steps and self.steps >= self.last[1] else ""
        shown = "".join(f" {name} {value:.3g}" for name, value in list(self.numbers.items())[:1])
        return one_line(f"{self.row} (step {self.last[1]:g}{of}{shown})")


class Progress:
    """Counts finished cells. `quiet` shows nothing but what is said between.

    Args: rows, the label of each cell's row. Cells of one row take about as long as each other, those of two rows need
        not: what is left is known once every row that has cells left has finished one, or a cell of it knows how many
        steps it has; until then it is at least what is known. refreshed, silence: seconds between two signs of life, on
        a terminal and elsewhere.
    """

    def __init__(
        self,
        rows: Sequence[str],
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
        refreshed: float = REFRESHED,
        silence: float = SILENCE,
    ) -> None:
        self.total, self.count, self.fitted, self.quiet = len(rows), 0, 0, quiet
        self.clock, self.silence = clock, silence
        self.rows = Counter(rows)  # cells of each row that are left
        self.spent: dict[str, list[float]] = {}  # seconds of the finished cells of each row
        self.running: dict[str, Running] = {}  # by title
        self.at_once = 1  # cells that ran side by side, at most
        self.began = self.told = self.shown = clock()
        self.promised: tuple[float, float, bool] | None = None  # when, how many seconds were left, and of all rows?
        self.lock = threading.Lock()
        self.closed = threading.Event()
        self.bar: Any = None
        self.thread: threading.Thread | None = None
        if quiet:
            return
        if terminal():
            from tqdm import tqdm

            self.bar = tqdm(total=self.total, bar_format=BAR, ncols=columns(), nrows=20)
        else:
            self._tell(f"{self.total} cell{'s' * (self.total != 1)} to fit")
        pause = refreshed if self.bar is not None else min(silence, REFRESHED)
        self.thread = threading.Thread(target=self._live, args=(pause,), daemon=True)
        self.thread.start()

    # -- what happens

    def started(self, title: str, row: str) -> None:
        """A cell was handed to a worker."""
        with self.lock:
            self.running[title] = Running(row, self.clock())
            self.at_once = max(self.at_once, len(self.running))
            self._show()

    def postponed(self, title: str) -> None:
        """It was handed back: another runner is at it."""
        with self.lock:
            self.running.pop(title, None)

    def fitting(self) -> None:
        """A worker began to fit a cell, rather than finding that another runner had."""
        with self.lock:
            self.fitted += 1

    def expected(self, title: str, steps: float) -> None:
        """A running cell said how many steps are to come."""
        with self.lock:
            if title in self.running and math.isfinite(steps) and steps > 0:
                self.running[title].expect(steps, self.clock())
                self.promised = None
                self._show()

    def logged(self, title: str, step: float, numbers: Mapping[str, float]) -> None:
        """A point of a running cell's curves."""
        with self.lock:
            if title in self.running:
                self.running[title].log(step, numbers, self.clock())
                if self.clock() - self.shown > QUICK:
                    self._show()

    def heard(self, title: str, message: Mapping[str, Any]) -> None:
        """What a worker says of a running cell; events that nothing is shown of are left alone."""
        if message["event"] == "log":
            self.logged(title, message["step"], message["numbers"])
        elif message["event"] == "expect":
            self.expected(title, message["steps"])

    def finished(self, title: str, status: str, message: str, whole: str = "") -> None:
        """One cell more is done. Args: whole, where all of a long message is."""
        with self.lock:
            self.count += 1
            cell = self.running.pop(title, None) or Running(title, self.clock())
            self.rows[cell.row] -= 1
            self.spent.setdefault(cell.row, []).append(self.clock() - cell.since)
            self.promised = None
            first = shortened(one_line(next(iter(message.splitlines()), "")), whole or "`rankbench why` shows it whole")
            line = f"{status:<5} {one_line(title)}" + (f": {first}" if first else "")
            if self.bar is not None:
                self.bar.n = self.count
                self._show()
                if status not in GOOD:
                    with shown_or_not():
                        self.bar.write(line, file=sys.stderr)
            elif not self.quiet:
                outlook = self.outlook()
                self._tell(f"[{self.count}/{self.total}] {line}" + (f" ({outlook})" if outlook else ""))

    def say(self, text: str) -> None:
        """A line between."""
        if self.bar is not None:
            with shown_or_not():
                self.bar.write(visible(text), file=sys.stderr)
        else:
            self._tell(visible(text))

    def close(self) -> None:
        """No more to come."""
        self.closed.set()
        if self.thread is not None:
            self.thread.join(timeout=REFRESHED)
        if self.bar is not None:
            with shown_or_not():
                self.bar.close()

    # -- what is shown of it

    def outlook(self) -> str:
        """`42 s left; running: …`, as far as that can be told, or how long all of it took."""
        if self.count >= self.total:
            return f"{duration(self.clock() - self.began)} in all"
        left, whole = self._left()
        known = left is not None and (whole or round(left) > 0)
        time_left = f"{'' if whole else 'at least '}{duration(left or 0.0)} left" if known else ""
        running = f"running: {self._busy()}" if self.running else ""
        return "; ".join(filter(None, [time_left, running]))

    def _left(self) -> tuple[float | None, bool]:
        """Seconds, if anything is known of them, and whether of all rows.

        Between two cells that finish it falls, slowly where a cell takes longer than was believed.
        It rises where that was wrong altogether.
        """
        now = self.clock()
        believed, whole = self._believed(now)
        if believed is None:
            return None, False
        if self.promised is None or self.promised[2] != whole:
            self.promised = (now, believed, whole)
        then, left, _ = self.promised
        if believed > WRONG * left + SLIGHT:
            then, left = now, believed
        pace = min(1.0, left / believed) if believed > 0 else 1.0
        self.promised = (now, max(0.0, min(believed, left - pace * (now - then))), whole)
        return self.promised[1], whole

    def _believed(self, now: float) -> tuple[float | None, bool]:
        """Seconds left by what is known now, None where nothing is, and whether it is known of every row."""
        running = list(self.running.values())
        each = {row: sum(some) / len(some) for row, some in self.spent.items()}
        for cell in running:
            if cell.row not in self.spent and (left := cell.left(now)) is not None:
                each[cell.row] = max(each.get(cell.row, 0.0), now - cell.since + left)
        waiting = self.rows - Counter(cell.row for cell in running)
        rows = {*waiting, *(cell.row for cell in running)}
        remaining = [0.0]
        for cell in running:
            spent, left = now - cell.since, cell.left(now)
            if left is None and cell.row in each:
                left = max(each[cell.row] - spent, OVERDUE * spent)
            remaining.append(left or 0.0)
        queued = sum(each.get(row, 0.0) * cells for row, cells in waiting.items())
        seconds = max(max(remaining), (sum(remaining) + queued) / self.at_once)
        return (seconds if rows & each.keys() else None), rows <= each.keys()

    def _busy(self) -> str:
        names = list(dict.fromkeys(map(str, self.running.values())))
        return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")

    def _show(self) -> None:
        if self.bar is None or self.closed.is_set():
            return
        self.shown = self.clock()
        with shown_or_not():
            self.bar.ncols = columns()
            outlook = self.outlook().replace("running: ", "").replace("at least ", "≥ ")
            self.bar.set_postfix_str(outlook[: max(20, self.bar.ncols - BESIDE)])

    def _tell(self, text: str) -> None:
        self.told = self.clock()
        tell(text)

    def _live(self, pause: float) -> None:
        """Signs of life until it is closed."""
        while not self.closed.wait(pause):
            with self.lock:
                if self.closed.is_set() or self.count >= self.total:
                    continue
                if self.bar is not None:
                    self._show()
                elif self.clock() - self.told >= self.silence:
                    passed = duration(self.clock() - self.began)
                    self._tell(f"[{self.count}/{self.total}] after {passed}: {self.outlook() or 'waiting'}")


def columns() -> int:
    """Characters of the terminal's line."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # standard output may well be a file
        if "COLUMNS" not in os.environ:
            return os.get_terminal_size(sys.stderr.fileno()).columns or 80  # some terminals say 0
    return shutil.get_terminal_size().columns or 80


def terminal(stream: Any = None) -> bool:
    """Whether a stream is one, by default standard error."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none at all
        return bool((stream or sys.stderr).isatty())
    return False


def shown_or_not() -> contextlib.AbstractContextManager[None]:
    """What is shown never stops what is computed: the terminal may have gone."""
    return contextlib.suppress(OSError, ValueError, AttributeError)


def tell(text: str) -> None:
    """A line on standard error, if anybody still listens."""
    with shown_or_not():
        print(visible(text), file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """`42 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
