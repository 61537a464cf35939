"""First-party rankers: one file a method."""

import rankbench


@rankbench.hookimpl
def rankbench_rankers():
    return {
        "chance": "rankbench_rankers.chance:Chance",
        "ranksvm": "rankbench_rankers.ranksvm:RankSVM",
        "ridge": "rankbench_rankers.ridge:Ridge",
        "siamese-small": "rankbench_rankers.siamese_small:SiameseSmall",
    }
