"""Claims on work that only one process shall do, kept alive by a heartbeat; a silent one is taken over."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rankbench.drafts import birth, remove
from rankbench.files import storing

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

HEARTBEAT = 2.0  # seconds between signs of life of a claim
SILENCE = 20.0  # seconds without one after which a claim is taken over


class Waits:
    """`with WAITS`: this process waits for another one. Whoever limits its time is told, and does not count that."""

    def __init__(self) -> None:
        self.tell: Callable[[bool], None] = lambda waiting: None
        self._lock, self._count = threading.Lock(), 0

    def __enter__(self) -> None:
        self._change(1)

    def __exit__(self, *_: object) -> None:
        self._change(-1)

    def _change(self, by: int) -> None:
        with self._lock:  # of several threads that wait, the first and the last are told of
            self._count += by
            if self._count == max(by, 0):
                self.tell(by > 0)


WAITS = Waits()


class Claim:
    """A file that says which process does a piece of work; kept alive by a heartbeat, a silent one is taken over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._token = uuid.uuid4().hex
        self._held = False
        self._seen = (0.0, time.monotonic())  # the last sign of life of another's claim, and when we saw it first

    def take(self) -> bool:
        """True if the claim is ours now."""
        me = os.getpid()
        owner = {"host": socket.gethostname(), "pid": me, "born": birth(me), "token": self._token}
        with storing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with alone(self.path.parent):  # looking at a claim and taking it over is one step
                if self._abandoned():
                    remove(self.path)
                if os.path.lexists(self.path) or not self._write(owner):
                    return False
        self._held = True
        HEART.keep(self)
        return True

    def held(self) -> bool:
        """Whether a live process has it."""
        return self.path.exists() and not self._abandoned()

    def release(self) -> None:
        """Give the claim back."""
        if self._held:
            self._held = False
            HEART.drop(self)
            with contextlib.suppress(OSError), alone(self.path.parent):
                if self._ours():
                    self.path.unlink()

    def _write(self, owner: Mapping[str, Any]) -> bool:
        try:
            with open(self.path, "x") as file:
                json.dump(owner, file)
            return True
        except FileExistsError:  # we stood still, and another did not wait for us
            return False
        except OSError:  # a full disk: an empty claim would keep the others waiting
            self.path.unlink(missing_ok=True)
            raise

    def beat(self) -> None:
        """Give a sign of life."""
        with contextlib.suppress(OSError), alone(self.path.parent):
            if self._ours():
                os.utime(self.path)

    def ours(self) -> bool:
        """Whether nobody took it over while we were silent."""
        with contextlib.suppress(OSError):
            return self._ours()
        return False

    def _ours(self) -> bool:
        """Whether nobody took it over while we were silent (a laptop that slept, say)."""
        return self._token in self.path.read_text()

    def _abandoned(self) -> bool:
        try:
            found = os.lstat(self.path)
            if not stat.S_ISREG(found.st_mode):  # a pipe or a link is no claim of anybody
                return True
            silent = self._silent(found.st_mtime)
            owner = json.loads(self.path.read_text())
            here = owner["host"] == socket.gethostname()
            return silent or (here and birth(owner["pid"]) != owner["born"])
        except OSError:
            return False
        except (ValueError, TypeError, LookupError):  # its writer died, or no room was left for it
            return silent

    def _silent(self, beat: float) -> bool:
        """No sign of life for long, by its time stamp or, where clocks disagree, by our own watching."""
        if beat != self._seen[0]:
            self._seen = (beat, time.monotonic())
        return time.time() - beat > SILENCE or time.monotonic() - self._seen[1] > SILENCE


class Heart:
    """The one thread that keeps all claims of this process alive: a thread for each would cost more than the claim."""

    def __init__(self) -> None:
        self._claims: set[Claim] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def keep(self, claim: Claim) -> None:
        """Beat for this claim too."""
        with self._lock:
            self._claims.add(claim)
            if self._thread is None or not self._thread.is_alive():  # a forked child has lost it
                self._thread = threading.Thread(target=self._beat, daemon=True)
                self._thread.start()

    def drop(self, claim: Claim) -> None:
        """No longer."""
        with self._lock:
            self._claims.discard(claim)

    def _beat(self) -> None:
        while True:
            time.sleep(HEARTBEAT)
            with self._lock:
                claims = list(self._claims)
            for claim in claims:
                claim.beat()


HEART = Heart()


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time for each folder; the system lets go of the lock when its holder dies."""
    if fcntl is None:
        yield
        return
    handle, deadline = lock_file(folder / ".lock"), time.monotonic() + SILENCE
    try:
        while time.monotonic() < deadline:  # whoever has it so long stands still, and is not waited for
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.002)
        yield
    finally:
        os.close(handle)


def lock_file(path: Path) -> int:
    """An open handle of a file to lock, which is made; what lies there and cannot be opened is taken away."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)  # a pipe in its place would keep us waiting
    try:
        return os.open(path, flags, 0o666)
    except OSError:
        remove(path)
        return os.open(path, flags, 0o666)


def once(path: Path, done: Callable[[], bool], work: Callable[[], None]) -> None:
    """Do `work` unless `done()`; of several processes one does it and the others wait, taking over from a dead one."""
    while not done():
        claim = Claim(path)
        if not claim.take():
            with WAITS:
                time.sleep(0.05)
            continue
        try:
            if not done():
                work()
        finally:
            claim.release()
