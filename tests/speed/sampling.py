"""Ten million pairs of virality as arrays: `python tests/speed/sampling.py --data FOLDER`.

FOLDER holds `virality/`. Goals: 10 million training and 1 million test pairs in 5 s and 300 MB above the imports.
Besides: what the canonical form and the fingerprint of the problem take.
"""

import resource
import sys
import time
from pathlib import Path

import scipy.io  # noqa: F401  imported before the clock starts

from rankbench_datasets.virality import Virality


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def main():
    root = Path(sys.argv[sys.argv.index("--data") + 1]) / "virality"
    before, began = peak(), time.perf_counter()
    problem = Virality().problem(root, {"split": 0})
    sizes = ", ".join(f"{name} {len(pairs):,}" for name, pairs in problem.tests.items())
    print(f"train {len(problem.train):,}, {sizes}")
    print(f"problem: {time.perf_counter() - began:.1f} s, {peak() - before:.0f} MB above the imports")
    began = time.perf_counter()
    canonical = problem.canonical()
    mark = canonical.fingerprint
    seconds = time.perf_counter() - began
    print(f"canonical form and fingerprint {mark[:8]}: {seconds:.1f} s, {peak() - before:.0f} MB in all")


if __name__ == "__main__":
    main()
