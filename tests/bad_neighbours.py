"""Rankers that leave the process changed, and one whose scores depend on all that they can change.

Used by name: `plugins=["misbehaving", "bad_neighbours"]`.
"""

from __future__ import annotations

import builtins
import decimal
import gc
import json
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
import zlib
from dataclasses import dataclass

import misbehaving
import numpy as np
from misbehaving import note
from PIL import Image, ImageFile

import rankbench
import rankbench.worker


def forget(*_):
    """A handler of signals that does nothing."""


def lower_limit():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 10, hard))


def spoil_misbehaving():
    misbehaving.Steady.score = None
    misbehaving.note = None


def change_torch():
    import torch

    torch.set_default_dtype(torch.float64)
    torch.set_grad_enabled(False)
    torch.set_default_device("meta")
    torch.use_deterministic_algorithms(True)
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.benchmark = True


CHANGES = {
    "directory": (lambda: os.chdir(tempfile.gettempdir()), "the working directory is "),
    "environment": (lambda: os.environ.update(RANKBENCH_SEEN="1"), "environment variable RANKBENCH_SEEN was set"),
    "umask": (lambda: os.umask(0o077), "the umask is 63, was "),
    "limit": (lower_limit, "resource limit RLIMIT_NOFILE is "),
    "signal": (lambda: signal.signal(signal.SIGUSR1, forget), "the handler of SIGUSR1 is forget, was "),
    "alarm": (lambda: signal.setitimer(signal.ITIMER_REAL, 3600), "running timer ITIMER_REAL is True, was False"),
    "warnings": (lambda: warnings.filterwarnings("ignore", "a kangaroo"), "warnings filters changed"),
    "numpy": (lambda: np.seterr(divide="raise"), "numpy's treatment of floating-point errors divide is"),
    "decimal": (lambda: setattr(decimal.getcontext(), "prec", 5), "the decimal context is (5, "),
    "recursion": (lambda: sys.setrecursionlimit(900), "the recursion limit is 900, was "),
    "collection": (gc.disable, "garbage collection (on, thresholds) is (False, "),
    "pillow": (
        lambda: setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True),
        "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is True, was False",
    ),
    "pixels": (lambda: setattr(Image, "MAX_IMAGE_PIXELS", 5), "PIL.Image.MAX_IMAGE_PIXELS is 5, was "),
    "reader": (
        lambda: Image.register_open("PNG", forget, forget), "Pillow's reader of PNG is (<function forget"
    ),
    "global": (lambda: setattr(json, "loads", None), "json.loads was replaced"),
    "core": (lambda: setattr(rankbench.worker, "LOST_LIMIT", 1.0), "rankbench.worker.LOST_LIMIT was replaced"),
    "builtin": (lambda: setattr(builtins, "sorted", reversed), "builtins.sorted was replaced"),
    "clock": (lambda: (os.environ.update(TZ="Asia/Tokyo"), time.tzset()), "the time zone is (('JST', 'JST')"),
    "other": (spoil_misbehaving, ""),
    "torch": (change_torch, "torch's default dtype is torch.float64, was torch.float32"),
    "library": (lambda: __import__("bad_library"), ""),
    "nothing": (lambda: None, ""),
}  # fmt: skip


@dataclass
class Neighbour(rankbench.Ranker):
    """Changes something, or several things with + between them, and does not put it back."""

    how: str = "nothing"
    pixels: bool = False
    seeded = False
    learns = False

    def fit(self, images, pairs, run):
        note(event="fit", how=self.how)
        for one in self.how.split("+"):
            CHANGES[one][0]()
        if self.pixels:
            run.pixels(images, 4)[:]
        self.done_ = 1
        return self

    def score(self, images, run):
        return np.arange(len(images), dtype=np.float64)


def seen():
    """All that a neighbour may have changed."""
    own = os.path.basename(os.path.dirname(os.getcwd())).startswith("rankbench-run-")  # a worker's own folder
    state = [own or os.getcwd(), os.environ.get("RANKBENCH_SEEN"), os.environ.get("TZ"), time.tzname]
    state += [resource.getrlimit(resource.RLIMIT_NOFILE), signal.getsignal(signal.SIGUSR1) is forget]
    state += [any(signal.getitimer(signal.ITIMER_REAL)), len(warnings.filters), np.geterr()]
    state += [decimal.getcontext().prec, sys.getrecursionlimit(), gc.isenabled(), Image.MAX_IMAGE_PIXELS]
    state += [ImageFile.LOAD_TRUNCATED_IMAGES, Image.OPEN.get("PNG", [None])[0] is forget, json.loads is None]
    state += [rankbench.worker.LOST_LIMIT, builtins.sorted is reversed]
    mask = os.umask(0o022)
    os.umask(mask)
    return [*state, mask]


@dataclass
class Witness(rankbench.Ranker):
    """Scores that depend on all that a neighbour may have changed; `tag` makes it another cell."""

    tag: str = ""
    torch: bool = False
    seeded = False
    learns = False

    def fit(self, images, pairs, run):
        state = repr(seen())
        note(event="witness", tag=self.tag, state=state)
        self.sum_ = float(zlib.crc32(state.encode()))
        if self.torch:
            import torch

            weight = torch.ones(3, requires_grad=True)
            (weight * torch.tensor([1.0, 2.0, 3.0]) / 3).sum().backward()
            self.sum_ = float(weight.grad.double().sum())
        return self

    def score(self, images, run):
        return self.sum_ + np.arange(len(images))


@rankbench.hookimpl
def rankbench_rankers():
    return {"neighbour": Neighbour, "witness": Witness}
