"""How fast RankSVM trains, and in how much memory.

    python tests/speed/ranksvm.py                     # ten million pairs, and LinearSVC as the reference
    python tests/speed/ranksvm.py --disk FOLDER       # 4 GB of memory-mapped features, written to FOLDER for the time

Data: seeded ReLU Gaussian features, L2-normalised rows, noisy linear scores. Each line of the table runs in a process
of its own; memory is what it takes above features and pairs.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

THREADS = 2
GOAL = 1e-4  # of the gradient at w = 0


def features(images, dimensions, seed=0):
    """(images, dimensions) float32, and noisy linear scores."""
    rng = np.random.default_rng(seed)
    x = np.maximum(rng.standard_normal((images, dimensions), dtype=np.float32), 0)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    scores = x @ rng.standard_normal(dimensions, dtype=np.float32)
    return x, scores + scores.std() / 2 * rng.standard_normal(images)


def judged(scores, count, seed=1):
    """Distinct ordered pairs in canonical order, as the core hands them over, sides by chance."""
    import rankbench

    rng, n = np.random.default_rng(seed), len(scores)
    code = np.unique(rng.integers(0, n * (n - 1) // 2, count + count // 3))
    code = np.sort(rng.permutation(code)[:count])
    first = np.searchsorted(np.cumsum(np.arange(n - 1, 0, -1)), code, side="right")
    second = code - (first * (2 * n - first - 1)) // 2 + first + 1
    flip = rng.random(len(code)) < 0.5
    left, right = (np.where(flip, *two).astype(np.int32) for two in ((second, first), (first, second)))
    return rankbench.Pairs(left, right, np.sign(scores[left] - scores[right]).astype(np.int8))


def memory(name):
    """A line of /proc/self/status in GB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / 1e9


class Peak(threading.Thread):
    """Highest anonymous memory while it runs, sampled."""

    def __init__(self):
        super().__init__(daemon=True)
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what making the data left behind is not to hide what training takes
        self.start_at, self.gb, self.stop = memory("RssAnon"), 0.0, False

    def run(self):
        while not self.stop:
            self.gb = max(self.gb, memory("RssAnon"))
            time.sleep(0.01)

    @property
    def above(self):
        return self.gb - self.start_at


def trained(rows, pairs, cost, threads):
    """Seconds, peak anonymous GB above the start, and the solution."""
    from rankbench_rankers.feature_matrix import matrix
    from rankbench_rankers.ranking_newton import Judgements, minimize

    peak = Peak()
    peak.start()
    began = time.perf_counter()
    x = matrix(rows, "float32")
    solution = minimize(x, Judgements(x.shape[0], pairs, cost, cost, "float32", threads), tolerance=GOAL)
    seconds = time.perf_counter() - began
    peak.stop = True
    return {"seconds": seconds, "gb": peak.above, "gradient": solution.gradient, "steps": solution.steps}, solution


def ten_million():
    x, scores = features(8062, 4096)
    found, _ = trained(x, judged(scores, 10_000_000), 0.01, THREADS)
    return found


def objective(x, pairs, weights, cost):
    scores = x.astype(np.float64) @ weights
    gap = pairs.label * (scores[pairs.left] - scores[pairs.right])
    return weights @ weights / 2 + cost / 2 * (np.maximum(0, 1 - gap) ** 2).sum()


def against_linear_svc(images):
    """10,000 pairs: ours, and LinearSVC on the differences (C halved, so that both minimise the same)."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    x, scores = features(images, 4096)
    pairs, cost = judged(scores, 10_000), 0.01
    ours, solution = min((trained(x, pairs, cost, THREADS) for _ in range(3)), key=lambda one: one[0]["seconds"])
    began = time.perf_counter()
    gaps = x[pairs.left] - x[pairs.right]  # label −1 is the other class: the objective is the same as with flipped gaps
    model = LinearSVC(C=cost / 2, loss="squared_hinge", fit_intercept=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(gaps, pairs.label)
    theirs = time.perf_counter() - began
    values = [objective(x, pairs, weights, cost) for weights in (solution.weights, model.coef_[0].astype(np.float64))]
    return ours | {"reference": theirs, "excess": values[0] / min(values) - 1}


def on_disk(folder, images=2_000_000, dimensions=512, count=5_000_000):
    """Features that lie in a file, in blocks as the core's row stores hand them out."""
    rng = np.random.default_rng(0)
    path = Path(folder) / "features.npy"
    store = np.lib.format.open_memmap(path, "w+", np.float32, (images, dimensions))
    direction, scores = rng.standard_normal(dimensions, dtype=np.float32), np.empty(images)
    try:
        for begin in range(0, images, 20_000):
            block = np.maximum(rng.standard_normal((20_000, dimensions), dtype=np.float32), 0)
            block /= np.linalg.norm(block, axis=1, keepdims=True)
            store[begin : begin + 20_000], scores[begin : begin + 20_000] = block, block @ direction
        store.flush()
        left = np.sort(rng.integers(0, images, count)).astype(np.int32)
        right = ((left + rng.integers(1, images, count)) % images).astype(np.int32)
        import rankbench
        from rankbench.features import StoredRows

        del store
        mapped = np.load(path, mmap_mode="r")
        where = np.stack([np.zeros(images, np.int64), np.arange(images)], axis=1)
        pairs = rankbench.Pairs(left, right, np.sign(scores[left] - scores[right]).astype(np.int8))
        return trained(StoredRows([mapped], where, False), pairs, 0.01, THREADS)[0]
    finally:
        path.unlink()


def apart(*arguments):
    """The figures of one line, measured in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "OPENBLAS_NUM_THREADS": str(THREADS)}
    done = subprocess.run(
        [sys.executable, __file__, "--line", *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--disk", metavar="FOLDER", help="measure features on disk; 4 GB are written here and removed")
    parser.add_argument("--line", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.line:
        name, *rest = arguments.line
        lines = {"ten": ten_million, "svc": lambda images: against_linear_svc(int(images)), "disk": on_disk}
        print(json.dumps(lines[name](*rest)))
        return
    head = f"{'':52}{'seconds':>9}{'ratio':>9}{'GB above':>10}{'gradient':>10}"
    print(head, "-" * len(head), sep="\n")

    def line(label, found):
        ratio = f"{found['reference'] / found['seconds']:.0f} ×" if "reference" in found else ""
        print(f"{label:52}{found['seconds']:9.3f}{ratio:>9}{found['gb']:10.2f}{found['gradient']:10.1e}")
        if "reference" in found:
            excess = f"objective {found['excess']:+.1e}"
            print(f"{'  LinearSVC on the differences; ' + excess:52}{found['reference']:9.3f}")

    if arguments.disk:
        with tempfile.TemporaryDirectory(dir=arguments.disk) as folder:
            line("2,000,000 images × 512 on disk, 5,000,000 pairs", apart("disk", folder))
        return
    line("8,062 images × 4,096, 10,000,000 pairs", apart("ten"))
    for images in (500, 2000, 8062):
        line(f"{images:,} images × 4,096, 10,000 pairs", apart("svc", images))


if __name__ == "__main__":
    main()
