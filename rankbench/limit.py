"""A cell's time limit: what counts, and what does not."""

from __future__ import annotations

import time

START = 60.0  # seconds a process is given at least until it takes its first cell


class Limit:
    """What is left of a cell's time. It counts from when a process takes the cell, but for waiting on another runner.

    Args: seconds, or none.
    Attributes: began, when the cell did, in seconds since the epoch.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds, self.began = seconds, time.time()
        self.deadline = time.monotonic() + max(seconds, START) if seconds else float("inf")
        self.waiting: float | None = None  # since when
        self.waited = False

    def heard(self, event: str) -> None:
        """What the process says it is at."""
        now = time.monotonic()
        if event == "taken":
            self.began = time.time()
            self.deadline = now + self.seconds if self.seconds else self.deadline
        elif event == "wait" and self.waiting is None:
            self.waiting, self.waited = now, True
        elif event == "go" and self.waiting is not None:
            self.extend(now - self.waiting)
            self.waiting = None
        elif event == "begin" and self.waited:
            self.began = time.time()

    def extend(self, seconds: float) -> None:
        """So much of it passed while nobody could work."""
        self.deadline += max(0.0, seconds)

    def left(self) -> float:
        """Seconds."""
        return float("inf") if self.waiting is not None else max(0.0, self.deadline - time.monotonic())
