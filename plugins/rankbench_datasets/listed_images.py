"""Image files that an annotation file lists and that may not all be there: hosts go, crawls stay incomplete."""

import os

import numpy as np

import rankbench

TOLERATED = 0.05  # share of the listed images that may lack before rows that read pixels are missing data
MANY = 50_000  # names: from here on it is faster to list the folder than to ask for each


def files_below(folder):
    """Paths of all files below a folder, relative to it, with forward slashes; each folder is read once."""
    found, todo = set(), [("", folder)]
    while todo:
        before, place = todo.pop()
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.is_dir():
                        todo.append((f"{before}{entry.name}/", entry.path))
                    else:
                        found.add(before + entry.name)
        except OSError as error:
            raise rankbench.DataError(
                f"{place}: cannot be read ({error.strerror}). Mend that and run again."
            ) from error
    return found


def filled(folder):
    """Whether there is a folder with anything in it: an empty one is as good as none."""
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return next(entries, None) is not None


def names_there(folder, names):
    """(n,) whether each file is there, and a note on how many are not; all count as there where there is no folder."""
    if not filled(folder):
        return np.ones(len(names), bool), ()
    if len(names) < MANY:
        there = np.fromiter((os.path.isfile(os.path.join(folder, name)) for name in names), bool, len(names))
    else:
        present = files_below(folder)
        there = np.fromiter((name in present for name in names), bool, len(names))
    return there, note_on(there)


def note_on(there):
    """What a table says of images that are not there; nothing where all are."""
    lost = len(there) - int(there.sum())
    return (f"{lost:,} of {len(there):,} images are not there and were left out with their pairs",) if lost else ()


def images_need(folder, listed, get, look=names_there):
    """What a dataset says of its folder of images: found where no more than the tolerated share is lacking.

    Args: listed, a function that gives the names; asked only where the folder is there. look, which of them are there.
    """
    found = filled(folder)
    if found:
        names = listed()
        there, _ = look(folder, names)
        found = len(names) - there.sum() <= TOLERATED * len(names)
        if not found:
            get = f"{lacking(names, there)}. Get them: {get}"
    return rankbench.Need(folder, found, get, images=True)


def lacking(names, there):
    """`2 of 80 images are not there (first: 7.jpg)`."""
    lost = np.flatnonzero(~there)
    return f"{len(lost):,} of {len(names):,} images are not there (first: {names[lost[0]]})"


def rows_of(there):
    """(n,) the row of each image among those that are there, −1 for the others."""
    return np.where(there, np.cumsum(there) - 1, -1)


def without_lost(pairs, row, where, names):
    """The pairs whose images both have a row, over these rows. MissingData where that leaves none in order.

    Args: row, of `rows_of`; where, the folder; names of the images, for the message.
    """
    left = pairs.take((row[pairs.left] >= 0) & (row[pairs.right] >= 0))
    if not left.ordered.any() and (row < 0).any():
        raise rankbench.MissingData(f"{where}: {lacking(names, row >= 0)}, and no pair is left without them.")
    return left.reindexed(row)


def pictures(folder, names, **arrays):
    """Images by their files, or by name alone where there is no folder of them."""
    if filled(folder):
        return rankbench.Images([folder / name for name in names], names=names, **arrays)
    return rankbench.Images.from_names(names, **arrays)
