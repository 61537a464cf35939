"""Features and decoded images, computed once per image, kept in folders of chunks and memory-mapped.

A row store is a folder of chunk folders, each holding rows and the ids (32-byte digests) of the images they belong to.
Chunks are renamed into place, so a kill loses at most one. Processes that want the same rows compute them together. A
process uses no rows that it has not compared with their checksums; what is damaged is taken away and computed again.
"""

from __future__ import annotations

import contextlib
import io
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from rankbench.cache import CLAIMS, Stamp, discard, sound_chunks, stamp, unchecked
from rankbench.claims import WAITS, Claim, alone
from rankbench.errors import DataError, StoreError
from rankbench.files import check_folder, storing, write_file, write_folder
from rankbench.images import Images, Ints

Fit = Literal["stretch", "crop", "long-side"]
CHUNK_BYTES = 32 * 2**20
KEY = np.dtype("S32")
PIECE = 64  # rows that a process takes at once; fewer when few are left, so that all end at about the same time
LEAST = 16  # rows: less would leave batches half empty
OPEN_CHUNKS = 64  # maps kept open in a process, as each holds a file descriptor
CHECKERS = 4  # threads that compare chunks with their checksums: beside the processor they keep the disk busy
SOUND: dict[Path, Stamp] = {}  # rows that this process has compared, as they were then


