"""Images: a sequence decoded only when indexed, with per-image columns and a digest of each image's content.

Also the two things every array in rankbench shares: being read-only, and a digest that depends on values alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rankbench.decoding import BROKEN, DEFAULT_SETTINGS, decoded, undecodable
from rankbench.errors import DamagedFile, DataError, MissingData, NotApplicable, counted, did_you_mean
from rankbench.files import open_regular
from rankbench.sealed import Sealed, opened

Array = NDArray[Any]
Ints = NDArray[np.int64]
T = TypeVar("T", bound=np.generic)
HASHED_AT_ONCE = 2**20  # numbers

COLUMNS_WITHHELD = (
    "columns go to the `fit` of a ranker, and those it names in `uses` to the `fit` of a feature; "
    "images to score, compare or extract have none"
)
INPUTS_WITHHELD = "a plugin is given the inputs it names in its attribute `inputs`, where the dataset has them"


def frozen(values: ArrayLike, what: str) -> Array:
    """A read-only array of numbers, booleans or strings; DataError for anything else."""
    check_unmasked(values, what)
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise DataError(f"{what}: rows of unequal length make no array ({error}).") from error
    if array.dtype == object:
        array = of_one_kind(array, what)
    if array.dtype.kind not in "biufUS":
        raise DataError(f"{what}: values of type {array.dtype} cannot be stored; use numbers, booleans or strings.")
    return read_only(array)


def check_unmasked(values: object, what: str) -> None:
    """DataError for values of which a mask says that some are missing: NumPy would give what lies under it."""
    if said := masked(values):
        raise DataError(f"{what}: {said}; a masked value is a missing one. Leave it out, or fill it in.")


def masked(values: object) -> str:
    """`3 of 10 values are masked (first: row 4)`, or nothing."""
    ma: Any = sys.modules.get("numpy.ma")  # unless it was imported nothing can be masked, and importing it takes time
    if ma is None or not isinstance(values, ma.MaskedArray) or not ma.is_masked(values):
        return ""
    hidden = np.asarray(ma.getmaskarray(values))
    first = f" (first: row {np.flatnonzero(hidden.reshape(len(hidden), -1).any(axis=1))[0]})" if hidden.ndim else ""
    return (
        f"{int(hidden.sum()):,} of {counted(hidden.size, 'value')} {'is' if hidden.sum() == 1 else 'are'} masked{first}"
    )


def of_one_kind(array: Array, what: str) -> Array:
    """An array of objects (as pandas gives strings) as one of strings, numbers or booleans; DataError for a mixture."""
    values = array.ravel().tolist()
    for kind in ((str,), (bytes,), (bool, np.bool_), (int, float, np.integer, np.floating)):
        alike = [isinstance(value, kind) and not (bool not in kind and isinstance(value, bool)) for value in values]
        if all(alike):
            return np.asarray(values, dtype=None if values else str).reshape(array.shape)
    seen = sorted({type(value).__name__ for value in values})
    raise DataError(
        f"{what}: values of type {', '.join(seen)} in one array; use numbers, booleans or strings throughout, with "
        "nothing missing."
    )


def read_only(array: NDArray[T]) -> NDArray[T]:
    """A view of an array that cannot be written through."""
    view = array.view()
    view.flags.writeable = False
    return view


class Named(dict[str, Array]):
    """Arrays by name, with a KeyError that helps: `withheld` says why there are not all, if that is so."""

    def __init__(self, withheld: str = "") -> None:
        self.withheld = withheld

    def __missing__(self, name: str) -> Array:
        if self.withheld:
            raise KeyError(f"{name!r} is not given here: {self.withheld}")
        known = ", ".join(self) or "none"
        raise KeyError(f"there is no {name!r}.{did_you_mean(str(name), list(self))} There are: {known}")


def named_arrays(
    arrays: Mapping[str, ArrayLike] | None, rows: int, what: str, withheld: str = ""
) -> Mapping[str, Array]:
    result = Named(withheld)
    for name, values in (arrays or {}).items():
        array = frozen(values, f"{what} {name!r}")
        if array.shape[:1] != (rows,):
            raise DataError(f"{what} {name!r} has shape {array.shape}; its first dimension must be {rows}.")
        result[name] = array
    return MappingProxyType(result)


def take(arrays: Mapping[str, Array], rows: Array) -> dict[str, Array]:
    return {name: array[rows] for name, array in arrays.items()}


def array_bytes(array: Array) -> bytes:
    """Bytes that depend on the values and shape, not on width, byte order or memory layout."""
    kinds = {"b": "u1", "i": "<i8", "u": "<u8", "f": "<f8"}
    if array.dtype.kind in kinds:
        if array.dtype.kind == "u" and (array.size == 0 or int(array.max()) < 2**63):
            array = array.astype("<i8")
        body = np.ascontiguousarray(array, dtype=kinds[array.dtype.kind]).tobytes()
    else:
        body = json.dumps(array.astype(str).tolist()).encode()
    return f"{array.dtype.kind}{array.shape}:".encode() + body


def digest_of(parts: Iterable[bytes | Array]) -> str:
    """Hex sha-256 over length-prefixed parts; an array stands for its `array_bytes`, which need not fit into memory."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            hash_array(total, part)
            continue
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()


