"""Runs of tiny benchmarks with the plugins of misbehaving.py: what the tests of runner and worker share."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import rankbench
from rankbench.files import canonical_json
from rankbench.store import ResultStore

TESTS = Path(__file__).parent


class TinyRuns:
    """A folder with benchmark files, results, a cache and the log of fits."""

    def __init__(self, root, monkeypatch=None):
        self.root = root
        self.results, self.cache, self.data = root / "results", root / "cache", root / "data"
        self.data.mkdir(exist_ok=True)
        self.log = root / "fits.log"
        self.store = ResultStore(self.results)
        if monkeypatch is not None:
            monkeypatch.setenv("FITS_LOG", str(self.log))

    def write(self, rows, seeds=(0,), count=1, dataset=None, **top):
        """A benchmark file. `rows` are rankers by label: a mapping with a name, and perhaps a timeout."""
        dataset = dataset or {"name": "tiny", "count": count}
        lines = ['title = "Tiny"', f"dataset = {table(dataset)}", 'metric = "pairwise-accuracy"']
        lines += [f"seeds = {list(seeds)}", *(f"{key} = {json.dumps(value)}" for key, value in top.items())]
        lines += ["[[column]]", 'label = "Light"']
        for label, ranker in rows.items():
            limit = {key: ranker[key] for key in ("timeout", "threads") if key in ranker}
            rest = {key: value for key, value in ranker.items() if key not in limit}
            lines += ["[[row]]", f"label = {json.dumps(label)}", f"ranker = {table(rest)}"]
            lines += [f"{key} = {value}" for key, value in limit.items()]
        path = self.root / "tiny.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def options(self, **options):
        places = {"data": self.data, "results": self.results, "cache": self.cache}
        return {**places, "jobs": 1, "device": "cpu", "plugins": ["misbehaving"], "quiet": True, **options}

    def run(self, rows, seeds=(0,), count=1, dataset=None, top=(), **options):
        """Run it through worker processes, or with in_process=True in this one."""
        return rankbench.run(self.write(rows, seeds, count, dataset, **dict(top)), **self.options(**options))

    def start(self, path, *lines, capture=True, **options):
        """A runner in a process of its own: `rankbench.run` with these options, which prints statuses and exits."""
        script = (
            "import json, sys, rankbench, rankbench.cli, signal\n"
            "result = rankbench.run(sys.argv[1], **json.loads(sys.argv[2]))\n"
            "print(json.dumps([[cell.title, cell.status] for cell in result.cells]))\n"
            "sys.exit(result.exit_code)\n"
        )
        chosen = {
            key: str(value) if isinstance(value, Path) else value for key, value in self.options(**options).items()
        }
        pipe = subprocess.PIPE if capture else None
        return subprocess.Popen(
            [sys.executable, "-c", script, str(path), json.dumps(chosen)],
            env=environment(FITS_LOG=str(self.log)),
            stdout=pipe,
            stderr=pipe,
            text=True,
            cwd=self.root,
        )

    def notes(self, event="fit"):
        """What the plugins noted of one kind."""
        if not self.log.exists():
            return []
        return [line for line in map(json.loads, self.log.read_text().splitlines()) if line["event"] == event]

    def wait_for(self, event, count=1, seconds=30):
        """Until so many notes of one kind are there."""
        deadline = time.time() + seconds
        while len(self.notes(event)) < count:
            assert time.time() < deadline, f"only {len(self.notes(event))} notes of {event!r}"
            time.sleep(0.01)
        return self.notes(event)

    def stored(self):
        """Bytes of every file of every stored cell."""
        cells = self.results / "cells"
        files = [p for p in cells.rglob("*") if p.is_file() and not p.relative_to(cells).parts[0].startswith(".")]
        return {str(path.relative_to(cells)): path.read_bytes() for path in files}

    def scores(self):
        """Stored scores by row, facets and seed."""
        found = {}
        for key, record in self.store.records():
            name = canonical_json([record["row"], record["facets"], record["seed"]])
            found[name] = self.store.outcome(key, "test").scores.tobytes()
        return found


def environment(**more):
    """The environment of a process that finds the tests' plugin modules."""
    paths = [str(TESTS), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p), "CUDA_VISIBLE_DEVICES": "", **more}


def table(values):
    """An inline TOML table."""
    return "{ " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in values.items()) + " }"


def stored_before(folder, change=lambda record: None):
    """A cell's folder as a release without checksums would have stored it, its record changed."""
    record = json.loads((folder / "record.json").read_text())
    change(record)
    record.pop("checksums", None)
    (folder / "record.json").write_text(json.dumps(record))
    (folder / "checksums.json").unlink(missing_ok=True)


def only(result):
    """The one cell of a result."""
    (cell,) = result.cells
    return cell


def grey_files(folder, train=30, test=12):
    """PNG files of one grey level each."""
    from PIL import Image

    folder.mkdir(parents=True)
    for at, level in enumerate(np.random.default_rng(0).permutation(256)[: train + test]):
        kind = "a" if at < train else "t"
        Image.new("RGB", (8, 8), (int(level),) * 3).save(folder / f"{kind}{at:02d}-{level}.png")
