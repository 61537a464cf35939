"""The runner's folder in the system's temporary place, and what killed runners have left there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rankbench.offspring import kill_marked

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

MARKED = 32  # characters of a mark; a shorter one was cut off, and might be part of another's
NAME = "rankbench-run-"
LOCK = "runner.lock"  # held as long as the runner lives: the system lets go of it however that ends


@contextlib.contextmanager
def runner_folder(mark: str) -> Iterator[Path]:
    """A folder that is there inside the block. Those of runners that are no more are removed on the way.

    Args: mark, of all that descends from this runner.
    """
    sweep(Path(tempfile.gettempdir()))
    while True:
        folder = Path(tempfile.mkdtemp(prefix=NAME))
        with open(folder / LOCK, "w") as lock:
            if not held(lock.fileno()) or not folder.exists():  # swept just before it was locked
                continue
            lock.write(mark)
            lock.flush()
            try:
                yield folder
                return
            finally:
                shutil.rmtree(folder, ignore_errors=True)


def sweep(place: Path) -> None:
    """Remove the folders of dead runners, and what they left running: C code may keep a worker from noticing."""
    for folder in place.glob(f"{NAME}*") if fcntl is not None else ():
        with contextlib.suppress(OSError), open(folder / LOCK, "r+") as lock:
            if os.fstat(lock.fileno()).st_uid == os.getuid() and held(lock.fileno()):
                if len(mark := lock.read()) == MARKED:
                    kill_marked(mark)
                shutil.rmtree(folder, ignore_errors=True)


def held(descriptor: int) -> bool:
    """Whether the lock is ours now."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
