"""siamese: one backbone, shared by both images of a pair, and a linear score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rankbench_rankers.network_ranker import PairNetworkRanker


@dataclass
class Siamese(PairNetworkRanker):
    """Both images of a pair pass through one backbone to fc7 and a linear score; the RankNet loss orders the scores.

    Rows "AlexNet Siamese" and "VGG-16 Siamese" of the paper, whose settings are not published: ours are those of
    ViralNet without its localisation network (for VGG-16 give learning_rate = 1e-4). With pairs = "all", recipe =
    "modern" and any backbone of torchvision it is a row of our own.
    Source: Dubey & Agarwal, ACM MM 2017, table 4; loss: Burges et al., ICML 2005; optimisation and crops: Singh & Lee,
    ECCV 2016, released code.
    """

    title = "siamese"

    def build(self, supplement: int) -> Any:
        from rankbench_rankers.networks import PlainNetwork

        return PlainNetwork(self.trunk(), 1, supplement)
