"""Problem: one ordering to learn, checked when built and unchanging after.

A problem given by a dataset lists its images and pairs in any order. The core works on its *canonical form*: images in
digest order, each pair with the lower index left, pairs sorted, so that equal content means equal fingerprint. What a
plugin is handed is a view of that form without anything it must not learn, its pairs' sides swapped by a coin that
depends on the two images alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankbench.errors import DataError, NotApplicable, counted
from rankbench.images import DigestMemo, Images, Ints, array_bytes, digest_of, digest_order
from rankbench.pairs import Pairs, coin, indices, sorted_pairs
from rankbench.sealed import alone


@dataclass(frozen=True)
class Problem:
    """One ordering to learn.

    Args:
        images: all images the pairs speak of.
        train: judged training pairs, or None where there is only data for a category network.
        tests: named test pairs; one Pairs alone is named "test".
        facets: where the problem sits, such as {"attribute": "open", "split": 3}; JSON scalars.
        train_images: rows of further training images, without pairs (regression on scores uses them).
        overlap: why an image may be in training and in a test; without a reason that is an error. Marks the table.

    Raises: DataError for a pair that names no image, an empty split, a test of ties only, shared images.
    """

    images: Images
    train: Pairs | None = None
    tests: Mapping[str, Pairs] = field(default_factory=dict)
    facets: Mapping[str, Any] = field(default_factory=dict)
    train_images: Any = None
    overlap: str | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        tests = {"test": self.tests} if isinstance(self.tests, Pairs) else dict(self.tests)
        object.__setattr__(self, "tests", MappingProxyType(tests))
        object.__setattr__(self, "facets", MappingProxyType(scalars(self.facets)))
        rows = np.zeros(0, np.int64) if self.train_images is None else indices(self.train_images, "train_images")
        object.__setattr__(self, "train_images", np.unique(rows))
        for name, pairs in self._splits():
            self._check_split(name, pairs)
        if len(rows) and int(rows.max()) >= len(self.images):
            raise DataError(f"{self.where}: train_images names image {int(rows.max())} of {len(self.images)}.")
        for key, value in self.facets.items():
            if not isinstance(value, str | int | float | bool) or value != value:
                raise DataError(f"{self.where}: facet {key!r} is {value!r}; use a string or a number.")
        if self.overlap is not None and not str(self.overlap).strip():
            raise DataError(f"{self.where}: overlap is empty; say why images may be in training and in a test.")
        self._check_overlap()

    @property
    def where(self) -> str:
        """`problem attribute=open, split=3`, for messages."""
        return ("problem " + ", ".join(f"{k}={v}" for k, v in self.facets.items())) if self.facets else "problem"

    def _splits(self) -> list[tuple[str, Pairs]]:
        train = [("train", self.train)] if self.train is not None else []
        return [*train, *((f"test {name!r}", pairs) for name, pairs in self.tests.items())]

    def _check_split(self, name: str, pairs: Pairs) -> None:
        if not isinstance(pairs, Pairs):
            raise DataError(f"{self.where}: {name} is {type(pairs).__name__}; it must be rankbench.Pairs.")
        if not len(pairs):
            raise DataError(f"{self.where}: {name} has no pairs. Give it some, or leave the split out.")
        if pairs.label is None:
            raise DataError(f"{self.where}: {name} has no labels.")
        highest = max(int(pairs.left.max()), int(pairs.right.max()))
        if highest >= len(self.images):
            row = int(np.flatnonzero((pairs.left == highest) | (pairs.right == highest))[0])
            raise DataError(f"{self.where}: {name}, pair {row} names image {highest}; there are {len(self.images)}.")
        if name != "train" and not pairs.ordered.any():
            raise DataError(
                f"{self.where}: {name} has {len(pairs)} pairs and every one is a tie; accuracy needs order."
            )

    def _check_overlap(self) -> None:
        if self.overlap is not None:
            return
        training = self.rows_of(self.train)
        training[self.train_images] = True
        for name, pairs in self.tests.items():
            shared = np.flatnonzero(training & self.rows_of(pairs))
            if len(shared):
                example = self.images.names[shared[0]] if self.images.names else shared[0]
                raise DataError(
                    f"{self.where}: {counted(len(shared), 'image')} both in training and in test {name!r} "
                    f"(first: {example}). "
                    'Split by image, or give the problem a reason: overlap = "…".'
                )

    def rows_of(self, pairs: Pairs | None) -> NDArray[np.bool_]:
        """(images,) which images the pairs touch."""
        touched = np.zeros(len(self.images), bool)
        if pairs is not None:
            touched[pairs.left] = touched[pairs.right] = True
        return touched

    def training_rows(self) -> Ints:
        """Rows of the training images: those of the pairs, those of `train_images`, or all where there are no pairs."""
        touched = self.rows_of(self.train)
        touched[self.train_images] = True
        if self.train is None and not self.tests and not len(self.train_images):
            touched[:] = True
        return np.flatnonzero(touched)

    def test_rows(self) -> Ints:
        """Rows of every image some test speaks of."""
        touched = np.zeros(len(self.images), bool)
        for pairs in self.tests.values():
            touched |= self.rows_of(pairs)
        return np.flatnonzero(touched)

    # -- canonical form

    def canonical(self, memo: DigestMemo | None = None) -> Problem:
        """The same problem with images in digest order, the lower index left, pairs sorted, unused images gone.

        Training images whose bytes equal a test image's are removed with their pairs, unless `overlap` says why not.
        """
        images = self.images.with_digests(memo)
        problem, removed = self._without_copies(images)
        used = np.union1d(problem.training_rows(), problem.test_rows())
        order = problem._ordered(used)
        position = np.full(len(images), -1, np.int64)
        position[order] = np.arange(len(order))
        digests = images.digests[order]
        note = f"{removed} training images with the bytes of a test image were removed with their pairs"
        canonical = Problem(
            images.take(order),
            None if problem.train is None else sorted_pairs(problem.train.reindexed(position), digests),
            {name: sorted_pairs(pairs.reindexed(position), digests) for name, pairs in problem.tests.items()},
            problem.facets,
            position[problem.train_images],
            problem.overlap,
            (*problem.notes, note) if removed else problem.notes,
        )
        object.__setattr__(canonical, "listed", listed(images))
        return canonical

    @cached_property
    def listed(self) -> dict[str, Any]:
        """How many images the dataset listed, and a digest of which: problems with equal ones are about the same."""
        return listed(self.images)

    def told(self, rows: Ints) -> list[str]:
        """What tells each of these images from all others of any problem: digest and name."""
        names = self.images.names or ("",) * len(self.images)
        return [f"{self.images.digests[row].tobytes().hex()[:16]} {names[row]}" for row in rows]

    def _without_copies(self, images: Images) -> tuple[Problem, int]:
        if self.overlap is not None or not self.tests:
            return self, 0
        whole = np.ascontiguousarray(images.digests).view("V32").ravel()
        training, testing = self.training_rows(), self.test_rows()
        tested = {bytes(d) for d in whole[testing]}
        copies = np.array([row for row in training if bytes(whole[row]) in tested], dtype=np.int64)
        if not len(copies):
            return self, 0
        train = self.train
        if train is not None:
            train = train.take(~(np.isin(train.left, copies) | np.isin(train.right, copies)))
            if not len(train):
                raise DataError(f"{self.where}: every training pair has an image whose bytes are in a test.")
        return replace(self, train=train, train_images=np.setdiff1d(self.train_images, copies)), len(copies)

    def _ordered(self, used: Ints) -> Ints:
        """The used rows in digest order; images of equal bytes in the order of what is said of them."""
        places, alike = digest_order(self.images.digests[used])
        order = used[places]
        if alike:
            marks = told_apart(self, np.concatenate([order[span] for span in alike]))
            for span in alike:
                order[span] = sorted(order[span], key=lambda row: marks[int(row)])
        return order

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of a canonical problem: contents, columns, inputs, EXIF policy, training and tests; no paths."""
        parts = [self.images.fingerprint, "" if self.train is None else self.train.digest]
        parts += [part for name in sorted(self.tests) for part in (name, self.tests[name].digest)]
        parts += [digest_of([array_bytes(self.training_rows())])]
        return digest_of(part.encode() for part in [*parts, "" if self.overlap is None else "overlap"])

    # -- what a plugin is handed (from a canonical problem)

    def training(self, lost: NDArray[np.bool_] | None = None, inputs: Iterable[str] = ()) -> tuple[Images, Pairs]:
        """Images and pairs for `fit`: no names, sides by the coin, without the `lost` images."""
        if self.train is None:
            raise NotApplicable("the problem has no training pairs")
        rows, pairs = self.training_rows(), self.train
        if lost is not None and lost.any():
            rows, pairs = rows[~lost[rows]], pairs.take(~(lost[pairs.left] | lost[pairs.right]))
        position = np.full(len(self.images), -1, np.int64)
        position[rows] = np.arange(len(rows))
        pairs = pairs.swapped(coin(self.images.digests, pairs)).reindexed(position)
        given = [name for name in inputs if name in self.images.inputs]
        return self.images.take(rows, names=False, inputs=given), self._declared(pairs, inputs)

    @staticmethod
    def _declared(pairs: Pairs, inputs: Iterable[str]) -> Pairs:
        kept = Pairs._with(pairs, slice(None), pairs.left, pairs.right, pairs.label)
        kept.inputs = MappingProxyType({k: alone(v) for k, v in pairs.inputs.items() if k in set(inputs)})
        kept.columns = MappingProxyType({k: alone(v) for k, v in pairs.columns.items()})
        kept.label = None if kept.label is None else alone(kept.label)
        kept.weight = None if kept.weight is None else alone(kept.weight)
        return kept

    def judged(self, lost: NDArray[np.bool_] | None = None, inputs: Iterable[str] = ()) -> tuple[Images, Ints]:
        """Images for `score`, without columns or names, and their rows."""
        rows = self.test_rows()
        if lost is not None:
            rows = rows[~lost[rows]]
        given = [name for name in inputs if name in self.images.inputs]
        return self.images.take(rows, names=False, columns=(), inputs=given), rows


