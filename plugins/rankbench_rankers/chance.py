"""Random scores: the floor of every table."""

from dataclasses import dataclass

import rankbench


@dataclass
class Chance(rankbench.Ranker):
    """Scores drawn uniformly from [0, 1), anew for each test set; equal seeds give equal scores.

    Expected pairwise accuracy 50 %. A constant score would give exactly that, and nothing but predicted ties.
    """

    learns = False

    def fit(self, images, pairs, run):
        return self

    def score(self, images, run):
        return run.rng.random(len(images))

    def needs_images(self):
        return False
