"""Features and decoded images, computed once per image, kept in folders of chunks and memory-mapped.

A row store is a folder of chunk folders, each holding rows and the ids (32-byte digests) of the images they belong to.
Chunks are renamed into place, so a kill loses at most one; one process fills a store at a time and the others wait.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rankbench.errors import DataError, StoreError
from rankbench.files import once, write_folder
from rankbench.images import Images, Ints

Fit = Literal["stretch", "crop", "long-side"]
CHUNK_BYTES = 32 * 2**20
OPEN_CHUNKS = 64  # maps kept open in a process, as each holds a file descriptor


class RowStore:
    """Rows of one kind (a feature, pixels of one size), one an image id."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._chunks: dict[str, Path] = {}  # rows of each chunk, by its name
        self._index: dict[bytes, tuple[int, int]] = {}  # id to chunk and row

    def refresh(self) -> None:
        """Take in chunks that were added since; a damaged one is passed over, and its rows are computed again."""
        for path in sorted(self.folder.glob("*/ids.npy")):
            chunk = path.parent
            if chunk.name in self._chunks or chunk.name.startswith("."):
                continue
            try:
                ids, rows = np.load(path), len(mapped(chunk / "rows.npy"))
            except Exception:  # a damaged file makes NumPy raise nearly anything
                continue
            if ids.shape != (rows, 32) or ids.dtype != np.uint8:
                continue
            number = len(self._chunks)
            self._chunks[chunk.name] = chunk / "rows.npy"
            self._index.update((key, (number, row)) for row, key in enumerate(keys(ids)))

    def missing(self, ids: NDArray[np.uint8]) -> Ints:
        """Positions of the ids without a row; of equal ids only the first."""
        first: dict[bytes, int] = {}
        for position, key in enumerate(keys(ids)):
            if key not in self._index:
                first.setdefault(key, position)
        return np.array(list(first.values()), dtype=np.int64)

    def fill(self, ids: NDArray[np.uint8], compute: Callable[[Ints], Iterator[NDArray[Any]]]) -> None:
        """Make sure every id has a row. `compute(missing)` yields rows, in order, in batches."""

        def complete() -> bool:
            self.refresh()
            return not len(self.missing(ids))

        def work() -> None:
            missing = self.missing(ids)
            self._store(ids[missing], compute(missing))
            if not complete():
                raise StoreError(f"{self.folder}: rows just stored there cannot be read back. Is the disk in order?")

        once(self.folder / "claim", complete, work)

    def _store(self, ids: NDArray[np.uint8], batches: Iterator[NDArray[Any]]) -> None:
        waiting: list[NDArray[Any]] = []
        begin = end = size = 0
        for batch in batches:
            waiting.append(batch)
            end += len(batch)
            size += batch.nbytes
            if size >= CHUNK_BYTES:
                self._store_chunk(ids[begin:end], waiting)
                waiting, begin, size = [], end, 0
        if waiting:
            self._store_chunk(ids[begin:end], waiting)

    def _store_chunk(self, ids: NDArray[np.uint8], batches: list[NDArray[Any]]) -> None:
        rows = np.concatenate(batches)

        def write(draft: Path) -> None:
            np.save(draft / "rows.npy", rows)
            np.save(draft / "ids.npy", ids)

        write_folder(self.folder / uuid.uuid4().hex, write)

    def rows(self, ids: NDArray[np.uint8], normalize: bool = False) -> StoredRows:
        """A view of the rows of these ids, all of which must be there."""
        where = np.array([self._index[key] for key in keys(ids)], dtype=np.int64).reshape(-1, 2)
        return StoredRows(Chunks(list(self._chunks.values())), where, normalize)


