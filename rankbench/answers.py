"""What a worker tells its runner: one JSON object a line, through a descriptor that plugins have no business with.

A plugin, or a C library under it, may write there all the same, or close it. So the runner believes nothing that is
not a message, and a worker that is not heard any more ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

from rankbench.offspring import leave

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

HIGH = 200  # the least descriptor of ours: libraries that mistake a number mistake a low one
LONGEST = 2**24  # bytes of a message
LONGEST_TEXT = 2**20  # characters of an error's message in it, each at most 12 bytes
EVENTS: dict[str, dict[str, type | tuple[type, ...]]] = {  # what each has
    "log": {"step": (int, float), "numbers": dict},
    "expect": {"steps": (int, float)},
    "phase": {"phase": str},
    "say": {"text": str},
    "end": {"status": str, "message": str},
}


def understood(line: bytes) -> dict[str, Any] | None:
    """A message, or None for anything else."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or not all(isinstance(message.get(name), str) for name in ("key", "event")):
        return None
    wanted = EVENTS.get(message["event"], {})
    if not all(isinstance(message.get(name), kind) for name, kind in wanted.items()):
        return None
    try:
        if message["event"] == "log":
            message["step"] = float(message["step"])
            message["numbers"] = {name: float(number) for name, number in message["numbers"].items()}
    except (TypeError, ValueError, OverflowError):
        return None
    return message


class Answers:
    """The worker's side.

    Args: descriptor, written to.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor, self.process, self.lock = descriptor, os.getpid(), threading.RLock()

    def tell(self, key: str, message: Mapping[str, Any]) -> None:
        """Send one message about a cell. Where nobody hears it, this process ends."""
        if os.getpid() != self.process:  # a plugin's child has no say
            return
        line = json.dumps({"key": key, **message}).encode() + b"\n"
        if len(line) > LONGEST:  # a plugin that logs a million numbers at once
            return
        try:
            with self.lock:
                while line:
                    line = line[os.write(self.descriptor, line) :]
        except OSError as error:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                print(f"The worker's answers go nowhere ({error.strerror}).", file=sys.stderr, flush=True)
            leave(0)


def moved(descriptor: int) -> int:
    """A high number for the same file, not handed to programs that this process starts."""
    if fcntl is not None:
        with contextlib.suppress(OSError, ValueError):  # beyond the limit of open files
            return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, HIGH)
    return os.dup(descriptor)