def hash_array(total: Any, array: Array) -> None:
    """Take the length and the bytes of an array into a hash."""
    if array.dtype.kind not in "if" or array.ndim != 1 or len(array) < HASHED_AT_ONCE:
        whole = array_bytes(array)
        total.update(len(whole).to_bytes(8, "little"))
        total.update(whole)
        return
    head = f"{array.dtype.kind}{array.shape}:".encode()
    total.update((len(head) + 8 * len(array)).to_bytes(8, "little"))
    total.update(head)
    for begin in range(0, len(array), HASHED_AT_ONCE):
        part = array[begin : begin + HASHED_AT_ONCE]
        total.update(np.ascontiguousarray(part, dtype="<i8" if array.dtype.kind == "i" else "<f8"))


def arrays_digest(arrays: Mapping[str, Array]) -> str:
    return digest_of(part for name in sorted(arrays) for part in (name.encode(), array_bytes(arrays[name])))


class DigestMemo(Protocol):
    """Remembers content digests of files, so that an unchanged file is read once."""

    def digests(self, paths: Sequence[Path]) -> NDArray[np.uint8]: ...


class Content(Protocol):
    """Where pixels come from. Rows are those of the dataset's own listing."""

    def decode(self, row: int) -> NDArray[np.uint8]: ...
    def digests(self, memo: DigestMemo | None) -> NDArray[np.uint8]: ...
    def describe(self, row: int) -> str: ...


@dataclass(frozen=True)
class FileContent:
    paths: tuple[Path, ...]
    exif: bool
    known: NDArray[np.uint8] | None

    def decode(self, row: int) -> NDArray[np.uint8]:
        return decoded(self.paths[row], self.exif)

    def digests(self, memo: DigestMemo | None) -> NDArray[np.uint8]:
        if self.known is not None:
            return self.known
        return memo.digests(self.paths) if memo else file_digests(self.paths)

    def describe(self, row: int) -> str:
        return str(self.paths[row])


@dataclass(frozen=True)
class ArrayContent:
    arrays: tuple[NDArray[np.uint8], ...]

    def decode(self, row: int) -> NDArray[np.uint8]:
        return self.arrays[row]

    def digests(self, memo: DigestMemo | None) -> NDArray[np.uint8]:
        return digest_rows(hashlib.sha256(array_bytes(array)).digest() for array in self.arrays)

    def describe(self, row: int) -> str:
        return f"array {row}"


