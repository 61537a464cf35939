"""Unpacks archives of strangers: no path leaves the folder, no link, no bomb; all of it or nothing of it."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from rankbench.errors import DataError

MOST_FILES = 1_000_000
RATIO = 100  # unpacked over packed bytes that is believed; beyond SMALL
SMALL = 256 * 2**20
BLOCK = 2**20
# what the standard library raises for a damaged or encrypted archive
BROKEN = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError,
    ValueError,
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A file of an archive: its name, the bytes it says it has, whether it is a link or a device, and what opens it."""

    name: str
    size: int
    odd: bool
    key: Any


def unpack(
    archive: Path, folder: Path, strip: bool = False, advance: Callable[[int, int], None] = lambda done, of: None
) -> list[str]:
    """Unpack a zip or tar file into a folder, over files of the same names. Returns their paths.

    Everything is checked, and unpacked beside the folder's files, before the first of them is touched.

    Args: strip, whether the one folder at the top is left out; advance, told of each file that is unpacked.
    Raises: DataError for anything that is no archive, or no harmless one.
    """
    draft = archive.with_name(f"{archive.name}.unpacked")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        with opened(archive) as (entries, read):
            names = checked(archive, entries, strip)
            left = limit(archive)
            for number, (entry, name) in enumerate(zip(entries, names, strict=True), 1):
                left = write(archive, read(entry), draft / name, left)
                advance(number, len(names))
        for name in names:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(draft / name, target)
    except BROKEN as error:
        raise DataError(f"{archive.name}: cannot be unpacked ({error}). It is damaged; get it again.") from error
    except OSError as error:
        if error.errno is None:  # the decompressors' own
            raise DataError(f"{archive.name}: cannot be unpacked ({error}). It is damaged; get it again.") from error
        raise DataError(f"{archive.name}: cannot be unpacked ({error.strerror}: {error.filename}).") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return names


@contextmanager
def opened(archive: Path) -> Iterator[tuple[list[Entry], Any]]:
    """The files of an archive, and a function that opens one."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            infos = [info for info in zipped.infolist() if not info.is_dir()]
            yield (
                [Entry(i.filename, i.file_size, odd_mode(i.external_attr >> 16), i) for i in infos],
                (lambda entry: zipped.open(entry.key)),
            )
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tarred:
            members = [member for member in bounded(archive, tarred) if not member.isdir()]
            yield (
                [Entry(m.name, m.size, not m.isfile(), m) for m in members],
                (lambda entry: tarred.extractfile(entry.key)),
            )
            drain(archive, tarred)
    else:
        with open(archive, "rb") as file:
            start = file.read(60)
        raise DataError(f"{archive.name}: is neither a zip nor a tar file; it begins with {start!r}.")


def bounded(archive: Path, tarred: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Members of a tar file; stops where they say more bytes than are believed, before they are read over."""
    total = 0
    for member in tarred:
        total += member.size
        if total > limit(archive):
            raise bomb(archive)
        yield member


def drain(archive: Path, tarred: tarfile.TarFile) -> None:
    """Read on to the end: only there a compressed stream says whether it is whole."""
    left, stream = limit(archive), tarred.fileobj
    while stream is not None and (block := stream.read(BLOCK)):
        left -= len(block)
        if left < 0:
            raise bomb(archive)


def odd_mode(mode: int) -> bool:
    return stat.S_IFMT(mode) not in (0, stat.S_IFREG)


def limit(archive: Path) -> int:
    """Bytes that the files of an archive may have together."""
    return max(SMALL, RATIO * archive.stat().st_size)


def bomb(archive: Path) -> DataError:
    return DataError(f"{archive.name}: unpacks to more than {limit(archive):,} bytes. It was not unpacked.")


def checked(archive: Path, entries: list[Entry], strip: bool) -> list[str]:
    """Where each file goes; DataError for a place outside, a link, two files in one place, too many bytes or files."""
    if len(entries) > MOST_FILES or sum(entry.size for entry in entries) > limit(archive):
        raise bomb(archive)
    names = []
    for entry in entries:
        path = PurePosixPath(entry.name.replace("\\", "/"))
        outside = path.is_absolute() or ".." in path.parts or ":" in entry.name or "\0" in entry.name
        if outside or entry.odd or not path.parts:
            what = "is a link or a device" if entry.odd else "leads out of the folder"
            raise DataError(f"{archive.name}: {entry.name!r} {what}. It was not unpacked.")
        names.append(path)
    tops = {path.parts[0] for path in names}
    if strip and len(tops) == 1 and all(len(path.parts) > 1 for path in names):
        names = [PurePosixPath(*path.parts[1:]) for path in names]
    texts = [path.as_posix() for path in names]
    if len({text.lower() for text in texts}) < len(texts):
        seen: set[str] = set()
        twice = next(text for text in texts if text.lower() in seen or seen.add(text.lower()))  # type: ignore[func-returns-value]
        raise DataError(f"{archive.name}: {twice!r} is there twice. It was not unpacked.")
    return texts


def write(archive: Path, source: IO[bytes], target: Path, left: int) -> int:
    """Write one file; what an archive says of its sizes need not be true. Returns the bytes that may still come."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with source, open(target, "xb") as file:
        while block := source.read(BLOCK):
            left -= len(block)
            if left < 0:
                raise bomb(archive)
            file.write(block)
    return left
