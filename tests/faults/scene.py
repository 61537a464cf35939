"""A folder with photographs, a benchmark, results and a cache, and the command that a user types there."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from dots import install
from tiny_runs import grey_files

HERE = Path(__file__).parent
LONGEST = 60  # seconds after which a command counts as hanging
BENCHMARK = """
title = "Faults"
dataset = "busy-files"
seeds = {seeds}
[[column]]
label = "Accuracy"
metric = "pairwise-accuracy"
[[column]]
label = "Tau"
metric = "pair-tau"
[[row]]
label = "Steady"
ranker = {{ name = "busy-steady", seconds = {seconds}, noise = 0.5, bytes = 5000 }}
[[row]]
label = "Busy"
ranker = {{ name = "busy", seconds = {seconds} }}
"""


class Scene:
    """One experiment: everything lies below `root`."""

    def __init__(self, root, seeds=(0, 1, 2), seconds=0.1):
        self.root = Path(root)
        self.results, self.cache, self.log = self.root / "results", self.root / "cache", self.root / "fits.log"
        self.file = self.root / "faults.toml"
        if not self.file.exists():
            self.root.mkdir(parents=True, exist_ok=True)
            install(self.root / "site", "busy-plugins", "1.0", {"busy": "busy"}, {})
            install(self.root / "site", "rogue-plugins", "1.0", {"rogues": "rogues"}, {})
            grey_files(self.root / "data" / "busy-files", 16, 12)
            self.file.write_text(BENCHMARK.format(seeds=list(seeds), seconds=seconds))
            old = time.time() - 100  # a file written just now is not remembered
            for path in (self.root / "data" / "busy-files").iterdir():
                os.utime(path, (old, old))

    def copy(self, root):
        """The same in another folder. Data is linked: it is what the results speak of."""
        shutil.copytree(self.root, root, symlinks=True, copy_function=shutil.copy2)
        return Scene(root)

    def environment(self):
        """Of a command that finds the plugins, keeps its private folders here and writes the log of fits."""
        paths = [str(self.root / "site"), str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
        own = {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "FITS_LOG": str(self.log),
            "RANKBENCH_SCRATCH": str(self.root / "scratch"),
            "TMPDIR": str(self.root / "temporary"),
            "CUDA_VISIBLE_DEVICES": "",
            "COLUMNS": "120",
        }
        (self.root / "temporary").mkdir(exist_ok=True)
        return {**os.environ, **own}

    def start(self, *words):
        """`rankbench WORDS` in this folder, running."""
        return subprocess.Popen(
            [str(Path(sys.executable).with_name("rankbench")), *map(str, words)],
            cwd=self.root,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    def wait(self, process):
        """Its end: exit code, standard output, standard error. AssertionError where it hangs."""
        try:
            out, error = process.communicate(timeout=LONGEST)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            time.sleep(0.5)
            process.kill()
            out, error = process.communicate()
            raise AssertionError(f"it hangs: no end after {LONGEST} s\n{out}\n{error}") from None
        return process.returncode, out, error

    def run(self, *words):
        """`rankbench run` to its end."""
        return self.wait(self.start("run", self.file, "--jobs", "2", "--format", "csv", *words))

    def notes(self, event="fit"):
        """What the plugins noted of one kind."""
        if not self.log.exists():
            return []
        return [line for line in map(json.loads, self.log.read_text().splitlines()) if line["event"] == event]

    def stored(self):
        """Bytes of every file of every stored cell, by place; what is done is never changed."""
        cells = self.results / "cells"
        files = [p for p in cells.rglob("*") if p.is_file() and not p.relative_to(cells).parts[0].startswith(".")]
        found = {}
        for path in files:
            with contextlib.suppress(FileNotFoundError):
                found[str(path.relative_to(cells))] = path.read_bytes()
        return found

    def scores(self):
        """Stored scores of each cell, by key."""
        from rankbench.store import ResultStore

        store = ResultStore(self.results)
        return {key: store.outcome(key, "test").scores.tobytes() for key, _ in store.records()}

    def alive(self):
        """Processes that belong to the scene."""
        mark = f"FITS_LOG={self.log}".encode()
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (place / "environ").read_bytes().split(b"\0"):
                    found.append((int(place.name), (place / "cmdline").read_bytes()))
        return found

    def left_alone(self, seconds=5.0):
        """AssertionError where a process of the scene lives on."""
        until = time.monotonic() + seconds
        while there := self.alive():
            assert time.monotonic() < until, f"processes live on: {there}"
            time.sleep(0.05)
