"""precomputed: vectors that were computed elsewhere, matched to images by name."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import PurePath
from typing import ClassVar, Literal

import numpy as np

import rankbench


@dataclass
class Precomputed(rankbench.Feature):
    """Feature vectors from a file, matched to images by name and checked.

    npy: an (n, d) array, with `names_file`, a text file of one image name a line. npz: arrays `array` and `names`. mat:
    variables of those names (not version 7.3). csv or parquet: one row an image, column `names`, all others numbers.
    Every image must be there, once; numbers must be finite. Nothing is unpickled.

    Args:
        file: relative to the data root.
        names_file: names of the rows of an npy or mat file, one a line.
        array, names: which array, variable or column.
        match: "name" compares whole names, "stem" what stands before the last dot, without folders.
    """

    file: rankbench.File
    names_file: rankbench.File | None = None
    array: str = "features"
    names: str = "names"
    match: Literal["name", "stem"] = "name"

    by_name: ClassVar[bool] = True
    batch_size: ClassVar[int] = 256

    def __post_init__(self):
        self._vectors = None

    def needs_images(self):
        return False

    def extract(self, images, run):
        if self._vectors is None:
            self._vectors = self._read()
        vectors, row_of = self._vectors
        wanted = [self._key(name) for name in images.names]
        missing = list(dict.fromkeys(name for name in wanted if name not in row_of))
        if missing:
            near = difflib.get_close_matches(missing[0], list(row_of)[:10_000], 1)
            hint = f" The nearest name there is {near[0]!r}." if near else ""
            raise rankbench.DataError(
                f"{self.file.path}: has no vector for {len(missing)} of {len(set(wanted))} images looked up, such as "
                f"{', '.join(map(repr, missing[:3]))}; it names {len(row_of)}.{hint} "
                'Names must be those of the dataset\'s images (match = "stem" ignores folders and endings).'
            )
        found = np.asarray(vectors[[row_of[name] for name in wanted]])
        bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
        if len(bad):
            raise rankbench.DataError(f"{self.file.path}: the vector of {images.names[bad[0]]!r} is not finite.")
        narrow = found.astype(np.float32)
        if not np.isfinite(narrow).all():
            raise rankbench.DataError(f"{self.file.path}: holds numbers that are too large for float32.")
        return narrow

    def _key(self, name):
        return PurePath(name).stem if self.match == "stem" else str(name)

    def _read(self):
        """(n, d) vectors, and the row of each name."""
        path = self.file.path
        if not path.is_file():
            raise rankbench.MissingData(f"{path}: not found.")
        readers = {
            ".npy": self._npy,
            ".npz": self._npz,
            ".mat": self._mat,
            ".csv": self._table,
            ".parquet": self._table,
        }
        if path.suffix not in readers:
            raise rankbench.DataError(f"{path}: features are read from {', '.join(readers)}.")
        try:
            vectors, names = readers[path.suffix](path)
        except rankbench.RankbenchError:
            raise
        except Exception as error:
            raise rankbench.DataError(f"{path}: cannot be read ({type(error).__name__}: {error}).") from error
        if vectors.ndim != 2 or vectors.dtype.kind not in "fiub" or not vectors.shape[1]:
            raise rankbench.DataError(f"{path}: must hold (n, d) numbers, not {vectors.shape} {vectors.dtype}.")
        if len(vectors) != len(names):
            raise rankbench.DataError(f"{path}: holds {len(vectors)} vectors and {len(names)} names.")
        row_of = {self._key(name): row for row, name in enumerate(names)}
        if len(row_of) < len(names):
            keys = [self._key(name) for name in names]
            twice = next(key for at, key in enumerate(keys) if row_of[key] != at)
            raise rankbench.DataError(f"{path}: names {twice!r} more than once.")
        return vectors, row_of

    def _listed(self):
        if self.names_file is None:
            raise rankbench.DataError(f"{self.file}: its rows have no names; give names_file, one name a line.")
        if not self.names_file.path.is_file():
            raise rankbench.MissingData(f"{self.names_file.path}: not found.")
        return self.names_file.path.read_text(encoding="utf-8-sig").splitlines()

    def _npy(self, path):
        return np.load(path, mmap_mode="r", allow_pickle=False), self._listed()

    def _npz(self, path):
        with np.load(path, allow_pickle=False) as arrays:
            return self._pick(arrays, arrays.files, self.array), self._names(arrays, arrays.files)

    def _mat(self, path):
        from scipy.io import loadmat

        try:
            found = loadmat(path)
        except NotImplementedError as error:
            raise rankbench.DataError(f"{path}: is of version 7.3; save it with -v7, or as npy or npz.") from error
        known = [name for name in found if not name.startswith("__")]
        return self._pick(found, known, self.array), self._names(found, known)

    def _names(self, arrays, known):
        if self.names_file is not None:
            return self._listed()
        found = self._pick(arrays, known, self.names)
        return [str(one.item() if isinstance(one, np.ndarray) and one.size == 1 else one) for one in np.ravel(found)]

    def _pick(self, arrays, known, name):
        if name not in known:
            raise rankbench.DataError(f"{self.file.path}: has no array {name!r}, only {', '.join(known) or 'none'}.")
        return arrays[name]

    def _table(self, path):
        import pandas as pd

        try:
            table = pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
        except ImportError as error:
            raise rankbench.DataError(
                f"{path}: reading parquet needs the package pyarrow; or save it as csv."
            ) from error
        if self.names not in table.columns:
            raise rankbench.DataError(
                f"{path}: has no column {self.names!r}, only {', '.join(map(str, table.columns))}."
            )
        return table.drop(columns=self.names).to_numpy(), table[self.names].astype(str).tolist()
