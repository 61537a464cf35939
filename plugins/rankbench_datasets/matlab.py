"""MATLAB files of the released datasets: variables by name, checked, with errors that say which file and what to do."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import rankbench

POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class MatFile:
    """Variables of a MATLAB file (not version 7.3).

    Attributes: path; content {name: array}; get, where to get the file and where to put it.
    """

    path: Path
    content: dict
    get: str

    @classmethod
    def read(cls, path, variables, get):
        """These variables. MissingData where there is no file, DataError where it cannot be read or lacks one."""
        from scipy.io import loadmat

        if not path.is_file():
            raise rankbench.MissingData(f"{path}: not found. Get {get}.")
        with open(path, "rb") as start:
            if start.read(len(POINTER)) == POINTER:
                raise rankbench.DataError(
                    f"{path}: is a Git LFS pointer, not the file it stands for. Run `git lfs pull` in the clone it was "
                    f"copied from and copy it again, or get it: {get}."
                )
        try:
            content = loadmat(path, appendmat=False, variable_names=list(variables))
        except (
            Exception
        ) as error:  # a damaged file makes SciPy raise almost anything, TypeError and zlib.error included
            raise rankbench.DataError(
                f"{path}: cannot be read as a MATLAB file ({type(error).__name__}: {error}). "
                f"Perhaps it was cut short; get it again: {get}."
            ) from error
        file = cls(path, content, get)
        for variable in variables:
            if variable not in content:
                raise file.wrong(variable, "is missing")
        return file

    def array(self, variable, shape):
        """An array of this shape (None: any length)."""
        found = self.content[variable]
        fits = found.ndim == len(shape) and all(
            want in (None, have) for want, have in zip(shape, found.shape, strict=True)
        )
        if not fits:
            wanted, have = (" × ".join("n" if n is None else str(n) for n in one) for one in (shape, found.shape))
            raise self.wrong(variable, f"is {have}, not {wanted}")
        return found

    def texts(self, variable):
        """A cell array of strings, in either orientation."""
        cells = self.content[variable]
        if cells.dtype != object or 1 not in cells.shape:
            raise self.wrong(variable, f"is {cells.shape} {cells.dtype}, not a row of strings")
        strings = [np.asarray(cell) for cell in cells.ravel()]
        bad = [k for k, string in enumerate(strings) if string.dtype.kind != "U" or string.size != 1]
        if bad:
            raise self.wrong(variable, f"entry {bad[0] + 1} is no string")
        return [str(string.item()) for string in strings]

    def whole_numbers(self, variable, shape, lowest, highest):
        """Whole numbers of this shape (a row may stand for a column), from `lowest` to `highest`, as int64."""
        values = self.content[variable]
        if shape[1] == 1 and values.shape == shape[::-1]:
            values = values.T
        if values.shape != shape or values.dtype.kind not in "biuf":
            raise self.wrong(variable, f"is {values.shape} {values.dtype}, not {shape} numbers")
        bad = values[~((values >= lowest) & (values <= highest) & (values == np.floor(values)))]
        if bad.size:
            raise self.wrong(variable, f"holds {bad[0]}; its values are whole numbers from {lowest} to {highest}")
        return values.astype(np.int64)

    def wrong(self, variable, what):
        """The DataError for one variable."""
        return rankbench.DataError(f"{self.path}: variable {variable!r} {what}. Get the file again: {self.get}.")