@dataclass(frozen=True)
class DrawnContent:
    known: NDArray[np.uint8]
    draw: Callable[[int], NDArray[np.uint8]]

    def decode(self, row: int) -> NDArray[np.uint8]:
        try:
            with DEFAULT_SETTINGS:
                return as_rgb(self.draw(row), self.describe(row))
        except BROKEN as error:
            raise undecodable(self.describe(row), error) from error

    def digests(self, memo: DigestMemo | None) -> NDArray[np.uint8]:
        return self.known

    def describe(self, row: int) -> str:
        return f"image {row}"


@dataclass(frozen=True)
class NameContent:
    names: tuple[str, ...]

    def decode(self, row: int) -> NDArray[np.uint8]:
        raise NotApplicable("this image has a name but no pixels here")

    def digests(self, memo: DigestMemo | None) -> NDArray[np.uint8]:
        return digest_rows(hashlib.sha256(b"name:" + name.encode()).digest() for name in self.names)

    def describe(self, row: int) -> str:
        return self.names[row]


def as_rgb(array: ArrayLike, what: str) -> NDArray[np.uint8]:
    pixels = np.asarray(array)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise DataError(f"{what} must be (H, W, 3) uint8 RGB, not {pixels.shape} {pixels.dtype}.")
    return read_only(pixels)


def below_common_folder(paths: Sequence[Path]) -> list[str]:
    """The paths without what all their folders share, so that a name says nothing about this machine."""
    whole = [os.path.abspath(path) for path in paths]
    common = os.path.commonpath([os.path.dirname(path) for path in whole])
    return [os.path.relpath(path, common) for path in whole]


def digest_rows(digests: Iterable[bytes]) -> NDArray[np.uint8]:
    rows = np.frombuffer(b"".join(digests), dtype=np.uint8)
    return rows.reshape(-1, 32)


def file_digests(
    paths: Sequence[Path], advance: Callable[[int, int], None] = lambda done, of: None
) -> NDArray[np.uint8]:
    """sha-256 of each file's bytes, (n, 32) uint8; `advance` is told of each.

    Raises: MissingData for a file that is not there, DataError for one that cannot be read.
    """

    def one(number: int, path: Path) -> bytes:
        try:
            with open_regular(path) as file:
                digest = hashlib.file_digest(file, "sha256").digest()
        except DamagedFile as error:  # a folder, a pipe, a device
            raise DataError(f"{path}: is no regular file. The dataset lists this image; restore it.") from error
        except OSError as error:
            kind = MissingData if isinstance(error, FileNotFoundError) else DataError
            raise kind(f"{path}: {error.strerror or error}. The dataset lists this image; restore it.") from error
        advance(number, len(paths))
        return digest

    return digest_rows(one(number, path) for number, path in enumerate(paths, 1))


