"""What plugins are handed leads no further: no attribute of it holds paths, names, or what others were given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rankbench.images import Content, DigestMemo, Images

T = TypeVar("T", bound=np.generic)


class Sealed:
    """Content as plugins are handed it: it decodes the rows they were given, and no attribute leads further.

    Paths and names would tell of the images, and what draws an image may know its score.
    """

    __slots__ = ("__weakref__",)

    def __init__(self, content: Content, rows: NDArray[np.int64]) -> None:
        SEALED[self] = (content, np.sort(rows))  # np.unique hashes, which takes a hundred times as long for a million

    def decode(self, row: int) -> NDArray[np.uint8]:
        content, rows = SEALED[self]
        place = int(np.searchsorted(rows, row))
        if place == len(rows) or rows[place] != row:
            raise IndexError("an image that was not given here")
        return content.decode(row)

    def digests(self, memo: DigestMemo | None) -> NDArray[np.uint8]:
        return SEALED[self][0].digests(memo)

    def describe(self, row: int) -> str:
        return f"image {row}"

    def __reduce__(self) -> Any:  # for the processes of a training
        return Sealed, SEALED[self]


SEALED: WeakKeyDictionary[Sealed, tuple[Content, NDArray[np.int64]]] = WeakKeyDictionary()


def opened(content: Content) -> Content:
    """What stands behind sealed content."""
    return SEALED[content][0] if isinstance(content, Sealed) else content


def same_source(one: Images, other: Images) -> bool:
    """Whether both are views of one dataset's images."""
    return opened(one._content) is opened(other._content)


def alone(array: NDArray[T]) -> NDArray[T]:
    """The array, copied where it is a view of a larger one: its `base` would hold what others were given."""
    whole = array.base
    if not isinstance(whole, np.ndarray) or whole.size <= array.size:
        return array
    own = array.copy()
    own.flags.writeable = False
    return own
