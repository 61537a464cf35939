"""Private folders of plugins at work: they survive a kill, and no folder above them holds results.

A plugin that walked up from its own folder would else come upon the labels of tests that earlier cells have stored.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from pathlib import Path

SYSTEM = Path("/var/tmp")
UNUSED = 30 * 86400.0  # seconds after which a folder that nobody has written to is swept away
OURS = re.compile(r"((features|shared)-)?[0-9a-f]{64}-[0-9a-f-]+(\.run)?(\.\d+)?")


def scratch_root(cache: Path, results: Path) -> Path:
    """Where private folders lie: $RANKBENCH_SCRATCH, else the user's cache folder, else the system's for such files.

    The latter two are passed over where they lie below the folder that holds the results, or cannot be written. `cache`
    is where they go if there is no other place.
    """
    chosen = os.environ.get("RANKBENCH_SCRATCH")
    if chosen:
        return Path(chosen).absolute()
    above = results.absolute().parent
    for place in (user_cache() / "rankbench" / "running", SYSTEM / f"rankbench-{user()}"):
        if above not in place.parents and own_folder(place):
            return place
    return cache / "running"


def user_cache() -> Path:
    """`$XDG_CACHE_HOME`, which counts only where it is absolute, or ~/.cache."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    return Path(named) if os.path.isabs(named) else Path(os.path.expanduser("~")).absolute() / ".cache"


def user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def own_folder(place: Path) -> bool:
    """Whether the folder is there or could be made, is this user's own, and can be written; made for them alone."""
    with contextlib.suppress(OSError):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = place.lstat().st_uid if hasattr(os, "getuid") else user()
        return place.is_dir() and owner == user() and os.access(place, os.W_OK | os.X_OK)
    return False


def sweep_private(root: Path) -> None:
    """Remove private folders that were not written to for a month: those of cells that nobody went on with."""
    with contextlib.suppress(OSError):
        for folder in root.iterdir():
            old = time.time() - UNUSED
            if OURS.fullmatch(folder.name) and folder.lstat().st_mtime < old and newest(folder) < old:
                shutil.rmtree(folder, ignore_errors=True)


def newest(folder: Path) -> float:
    """When something below a folder was last written, in seconds since the epoch."""
    times = [0.0]
    for inner, folders, files in os.walk(folder):
        for name in (*folders, *files):
            with contextlib.suppress(OSError):
                times.append(os.lstat(os.path.join(inner, name)).st_mtime)
    return max(times)
