"""Loads a manifest of 2.3 million images, and problems of 100 users: `python tests/speed/popularity.py`.

Goals: the first problem in under 10 s and 1 GB above the imports; each further one under 20 ms.
"""

import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas  # noqa: F401  imported before the clock starts: the goal is about the data

from rankbench_datasets.popularity import Popularity, read

IMAGES, USERS = 2_300_000, 100


def write(path, images, users):
    rng = np.random.default_rng(0)
    user, score = rng.integers(users, size=images), rng.normal(5, 2, images)
    with open(path, "w") as file:
        file.write("image,user,score\n")
        for begin in range(0, images, 100_000):
            part = range(begin, min(images, begin + 100_000))
            file.writelines(f"{k % 977:03}/{k:010}.jpg,{90_000 + user[k]}@N00,{score[k]:.6f}\n" for k in part)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


with tempfile.TemporaryDirectory() as folder:
    root = Path(folder)
    write(root / "popularity.csv", IMAGES, USERS)
    time.sleep(2.1)  # what was written just now is not remembered
    before, began = peak(), time.perf_counter()
    problem = Popularity("user-mix").problem(root, {"split": 0})
    spent = time.perf_counter() - began
    print(
        f"{IMAGES:,} rows: {spent:.1f} s, {peak() - before:.2f} GB above {before:.2f}; {len(problem.images):,} images"
    )
    dataset = Popularity("user-specific", splits=1)
    facets = dataset.facets(root)
    began = time.perf_counter()
    for one in facets:
        dataset.problem(root, one)
    print(f"{len(facets)} users: {1000 * (time.perf_counter() - began) / len(facets):.1f} ms each")
    assert len(read(root).score) == IMAGES