class Chunks:
    """Chunks of a store, opened when asked for."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, at: int) -> NDArray[Any]:
        path = self._paths[at]
        try:
            return mapped(path)
        except (OSError, ValueError) as error:
            raise StoreError(f"{path}: has gone from the cache or is damaged ({error}). Run again.") from error


@lru_cache(maxsize=OPEN_CHUNKS)
def mapped(path: Path) -> NDArray[Any]:
    """Rows of a chunk, memory-mapped. A chunk never changes, and no other ever gets its name."""
    rows: NDArray[Any] = np.load(path, mmap_mode="r")
    return rows


def keys(ids: NDArray[np.uint8]) -> list[bytes]:
    whole = np.ascontiguousarray(ids).tobytes()
    return [whole[at : at + 32] for at in range(0, len(whole), 32)]


class RowView:
    """What every view of rows can do once it has a shape and can be indexed."""

    shape: tuple[int, ...]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        raise NotImplementedError

    def __array__(self, dtype: Any = None, copy: Any = None) -> NDArray[Any]:
        rows: NDArray[Any] = self[:]
        return rows if dtype is None else rows.astype(dtype)

    def blocks(self, rows: int) -> Iterator[NDArray[Any]]:
        """Consecutive blocks of at most `rows` rows."""
        for begin in range(0, len(self), rows):
            yield self[begin : begin + rows]


class StoredRows(RowView):
    """Rows over memory-mapped chunks, read when indexed; L2-normalised on the way out if asked for."""

    def __init__(self, chunks: Chunks | Sequence[NDArray[Any]], where: NDArray[np.int64], normalize: bool) -> None:
        self._chunks, self._where, self._normalize = chunks, where, normalize
        first = chunks[int(where[0, 0]) if len(where) else 0] if len(chunks) else np.zeros((0, 0), np.float32)
        self.shape: tuple[int, ...] = (len(where), *first.shape[1:])
        self.dtype: np.dtype[Any] = first.dtype

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        asked = self._where[rows]
        where = asked.reshape(-1, 2)
        out = np.empty((len(where), *self.shape[1:]), self.dtype)
        for chunk in np.unique(where[:, 0]):
            mask = where[:, 0] == chunk
            out[mask] = self._chunks[int(chunk)][where[mask, 1]]
        return self._normalized(out).reshape(*asked.shape[:-1], *self.shape[1:])

    def _normalized(self, rows: NDArray[Any]) -> NDArray[Any]:
        if not self._normalize:
            return rows
        length = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
        return np.asarray(rows / np.where(length > 0, length, 1)[:, None].astype(rows.dtype))


class SideBySide(RowView):
    """Several row views with equal length as one wide one."""

    def __init__(self, parts: Sequence[StoredRows]) -> None:
        self._parts = list(parts)
        self.shape: tuple[int, ...] = (len(parts[0]), sum(part.shape[1] for part in parts))
        self.dtype: np.dtype[Any] = np.dtype(np.float32)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        return np.concatenate([part[rows] for part in self._parts], axis=-1)


def resize(pixels: NDArray[np.uint8], size: int, fit: Fit) -> NDArray[np.uint8]:
    """(size, size, 3) uint8 by Pillow's antialiased bilinear filter.

    "stretch" ignores the aspect; "crop" scales the short side and cuts the center; "long-side" scales the long side
    and centers the image on black.
    """
    from PIL import Image

    image = Image.fromarray(np.asarray(pixels))
    if fit == "stretch":
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    width, height = image.size
    scale = size / (min(width, height) if fit == "crop" else max(width, height))
    image = image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BILINEAR)
    width, height = image.size
    left, top = (width - size) // 2, (height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def decoded(images: Images, size: int, fit: Fit, threads: int) -> Callable[[Ints], Iterator[NDArray[np.uint8]]]:
    """Computes rows of a pixel store: images decoded and resized, 64 at a time, on several threads."""
    if fit not in ("stretch", "crop", "long-side"):
        raise DataError(f"pixels: fit is 'stretch', 'crop' or 'long-side', not {fit!r}.")
    if size < 1:
        raise DataError(f"pixels: size must be at least 1, not {size}.")

    def compute(rows: Ints) -> Iterator[NDArray[np.uint8]]:
        from joblib import Parallel, delayed

        with Parallel(n_jobs=threads, backend="threading") as parallel:
            for begin in range(0, len(rows), 64):
                batch = rows[begin : begin + 64]
                yield np.stack(parallel(delayed(lambda row: resize(images[int(row)], size, fit))(row) for row in batch))

    return compute
