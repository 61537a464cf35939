"""Image files that an annotation file lists and that may not all be there: hosts go, crawls stay incomplete."""

import os

import numpy as np

import rankbench

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


def names_there(folder, names):
    """(n,) whether each file is there, and a note on how many are not; all count as there where there is no folder."""
    if not folder.is_dir():
        return np.ones(len(names), bool), ()
    if len(names) < MANY:
        there = np.fromiter((os.path.isfile(os.path.join(folder, name)) for name in names), bool, len(names))
    else:
        present = files_below(folder)
        there = np.fromiter((name in present for name in names), bool, len(names))
    lost = len(names) - int(there.sum())
    return there, (
        f"{lost:,} of {len(names):,} images are not there and were left out with their pairs",
    ) if lost else ()


def images_need(folder, listed, get, tolerated=0.0):
    """What a dataset says of its folder of images: found where no more than the tolerated share is lacking.

    Args: listed, a function that gives the names; asked only where the folder is there.
    """
    found = folder.is_dir()
    if found:
        names = listed()
        there, _ = names_there(folder, names)
        lost = [name for name, found in zip(names, there.tolist(), strict=True) if not found]
        found = len(lost) <= tolerated * len(names)
        if not found:
            get = f"{len(lost):,} of {len(names):,} images are not there (first: {lost[0]}). Get them: {get}"
    return rankbench.Need(folder, found, get, images=True)
