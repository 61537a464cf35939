"""attribute-votes: which image is more viral, by a signed count of votes on other attributes."""

from dataclasses import dataclass

import numpy as np

import rankbench

SIGNS = (1, 1, -1, 1, -1)  # animal, synthetically generated, beautiful, explicit, sexual


@dataclass
class AttributeVotes(rankbench.Ranker):
    """The sign of a signed sum of votes on attributes, given with each pair; learns nothing and reads no pixels.

    Row "Human Annotated Atts.-5" of the paper: five relative attributes, voted by people, with signs + + − + −. A sum
    of 0 is a predicted tie, which pairwise-accuracy counts one half: the expectation of the authors' coin.
    Source: Deza & Parikh, CVPR 2015, and compute_virality_N_nodrop.m of their repository.

    Args: input, the pairs' evidence, (n, k) with +1 where the left image has more; signs, of each attribute towards the
        label; attributes, how many count, in order (None: all).
    """

    input: str = "attribute_votes"
    signs: tuple[int, ...] = SIGNS
    attributes: int | None = None

    learns = False
    seeded = False

    @property
    def inputs(self):
        return (self.input,)

    def needs_images(self):
        return False

    def fit(self, images, pairs, run):
        return self

    def compare(self, images, pairs, run):
        return signed_sum(votes_of(pairs, self.input, len(self.signs)), self.signs, self.attributes)


def votes_of(pairs, name, count):
    """(n, count) evidence of that name. NotApplicable where pairs have none, DataError where it has another shape."""
    if name not in pairs.inputs:
        raise rankbench.NotApplicable(f"needs pairs with the input {name!r}")
    votes = np.asarray(pairs.inputs[name], dtype=np.float64)
    if votes.ndim != 2 or votes.shape[1] != count:
        raise rankbench.DataError(f"input {name!r} must be (n, {count}), one number an attribute, not {votes.shape}.")
    return votes


def signed_sum(votes, signs, attributes=None):
    """(n,) sum of the first so many votes, each with its sign."""
    if attributes is not None and not 1 <= attributes <= len(signs):
        raise rankbench.DataError(f"attributes is {attributes}; there are {len(signs)}.")
    return votes[:, :attributes] @ np.asarray(signs[:attributes], dtype=np.float64)
