"""Files that are there whole or not at all, and claims on work that only one process shall do.

Everything rankbench stores goes through here: a file or folder is written beside its place and renamed into it. A full
disk or a kill leaves the old state.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rankbench.errors import DataError, StoreError

HEARTBEAT = 2.0  # seconds between signs of life of a claim
SILENCE = 20.0  # seconds without one after which a claim is taken over


def canonical_json(value: Any) -> str:
    """The one spelling of a JSON value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


@contextlib.contextmanager
def storing(what: Path) -> Iterator[None]:
    """Turns a failing disk into a StoreError that says what was being stored and that nothing was harmed."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        hint = "Nothing stored was harmed; free some space and run again."
        raise StoreError(f"{what}: cannot be stored ({reason}). {hint}") from error


def write_file(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all, surviving a power cut."""
    data = content.encode() if isinstance(content, str) else content
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            with open(draft, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def write_folder(target: Path, fill: Callable[[Path], None], replace: bool = False) -> bool:
    """Fill a draft folder and rename it into place. False if the target was there already (the draft is dropped).

    With `replace`, what was there is moved aside the moment before and then deleted.
    """
    with storing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name[:40]}.{uuid.uuid4().hex[:8]}")
        try:
            draft.mkdir()
            fill(draft)
            for file in draft.rglob("*"):
                if file.is_file():
                    sync(file)
            sync(draft)
            if target.exists():
                if not replace:
                    return False
                aside = target.with_name(f".{target.name[:40]}.{uuid.uuid4().hex[:8]}")
                os.rename(target, aside)
                os.rename(draft, target)
                shutil.rmtree(aside, ignore_errors=True)
                return True
            os.rename(draft, target)
            return True
        except OSError:
            if target.is_dir():  # another process was first: rename refuses a folder that is not empty
                return False
            raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def sync(path: Path) -> None:
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json(path: Path) -> Any:
    """A JSON file that rankbench wrote. StoreError with the path if it does not parse."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise StoreError(f"{path}: is no JSON ({error}). Delete it; what it held will be computed again.") from error


def write_state(folder: Path, state: Mapping[str, Any], who: str) -> int:
    """Arrays to state.npz, JSON values to state.json; nothing is pickled. Returns the bytes written."""
    arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray | np.generic)}
    values = {name: value for name, value in state.items() if name not in arrays}
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise DataError(f"{who}: state {name!r} is an array of Python objects, which would have to be pickled.")
    try:
        text = json.dumps(values, allow_nan=True)
    except TypeError as error:
        raise DataError(f"{who}: state may hold arrays and JSON values only ({error}).") from error
    if arrays:
        np.savez(folder / "state.npz", **arrays)  # type: ignore[arg-type]
    (folder / "state.json").write_text(text)
    return sum(file.stat().st_size for file in folder.iterdir())


def read_state(folder: Path) -> dict[str, Any]:
    """What `write_state` wrote."""
    state: dict[str, Any] = dict(read_json(folder / "state.json"))
    if (folder / "state.npz").exists():
        with np.load(folder / "state.npz", allow_pickle=False) as arrays:
            state.update({name: arrays[name] for name in arrays.files})
    return state


# ---------------------------------------------------------------------------------------------------------- claims


class Claim:
    """A file that says which process does a piece of work; kept alive by a heartbeat, a silent one is taken over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stop = threading.Event()
        self._beating: threading.Thread | None = None

    def take(self) -> bool:
        """True if the claim is ours now."""
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "born": birth(os.getpid())}
        with storing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._abandoned():
                stale = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex[:8]}")
                with contextlib.suppress(FileNotFoundError):
                    os.rename(self.path, stale)  # of several takers only one succeeds
                    stale.unlink()
            try:
                with open(self.path, "x") as file:
                    json.dump(owner, file)
            except FileExistsError:
                return False
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()
        return True

    def release(self) -> None:
        """Give the claim back."""
        self._stop.set()
        if self._beating is not None:
            self._beating.join()
            self.path.unlink(missing_ok=True)
            self._beating = None

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT):
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def _abandoned(self) -> bool:
        try:
            silent = time.time() - self.path.stat().st_mtime > SILENCE
            owner = json.loads(self.path.read_text())
        except OSError:
            return False
        except ValueError:  # being written, or its writer died doing so
            return silent
        here = owner.get("host") == socket.gethostname()
        return silent or (here and birth(owner["pid"]) != owner["born"])


def birth(pid: int) -> str:
    """When a process began, so that a number used again is not mistaken for it; empty if it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] == "Z" else fields[19]
    except OSError:
        pass
    if Path("/proc/self/stat").exists():
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "alive"


def once(path: Path, done: Callable[[], bool], work: Callable[[], None]) -> None:
    """Do `work` unless `done()`; of several processes one does it and the others wait, taking over from a dead one."""
    while not done():
        claim = Claim(path)
        if not claim.take():
            time.sleep(0.05)
            continue
        try:
            if not done():
                work()
        finally:
            claim.release()