def listed(images: Images) -> dict[str, Any]:
    """Number of images, and a digest of which they are, whatever their order."""
    words = np.ascontiguousarray(images.digests).view("<u8").reshape(-1, 4)
    return {"images": len(images), "digest": words.sum(axis=0, dtype=np.uint64).tobytes().hex()}


def scalars(facets: Mapping[str, Any]) -> dict[str, Any]:
    """Facets with NumPy's numbers (as pandas gives them) made Python's, so that JSON can say them."""
    return {str(key): value.item() if isinstance(value, np.generic) else value for key, value in facets.items()}


# -- images of equal bytes


def told_apart(problem: Problem, rows: Ints) -> dict[int, str]:
    """A digest for each of these images of equal bytes: of all that is said of it, never of its name or place.

    It starts from columns, inputs and role, and takes in the judgements against other images, round after round, until
    no more images differ. Of those still alike that are judged against others still alike, one is set apart and the
    rounds go on (color refinement with individualisation, as in graph isomorphism). The rest are interchangeable.
    """
    images = problem.images
    trained = {int(row) for row in problem.train_images}
    marks = {
        int(row): digest_of(
            [
                images.digests[row].tobytes(),
                bytes([int(row) in trained]),
                *(array_bytes(held[name][row]) for held in (images.columns, images.inputs) for name in sorted(held)),
            ]
        )
        for row in rows
    }
    said = judgements(problem, rows)
    while True:
        marks = refined(marks, said, images.digests)
        times = Counter(marks.values())
        alike = {row for row, mark in marks.items() if times[mark] > 1}
        linked = [row for row in alike if any(other in alike for _, other in said[row])]
        if not linked:
            return marks
        chosen = min(linked, key=lambda row: marks[row])
        marks[chosen] = digest_of([b"chosen", marks[chosen].encode()])


