"""What a run shows while it works: a bar with an estimate on a terminal, a line a cell elsewhere; on standard error."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

GOOD = ("done", "not applicable")


class Progress:
    """Counts finished cells. `quiet` shows nothing but what is said between."""

    def __init__(self, total: int, quiet: bool = False) -> None:
        self.total, self.count, self.quiet = total, 0, quiet
        self.began = time.time()
        self.lock = threading.Lock()
        self.bar: Any = None
        if not quiet and sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, unit="cell", dynamic_ncols=True, smoothing=0.1)

    def logged(self, row: str, step: float, numbers: Mapping[str, float]) -> None:
        """A point of a running cell's curves."""
        if self.bar is not None:
            shown = " ".join(f"{name} {value:.4g}" for name, value in numbers.items())
            self.bar.set_postfix_str(f"{row}: {step:g} {shown}"[:60])

    def finished(self, title: str, status: str, message: str) -> None:
        """One cell more is done."""
        with self.lock:
            self.count += 1
            first = message.splitlines()[0] if message else ""
            line = f"{status:<5} {title}" + (f": {first}" if first else "")
            if self.bar is not None:
                self.bar.update()
                if status not in GOOD:
                    self.bar.write(line, file=sys.stderr)
            elif not self.quiet:
                spent = time.time() - self.began
                left = spent / self.count * (self.total - self.count)
                estimate = f" ({duration(left)} left)" if self.count < self.total else f" ({duration(spent)} in all)"
                print(f"[{self.count}/{self.total}] {line}{estimate}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A line between."""
        if self.bar is not None:
            self.bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """No more to come."""
        if self.bar is not None:
            self.bar.close()


def duration(seconds: float) -> str:
    """`42 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
