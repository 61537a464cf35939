"""What visual chains cost: the fast setting on shapes, and one image of the faithful one.

python tests/speed/xiao_lee.py
"""

import resource
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))


def main():
    from simple_run import SimpleRun
    from test_xiao_lee import outlined

    from rankbench_rankers.patch_maps import overlap
    from rankbench_rankers.ranksvm import RankSVM, accuracy
    from rankbench_rankers.xiao_lee import XiaoLee

    images, pairs, tested, test, boxes = outlined(1000, 0)
    run = SimpleRun()
    heads = f"{'fit, s':>8}{'score, ms/image':>17}{'accuracy':>10}{'found':>7}"
    print(f"{'shapes, cue = outline: 800 training images':46}{heads}")
    for label, ranker in (
        ("RankSVM on HOG and color (the global ranker)", RankSVM(XiaoLee().features, C=1.0)),
        ("xiao-lee, fast", XiaoLee(setting="fast")),
    ):
        began = time.perf_counter()
        ranker.fit(images, pairs, run)
        fitted = time.perf_counter()
        right = accuracy(ranker.score(tested, run), test)
        scored = (time.perf_counter() - fitted) / len(tested)
        share = ""
        if isinstance(ranker, XiaoLee):
            best = [row[0][1] for row in ranker.locate(tested, run)]
            shared = [overlap(np.array([box]), truth)[0] for box, truth in zip(best, boxes, strict=True)]
            share = f"{100 * np.mean(np.array(shared) >= 0.4):.0f} %"
        print(f"{label:46}{fitted - began:8.1f}{1000 * scored:17.1f}{100 * right:10.2f}{share:>7}", flush=True)
    some = pairs.take(np.arange(10))
    rows, place = np.unique([some.left, some.right]), np.full(len(images), -1)
    place[rows] = np.arange(len(rows))
    few, some = images.take(rows), some.reindexed(place)
    ranker = XiaoLee(weights="random", first_chains=5, offsets=1, ensemble=5)
    began = time.perf_counter()
    ranker.fit(few, some, run)
    each = (time.perf_counter() - began) / (5 * 2) / len(few)
    print(f"\nfaithful: {1000 * each:.0f} ms an image and chain (of 20 × 21); 5 × 2 chains on {len(few)} images")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