class Images(Sequence[NDArray[np.uint8]]):
    """A sequence of images decoded only when indexed: `images[i]` is (H, W, 3) uint8 RGB.

    Args:
        paths: image files. Or use `from_arrays`, `from_decoder`, `from_names`.
        digests: (n, 32) uint8 or a list of 32-byte strings, the sha-256 of each file, where already known.
        names: one a file, unique; the default is the file name. Never handed to a ranker.
        columns: per-image arrays (n, …) for training and evaluation (`score`, `category`); only `fit` sees them.
        inputs: per-image arrays given at test time too; a plugin sees those it declares.
        exif: whether an EXIF rotation is applied.

    Raises: DataError where lengths differ or names repeat.
    """

    def __init__(
        self,
        paths: Sequence[str | Path],
        *,
        digests: ArrayLike | Sequence[bytes] | None = None,
        names: Sequence[str] | None = None,
        columns: Mapping[str, ArrayLike] | None = None,
        inputs: Mapping[str, ArrayLike] | None = None,
        exif: bool = False,
    ) -> None:
        files = tuple(Path(path) for path in paths)
        known = None if digests is None else checked_digests(digests, len(files))
        default = [path.name for path in files]
        if names is None and len(set(default)) != len(default):
            default = [Path(path).as_posix() for path in below_common_folder(files)]
        self._build(FileContent(files, exif, known), len(files), names or default, columns, inputs)
        self.exif = exif

    @classmethod
    def from_arrays(
        cls,
        arrays: Sequence[ArrayLike],
        *,
        names: Sequence[str] | None = None,
        columns: Mapping[str, ArrayLike] | None = None,
        inputs: Mapping[str, ArrayLike] | None = None,
    ) -> Images:
        """Images already in memory, each (H, W, 3) uint8."""
        content = ArrayContent(tuple(as_rgb(array, f"image {row}") for row, array in enumerate(arrays)))
        return cls.__new__(cls)._build(content, len(content.arrays), names, columns, inputs)

    @classmethod
    def from_decoder(
        cls,
        digests: ArrayLike | Sequence[bytes],
        decode: Callable[[int], NDArray[np.uint8]],
        *,
        names: Sequence[str] | None = None,
        columns: Mapping[str, ArrayLike] | None = None,
        inputs: Mapping[str, ArrayLike] | None = None,
    ) -> Images:
        """Packaged or drawn images: `decode(row)` gives (H, W, 3) uint8, and a digest stands for what it gives."""
        known = checked_digests(digests, len(digests))  # type: ignore[arg-type]
        return cls.__new__(cls)._build(DrawnContent(known, decode), len(known), names, columns, inputs)

    @classmethod
    def from_names(
        cls,
        names: Sequence[str],
        *,
        columns: Mapping[str, ArrayLike] | None = None,
        inputs: Mapping[str, ArrayLike] | None = None,
    ) -> Images:
        """Images known by name alone; the name's digest stands for the content, and indexing is not applicable."""
        return cls.__new__(cls)._build(NameContent(tuple(names)), len(names), names, columns, inputs)

    def _build(
        self,
        content: Content,
        count: int,
        names: Sequence[str] | None,
        columns: Mapping[str, ArrayLike] | None,
        inputs: Mapping[str, ArrayLike] | None,
    ) -> Images:
        self._content = content
        self._rows: Ints = np.arange(count)
        self._digests: NDArray[np.uint8] | None = None
        self._told = True
        self._withheld = ("", "")
        self.exif = False
        self.names: tuple[str, ...] | None = None if names is None else tuple(map(str, names))
        if self.names is not None and (len(self.names) != count or len(set(self.names)) != count):
            again = [name for name, times in Counter(self.names).items() if times > 1]
            which = f" {again[0]!r} stands there twice." if again else ""
            raise DataError(f"images: {count} images need {count} unique names; got {len(set(self.names))}.{which}")
        self.columns = named_arrays(columns, count, "images.columns")
        self.inputs = named_arrays(inputs, count, "images.inputs")
        return self

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> NDArray[np.uint8]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[NDArray[np.uint8]]: ...
    def __getitem__(self, index: int | slice) -> NDArray[np.uint8] | Sequence[NDArray[np.uint8]]:
        if isinstance(index, slice):
            return self.take(np.arange(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return read_only(self._content.decode(int(self._rows[index])))

    @property
    def has_content(self) -> bool:
        """Whether there are pixels to decode, not names alone."""
        return not isinstance(opened(self._content), NameContent)

    @property
    def digests(self) -> NDArray[np.uint8]:
        """(n, 32) uint8: sha-256 of each image's content. Reads every file the first time."""
        return self.with_digests(None)._digests  # type: ignore[return-value]

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of contents, EXIF policy, columns and inputs, in this order."""
        parts = [self.digests.tobytes(), bytes([self.exif])]
        return digest_of([*parts, arrays_digest(self.columns).encode(), arrays_digest(self.inputs).encode()])

    def with_digests(self, memo: DigestMemo | None) -> Images:
        """These images with their digests known, read through `memo`. Returns self."""
        if self._digests is None:
            self._digests = read_only(self._content.digests(memo)[self._rows])
        return self

    def describe(self, row: int) -> str:
        """Where image `row` came from, for a message; its number alone in a view that withholds names."""
        return opened(self._content).describe(int(self._rows[row])) if self._told else f"image {row}"

    def take(
        self,
        rows: Array,
        *,
        names: bool = True,
        columns: Iterable[str] | None = None,
        inputs: Iterable[str] | None = None,
    ) -> Images:
        """A view of some images (indices or a mask), with only the named columns and inputs (None: all of them)."""
        rows = positions(rows, len(self))
        view = Images.__new__(Images)
        view.exif, view._told, view._rows = self.exif, self._told and names, self._rows[rows]
        whole = view._told and columns is None
        view._content = self._content if whole else Sealed(opened(self._content), view._rows)
        view._digests = None if self._digests is None else read_only(self._digests[rows])
        view.names = tuple(self.names[row] for row in rows) if names and self.names is not None else None
        kept = self.columns if columns is None else {name: self.columns[name] for name in columns}
        given = self.inputs if inputs is None else {name: self.inputs[name] for name in inputs}
        view._withheld = (
            self._withheld[0] if columns is None else COLUMNS_WITHHELD,
            self._withheld[1] if inputs is None else INPUTS_WITHHELD,
        )
        view.columns = named_arrays(take(kept, rows), len(view._rows), "images.columns", view._withheld[0])
        view.inputs = named_arrays(take(given, rows), len(view._rows), "images.inputs", view._withheld[1])
        return view


def positions(rows: ArrayLike, count: int) -> Ints:
    """Indices (negative ones too) or a mask as indices from 0; IndexError for what is outside."""
    asked = np.asarray(rows)
    if asked.dtype == bool:
        if asked.shape != (count,):
            raise IndexError(f"a mask of shape {asked.shape} for {count} images")
        return np.flatnonzero(asked)
    if not asked.size:
        return np.zeros(0, np.int64)
    if asked.ndim != 1 or asked.dtype.kind not in "iu":
        raise IndexError(f"images are taken by whole numbers (n,) or a mask, not by {asked.shape} {asked.dtype}")
    if asked.min() < -count or asked.max() >= count:
        raise IndexError(f"image {asked.max() if asked.max() >= count else asked.min()} of {count}")
    asked = asked.astype(np.int64)
    return np.where(asked < 0, asked + count, asked)


def checked_digests(digests: ArrayLike | Sequence[bytes], count: int) -> NDArray[np.uint8]:
    if isinstance(digests, np.ndarray):
        rows, got = digests, f"{digests.shape} {digests.dtype}"
    else:
        each = [bytes(d) for d in digests]  # type: ignore[union-attr, arg-type]
        whole = all(len(d) == 32 for d in each)
        rows = digest_rows(each) if whole else np.zeros((0, 0), np.uint8)
        got = f"{len(each)} byte strings of length {', '.join(map(str, sorted({len(d) for d in each})))}"
    if rows.shape != (count, 32) or rows.dtype != np.uint8:
        raise DataError(f"images: digests must be ({count}, 32) uint8, one sha-256 an image; got {got}.")
    return rows


def digest_order(digests: NDArray[np.uint8]) -> tuple[Ints, list[slice]]:
    """Rows in the order of their digests, and where in it two or more digests are equal."""
    words = np.ascontiguousarray(digests).view(">u8").reshape(-1, 4)
    order = np.lexsort(words.T[::-1])
    whole = words[order]
    equal = np.flatnonzero((whole[1:] == whole[:-1]).all(axis=1))
    runs = np.split(equal, np.flatnonzero(np.diff(equal) > 1) + 1) if len(equal) else []
    return order, [slice(int(run[0]), int(run[-1]) + 2) for run in runs]