def refined(
    marks: dict[int, str], said: Mapping[int, list[tuple[bytes, int]]], digests: NDArray[np.uint8]
) -> dict[int, str]:
    """Marks that take in those of the images judged against, until no more of them differ."""
    while True:
        after = {}
        for row, mark in marks.items():
            told = (
                what + (marks[other].encode() if other in marks else digests[other].tobytes())
                for what, other in said[row]
            )
            after[row] = digest_of([mark.encode(), *sorted(told)])
        if len(set(after.values())) == len(set(marks.values())):
            return after
        marks = after


def judgements(problem: Problem, rows: Ints) -> dict[int, list[tuple[bytes, int]]]:
    """For each of these images, what every split says of it and of which other image."""
    wanted = np.zeros(len(problem.images), bool)
    wanted[rows] = True
    said: dict[int, list[tuple[bytes, int]]] = {int(row): [] for row in rows}
    for name, pairs in problem._splits():
        for right in (False, True):
            mine = pairs.take(np.flatnonzero(wanted[pairs.right if right else pairs.left]))
            mine = mine.swapped(np.full(len(mine), right))
            for row, other, what in zip(mine.left.tolist(), mine.right.tolist(), mine.sayings(), strict=True):
                said[row].append((name.encode() + b":" + what, other))
    return said
