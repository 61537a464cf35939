"""Start-up times of the command, in seconds: the median of several runs of each.

    python tests/speed/startup.py [RUNS]

A store with one small benchmark is made first, so that `rankbench table` has something to draw.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = (["--help"], ["list", "rankers"], ["table"])
LIMITS = (0.1, 0.15, 0.3)
PICTURES = 12
BENCHMARK = """
title = "Grey squares"
dataset = { name = "manifest", folder = "." }
metric = "pairwise-accuracy"
[[column]]
label = "Brightness"
[[row]]
label = "Chance"
ranker = "chance"
"""


def prepare(folder):
    """Data, and a run of a small benchmark over it."""
    data = folder / "data"
    data.mkdir()
    for k in range(PICTURES):
        (data / f"{k}.pgm").write_bytes(b"P5 8 8 255\n" + bytes([20 * k]) * 64)
    lines = ["path,score,split", *(f"{k}.pgm,{k},{'train' if k % 2 else 'test'}" for k in range(PICTURES))]
    (data / "images.csv").write_text("\n".join(lines) + "\n")
    (folder / "grey.toml").write_text(BENCHMARK)
    subprocess.run(["rankbench", "run", "grey.toml"], cwd=folder, check=True, capture_output=True)


def main():
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    with tempfile.TemporaryDirectory() as name:
        prepare(Path(name))
        for command, limit in zip(COMMANDS, LIMITS, strict=True):
            seconds = []
            for _ in range(runs):
                began = time.perf_counter()
                subprocess.run(["rankbench", *command], cwd=name, check=True, capture_output=True)
                seconds.append(time.perf_counter() - began)
            median, worst = statistics.median(seconds), max(seconds)
            print(f"rankbench {' '.join(command):<13} {median:.2f} s (worst {worst:.2f} s, limit {limit} s)")


if __name__ == "__main__":
    main()
