"""Pairwise accuracy: the share of ordered pairs whose margin has the labelled sign."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

import rankbench

CREDIT = {"half": 0.5, "wrong": 0.0}  # what a predicted tie earns


@dataclass(frozen=True)
class PairwiseAccuracy(rankbench.Metric):
    """The share of ordered pairs that are predicted in the labelled order (2AFC accuracy), in [0, 1].

    A pair labelled a tie is not counted. A ranker that always ties gets 0.5, as a coin would, or 0 with ties "wrong".

    Args:
        ties: what a predicted tie (margin 0) on an ordered pair earns: "half" a pair, or nothing ("wrong").
        weighted: whether each pair counts by its weight instead of once.

    Raises: NotApplicable if no ordered pair counts, or `weighted` asks for weights that are not there; DataError for
        a margin that is not a number.
    """

    percent = True
    decimals = 2

    ties: Literal["half", "wrong"] = "half"
    weighted: bool = False

    def __call__(self, judged: rankbench.Judged) -> float:
        margins, labels, weights = judged.margins, judged.labels, judged.weights
        if np.isnan(margins).any():
            row = int(np.flatnonzero(np.isnan(margins))[0])
            raise rankbench.DataError(f"pairwise accuracy: the margin of pair {row} is not a number.")
        if not self.weighted:
            weights = None
        elif weights is None:
            raise rankbench.NotApplicable("needs pairs with weights")
        side = (margins > 0).view(np.int8) - (margins < 0).view(np.int8)  # +1 left is predicted to show more
        ordered = count(labels != 0, weights)
        if ordered == 0:
            raise rankbench.NotApplicable("needs an ordered pair" + (" of positive weight" if self.weighted else ""))
        right, tied = count(side * labels > 0, weights), count((side == 0) & (labels != 0), weights)
        return float((right + CREDIT[self.ties] * tied) / ordered)


def count(mask: np.ndarray, weights: np.ndarray | None) -> float:
    """How many pairs of a mask there are, or their total weight."""
    return float(np.count_nonzero(mask) if weights is None else weights[mask].sum())
