"""What a process started: its children and theirs, those too that left its group, its session or their parent.

Linux shows every process in /proc: who its parent is and the environment it began with. Elsewhere nothing is found
here, and process groups have to do.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from typing import NoReturn

MARK = "RANKBENCH_WORKER"  # variable whose value names the run and the worker that a process descends from
PR_SET_CHILD_SUBREAPER = 36
PATIENCE = 1.0  # seconds in which killed processes should have gone
PROCESSES = "/proc"
Process = tuple[int, str]  # its number and when it began


def adopt() -> None:
    """From now on a descendant whose parent dies becomes a child of this process, so that it stays to be found."""
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants(pid: int) -> list[Process]:
    """All that live, the nearest first."""
    children: dict[int, list[Process]] = {}
    for one in numbers():
        parent, born = lineage(one)
        if born:
            children.setdefault(parent, []).append((one, born))
    found = list(children.get(pid, []))
    for child, _ in found:
        found += children.get(child, [])
    return found


def marked(mark: str) -> list[Process]:
    """Those that began with this mark in their environment, or whose parents did."""
    found = []
    for one in numbers():
        own = [value for value in told(one, "environ").split(b"\0") if value.startswith(MARK.encode() + b"=")]
        if own and mark.encode() in own[0] and one != os.getpid() and (born := lineage(one)[1]):
            found.append((one, born))
    return found


def childless() -> bool:
    """Whether this process has no children, which the system tells sooner than a look at all processes."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    except (OSError, AttributeError):
        pass
    return False


def lineage(pid: int) -> tuple[int, str]:
    """A process's parent and when it began; 0 and nothing where it has ended."""
    fields = told(pid, "stat").rpartition(b")")[2].split()
    return (int(fields[1]), fields[19].decode()) if fields and fields[0] not in (b"Z", b"X") else (0, "")


def told(pid: int, what: str) -> bytes:
    """A file in which the system tells of a process; empty where it does not."""
    try:
        with open(f"{PROCESSES}/{pid}/{what}", "rb", buffering=0) as file:
            return bytes(file.read())
    except OSError:
        return b""


def numbers() -> list[int]:
    """Of all processes; none where the system does not show them."""
    try:
        return [int(name) for name in os.listdir(PROCESSES) if name.isdecimal()]
    except OSError:
        return []


def kill(processes: list[Process]) -> None:
    """Those of them that are still the same."""
    for pid, born in processes:
        if lineage(pid)[1] == born:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)


def kill_descendants(pid: int) -> None:
    """All of them, and what they start meanwhile, but not the process itself."""
    if pid == os.getpid() and childless():
        return
    deadline = time.monotonic() + PATIENCE
    while (found := descendants(pid)) and time.monotonic() < deadline:
        kill(found)
        time.sleep(0.002)


def kill_marked(mark: str) -> None:
    """Whatever carries the mark, and what it starts meanwhile."""
    deadline = time.monotonic() + PATIENCE
    while (found := marked(mark)) and time.monotonic() < deadline:
        kill(found)
        time.sleep(0.002)


def leave(code: int, amid: bool = False) -> NoReturn:
    """End this process at once, exit hooks and other threads unasked, and whatever it started.

    Args: amid, whether another thread may be starting processes at this moment: its whole group is killed with it.
    """
    try:
        kill_descendants(os.getpid())
        if amid and os.getpgrp() == os.getpid():  # a group of our own, as the runner makes it
            os.killpg(0, signal.SIGKILL)
    finally:
        os._exit(code)
