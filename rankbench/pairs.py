"""Pairs: judged pairs as read-only arrays, and the coin that decides which image is shown on which side."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rankbench.errors import DataError, did_you_mean
from rankbench.images import Array, Ints, array_bytes, arrays_digest, check_unmasked, digest_of, frozen, named_arrays

Side = Literal["negate", "swap"]
BLOCK = 2**20  # pairs worked on at once, where all of them would need several times the memory of the pairs
MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class Pairs:
    """Judged pairs as arrays, read-only.

    Attributes:
        left, right: (n,) int32 or int64, rows of the images; int64 unless given as int32.
        label: (n,) int8, +1 left shows more, -1 right shows more, 0 tie; None where a plugin must not see it.
        weight: (n,) float64 ≥ 0, or None.
        columns: per-pair arrays for training and evaluation. inputs: per-pair arrays given at test time too.
        sided: for each array that depends on the side, what happens when the sides are swapped:
            "negate" (votes +1 / 0 / -1), or "swap" (positions 0 and 1 of axis 1 change places, the rest stay).

    Raises: DataError for unequal lengths, a label outside {-1, 0, +1}, an image paired with itself, a bad weight.
    """

    def __init__(
        self,
        left: ArrayLike,
        right: ArrayLike,
        label: ArrayLike | None,
        weight: ArrayLike | None = None,
        *,
        columns: Mapping[str, ArrayLike] | None = None,
        inputs: Mapping[str, ArrayLike] | None = None,
        sided: Mapping[str, Side] | None = None,
    ) -> None:
        self.left, self.right = indices(left, "left"), indices(right, "right")
        n = len(self.left)
        self.label = None if label is None else labels(label)
        self.weight = None if weight is None else weights(weight)
        for name, array in (("right", self.right), ("label", self.label), ("weight", self.weight)):
            if array is not None and array.shape != (n,):
                raise DataError(f"pairs: {name} has shape {array.shape}, left has ({n},).")
        same = np.flatnonzero(self.left == self.right)
        if len(same):
            raise DataError(f"pairs: row {same[0]} pairs image {self.left[same[0]]} with itself; remove it.")
        self.columns = named_arrays(columns, n, "pairs.columns")
        self.inputs = named_arrays(inputs, n, "pairs.inputs")
        self.sided = MappingProxyType(dict(sided or {}))
        self._check_sided()

    def _check_sided(self) -> None:
        for name, how in self.sided.items():
            if how not in ("negate", "swap"):
                raise DataError(f"pairs: {name!r} is sided {how!r}; use 'negate' or 'swap'.")
            arrays = [own[name] for own in (self.columns, self.inputs) if name in own]
            if not arrays:
                known = sorted({*self.columns, *self.inputs})
                raise DataError(f"pairs: sided names {name!r}, no column or input.{did_you_mean(name, known)}")
            for array in arrays:
                if how == "swap" and (array.ndim < 2 or array.shape[1] < 2):
                    raise DataError(f"pairs: {name!r} is sided 'swap' and needs two columns or more: {array.shape}.")
                if how == "negate" and array.dtype.kind not in "if":
                    raise DataError(f"pairs: {name!r} is sided 'negate' and needs signed numbers, not {array.dtype}.")

    def __len__(self) -> int:
        return len(self.left)

    @property
    def ordered(self) -> NDArray[np.bool_]:
        """(n,) whether the pair has an order, that is no tie."""
        return np.asarray(self.judgement != 0)

    @property
    def judgement(self) -> NDArray[np.int8]:
        """The labels, where there are any; DataError where they are withheld."""
        if self.label is None:
            raise DataError("pairs: labels are withheld here; score and compare must do without them.")
        return self.label

    def take(self, rows: Array) -> Pairs:
        """Some of the pairs, in the order of `rows` (indices or a mask)."""
        return self._with(rows, self.left[rows], self.right[rows], None if self.label is None else self.label[rows])

    def swapped(self, mask: NDArray[np.bool_]) -> Pairs:
        """The same pairs with left and right exchanged where `mask` (n,) is true."""
        if not mask.any():
            return self
        left, right = np.where(mask, self.right, self.left), np.where(mask, self.left, self.right)
        label = None if self.label is None else np.where(mask, -self.label, self.label).astype(np.int8)
        pairs = self._with(slice(None), left, right, label)
        pairs.columns = MappingProxyType({k: self._flip(k, v, mask) for k, v in pairs.columns.items()})
        pairs.inputs = MappingProxyType({k: self._flip(k, v, mask) for k, v in pairs.inputs.items()})
        return pairs

    def _flip(self, name: str, array: Array, mask: NDArray[np.bool_]) -> Array:
        how = self.sided.get(name)
        if how is None:
            return array
        flipped = array.copy()
        flipped[mask] = -array[mask] if how == "negate" else array[mask][:, [1, 0, *range(2, array.shape[1])]]
        return frozen(flipped, name)

    def reindexed(self, position: Array) -> Pairs:
        """The same pairs over other rows: image i becomes image position[i]."""
        position = position.astype(self.left.dtype)
        return self._with(slice(None), position[self.left], position[self.right], self.label)

    def _with(self, rows: Any, left: Array, right: Array, label: Array | None) -> Pairs:
        pairs = Pairs.__new__(Pairs)  # parts of checked pairs need no second check
        pairs.left, pairs.right = frozen(left, "left"), frozen(right, "right")
        pairs.label = None if label is None else frozen(label, "label")
        pairs.weight = None if self.weight is None else frozen(self.weight[rows], "weight")
        pairs.columns = MappingProxyType({k: frozen(v[rows], k) for k, v in self.columns.items()})
        pairs.inputs = MappingProxyType({k: frozen(v[rows], k) for k, v in self.inputs.items()})
        pairs.sided = self.sided
        return pairs

    def without_inputs(self) -> Pairs:
        """The same pairs without the evidence given at test time."""
        pairs = self._with(slice(None), self.left, self.right, self.label)
        pairs.inputs = MappingProxyType({})
        pairs.sided = MappingProxyType({name: how for name, how in self.sided.items() if name in self.columns})
        return pairs

    def without_labels(self, inputs: Iterable[str]) -> Pairs:
        """What `compare` may see: sides and the declared inputs."""
        given = {name: self.inputs[name] for name in inputs if name in self.inputs}
        return Pairs(
            self.left, self.right, None, inputs=given, sided={k: v for k, v in self.sided.items() if k in given}
        )

    @cached_property
    def digest(self) -> str:
        """Hex digest of every array."""
        parts: list[bytes | Array] = [self.left, self.right]
        parts += [b"" if a is None else a for a in (self.label, self.weight)]
        parts += [arrays_digest(self.columns).encode(), arrays_digest(self.inputs).encode()]
        return digest_of([*parts, json.dumps(dict(self.sided), sort_keys=True).encode()])

    def sayings(self) -> list[bytes]:
        """For each pair, bytes that tell all that is said of it: label, weight, columns, inputs."""
        said = [a for a in (self.label, self.weight) if a is not None]
        said += [arrays[name] for arrays in (self.columns, self.inputs) for name in sorted(arrays)]
        return [digest_of(array_bytes(array[row]) for array in said).encode() for row in range(len(self))]


def indices(values: ArrayLike, what: str) -> Array:
    check_unmasked(values, f"pairs: {what}")
    array = np.asarray(values)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise DataError(f"pairs: {what} must be one-dimensional integers, not {array.shape} {array.dtype}.")
    if array.size and int(array.min()) < 0:
        row = int(array.argmin())
        raise DataError(f"pairs: {what} names image {int(array[row])} in row {row}; image rows start at 0.")
    return frozen(array if array.dtype == np.int32 else array.astype(np.int64), what)


def labels(values: ArrayLike) -> NDArray[np.int8]:
    check_unmasked(values, "pairs: label")
    array = np.asarray(values)
    if array.dtype.kind not in "if" and array.size:
        raise DataError(f"pairs: labels of type {array.dtype}; a label is the number +1, -1 or 0 for a tie.")
    bad = np.flatnonzero(~np.isin(array, (-1, 0, 1)))
    if len(bad):
        raise DataError(f"pairs: label {array.flat[bad[0]]} in row {bad[0]}; a label is +1, -1 or 0 for a tie.")
    return frozen(array.astype(np.int8), "label")


def weights(values: ArrayLike) -> NDArray[np.float64]:
    check_unmasked(values, "pairs: weight")
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"pairs: weights must be numbers ({error}).") from error
    bad = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if len(bad):
        raise DataError(f"pairs: weight {array.flat[bad[0]]} in row {bad[0]}; a weight is finite and at least 0.")
    return frozen(array, "weight")


def coin(digests: NDArray[np.uint8], pairs: Pairs) -> NDArray[np.bool_]:
    """(n,) whether a canonical pair is handed out with its sides swapped: a fixed 64-bit mix of the two digests.

    Symmetric in the two images and blind to label and order, so that neither side nor position tells anything.
    The mix is splitmix64's finaliser (Steele, Lea & Flood, OOPSLA 2014).
    """
    return (pair_words(digests, pairs.left, pairs.right) >> np.uint64(63)).astype(bool)


def pair_words(digests: NDArray[np.uint8], left: Array, right: Array) -> NDArray[np.uint64]:
    """(n,) 64 bits for each pair, from its two digests and in either order the same."""
    quarters = np.ascontiguousarray(digests).view("<u8").reshape(-1, 4)
    word = quarters[:, 0]
    for quarter in quarters.T[1:]:  # all of it: a dataset may give digests that are no sha-256
        word = finalised(word) ^ quarter
    a, b = word[left], word[right]
    return finalised((a ^ b) * MIX[0] + (a + b))


def finalised(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed: NDArray[np.uint64] = (words ^ (words >> np.uint64(30))) * MIX[1]
    mixed ^= mixed >> np.uint64(27)
    mixed *= MIX[2]
    return mixed


def sorted_pairs(pairs: Pairs, digests: NDArray[np.uint8]) -> Pairs:
    """The lower index left, sorted by (left, right).

    Where two images are judged several times, the order of these rows depends on their content and on the images, so
    that a row's place tells nothing of its label.
    """
    if pairs.label is not None and pairs.weight is None and not pairs.columns and not pairs.inputs:
        plain = plainly_sorted(pairs, len(digests))
        if plain is not None:
            return plain
    pairs = pairs.swapped(pairs.left > pairs.right)
    code = pairs.left.astype(np.int64) * len(digests) + pairs.right
    if len(code) > 1 and (code[1:] > code[:-1]).all():
        return pairs
    order = np.argsort(code, kind="stable")
    sorted_code = code[order]
    same = np.concatenate([[False], sorted_code[1:] == sorted_code[:-1], [False]])
    repeated = np.flatnonzero(same[1:] | same[:-1])
    if len(repeated):
        order[repeated] = repeats_ordered(pairs, digests, order[repeated], sorted_code[repeated])
    return pairs.take(order)


def plainly_sorted(pairs: Pairs, images: int) -> Pairs | None:
    """`sorted_pairs` of distinct pairs that have labels alone, sorted as one number each; None where one is repeated.

    A third of the time and memory: ten million pairs are sorted in about a second.
    """
    code = np.empty(len(pairs), np.int64)
    for begin in range(0, len(pairs), BLOCK):
        here = slice(begin, begin + BLOCK)
        left, right = pairs.left[here].astype(np.int64), pairs.right[here].astype(np.int64)
        label = np.where(left > right, -pairs.judgement[here], pairs.judgement[here]).astype(np.int64)
        code[here] = (np.minimum(left, right) * images + np.maximum(left, right)) * 4 + label + 1
    if len(code) > 1 and not (code[1:] > code[:-1]).all():
        code.sort()
    left, right = np.empty_like(pairs.left), np.empty_like(pairs.right)
    label = np.empty(len(pairs), np.int8)
    last = -1
    for begin in range(0, len(pairs), BLOCK):
        here = slice(begin, begin + BLOCK)
        both, said = code[here] >> 2, code[here] & 3
        if int(both[0]) == last or (both[1:] == both[:-1]).any():
            return None
        last = int(both[-1])
        left[here], right[here] = np.divmod(both, images)
        label[here] = said - 1
    return pairs._with(slice(None), left, right, label)


def repeats_ordered(pairs: Pairs, digests: NDArray[np.uint8], rows: Ints, codes: Ints) -> Ints:
    """Rows of pairs judged several times, in the order of their codes, put into the order their content decides."""
    said = [array for array in (pairs.label, pairs.weight) if array is not None]
    for arrays in (pairs.columns, pairs.inputs):
        said += [part for name in sorted(arrays) for part in arrays[name].reshape(len(pairs), -1).T]
    rows = rows[np.lexsort([*(array[rows] for array in reversed(said)), codes])]
    place = np.arange(len(rows))
    first = np.concatenate([[True], codes[1:] != codes[:-1]])
    turn = (place - np.maximum.accumulate(np.where(first, place, 0))).astype(np.uint64)  # 0, 1, … for each two images
    mixed = finalised(pair_words(digests, pairs.left[rows], pairs.right[rows]) + (turn + np.uint64(1)) * MIX[0])
    return np.asarray(rows[np.lexsort([mixed, codes])])


def hold_out(pairs: Pairs, images: int, share: float, rng: np.random.Generator) -> tuple[Pairs, Pairs, dict[str, Any]]:
    """Split training pairs into a part to fit and a part to choose settings by, sharing no image where possible.

    Whole connected components of the pair graph are held first, at random, until `share` of the pairs is reached: no
    pair is lost. Where one large component is left, images are held at random until the pairs among them reach the
    share; pairs between the two sides are dropped. Only if that would leave either side fewer than 50 pairs (or all it
    was to get), or a tenth of those, pairs are held at random and images are shared. Two pairs give one to each side.

    Returns: pairs to fit, pairs held, and a record of which way it went and how many pairs each part has.
    """
    if not 0 < share < 1:
        raise DataError(f"holdout: share must be between 0 and 1, not {share}.")
    wanted = min(max(1.0, share * len(pairs)), len(pairs) - 1.0)
    held = components_held(pairs, images, wanted, rng)
    way = "components"
    if held.sum() < 0.9 * wanted:
        side = images_held(pairs, images, wanted, rng)
        held, dropped, way = side[pairs.left] & side[pairs.right], side[pairs.left] ^ side[pairs.right], "images"
    else:
        dropped = np.zeros(len(pairs), bool)
    sides = ((held, wanted), (~held & ~dropped, len(pairs) - wanted))
    if way == "images" and any(part.sum() < max(min(50, due), 0.1 * due) for part, due in sides):
        held, dropped, way = np.zeros(len(pairs), bool), np.zeros(len(pairs), bool), "pairs"
        held[rng.permutation(len(pairs))[: round(wanted)]] = True
    record = {
        "by": way,
        "fitted": int((~held & ~dropped).sum()),
        "held": int(held.sum()),
        "dropped": int(dropped.sum()),
    }
    return pairs.take(~held & ~dropped), pairs.take(held), record


def components_held(pairs: Pairs, images: int, wanted: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(n,) pairs of randomly chosen whole components, never more than wanted by over a tenth."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), bool), (pairs.left, pairs.right)), shape=(images, images))
    component = connected_components(graph, directed=False)[1][pairs.left]
    sizes = np.bincount(component)
    order = rng.permutation(np.flatnonzero(sizes))
    chosen, total = np.zeros(len(sizes), bool), 0
    for one in order:
        if total + sizes[one] <= min(1.1 * wanted, len(pairs) - 1):
            chosen[one], total = True, total + int(sizes[one])
        if total >= wanted:
            break
    return np.asarray(chosen[component])


def images_held(pairs: Pairs, images: int, wanted: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(images,) randomly chosen images, just as many as it takes for the pairs among them to reach `wanted`."""
    rank = np.full(images, images)
    touched = rng.permutation(np.unique(np.concatenate([pairs.left, pairs.right])))
    rank[touched] = np.arange(len(touched))
    entered = np.sort(np.maximum(rank[pairs.left], rank[pairs.right]))  # a pair is held once its later image is
    last = entered[min(int(np.ceil(wanted)), len(entered)) - 1]
    return np.asarray(rank <= last)
