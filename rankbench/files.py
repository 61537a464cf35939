"""Files that are there whole or not at all, and claims on work that only one process shall do.

Everything rankbench stores goes through here: a file or folder is written beside its place and renamed into it. A full
disk or a kill leaves the old state.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import socket
import stat
import sys
import threading
import time
import uuid
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import xxhash

from rankbench.drafts import birth, draft_of, put, remove, rename_folder, sweep_once
from rankbench.errors import DamagedFile, DataError, StoreError

if TYPE_CHECKING:
    import concurrent.futures

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

HEARTBEAT = 2.0  # seconds between signs of life of a claim
SILENCE = 20.0  # seconds without one after which a claim is taken over
CHECKSUMS = "checksums.json"  # of every other file of a folder
BLOCK = 2**20  # bytes that a checksum reads at once: they stay in the processor's cache
SYNCERS = 4  # threads that wait for the disk
LARGEST_JSON = 256 * 2**20  # bytes; a JSON file of ours that is larger is none
CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
MARK = "state/"
ARRAYS = "__arrays__"  # in state.json, how many arrays lie beside it
REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "free some space",
    errno.EROFS: "choose a folder that can be written",
    errno.EACCES: "choose a folder that can be written",
    errno.EPERM: "choose a folder that can be written",
    errno.ENOTDIR: "move the file that is in the folder's place",
    errno.EEXIST: "move the file that is in the folder's place",
}


def canonical_json(value: Any) -> str:
    """The one spelling of a JSON value: sorted keys, no spaces, no NaN."""
    return CANONICAL.encode(value)


@contextlib.contextmanager
def storing(what: Path) -> Iterator[None]:
    """Turns a failing disk into a StoreError that says what was being stored and that nothing was harmed."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = REMEDIES.get(error.errno or 0, "free some space" if error.errno is None else "mend that")
        raise StoreError(
            f"{what}: cannot be stored ({reason}). Nothing stored was harmed; {remedy} and run again."
        ) from error


def write_file(path: Path, content: bytes | str, replace: bool = True) -> bool:
    """Write a file whole or not at all, surviving a power cut. Without `replace`, False if it was there already."""
    data = content.encode() if isinstance(content, str) else content
    with storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep_once(path.parent)
        draft = draft_of(path)
        try:
            with open(draft, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                os.replace(draft, path)
                return True
            try:
                os.link(draft, path)  # unlike rename, refuses to replace
            except FileExistsError:
                return False
            except (PermissionError, NotImplementedError):  # a file system without links
                os.replace(draft, path)
            return True
        finally:
            draft.unlink(missing_ok=True)


def write_folder(target: Path, fill: Callable[[Path], None], replace: bool = False) -> bool:
    """Fill a draft folder and rename it into place. False if the target was there already (the draft is dropped).

    With `replace`, what was there is exchanged for the draft in one step and then deleted.
    """
    with storing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep_once(target.parent)
        draft = draft_of(target)
        try:
            draft.mkdir()
            fill(draft)
            sync_all([draft, *write_checksums(draft)])
            if os.path.lexists(target):
                return replace and put(draft, target)
            return rename_folder(draft, target)
        finally:
            remove(draft)


def sync_all(paths: Collection[Path | str]) -> None:
    """Have files and folders survive a power cut. Together they take little longer than the slowest."""
    if os.name != "nt":
        list(syncers().map(sync, paths))


@functools.cache
def syncers() -> concurrent.futures.Executor:
    """Threads that wait for the disk."""
    import concurrent.futures

    return concurrent.futures.ThreadPoolExecutor(SYNCERS, "sync")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=syncers.cache_clear)  # a forked child has none of its parent's threads


def sync(path: Path | str) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json(path: Path) -> Any:
    """A JSON file that rankbench wrote. StoreError with the path if it cannot be read or does not parse."""
    try:
        return json.loads(read_file(path, LARGEST_JSON))
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise DamagedFile(
            f"{path}: is no JSON ({reason}). Delete it; what it held will be computed again.", path
        ) from error


def read_file(path: Path | str, largest: int | None = None) -> bytes:
    """Bytes of a regular file. StoreError if it cannot be read; DamagedFile for a pipe or device, or one too large."""
    try:
        handle = regular(path)
        try:
            size = os.fstat(handle).st_size
            if largest is not None and size > largest:
                raise DamagedFile(f"{path}: {size:,} bytes cannot be what was stored there. Move it away.", path)
            content = os.read(handle, size + 1)  # a file object costs as much again
            while len(content) < size and (more := os.read(handle, size + 1 - len(content))):
                content += more
            return content
        finally:
            os.close(handle)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror or error}).") from error


def open_regular(path: Path | str) -> Any:
    """A file opened for reading; DamagedFile for what would wait (a pipe) or never end (a device)."""
    return os.fdopen(regular(path), "rb")


def regular(path: Path | str) -> int:
    """An open handle of a regular file."""
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise DamagedFile(f"{path}: is no regular file. Move it away.", path)
    return handle


# ------------------------------------------------------------------------------------------------------- checksums


def checksum(path: Path | str) -> str:
    """Hex XXH3 (128 bits) of a regular file's bytes: against damage, not against forgery."""
    total = xxhash.xxh3_128()
    try:
        with open_regular(path) as file:
            block = memoryview(bytearray(min(BLOCK, os.fstat(file.fileno()).st_size + 1)))
            while size := file.readinto(block):
                total.update(block[:size])
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror or error}).") from error
    return total.hexdigest()


