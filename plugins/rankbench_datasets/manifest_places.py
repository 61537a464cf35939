"""Where the images that a manifest names lie, and which of them a name means.

A name is taken as it is written; else as one that looks the same (macOS writes é as two characters, Windows separates
folders by a backslash); else as one that differs in upper and lower case alone, where there is one such.
"""

import os
import re
import unicodedata
from pathlib import PurePosixPath

import rankbench
from rankbench_datasets.listed_images import TOLERATED
from rankbench_datasets.manifest_tables import counted, nearest

NAMED = 3  # images that are not there, each with its line


def plain(path):
    """One spelling of a relative path: ./a//b.png is a/b.png."""
    return PurePosixPath(path).as_posix()


def look(text):
    """One form of all names that look the same."""
    return unicodedata.normalize("NFC", plain(text.replace("\\", "/")))


def look_in_any_case(text):
    return look(text).casefold()


class Several(Exception):
    """A name may mean either of two, which are its arguments."""

    def __str__(self):
        one, other = self.args
        both = f"{one!a} or {other!a}" if look(one) == look(other) else f"{one!r} or {other!r}"
        return f"may be {both}. Write one of them just as it is there"


class Spellings:
    """Values by name, found by other spellings of it too."""

    def __init__(self, values):
        self.values, self.loose = values, {}

    def find(self, text):
        """The value; None where no name is like it. Raises Several where names of two values are."""
        for name in (text, plain(text)):
            if name in self.values:
                return self.values[name]
        for form in (look, look_in_any_case):
            if form not in self.loose:
                self.loose[form] = grouped(self.values, form)
            names = self.loose[form].get(form(text), ())
            for other in names[1:]:
                if self.values[other] != self.values[names[0]]:
                    raise Several(names[0], other)
            if names:
                return self.values[names[0]]
        return None


def grouped(names, form):
    """{form: the names that have it}, in order."""
    found = {}
    for name in names:
        found.setdefault(form(name), []).append(name)
    return found


def check_inside(table, column):
    """DataError for a path that leads out of the folder, whatever lies there."""
    for k, text in enumerate(table.columns[column]):
        path = text.replace("\\", "/")
        if path.startswith("/") or re.match(r"[A-Za-z]:/", path) or ".." in path.split("/"):
            how = "goes up by '..'" if ".." in path.split("/") else "is absolute"
            raise table.wrong(
                k,
                f"{column} {text!r} {how}. Write paths relative to {table.file.parent}, and put the images, or a link "
                "to their folder, there",
            )


def located(root, listing):
    """(n,) the file of each listed image, relative to the folder; None for one that is not there.

    Raises: DataError where a name may mean two files, or two lines mean one; MissingData where too many are not there.
    """
    files = [there(root, listing, k) for k in range(len(listing.paths))]
    lacking = [k for k, file in enumerate(files) if file is None]
    if lacking:
        below = Spellings({file: file for file in walked(root)})
        for k in lacking:
            try:
                files[k] = below.find(listing.paths[k])
            except Several as several:
                raise wrong(listing, k, str(several)) from None
    if any(files[k] is not None for k in lacking):
        check_each_once(listing, files)
    check_enough(root, listing, files)
    return files


def there(root, listing, k):
    """The file that is there under a name of the image just as it is written."""
    found = [text for text in listing.texts[k] if os.path.isfile(os.path.join(root, text))]
    for other in found[1:]:
        if not os.path.samefile(os.path.join(root, found[0]), os.path.join(root, other)):
            raise wrong(listing, k, str(Several(found[0], other)))
    return plain(found[0]) if found else None


def check_each_once(listing, files):
    """DataError for a file that two lines name, each in its own way."""
    seen = {}
    for k in sorted(range(len(files)), key=lambda k: listing.order[k]):
        first = seen.setdefault(files[k], k)
        if files[k] is not None and first != k:
            line = listing.table.lines[listing.order[first]]
            raise wrong(
                listing, k, f"is the file {files[k]!r}, as is {listing.paths[first]!r} in line {line}. Write one name"
            )


def wrong(listing, k, what):
    return listing.table.wrong(listing.order[k], f"image {listing.paths[k]!r} {what}")


def walked(root):
    """Paths of all files below a folder, relative to it; a folder that links lead back to is entered once."""
    seen = set()
    for folder, inner, names in os.walk(root, followlinks=True):
        stat = os.stat(folder)
        if (stat.st_dev, stat.st_ino) in seen:
            inner.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        inner.sort()
        within = os.path.relpath(folder, root)
        yield from (plain(os.path.join(within, name)) for name in sorted(names))


def check_enough(root, listing, files):
    """MissingData where more images are not there than may be: how many, and which are the first."""
    lost = sorted((k for k, file in enumerate(files) if file is None), key=lambda k: listing.order[k])
    if len(lost) <= TOLERATED * len(files):
        return
    table, first, taken = listing.table, listing.paths[lost[0]], set(files)
    named = [f"{listing.paths[k]!r} ({table.unit} {table.lines[listing.order[k]]})" for k in lost[1:NAMED]]
    spare = (file for file in walked(root) if file not in taken)
    more = f", … and {len(lost) - NAMED:,} more" if len(lost) > NAMED else ""
    raise rankbench.MissingData(
        f"{table.file}, {table.unit} {table.lines[listing.order[lost[0]]]}: image {first!r} is not in {root} "
        f"({len(lost):,} of {counted(len(files), 'listed image')} not there){'; nor ' * bool(named)}{', '.join(named)}"
        f"{more}. Put them there, or correct their paths{nearest(first, spare)}; up to {TOLERATED:.0%} may lack."
    )


def respelled(listing, files):
    """How many images lie under another spelling of their names, and an example; for `data check`."""
    other = [k for k, file in enumerate(files) if file is not None and file not in map(plain, listing.texts[k])]
    if not other:
        return []
    name, file = listing.paths[other[0]], files[other[0]]
    example = f"{name!a} is {file!a}" if look(name) == look(file) else f"{name!r} is {file!r}"
    return [rankbench.Count("images under another spelling of their names", len(other), None, f"first: {example}")]
