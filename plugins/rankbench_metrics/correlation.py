"""Rank correlations: of image scores with the `score` column, and of margins with labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

import rankbench


@dataclass(frozen=True)
class KendallTau(rankbench.Metric):
    """Kendall's tau-b between image scores and the images' `score` column, in [-1, 1].

    Source: Kendall, "The treatment of ties in ranking problems", Biometrika 1945.

    Raises: NotApplicable without image scores, without a `score` column, or where either never varies.
    """

    def __call__(self, judged: rankbench.Judged) -> float:
        from scipy.stats import kendalltau

        scores, targets = scored(judged)
        return float(kendalltau(scores, targets, variant="b").statistic)


@dataclass(frozen=True)
class Spearman(rankbench.Metric):
    """Spearman's rank correlation between image scores and the images' `score` column, in [-1, 1]; ties share ranks.

    Raises: NotApplicable without image scores, without a `score` column, or where either never varies.
    """

    def __call__(self, judged: rankbench.Judged) -> float:
        from scipy.stats import spearmanr

        scores, targets = scored(judged)
        return float(spearmanr(scores, targets).statistic)


@dataclass(frozen=True)
class PairTau(rankbench.Metric):
    """Kendall's tau-b between margins and labels over all pairs, ties included, in [-1, 1].

    Every pair enters from both sides, as (margin, label) and (-margin, -label): which image was shown on the left is
    chance, and must not move the value. A pair labelled a tie should have a margin between those of the two orders.

    Raises: NotApplicable without an ordered pair, or where every margin is 0.
    """

    def __call__(self, judged: rankbench.Judged) -> float:
        numbers("margins", judged.margins)
        if not judged.labels.any():
            raise rankbench.NotApplicable("needs an ordered pair")
        if not judged.margins.any():
            raise rankbench.NotApplicable("no order to correlate: every margin is 0")
        return two_sided_tau_b(judged.margins, judged.labels)


def two_sided_tau_b(margins: np.ndarray, labels: np.ndarray) -> float:
    """Tau-b of (margins, -margins) with (labels, -labels) in {-1, 0, +1}, exact up to the last division.

    The margins of each label are sorted once and placed among those of the lower labels: O(n log n). The two sides
    mirror each other, so that +1 over 0 counts for 0 over -1 as well.
    """
    ordered = labels != 0
    right, tie = np.sort(margins[ordered] * labels[ordered]), np.sort(np.abs(margins[~ordered]))
    left, tied = -right[::-1], np.concatenate([-tie[::-1], tie])
    lead = 0  # couples of pairs: concordant less discordant
    tied_margins = 2 * equal_couples(right) + equal_couples(tied)
    for low, times in ((left, 1), (tied, 2)):
        below, upto = (int(np.searchsorted(low, right, side).sum()) for side in ("left", "right"))
        lead += times * (below + upto - len(low) * len(right))
        tied_margins += times * (upto - below)
    tied_labels = 2 * couples(len(right)) + couples(len(tied))
    every = couples(2 * len(margins))
    return lead / (math.sqrt(every - tied_margins) * math.sqrt(every - tied_labels))


def couples(count: int) -> int:
    """How many couples `count` things make."""
    return count * (count - 1) // 2


def equal_couples(ranked: np.ndarray) -> int:
    """How many couples of a sorted array are equal."""
    edges = np.flatnonzero(ranked[1:] != ranked[:-1]) + 1
    runs = np.diff(edges, prepend=0, append=len(ranked))
    return int((runs * (runs - 1) // 2).sum())


def scored(judged: rankbench.Judged) -> tuple[np.ndarray, np.ndarray]:
    """Image scores and targets, both with some order to correlate."""
    if judged.scores is None:
        raise rankbench.NotApplicable("ranker compares pairs and gives no image scores")
    if judged.targets is None:
        raise rankbench.NotApplicable("needs a `score` column")
    for what, values in (("image scores", judged.scores), ("the `score` column", judged.targets)):
        numbers(what, values)
        varies(what, values)
    return judged.scores, judged.targets


def numbers(what: str, values: np.ndarray) -> None:
    if np.isnan(values).any():
        row = int(np.flatnonzero(np.isnan(values))[0])
        raise rankbench.DataError(f"rank correlation: row {row} of {what} is not a number.")


def varies(what: str, values: np.ndarray) -> None:
    if len(values) < 2 or (values == values[0]).all():
        raise rankbench.NotApplicable(f"no order to correlate: {what} never vary")
