"""What a cell cost: seconds and peak memory, beside what it got right."""

from __future__ import annotations

from dataclasses import dataclass

import rankbench

LEAST = 10**6  # bytes: what Python itself takes and gives back meanwhile is about as much


@dataclass(frozen=True)
class Seconds(rankbench.Metric):
    """Wall seconds of fitting and scoring one problem, on the machine the cell ran on.

    Features are computed once per image for all rows; their seconds count for each row that uses them, as if it were
    alone, unless `features` is off. Learning a feature's dictionary, loading data and storing results are left out.

    Args: features, whether the extraction of features counts.
    Raises: NotApplicable where the cell's record says nothing of it.
    """

    higher_is_better = None
    decimals = 1
    unit = "s"

    features: bool = True

    def __call__(self, judged: rankbench.Judged) -> float:
        phases = ("fit", "score", "shared") + (("features",) if self.features else ())
        if "fit" not in judged.seconds:
            raise rankbench.NotApplicable("needs the seconds of a cell")
        return float(sum(judged.seconds.get(phase, 0.0) for phase in phases))


class PeakMemory(rankbench.Metric):
    """Peak of a cell's private memory above what its process held before the fit, in GB (10⁹ bytes).

    Child processes count. Imported libraries, features and shared artefacts while they are built, and pages of
    memory-mapped features, which the system may drop, do not.

    Raises: NotApplicable where it was not measured, or is too little to be told from nothing.
    """

    higher_is_better = None
    decimals = 3
    unit = "GB"

    def __call__(self, judged: rankbench.Judged) -> float:
        if judged.peak_memory is None:
            raise rankbench.NotApplicable("the peak memory was not measured")
        if judged.peak_memory < LEAST:
            raise rankbench.NotApplicable("less than a megabyte of memory: too little to be measured")
        return judged.peak_memory / 1e9
