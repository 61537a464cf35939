"""Files of the cache: checked before they are used, and taken away where they are not what was written.

All of the cache can be built again. Whoever comes upon damage takes it out of the way, says so once, and goes on as if
the file had never been there; so does every other process that finds it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import xxhash

from rankbench.claims import once
from rankbench.drafts import remove
from rankbench.errors import DamagedFile, StoreError
from rankbench.files import (
    CHECKSUMS,
    LARGEST_JSON,
    NOTICES,
    canonical_json,
    check_folder,
    read_file,
    read_state,
    write_file,
    write_folder,
    write_state,
)

T = TypeVar("T")
Stamp = tuple[int, int, int, int]
CLAIMS = "claims"  # the one folder of a row store that is no chunk
STAYS: set[Path] = set()  # what is damaged and could not be taken away, so that it is said once


def discard(place: Path, error: StoreError | None = None, how: str = "It is built again.") -> None:
    """Take a file or folder out of the cache and say why, unless another process was first.

    By one rename, so that no process meets half a folder; one that has it mapped keeps what it has.

    Args: error, what is wrong with it; None where that is said already.
    """
    aside = place.with_name(f".{place.name[:40]}.{uuid.uuid4().hex[:8]}")
    try:
        os.rename(place, aside)
    except FileNotFoundError:
        return
    except OSError:  # a cache that cannot be written
        if place in STAYS:
            return
        STAYS.add(place)
    else:
        remove(aside)
    if error is not None:
        path = error.path if isinstance(error, DamagedFile) else place
        NOTICES.mended(DamagedFile(str(error).removesuffix(" Move it away."), path), how)


def unchecked(folder: Path) -> DamagedFile:
    """The error for a folder without checksums."""
    path = folder / CHECKSUMS
    return DamagedFile(f"{path}: is not there (caches of older versions have none); nothing beside it is used.", path)


def stamp(path: Path) -> Stamp | None:
    """Size, times and inode of a file; None where it is not there."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


# ----------------------------------------------------------------------------------------------------------- chunks


def sound_chunks(store: Path, known: Container[str], small: Sequence[str]) -> Iterator[Path]:
    """Folders of a store that are not known yet, by name; their `small` files are checked, the others not yet.

    Damaged ones are taken away; those without checksums, as older caches have them, are said in one line.
    """
    older: list[Path] = []
    try:
        names = sorted(os.listdir(store))
    except OSError:  # not there yet
        return
    for name in names:
        if name.startswith(".") or name == CLAIMS or name in known:
            continue
        chunk = store / name
        try:
            if check_folder(chunk, small):
                yield chunk
            else:
                older.append(chunk)
        except StoreError as error:
            discard(chunk, error)
    for chunk in older[1:]:
        discard(chunk)
    if older:
        more = f" So are {len(older) - 1} other folders of {store}." if older[1:] else ""
        discard(older[0], unchecked(older[0]), f"It is built again.{more}")


# ----------------------------------------------------------------------------------------------------------- states


def state_once(folder: Path, build: Callable[[], Mapping[str, Any]], who: str, scratch: Path) -> dict[str, Any]:
    """A state that one process builds and stores, if it is not there whole, and the others read.

    Args: who, names the plugin in messages; scratch, the builder's private folder, removed once the state is stored.
    """
    found: list[dict[str, Any]] = []
    damaged: list[StoreError] = []
    built: list[bool] = []

    def there() -> bool:
        damaged.clear()
        try:
            state = sound_state(folder)
        except StoreError as error:
            damaged.append(error)
            return False
        found.extend([] if state is None else [state])
        return state is not None

    def work() -> None:  # of all processes one at a time is here: it alone takes away what is damaged
        if damaged:
            if built:
                raise damaged[-1]
            discard(folder, damaged[-1])
        state = build()

        def fill(draft: Path) -> None:
            write_state(draft, state, who)

        write_folder(folder, fill)
        built.append(True)
        shutil.rmtree(scratch, ignore_errors=True)

    once(folder.with_name(f"{folder.name}.claim"), there, work)
    return found[-1]


def sound_state(folder: Path) -> dict[str, Any] | None:
    """A state that lies in the cache, None where there is none. StoreError where it is not what was written."""
    if not os.path.lexists(folder):
        return None
    with contextlib.suppress(OSError):
        there = {name for name in os.listdir(folder) if name != CHECKSUMS}
        if check_folder(folder, there | {"state.json"}):
            return read_state(folder)
    raise unchecked(folder)


# ------------------------------------------------------------------------------------------------------------- memos


def remember(path: Path, value: Any) -> None:
    """Write a memo of JSON values; a cache that cannot be written costs time later, and nothing else."""
    text = canonical_json(value).encode()
    with contextlib.suppress(StoreError):
        write_file(path, head(path, text) + text + b"}")


def recalled(path: Path | None, kind: type[T]) -> T | None:
    """What a memo holds; None where there is none, or a damaged one, which is taken away."""
    if path is None or not os.path.lexists(path):
        return None
    try:
        data = read_file(path, LARGEST_JSON)
        size = len(head(path, b""))
        if data[:size] != head(path, data[size:-1]) or data[-1:] != b"}":
            raise DamagedFile(f"{path}: is damaged: its checksum is not that of what was stored.", path)
    except StoreError as error:
        discard(path, error)
        return None
    found = json.loads(data[size:-1])
    return found if isinstance(found, kind) else None


def head(path: Path, text: bytes) -> bytes:
    """How a memo's file begins: the checksum is of its name too, so that none passes for another."""
    return b'{"checksum":"%s","value":' % xxhash.xxh3_128_hexdigest(path.name.encode() + b"\0" + text).encode()