def write_checksums(folder: Path) -> list[str]:
    """Checksums of all files of a folder and of those below, in a file of their own. Returns every path below it."""
    sums, paths, own = {}, [os.path.join(folder, CHECKSUMS)], len(os.path.join(folder, ""))
    for place, inner, names in os.walk(folder):
        paths += [os.path.join(place, name) for name in inner]
        for name in names:
            paths.append(path := os.path.join(place, name))
            sums[path[own:].replace(os.sep, "/")] = [os.path.getsize(path), checksum(path)]
    with open(paths[0], "w") as file:
        whole = xxhash.xxh3_128_hexdigest(canonical_json(sums).encode())
        file.write(canonical_json({**sums, "": [len(sums), whole]}))  # "" comes first
    return paths


def checksums(folder: Path) -> dict[str, tuple[int, str]] | None:
    """Size and checksum of each file of a folder as it was stored; None where it was stored without.

    Raises: DamagedFile where the checksums themselves are damaged.
    """
    path = folder / CHECKSUMS
    return listed_checksums(path, read_file(path, LARGEST_JSON)) if os.path.lexists(path) else None


def listed_checksums(path: Path | str, text: bytes) -> dict[str, tuple[int, str]]:
    """What a file of checksums says. DamagedFile where it is not what was stored."""
    try:
        sums = msgspec.json.decode(text, type=dict[str, tuple[int, str]])
        own = sums.pop("", None)
        rest = b"{" + text.partition(b"],")[2] if sums else b"{}"
        if own is not None and own != (len(sums), xxhash.xxh3_128_hexdigest(rest)):
            raise ValueError("its checksum is another")
        return sums
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise DamagedFile(f"{path}: is damaged ({error}).", path) from error


def check_folder(folder: Path, names: Collection[str] | None = None) -> bool:
    """False where a folder was stored without checksums, so that nothing can be said.

    Args: names, the only files that are looked at, all of which were stored; by default all that were.
    Raises: DamagedFile for the first file that is not what was stored.
    """
    sums = checksums(folder)
    if sums is None:
        return False
    for name in set(names or ()) - sums.keys():
        path = folder / CHECKSUMS
        raise DamagedFile(f"{path}: is damaged, or of another folder: it has nothing on {name}.", path)
    for name, (size, digest) in sums.items():
        if names is not None and name not in names:
            continue
        path = folder / name
        try:
            there = path.stat().st_size
        except OSError as error:
            raise DamagedFile(f"{path}: has gone or cannot be read ({error.strerror or error}).", path) from error
        if there != size:
            raise DamagedFile(f"{path}: is damaged: {there:,} bytes where {size:,} were stored.", path)
        if checksum(path) != digest:
            raise DamagedFile(f"{path}: is damaged: its checksum is not that of what was stored.", path)
    return True


def read_arrays(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of an npz file, none of them unpickled. DamagedFile with the path if it cannot be read."""
    try:
        with open_regular(path) as file:
            return arrays_of(file)
    except DamagedFile:
        raise
    except Exception as error:  # whatever a reader of archives or arrays makes of damaged bytes
        raise DamagedFile(
            f"{path}: cannot be read ({str(error) or type(error).__name__}). "
            "Delete its folder and run again, or copy it from where it came from.",
            path,
        ) from error


def arrays_of(file: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of an open npz file. Each member is read to its end, where its CRC is checked."""
    arrays = {}
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            with archive.open(member) as content:
                array = np.lib.format.read_array(content, allow_pickle=False)
                if content.read(1):
                    raise ValueError(f"{member.filename} holds more than an array")
            arrays[member.filename.removesuffix(".npy")] = array
    return arrays


class Notices:
    """Where what was found damaged, and mended, is said: standard error, unless a worker has its runner say it."""

    def __init__(self) -> None:
        self.say: Callable[[str], None] = lambda text: print(text, file=sys.stderr)

    def through(self, emit: Callable[[dict[str, Any]], None]) -> None:
        """Have the runner say it: `emit` sends it messages."""
        self.say = lambda text: emit({"event": "say", "text": text})

    def mended(self, error: DamagedFile, how: str = "It is built again.") -> None:
        """One damaged file, and what becomes of it."""
        with contextlib.suppress(OSError, ValueError):  # nobody listens
            self.say(f"{error} {how}")


NOTICES = Notices()


def write_state(folder: Path, state: Mapping[str, Any], who: str) -> int:
    """Arrays to state.npz, JSON values to state.json; nothing is pickled. Returns the bytes written."""
    arrays = {name: value for name, value in state.items() if isinstance(value, np.ndarray | np.generic)}
    values = {name: value for name, value in state.items() if name not in arrays}
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise DataError(f"{who}: state {name!r} is an array of Python objects, which would have to be pickled.")
    try:
        text = json.dumps({**values, **({ARRAYS: len(arrays)} if arrays else {})}, allow_nan=True)
    except TypeError as error:
        raise DataError(f"{who}: state may hold arrays and JSON values only ({error}).") from error
    if arrays:  # the mark keeps a name from being taken for a parameter of np.savez
        np.savez(folder / "state.npz", **{f"{MARK}{name}": array for name, array in arrays.items()})  # type: ignore[arg-type]
    (folder / "state.json").write_text(text)
    return sum(file.stat().st_size for file in folder.iterdir())


def read_state(folder: Path) -> dict[str, Any]:
    """What `write_state` wrote."""
    state: dict[str, Any] = dict(read_json(folder / "state.json"))
    if state.pop(ARRAYS, 0) or (folder / "state.npz").exists():  # older states do not say
        state.update({name.removeprefix(MARK): array for name, array in read_arrays(folder / "state.npz").items()})
    return state


# ---------------------------------------------------------------------------------------------------------- claims


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
