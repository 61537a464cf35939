"""A metric of which less is better."""

from dataclasses import dataclass

import rankbench


@dataclass(frozen=True)
class SwapRate(rankbench.Metric):
    """Share of the ordered pairs that were put the wrong way round; a predicted tie is not wrong."""

    percent = True
    higher_is_better = False
    decimals = 1

    def __call__(self, judged):
        ordered = judged.labels != 0
        if not ordered.any():
            raise rankbench.NotApplicable("every pair is a tie")
        return float((judged.margins[ordered] * judged.labels[ordered] < 0).mean())
