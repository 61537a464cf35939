"""What the conformance kit finds: requirements met, broken or left out, and a limit of time for each."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from rankbench.ambient import Ambient
from rankbench.errors import MissingData, NotApplicable, raised_at
from rankbench.registry import Registry, resolved
from rankbench.toys import undeclared

TIMEOUT = 120.0  # seconds that a requirement may take
GRACE = 2.0  # seconds more until a plugin that cannot be interrupted is given up
Hang = Callable[[list["Finding"]], None]


class TookTooLong(BaseException):
    """Raised in a plugin at the limit; no `except Exception` of its own stops it."""


class Abandoned(Exception):
    """What comes next would take as long."""


@dataclass(frozen=True)
class Finding:
    """One requirement: met, broken, or not applicable."""

    name: str
    good: bool
    message: str = ""
    skipped: bool = False

    @property
    def mark(self) -> str:
        """`ok`, `--` or `FAILED`."""
        return "--" if self.skipped else "ok" if self.good else "FAILED"

    @property
    def line(self) -> str:
        """As `rankbench check-plugin` prints it."""
        return f"  {self.mark} {self.name}" + (f": {self.message}" if self.message else "")


class Findings(list[Finding]):
    """Collects findings; a requirement is a `with` block that asserts.

    Args: timeout, seconds for each; hang, called from another thread where code beyond Python's reach outlasts them.
    """

    def __init__(self, timeout: float = TIMEOUT, hang: Hang | None = None) -> None:
        super().__init__()
        self.timeout, self.hang = timeout, hang

    @contextlib.contextmanager
    def kit(self, make: Callable[[], Any], registry: Registry | None = None) -> Iterator[None]:
        """All requirements on a plugin: when one takes too long, the rest is left out. At the end, what it left."""
        own = (registry or Registry.installed()).packages() | {top_package(make)}
        ambient = Ambient(own, threads=1)
        with contextlib.suppress(Abandoned):
            yield
        left = ambient.left()
        if sum(not one.skipped for one in self) > 1:  # it was more than declared
            with self.requirement("leaves the process's global state as it was"):
                assert not left, "; ".join(left)

    @contextlib.contextmanager
    def requirement(self, name: str) -> Iterator[None]:
        """What happens inside must not raise, nor take too long."""
        late = f"took more than {self.timeout:g} s; what comes after is left out"
        try:
            with alarm(self.timeout), self._watched(Finding(name, False, late)):
                yield
        except TookTooLong:
            self.append(Finding(name, False, late))
            raise Abandoned from None
        except (NotApplicable, MissingData) as error:
            self.append(Finding(name, True, str(error), skipped=True))
        except AssertionError as error:
            self.append(Finding(name, False, str(error)))
        except Exception as error:
            self.append(Finding(name, False, f"{type(error).__name__}: {error}{raised_at(error)}"))
        else:
            self.append(Finding(name, True))

    @contextlib.contextmanager
    def _watched(self, late: Finding) -> Iterator[None]:
        """Calls `hang` where what happens inside takes longer than the limit and cannot be interrupted."""
        if self.hang is None:
            yield
            return
        timer = threading.Timer(self.timeout + GRACE, lambda: self.hang and self.hang([*self, late]))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def declared(self, make: Callable[[], Any], kind: type) -> bool:
        """The first requirement on any plugin: what it inherits, and that all its parameters are dataclass fields."""
        with self.requirement(f"is a rankbench.{kind.__name__} with JSON parameters"):
            one = make()
            assert isinstance(one, kind), f"{type(one).__name__} does not inherit rankbench.{kind.__name__}"
            loose = ", ".join(map(repr, undeclared(type(one))))
            assert not loose, f"{loose} is no parameter. Parameters are dataclass fields: is @dataclass missing?"
            resolved(one)
        return self[-1].good

    def settle(self) -> None:
        """AssertionError naming every broken requirement."""
        broken = [f"{finding.name}: {finding.message}" for finding in self if not finding.good]
        if broken:
            raise AssertionError("\n".join(broken))


def top_package(make: Callable[[], Any]) -> str:
    """Of the plugin that is checked; empty where it cannot be made."""
    with contextlib.suppress(Exception):
        return str(type(make()).__module__).split(".")[0]
    return ""


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """TookTooLong inside after so long. In the main thread only: no other can be interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise TookTooLong

    began, before = time.monotonic(), signal.signal(signal.SIGALRM, ring)
    remaining, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if signal.getsignal(signal.SIGALRM) is ring:  # else it is the plugin's, and to be found
            signal.signal(signal.SIGALRM, before)
        if remaining:  # somebody else's alarm, a test runner's say
            signal.setitimer(signal.ITIMER_REAL, max(0.01, remaining - time.monotonic() + began), interval)
