"""How every dataset here draws splits, and pairs from scores: seeded, without repeats, as arrays."""

import numpy as np

import rankbench


def seeded(*numbers):
    """The generator that these numbers stand for; DataError for a negative one."""
    if min(numbers) < 0:
        raise rankbench.DataError(f"a seed is {min(numbers)}; give 0 or more.")
    return np.random.default_rng(numbers)


def split_images(count, test_share, rng):
    """Rows for training and rows for test, each ascending: a random split of `count` images."""
    order = rng.permutation(count)
    tested = round(test_share * count)
    return np.sort(order[tested:]), np.sort(order[:tested])


def pairs_by_score(scores, rows, ordered=None, ties=0, rng=None):
    """Pairs of the images `rows`, labelled by which score is higher; no pair twice, the lower row left.

    Both kinds are counted and drawn by number, so that a million images cost no more memory than the pairs drawn.

    Args: scores, (images,) finite; rows, (n,) images to pair; ordered, ties: how many pairs of each kind are drawn
    uniformly (None, or more than there are: all of them); rng, where fewer are drawn than there are.
    Raises: DataError for a negative number.
    """
    for count in (ordered, ties):
        if count is not None and count < 0:
            raise rankbench.DataError(f"the number of pairs to draw is {count}; give 0 or more.")
    rows = np.asarray(rows)
    rows = rows[np.argsort(scores[rows], kind="stable")]  # (n,) ascending in score
    ascending = scores[rows]
    lower = np.searchsorted(ascending, ascending)  # (n,) how many images score lower: they come first
    equal = np.arange(len(rows)) - lower  # (n,) how many of the same score come before
    high, below = numbered(lower, ordered, rng)
    later, before = numbered(equal, ties, rng)
    first = rows[np.concatenate([high, later])]
    second = rows[np.concatenate([below, lower[later] + before])]
    label = np.repeat(np.array([1, 0], np.int8), [len(high), len(later)])
    left, right = np.minimum(first, second), np.maximum(first, second)
    return rankbench.Pairs(
        left.astype(np.int32), right.astype(np.int32), np.where(first < second, label, -label).astype(np.int8)
    )


def numbered(partners, count, rng):
    """Draw `count` of the sum(partners) pairs in which image i has partners[i] partners: the image, the partner."""
    ends = np.cumsum(partners)
    total = int(ends[-1]) if len(ends) else 0
    drawn = np.arange(total) if count is None or count >= total else distinct(count, total, rng)
    image = np.searchsorted(ends, drawn, side="right")
    return image, drawn - (ends - partners)[image]


def distinct(count, total, rng):
    """(count,) ascending distinct integers below `total`, every set equally likely; memory goes with `count`."""
    if count > total // 2:
        left_out = np.ones(total, bool)
        left_out[distinct(total - count, total, rng)] = False
        return np.flatnonzero(left_out)
    drawn = np.zeros(0, np.int64)
    while len(drawn) < count:
        drawn = np.union1d(drawn, rng.integers(total, size=count - len(drawn), dtype=np.int64))
    return drawn
