"""How the program ends when it is told to (SIGTERM): at once, wherever it is, with everything it started.

No exception is raised for it: a plugin could catch one, it would be blamed on whoever was called, and it would wait for
C code to return. A thread of its own, woken by the system's handler, kills what was started, removes what is temporary
and ends the process. What is stored is whole at every moment (files.py).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

from rankbench.offspring import kill_descendants

TERMINATED = 128 + signal.SIGTERM
LIMIT = 1.5  # seconds that the last work may take
LINGERING = 5.0  # seconds that exit hooks and threads of plugins may take


class Program:
    """This process, where it is ours: a program, not a library in somebody else's."""

    def __init__(self) -> None:
        self.ours = False
        self._last: list[Callable[[], None]] = []
        self._wake = -1

    def begin(self) -> None:
        """From now on SIGTERM ends it. In the main thread only."""
        read, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        threading.Thread(target=self._listen, args=(read,), daemon=True).start()
        signal.signal(signal.SIGTERM, self._handle)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        if not self.ours:
            atexit.register(self._clear)
            os.register_at_fork(after_in_child=self._forked)
        self.ours = True

    @contextlib.contextmanager
    def last(self, work: Callable[[], None]) -> Iterator[None]:
        """Inside, `work` is done before SIGTERM ends the program. It takes no lock: its holder may stand still."""
        self._last.append(work)
        try:
            yield
        finally:
            self._last.remove(work)

    def lasting(self, code: int) -> None:
        """The program is done: exit hooks and threads that plugins left behind do not hold it up for long."""

        def wait() -> None:
            time.sleep(LINGERING)
            with contextlib.suppress(OSError, ValueError, AttributeError):
                sys.stdout.flush()
            self._end(code)

        threading.Thread(target=wait, daemon=True).start()

    def _listen(self, read: int) -> None:
        while told := os.read(read, 1):
            if told[0] == signal.SIGTERM:
                with contextlib.suppress(OSError):
                    os.write(2, b"Terminated. What was finished is stored; the same command goes on from there.\n")
                self._end(TERMINATED)

    def _handle(self, number: int, frame: object) -> None:
        """The main thread stands still from here on. It says so itself: a plugin may have taken the waking over."""
        try:
            with contextlib.suppress(OSError):
                os.write(self._wake, bytes([number]))
            time.sleep(LIMIT)
        finally:
            os._exit(TERMINATED)

    def _end(self, code: int) -> NoReturn:
        try:
            for work in reversed(self._last):
                with contextlib.suppress(Exception):
                    work()
            self._clear()
        finally:
            os._exit(code)

    def _clear(self) -> None:
        """Nothing that was started here outlives it."""
        if self.ours:
            kill_descendants(os.getpid())

    def _forked(self) -> None:
        """A plugin's child is not the program: what it is told does not end its parent."""
        if self.ours:
            self.ours = False
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


PROGRAM = Program()
