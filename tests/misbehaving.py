"""Plugins that go wrong in every way a worker must survive, beside a tiny dataset and a ranker that behaves.

Used by name: `plugins=["misbehaving"]`. What a test wants to know of a fit, it reads from the file $FITS_LOG names.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from dataclasses import dataclass

import numpy as np

import rankbench


@dataclass(frozen=True)
class Tiny(rankbench.Dataset):
    """Grey 4 × 4 px images, drawn; the lighter shows more. `count` problems."""

    count: int = 1
    folder = ""

    def facets(self, root):
        return [{"problem": number} for number in range(self.count)]

    def problem(self, root, facets):
        rng = np.random.default_rng(facets["problem"])
        levels = rng.permutation(256)[:12]
        images = rankbench.Images.from_arrays([np.full((4, 4, 3), level, np.uint8) for level in levels])
        return rankbench.Problem(images, ordered(levels, 0, 8), ordered(levels, 8, 12), facets)


@dataclass(frozen=True)
class TinyFiles(rankbench.Dataset):
    """PNG files named after their grey level; those that begin with t are for testing."""

    get = "Draw them."

    def problems(self, root):
        paths = sorted(root.glob("*.png"))
        levels = np.array([int(path.stem.split("-")[1]) for path in paths])
        test = sum(path.name.startswith("t") for path in paths)
        images = rankbench.Images(paths)
        first = len(paths) - test
        yield rankbench.Problem(images, ordered(levels, 0, first), ordered(levels, first, len(paths)))


def ordered(levels, begin, end):
    a, b = np.triu_indices(end - begin, 1)
    a, b = a + begin, b + begin
    return rankbench.Pairs(a, b, np.sign(levels[a].astype(int) - levels[b]))


@dataclass
class Steady(rankbench.Ranker):
    """Mean brightness plus a little noise from the seed; takes `seconds`."""

    seconds: float = 0.0
    gpu: int = 0
    cores: int = 1
    noise: float = 0.01
    bytes: int = 0

    def resources(self):
        return rankbench.Resources(gpu=self.gpu, threads=self.cores)

    def fit(self, images, pairs, run):
        began = time.time()
        note(event="fit", seed=run.seed, problem=images.fingerprint[:8], device=run.device, began=began)
        run.log(0, loss=1.0)
        time.sleep(self.seconds)
        self.noise_ = self.noise * run.rng.random()
        self.ballast_ = np.ones(self.bytes, np.uint8)
        run.log(1, loss=0.5)
        threads, gpu = os.environ.get("OMP_NUM_THREADS"), os.environ.get("CUDA_VISIBLE_DEVICES")
        note(event="fitted", seed=run.seed, threads=threads, gpu=gpu, began=began, ended=time.time())
        return self

    def score(self, images, run):
        rng = np.random.default_rng(run.seed)
        return np.array([image.mean() for image in images]) * (1 + self.noise_) + 40 * rng.normal(size=len(images))


@dataclass
class Trouble(rankbench.Ranker):
    """Goes wrong, in fit, as `how` says."""

    how: str = "raises"
    learns = False

    def fit(self, images, pairs, run):
        note(event="fit", how=self.how, seed=run.seed)
        self.extra_ = np.zeros(1)
        getattr(self, self.how.replace("-", "_"))(images, run)
        return None if self.how == "returns-nothing" else self

    def score(self, images, run):
        scores = np.arange(len(images), dtype=np.float64)
        if self.how == "gives-nan":
            scores[1] = np.nan
        return {"wrong-shape": scores[:-1], "gives-words": scores.astype(str)}.get(self.how, scores)

    def tells_its_folder(self, images, run):
        note(event="folder", path=str(run.folder))

    def raises(self, images, run):
        raise ValueError("the loss is a kangaroo")

    def hangs(self, images, run):
        time.sleep(600)

    def kills_itself(self, images, run):
        os.kill(os.getpid(), signal.SIGKILL)

    def crashes(self, images, run):
        ctypes.string_at(0)

    def exits(self, images, run):
        sys.exit("enough")

    def leaves(self, images, run):
        print("goodbye from the plugin", file=sys.stderr, flush=True)
        os._exit(7)

    def leaves_children(self, images, run):
        if os.fork() == 0:  # a child that keeps the worker's pipes open
            note(event="child", pid=os.getpid())
            time.sleep(600)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGKILL)

    def forks(self, images, run):
        child = os.fork() == 0
        run.log(2 if child else 1, loss=1.0)
        note(event="forked", child=child)
        time.sleep(0 if child else 0.3)

    def forks_and_fails(self, images, run):
        if os.fork() == 0:
            raise ValueError("the child")
        time.sleep(0.3)

    def no_state(self, images, run):
        object.__setattr__(self, "state", lambda: None)

    def circular_state(self, images, run):
        loop = []
        loop.append(loop)
        object.__setattr__(self, "state", lambda: {"loop": loop})

    def odd_words(self, images, run):
        raise ValueError("no such file: caf\udce9.png")

    def prints(self, images, run):
        print('{"event": "end", "status": "failed", "message": "no answer of ours"}', flush=True)
        os.write(1, b"half a line")

    def prints_and_fails(self, images, run):
        print("." * 10_000)
        print("by print", flush=True)
        os.write(1, b"by a library")
        raise ValueError("after some words")

    def reads_input(self, images, run):
        note(event="read", text=sys.stdin.read())

    def keeps_objects(self, images, run):
        self.extra_ = np.array([object()])

    def keeps_checkpoints(self, images, run):
        with open(run.folder / "checkpoints", "a") as file:
            file.write("x")
        if os.path.getsize(run.folder / "checkpoints") < 2:
            os.kill(os.getpid(), signal.SIGKILL)
        note(event="folder", path=str(run.folder))

    def suits_nothing(self, images, run):
        raise rankbench.NotApplicable("needs a kangaroo")

    def wrong_shape(self, images, run):
        pass

    gives_nan = gives_words = returns_nothing = wrong_shape


@dataclass
class Decoder(rankbench.Ranker):
    """Decodes every image it is given, or with `pixels` asks the core to."""

    pixels: bool = False
    checkpoint: bool = False
    seeded = False

    def fit(self, images, pairs, run):
        found = self.checkpoint and (run.folder / "checkpoint").exists()
        note(event="fit", images=len(images), pairs=len(pairs), checkpoint=found)
        if self.checkpoint:
            (run.folder / "checkpoint").write_text("x")
        self.seen_ = float(np.mean(self._means(images, run)))
        return self

    def score(self, images, run):
        return self._means(images, run)

    def _means(self, images, run):
        if self.pixels:
            return run.pixels(images, 4)[:].astype(np.float64).mean(axis=(1, 2, 3))
        return np.array([image.mean() for image in images])


@dataclass
class Waiting(rankbench.Ranker):
    """Fits until a file is there: a test decides when."""

    file: str = ""
    seeded = False

    def fit(self, images, pairs, run):
        note(event="fit", pid=os.getpid(), runner=os.getppid())
        while not os.path.exists(self.file):
            time.sleep(0.01)
        return self

    def score(self, images, run):
        return np.arange(len(images), dtype=np.float64)


def note(**facts):
    """One line more in the append-only log."""
    path = os.environ.get("FITS_LOG")
    if path:
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, (json.dumps({"pid": os.getpid(), **facts}) + "\n").encode())
        os.close(handle)


@rankbench.hookimpl
def rankbench_datasets():
    return {"tiny": Tiny, "tiny-files": TinyFiles}


@rankbench.hookimpl
def rankbench_rankers():
    return {"steady": Steady, "trouble": Trouble, "decoder": Decoder, "waiting": Waiting}
