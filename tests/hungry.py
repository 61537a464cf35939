"""Rankers that take a known amount of memory, each in another way: `plugins=["misbehaving", "hungry"]`."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass

import numpy as np
from misbehaving import note

import rankbench

SLEEPY = "import sys, time; held = bytearray(int(sys.argv[1])); held[::4096] = held[::4096]; time.sleep(0.6)"


@dataclass
class Hungry(rankbench.Ranker):
    """Takes so many MB in fit, as `how` says, and gives them back."""

    how: str = "array"
    mega: int = 40
    tag: str = ""
    seeded = False
    learns = False

    def fit(self, images, pairs, run):
        note(event="fit", how=self.how, tag=self.tag)
        getattr(self, self.how)(self.mega * 10**6, run)
        return self

    def score(self, images, run):
        return np.arange(len(images), dtype=np.float64)

    def array(self, size, run):
        np.ones(size, np.uint8).sum()

    def blocks(self, size, run):
        """Small ones, which the C library keeps when they are freed."""
        blocks = [np.ones(50_000, np.uint8) for _ in range(size // 50_000)]
        assert len(blocks) > 1

    def keeps(self, size, run):
        """In a cycle that only the garbage collector finds."""
        self.itself = self
        self.kept = np.ones(size, np.uint8)

    def child(self, size, run):
        subprocess.run([sys.executable, "-c", SLEEPY, str(size)], check=True)

    def library(self, size, run):
        import heavy_library

        assert heavy_library.table is not None
        self.array(size, run)

    def artefact(self, size, run):
        def build(run):
            self.array(3 * size, run)
            return {"rows": np.ones(10)}

        run.shared("artefact", {}, build)
        self.array(size, run)

    def slow(self, size, run):
        held = np.ones(size, np.uint8)
        time.sleep(0.1)
        del held


@rankbench.hookimpl
def rankbench_rankers():
    return {"hungry": Hungry}
