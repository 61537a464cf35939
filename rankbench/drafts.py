"""Drafts: what is being written, under a name that tells whose it is, until it takes its place in one step.

A kill at any moment leaves the old state in its place, or beside it where `sweep` finds it and puts it back. What a
dead writer left is swept by the next process that writes into the same folder; a live one's draft is never touched.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import socket
import sys
import time
import uuid
from pathlib import Path

import xxhash

LONG_AGO = 24 * 3600.0  # seconds after which a draft whose writer cannot be asked for is nobody's
DRAFT = re.compile(
    r"\.(?P<name>.+)\.[0-9a-f]{8}(?P<signed>\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<born>\w*))?(?P<aside>\.aside)?",
    re.DOTALL,
)
HERE = -100  # AT_FDCWD: a relative path is relative to the working directory
EXCHANGE = 2  # RENAME_EXCHANGE


def draft_of(target: Path) -> Path:
    """A new name beside the target, signed by this process."""
    return target.with_name(f".{target.name[:40]}.{uuid.uuid4().hex[:8]}.{signature(os.getpid())}")


def birth(pid: int, processes: Path = Path("/proc")) -> str:
    """When a process began, so that a number used again is not mistaken for it; empty if it is gone."""
    try:
        fields = (processes / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    except OSError:
        if (processes / "self" / "stat").exists():
            return ""
    try:  # a system that does not show its processes
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except (OSError, OverflowError):  # it is there, and not ours
        pass
    return "alive"


@functools.cache
def signature(pid: int) -> str:
    """Host, number and birth of a process of this machine, as a draft's name has them."""
    return f"{host()}-{pid}-{birth(pid)}"


@functools.cache
def host() -> str:
    """This machine, or the container on it whose processes we can ask for, in 8 letters."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return xxhash.xxh32_hexdigest(f"{socket.gethostname()} {space}".encode())


# --------------------------------------------------------------------------------------------------- taking the place


def put(draft: Path, target: Path) -> bool:
    """Replace what is at the target by the draft. False if another process put something there meanwhile."""
    if swapped(draft, target):
        return True
    aside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.{signature(os.getpid())}.aside")
    try:
        os.rename(target, aside)
        return rename_folder(draft, target)
    finally:
        if os.path.lexists(aside) and not os.path.lexists(target):
            os.rename(aside, target)
        remove(aside)


def swapped(one: Path, other: Path) -> bool:
    """Exchange two names in one step. False where system or file system cannot."""
    if sys.platform != "linux":
        return False
    import ctypes  # 10 ms, and seldom needed

    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    rename.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return bool(rename(HERE, os.fsencode(one), HERE, os.fsencode(other), EXCHANGE) == 0)


def rename_folder(draft: Path, target: Path) -> bool:
    """False if another process was first: rename refuses a folder that is not empty."""
    try:
        os.rename(draft, target)
    except OSError:
        if target.is_dir():
            return False
        raise
    return True


def remove(path: Path) -> None:
    """Delete a file, a link or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


# ----------------------------------------------------------------------------------------------------------- sweeping


def sweep(folder: Path, unsigned: bool = False, drop: bool = True) -> None:
    """Put back what a dead writer had moved aside, and delete its drafts.

    Args: unsigned, look at old drafts that do not say whose they are too (in folders of our own only).
        drop, delete; without it what was moved aside is put back and nothing else is done.
    """
    with contextlib.suppress(OSError):
        with os.scandir(folder) as entries:
            hidden = [entry.name for entry in entries if entry.name.startswith(".")]
        for name in hidden:
            found = DRAFT.fullmatch(name)
            path = folder / name
            if found is None or not (found["signed"] or unsigned) or not abandoned(path, found):
                continue
            target = folder / found["name"]
            if found["aside"] and not os.path.lexists(target):
                os.rename(path, target)
            elif drop:
                remove(path)


def abandoned(path: Path, draft: re.Match[str]) -> bool:
    """Whether nobody works on a draft any more: its writer is dead, or cannot be asked for and silent for long."""
    if draft["signed"] and draft["host"] == host():
        return birth(int(draft["pid"])) != draft["born"]
    return time.time() - path.lstat().st_mtime > LONG_AGO


@functools.cache
def sweep_once(folder: Path, drop: bool = True) -> None:
    """`sweep`, the first time this process comes by."""
    sweep(folder, drop=drop)
