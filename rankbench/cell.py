"""Cell, its key, and what judging it left: the unit that is hashed, run and stored.

A cell is one ranker on one problem with one training seed. Its key is the sha-256 of the canonical JSON of everything
its result depends on, and of nothing else: no path, order, host or worker count.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankbench.files import canonical_json
from rankbench.images import Array, Ints, array_bytes, digest_of
from rankbench.pairs import Pairs
from rankbench.plugin import Judged
from rankbench.problem import Problem

CORE_RESULTS = 1  # raised when pixels, order, coin or hold-out change: results of other values are other results


def key_of(parts: Mapping[str, Any]) -> str:
    """Hex sha-256 of canonical JSON."""
    return hashlib.sha256(canonical_json(parts).encode()).hexdigest()


def key_parts(
    fingerprint: str,
    facets: Mapping[str, Any],
    ranker: Mapping[str, Any],
    features: list[str],
    files: Mapping[str, str],
    seed: int | None,
    threads: int | None,
) -> dict[str, Any]:
    """Everything a cell's result depends on.

    Args:
        fingerprint: of the problem. ranker: name, distribution, version and resolved parameters.
        features: keys of the features it names. files: digest of each file parameter.
        seed: None where results do not depend on it. threads: None for a ranker that asks for a GPU.
    """
    return {
        "core_results": CORE_RESULTS,
        "problem": fingerprint,
        "facets": dict(facets),
        "ranker": dict(ranker),
        "features": features,
        "files": dict(files),
        "seed": seed,
        "threads": threads,
    }


@dataclass(frozen=True)
class TestSet:
    """What a ranker was judged on: pairs over the test's own images, which are in digest order."""

    __test__ = False  # no test case, whatever its name says

    pairs: Pairs
    digests: NDArray[np.uint8]
    names: tuple[str, ...] | None = None
    columns: Mapping[str, Array] = field(default_factory=dict)

    @classmethod
    def of(cls, problem: Problem, name: str) -> tuple[TestSet, Ints]:
        """One test of a canonical problem, and the rows of its images in that problem."""
        pairs = problem.tests[name]
        rows = np.flatnonzero(problem.rows_of(pairs))
        position = np.full(len(problem.images), -1, np.int64)
        position[rows] = np.arange(len(rows))
        images = problem.images.take(rows)
        pairs = pairs.without_inputs()  # evidence for a ranker; nothing a metric looks at
        return cls(pairs.reindexed(position), images.digests, images.names, dict(images.columns)), rows

    @cached_property
    def digest(self) -> str:
        """Hex digest of everything but the names."""
        columns = [part for k in sorted(self.columns) for part in (k.encode(), array_bytes(self.columns[k]))]
        return digest_of([self.pairs.digest.encode(), self.digests.tobytes(), *columns])


@dataclass(frozen=True)
class Outcome:
    """What a ranker gave for one test set: image scores, or margins where it compares pairs.

    Attributes:
        scores: (k,) float64, NaN where an image could not be read; None where margins are given.
        margins: (m,) float32, left's lead in the test set's own orientation, NaN likewise; None where scores are given.
    """

    scores: NDArray[np.float64] | None = None
    margins: NDArray[np.float32] | None = None

    def pair_margins(self, pairs: Pairs) -> NDArray[np.float64]:
        """(m,) margins of the test's pairs."""
        if self.scores is not None:
            return self.scores[pairs.left] - self.scores[pairs.right]
        return np.asarray(self.margins, dtype=np.float64)

    def judged(self, test: TestSet) -> Judged:
        """What a metric sees: without the images that could not be read, and their pairs."""
        margins, pairs = self.pair_margins(test.pairs), test.pairs
        known = ~np.isnan(margins)
        if not known.all():
            margins, pairs = margins[known], pairs.take(known)
        scores, targets = self.scores, test.columns.get("score")
        if targets is not None and (targets.ndim != 1 or targets.dtype.kind not in "biuf"):
            targets = None  # a column of that name that is no number
        if targets is not None:
            targets = targets.astype(np.float64)
        if scores is not None:
            present = ~np.isnan(scores) if targets is None else ~(np.isnan(scores) | np.isnan(targets))
            scores, targets = scores[present], None if targets is None else targets[present]
        return Judged(margins, pairs.judgement, pairs.weight, scores, targets)

    def flaw(self, images: int | None, pairs: int, lost: int) -> str:
        """What cannot be right about it, for a test of so many images and pairs; empty where nothing is.

        Args: images, None where nobody knows. lost, how many images of the problem could not be read.
        """
        found, kind, count = (
            (self.margins, "float32", pairs) if self.scores is None else (self.scores, "float64", images)
        )
        assert found is not None
        if found.dtype != kind:
            return f"it holds {found.dtype} where {kind} was stored"
        if found.ndim != 1 or len(found) != (len(found) if count is None else count):
            return f"it holds numbers of shape {found.shape} for {count} {'pairs' if self.scores is None else 'images'}"
        unknown = int(np.count_nonzero(~np.isfinite(found)))
        if unknown and (not lost or np.isinf(found).any() or (self.scores is not None and unknown > lost)):
            return f"{unknown} of its {len(found)} numbers are not finite"
        return ""

    def tied(self, test: TestSet) -> float:
        """Share of the ordered pairs that got a margin of exactly 0; pairs of unreadable images do not count."""
        margins = self.judged(test).margins[self.judged(test).labels != 0]
        return float((margins == 0).mean()) if len(margins) else 0.0
