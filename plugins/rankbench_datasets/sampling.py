"""How every dataset here draws splits, and pairs from scores: seeded, without repeats, as arrays."""

from dataclasses import dataclass

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


def pairs_by_score(scores, rows, ordered=None, ties=0, rng=None, min_gap=0.0):
    """Pairs of the images `rows`, labelled by which score is higher; no pair twice, the lower row left.

    Both kinds are counted and drawn by number, so that a million images cost no more memory than the pairs drawn.

    Args: scores, (images,) finite; rows, (n,) images to pair; ordered, ties: how many pairs of each kind are drawn
    uniformly (None, or more than there are: all of them); rng, where fewer are drawn than there are; min_gap, what
    the scores of an ordered pair differ by at least.
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
    beaten = lower if not min_gap else np.minimum(lower, np.searchsorted(ascending, ascending - min_gap, side="right"))
    found = (drawn(beaten, ordered, rng), drawn(equal, ties, rng))  # in this order: the generator is used up as it goes
    size = sum(map(len, found))
    left, right, label = np.empty(size, np.int32), np.empty(size, np.int32), np.empty(size, np.int8)
    done = 0
    for which, numbers in enumerate(found):
        for number in numbers.blocks():
            high, below = numbers.pair(number)
            first, second = rows[high], rows[below + lower[high] if which else below]
            here = slice(done, done := done + len(number))
            np.minimum(first, second, out=left[here], casting="same_kind")
            np.maximum(first, second, out=right[here], casting="same_kind")
            label[here] = 0 if which else np.where(first < second, 1, -1)
    return rankbench.Pairs(left, right, label)


def drawn(partners, count, rng):
    """Draw `count` of the sum(partners) pairs in which image i has partners[i] partners (None, or too many: all)."""
    ends = np.cumsum(partners)
    total = int(ends[-1]) if len(ends) else 0
    every = count is None or count >= total
    return Drawn(ends, partners, range(total) if every else distinct(count, total, rng))


@dataclass(frozen=True)
class Drawn:
    """Numbers of pairs, ascending: pairs are counted image by image, those of image i from ends[i] - partners[i]."""

    ends: np.ndarray
    partners: np.ndarray
    numbers: object  # a range, a mask over all pairs, or (count,) int64

    def __len__(self):
        return int(np.count_nonzero(self.numbers)) if self._mask else len(self.numbers)

    @property
    def _mask(self):
        return isinstance(self.numbers, np.ndarray) and self.numbers.dtype == bool

    def blocks(self, size=2**20):
        """The numbers, so many at a time: ten million take more memory than the pairs they stand for."""
        for begin in range(0, len(self.numbers), size):
            part = self.numbers[begin : begin + size]
            yield begin + np.flatnonzero(part) if self._mask else np.asarray(part)

    def pair(self, number):
        """The image and the number of its partner."""
        image = np.searchsorted(self.ends, number, side="right")
        return image, number - (self.ends[image] - self.partners[image])


def distinct(count, total, rng):
    """`count` distinct integers below `total`, every set equally likely: (count,) ascending, or a (total,) mask.

    Memory goes with `count`, whatever the total.
    """
    if count > total // 2:
        return ~as_mask(distinct(total - count, total, rng), total)
    chosen = np.zeros(total, bool) if total <= 64 * count else np.zeros(0, np.int64)
    while (missing := count - (np.count_nonzero(chosen) if chosen.dtype == bool else len(chosen))) > 0:
        for size in [2**20] * (missing // 2**20) + [missing % 2**20]:
            more = rng.integers(total, size=size, dtype=np.int64)
            if chosen.dtype == bool:
                chosen[more] = True
            else:
                chosen = np.union1d(chosen, more)
    return chosen


def as_mask(numbers, total):
    """(total,) whether each is among the numbers, given as such or as a mask."""
    if numbers.dtype == bool:
        return numbers
    mask = np.zeros(total, bool)
    mask[numbers] = True
    return mask
