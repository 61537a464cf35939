"""chance: repeatable from its seed, and near 50 %."""

import numpy as np
from simple_run import SimpleRun

import rankbench
from rankbench.testing import check_ranker
from rankbench_rankers.chance import Chance

IMAGES = rankbench.Images.from_names([str(row) for row in range(400)])


def test_repeats_itself_from_a_seed():
    one, two, other = (Chance().score(IMAGES, SimpleRun(seed)) for seed in (0, 0, 1))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_orders_half_the_pairs_right():
    scores = Chance().score(IMAGES, SimpleRun(3))
    left, right = np.triu_indices(len(IMAGES), 1)
    assert abs((scores[left] > scores[right]).mean() - 0.5) < 0.05
    assert len(np.unique(scores)) == len(scores)


def test_needs_no_pixels():
    assert not Chance().needs_images()


def test_conforms():
    check_ranker(Chance())
