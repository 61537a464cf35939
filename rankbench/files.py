"""Files that are there whole or not at all, with checksums that tell what was damaged since.

Everything rankbench stores goes through here: a file or folder is written beside its place and renamed into it. A full
disk or a kill leaves the old state.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import stat
import sys
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import xxhash

from rankbench.drafts import draft_of, put, remove, rename_folder, sweep_once
from rankbench.errors import DamagedFile, DataError, StoreError
from rankbench.visible import visible

if TYPE_CHECKING:
    import concurrent.futures

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
            self.say(visible(f"{error} {how}"))


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