class RowStore:
    """Rows of one kind (a feature, pixels of one size), one an image id."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._chunks: dict[str, Path] = {}  # rows of each chunk, by its name
        self._seconds: list[float] = []  # what a row of each chunk took
        self._ids = np.zeros(0, KEY)  # sorted
        self._where = np.zeros((0, 2), np.int64)  # chunk and row of each id

    def refresh(self) -> NDArray[Any]:
        """Take in chunks that were added since; a damaged one is taken away, and its rows are computed again.

        Returns: the keys that are new.
        """
        found, where = [np.zeros(0, KEY)], [self._where[:0]]
        for chunk in sound_chunks(self.folder, self._chunks, ("ids.npy", "seconds.npy")):
            try:
                ids, seconds = np.load(chunk / "ids.npy"), float(np.load(chunk / "seconds.npy"))
            except OSError:  # it went this moment
                continue
            found.append(keys(ids))
            where.append(np.stack([np.full(len(ids), len(self._chunks)), np.arange(len(ids))], axis=1))
            self._chunks[chunk.name] = chunk / "rows.npy"
            self._seconds.append(seconds / max(len(ids), 1))
        new = np.concatenate(found)
        if len(new):
            self._ids, first = np.unique(np.concatenate([self._ids, new]), return_index=True)
            self._where = np.concatenate([self._where, *where])[first]
        return new

    def check(self, wanted: NDArray[Any]) -> None:
        """Compare the chunks that hold rows of these keys with their checksums, unless that was done and none changed.

        What is damaged is taken away; its rows are missing then.
        """
        place, there = self.known(wanted)
        paths = list(self._chunks.values())
        holding = np.flatnonzero(np.bincount(self._where[place[there], 0], minlength=len(paths)))
        unsure = [at for at in holding if (now := stamp(paths[at])) is None or now != SOUND.get(paths[at])]
        damaged = [at for at, sound in zip(unsure, compared([paths[at] for at in unsure]), strict=True) if not sound]
        if damaged:
            kept = ~np.isin(self._where[:, 0], damaged)
            self._ids, self._where = self._ids[kept], self._where[kept]

    def missing(self, ids: NDArray[np.uint8]) -> Ints:
        """Positions of the ids without a row; of equal ids only the first."""
        return np.sort(Todo(self, *distinct(ids)).positions)

    def known(self, wanted: NDArray[Any]) -> tuple[Ints, NDArray[np.bool_]]:
        """Place of each key in the index, and whether it is there."""
        place = np.searchsorted(self._ids, wanted)
        there = np.zeros(len(wanted), bool)
        inside = place < len(self._ids)
        there[inside] = self._ids[place[inside]] == wanted[inside]
        return place, there

    def fill(self, ids: NDArray[np.uint8], compute: Callable[[Ints], Iterator[NDArray[Any]]]) -> None:
        """Make sure every id has a row. `compute(rows)` yields the rows of these positions, in order, in batches.

        Processes that want rows of one store compute them together, each taking the next that nobody is at.
        """
        self.refresh()
        wanted, first = distinct(ids)
        self.check(wanted)
        while len((todo := Todo(self, wanted, first)).positions):
            self._compute(ids, todo, compute)
            self.check(wanted)  # what others have added, and what they found damaged

    def _compute(self, ids: NDArray[np.uint8], todo: Todo, compute: Callable[[Ints], Iterator[NDArray[Any]]]) -> None:
        """One round of `fill`: until every id to do has a row, ours or another's."""
        while len(todo.positions):
            share, chunk = Share(self.folder / CLAIMS), Chunk()
            try:
                while chunk.size < CHUNK_BYTES and len(taken := self._take(share, todo, chunk)):
                    began = time.perf_counter()
                    chunk.rows += compute(taken)
                    chunk.ids.append(ids[taken])
                    chunk.seconds += time.perf_counter() - began
                if chunk.ids:
                    chunk.store(self.folder)
                else:
                    with WAITS:
                        time.sleep(0.05)  # the others are at all that is left
            finally:
                share.release()
            todo.drop(self.refresh())
            if chunk.ids and not self.known(keys(np.concatenate(chunk.ids)))[1].all():
                raise StoreError(f"{self.folder}: rows just stored there cannot be read back. Is the disk in order?")

    def _take(self, share: Share, todo: Todo, chunk: Chunk) -> Ints:
        """The next missing rows that no process is at, now ours: about a second's work."""
        with share.deciding():
            todo.drop(self.refresh())
            free = todo.besides(share.taken())
            rate = sum(map(len, chunk.ids)) / chunk.seconds if chunk.seconds else 0.0  # rows a second
            piece = free[: max(LEAST, min(max(PIECE, int(rate)), -(-len(free) // 4)))]
            share.take(todo.keys[piece])
        return todo.positions[piece]

    def seconds(self, ids: NDArray[np.uint8]) -> float:
        """What it took to compute the rows of these ids, all of which must be there; equal ids count once."""
        place = np.unique(self.known(keys(ids))[0])
        chunks = np.bincount(self._where[place, 0], minlength=len(self._seconds))
        return float(chunks @ np.array(self._seconds, dtype=np.float64))

    def rows(self, ids: NDArray[np.uint8], normalize: bool = False) -> StoredRows:
        """A view of the rows of these ids, all of which must be there."""
        place, known = self.known(keys(ids))
        if not known.all():
            raise StoreError(f"{self.folder}: {int((~known).sum())} rows have gone from the cache. Run again.")
        return StoredRows(Chunks(list(self._chunks.values())), self._where[place], normalize)


class Todo:
    """Ids that have no row yet: `keys`, sorted and each once, and their `positions` in what was asked for."""

    def __init__(self, store: RowStore, wanted: NDArray[Any], first: Ints) -> None:
        lacking = ~store.known(wanted)[1]
        self.keys, self.positions = wanted[lacking], first[lacking]

    def drop(self, done: NDArray[Any]) -> None:
        """These have a row now."""
        if len(done):
            rest = self.besides(done)
            self.keys, self.positions = self.keys[rest], self.positions[rest]

    def besides(self, taken: NDArray[Any]) -> Ints:
        """Rows of `keys` that are not among these."""
        free = np.ones(len(self.keys), bool)
        place = np.searchsorted(self.keys, taken)
        inside = place < len(self.keys)
        place, taken = place[inside], taken[inside]
        free[place[self.keys[place] == taken]] = False
        return np.flatnonzero(free)


@dataclass
class Chunk:
    """Rows computed and not stored yet."""

    rows: list[NDArray[Any]] = field(default_factory=list)
    ids: list[NDArray[np.uint8]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(batch.nbytes for batch in self.rows)

    def store(self, folder: Path) -> None:
        """As a folder of its own, whose checksums need not be compared in this process."""
        rows, ids, place = np.concatenate(self.rows), np.concatenate(self.ids), folder / uuid.uuid4().hex
        if len(rows) != len(ids):
            raise StoreError(f"{folder}: {len(rows)} rows for {len(ids)} images cannot be stored.")

        def write(draft: Path) -> None:
            np.save(draft / "rows.npy", rows)
            np.save(draft / "ids.npy", ids)
            np.save(draft / "seconds.npy", np.float64(self.seconds))

        write_folder(place, write)
        if now := stamp(place / "rows.npy"):
            SOUND[place / "rows.npy"] = now


class Share:
    """Which rows of a store this process is at, so that no two compute the same; that of a dead process is void."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._mine = folder / uuid.uuid4().hex
        self._claim = Claim(self._mine)
        self._keys = np.zeros(0, KEY)

    @contextlib.contextmanager
    def deciding(self) -> Iterator[None]:
        """One process at a time looks at what is taken and takes more."""
        with storing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with alone(self.folder.parent):
                yield

    def taken(self) -> NDArray[Any]:
        """Keys of the rows that this process or another live one is at."""
        found = [self._keys]
        for path in self.folder.glob("*.npy"):
            owner = path.with_suffix("")
            if owner == self._mine:
                continue
            if not Claim(owner).held():
                path.unlink(missing_ok=True)
                owner.unlink(missing_ok=True)
                continue
            with contextlib.suppress(OSError, ValueError, EOFError):  # just released
                found.append(np.load(path))
        return np.concatenate(found)

    def take(self, more: NDArray[Any]) -> None:
        """These rows are ours until `release`."""
        if not len(more):
            return
        if not len(self._keys):
            self._claim.take()
        self._keys = np.concatenate([self._keys, more])
        write_file(self._mine.with_suffix(".npy"), array_file(self._keys))

    def release(self) -> None:
        """They are stored, or given up."""
        self._mine.with_suffix(".npy").unlink(missing_ok=True)
        self._claim.release()


def array_file(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


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


def compared(paths: Sequence[Path]) -> list[bool]:
    """Whether each chunk's rows are those that were written; a chunk where they are not is taken away."""
    from concurrent.futures import ThreadPoolExecutor

    if not paths:
        return []
    with ThreadPoolExecutor(min(CHECKERS, len(paths))) as pool:
        found = list(pool.map(damage, paths))
    for path, error in zip(paths, found, strict=True):
        if error is not None:
            discard(path.parent, error)
    return [error is None for error in found]


def damage(path: Path) -> StoreError | None:
    """What is wrong with the rows of a chunk; what is whole is noted in `SOUND`."""
    now = stamp(path)
    try:
        if not check_folder(path.parent, [path.name]):
            return unchecked(path.parent)
    except StoreError as error:
        return error
    if path in SOUND:  # a map of what lay there before may be open
        mapped.cache_clear()
    if now is not None:
        SOUND[path] = now
    return None


@lru_cache(maxsize=OPEN_CHUNKS)
def mapped(path: Path) -> NDArray[Any]:
    """Rows of a chunk, memory-mapped. A chunk never changes, and no other ever gets its name."""
    if not path.is_file():  # a pipe in its place would keep us waiting
        raise OSError("it is no regular file, or none")
    rows: NDArray[Any] = np.load(path, mmap_mode="r")
    return rows


def keys(ids: NDArray[np.uint8]) -> NDArray[Any]:
    """(n,) each id as one value that sorts. All are 32 bytes long: trailing zeros are no matter."""
    return np.ascontiguousarray(ids, dtype=np.uint8).reshape(-1, 32).view(KEY)[:, 0]


def distinct(ids: NDArray[np.uint8]) -> tuple[NDArray[Any], Ints]:
    """Keys of these ids, sorted and each once, and where each came first."""
    wanted, first = np.unique(keys(ids), return_index=True)
    return wanted, first.astype(np.int64)


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
    """Rows over memory-mapped chunks, read when indexed; L2-normalised on the way out if asked for.

    Where they lie is no attribute, as plugins are handed them: chunks hold other images' rows, and paths lead on.
    """

    def __init__(self, chunks: Chunks | Sequence[NDArray[Any]], where: NDArray[np.int64], normalize: bool) -> None:
        STORED[self] = (chunks, where)
        self._normalize = normalize
        first = chunks[int(where[0, 0]) if len(where) else 0] if len(chunks) else np.zeros((0, 0), np.float32)
        self.shape: tuple[int, ...] = (len(where), *first.shape[1:])
        self.dtype: np.dtype[Any] = first.dtype

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        chunks, places = STORED[self]
        asked = places[rows]
        where = asked.reshape(-1, 2)
        out = np.empty((len(where), *self.shape[1:]), self.dtype)
        for chunk in np.unique(where[:, 0]):
            mask = where[:, 0] == chunk
            out[mask] = chunks[int(chunk)][where[mask, 1]]
        return self._normalized(out).reshape(*asked.shape[:-1], *self.shape[1:])

    def __reduce__(self) -> Any:  # for the processes of a training
        return StoredRows, (*STORED[self], self._normalize)

    def _normalized(self, rows: NDArray[Any]) -> NDArray[Any]:
        if not self._normalize:
            return rows
        length = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
        return np.asarray(rows / np.where(length > 0, length, 1)[:, None].astype(rows.dtype))


STORED: WeakKeyDictionary[StoredRows, tuple[Chunks | Sequence[NDArray[Any]], NDArray[np.int64]]] = WeakKeyDictionary()


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
