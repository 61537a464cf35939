"""What a run shows while it works: a bar with an estimate on a terminal, a line a cell elsewhere; on standard error."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

GOOD = ("done", "not applicable")
BAR = "{l_bar}{bar:16}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"


class Progress:
    """Counts finished cells. `quiet` shows nothing but what is said between.

    Args: rows, the label of each cell's row. Cells of one row take about as long as each other, those of two rows need
        not: time left is only guessed once every row that has cells left has finished one.
    """

    def __init__(self, rows: Sequence[str], quiet: bool = False) -> None:
        self.total, self.count, self.fitted, self.quiet = len(rows), 0, 0, quiet
        self.left = Counter(rows)
        self.spent: dict[str, list[float]] = {}  # seconds of the finished cells of each row
        self.running: dict[str, tuple[str, float, str]] = {}  # title: row, start, what it last logged
        self.began = time.time()
        self.lock = threading.Lock()
        self.bar: Any = None
        if not quiet and terminal():
            from tqdm import tqdm

            width = shutil.get_terminal_size().columns or 80  # some terminals say 0
            self.bar = tqdm(total=self.total, bar_format=BAR, ncols=width, nrows=20)
        elif not quiet:
            tell(f"{self.total} cell{'s' * (self.total != 1)} to fit")

    def started(self, title: str, row: str) -> None:
        """A cell was handed to a worker."""
        with self.lock:
            self.running[title] = (row, time.time(), "")
            self._show()

    def fitting(self) -> None:
        """A worker began to fit a cell, rather than finding that another runner had."""
        with self.lock:
            self.fitted += 1

    def logged(self, title: str, step: float, numbers: Mapping[str, float]) -> None:
        """A point of a running cell's curves."""
        with self.lock:
            if title in self.running and self.bar is not None:
                row, since, _ = self.running[title]
                shown = "".join(f" {name} {value:.3g}" for name, value in list(numbers.items())[:1])
                self.running[title] = (row, since, f" (step {step:g}{shown})")
                self._show()

    def finished(self, title: str, status: str, message: str) -> None:
        """One cell more is done."""
        with self.lock:
            self.count += 1
            row, since, _ = self.running.pop(title, (title, time.time(), ""))
            self.left[row] -= 1
            self.spent.setdefault(row, []).append(time.time() - since)
            first = message.splitlines()[0] if message else ""
            line = f"{status:<5} {title}" + (f": {first}" if first else "")
            if self.bar is not None:
                self.bar.update()
                self._show()
                if status not in GOOD:
                    self.bar.write(line, file=sys.stderr)
            elif not self.quiet:
                tell(f"[{self.count}/{self.total}] {line} ({self.outlook()})")

    def outlook(self) -> str:
        """`42 s left`, or what is still running where that cannot be told, or how long it took."""
        if self.count >= self.total:
            return f"{duration(time.time() - self.began)} in all"
        rows = [row for row, cells in self.left.items() if cells > 0]
        if all(row in self.spent for row in rows):
            each = {row: sum(self.spent[row]) / len(self.spent[row]) for row in rows}
            at_once = sum(map(sum, self.spent.values())) / max(time.time() - self.began, 1e-9)
            return f"{duration(sum(each[row] * self.left[row] for row in rows) / max(at_once, 1e-9))} left"
        return f"running: {', '.join(self._busy()) or rows[0]}"

    def _busy(self) -> list[str]:
        return list(dict.fromkeys(row + logged for row, _, logged in self.running.values()))

    def _show(self) -> None:
        if self.bar is not None:
            self.bar.set_postfix_str(self.outlook()[: max(20, self.bar.ncols - 40)])

    def say(self, text: str) -> None:
        """A line between."""
        if self.bar is not None:
            self.bar.write(text, file=sys.stderr)
        else:
            tell(text)

    def close(self) -> None:
        """No more to come."""
        if self.bar is not None:
            self.bar.close()


def terminal() -> bool:
    """Whether standard error is one."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, or none at all
        return sys.stderr.isatty()
    return False


def tell(text: str) -> None:
    """A line on standard error, if anybody still listens: what is shown never stops what is computed."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """`42 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
