"""reference: a row whose method cannot be run; its table shows the published figure."""

from dataclasses import dataclass

import rankbench


@dataclass
class Reference(rankbench.Ranker):
    """Stands for a method that cannot be computed (a study with people, a service that is gone).

    The place of a measured value shows a dash and why; the published figure stands beside it, from `reported`.

    Args: reason, why it cannot be computed.
    """

    reason: str = "it cannot be computed from images; the published figure is shown"

    learns = False
    seeded = False

    def needs_images(self):
        return False

    def fit(self, images, pairs, run):
        raise rankbench.NotApplicable(self.reason)
