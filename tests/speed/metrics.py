"""How fast a metric judges three million pairs, beside the plain way to compute the same number.

python tests/speed/metrics.py
"""

import resource
import time

import numpy as np

from rankbench import Judged
from rankbench_metrics.accuracy import PairwiseAccuracy
from rankbench_metrics.correlation import PairTau

PAIRS, IMAGES = 3_000_000, 100_000


def seconds(work, repeats):
    best = np.inf
    for _ in range(repeats):
        began = time.perf_counter()
        value = work()
        best = min(best, time.perf_counter() - began)
    return best, value


def main():
    from scipy.stats import kendalltau

    rng = np.random.default_rng(0)
    truth = rng.standard_normal(IMAGES)
    scores = truth + rng.standard_normal(IMAGES)
    left = rng.integers(0, IMAGES, PAIRS)
    right = (left + rng.integers(1, IMAGES, PAIRS)) % IMAGES
    labels = np.sign(np.round(truth[left] - truth[right], 1)).astype(np.int8)

    def judged():
        return Judged(scores[left] - scores[right], labels)

    def plain_accuracy():
        margins, ordered = scores[left] - scores[right], labels != 0
        return float(np.mean(np.sign(margins[ordered]) == labels[ordered]))

    def plain_tau():  # each pair from both sides, as pair-tau counts it
        margins = scores[left] - scores[right]
        return kendalltau(np.concatenate([margins, -margins]), np.concatenate([labels, -labels])).statistic

    print(f"{'3,000,000 pairs, from image scores':38}{'seconds':>9}{'reference':>11}{'ratio':>8}{'value':>10}")
    for name, metric, plain, repeats in (
        ("pairwise-accuracy (numpy)", PairwiseAccuracy(), plain_accuracy, 3),
        ("pair-tau (scipy.stats.kendalltau)", PairTau(), plain_tau, 1),
    ):
        ours, value = seconds(lambda metric=metric: metric(judged()), 3)
        reference, expected = seconds(plain, repeats)
        assert abs(value - expected) < 1e-9, (name, value, expected)
        print(f"{name:38}{ours:9.3f}{reference:11.3f}{reference / ours:7.1f}×{value:10.4f}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB, scipy's included")


if __name__ == "__main__":
    main()
