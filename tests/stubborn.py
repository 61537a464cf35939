"""Plugins that do not let go: of a process, of the descriptor its answers go through, of a signal, of a child.

Used by name (`plugins=["stubborn"]`) or installed; the dataset and the log of events are those of misbehaving.py.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import re
import select
import signal
import stat
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import misbehaving
import numpy as np
from misbehaving import note

import rankbench
from rankbench import claims, supervisor

if "STUBBORN_SILENCE" in os.environ:  # tests need not wait as long as users
    claims.SILENCE = float(os.environ["STUBBORN_SILENCE"])
    claims.HEARTBEAT = claims.SILENCE / 10
if "STUBBORN_GRACE" in os.environ:
    supervisor.GRACE = float(os.environ["STUBBORN_GRACE"])


class Whim(BaseException):
    """What no `except Exception` catches."""


def forever():
    while True:
        time.sleep(60)


class Clinging:
    def __del__(self):
        forever()


@dataclass
class Stubborn(rankbench.Ranker):
    """Does, in fit unless it says otherwise, as `how` says."""

    how: str = ""
    file: str = ""
    learns = False
    seeded = False

    def fit(self, images, pairs, run):
        note(event="fit", how=self.how, runner=os.getppid())
        self.extra_ = np.zeros(1)
        getattr(self, self.how.replace("-", "_"), lambda run: None)(run)
        return self

    def score(self, images, run):
        if self.how == "whim-in-score":
            raise Whim("not now")
        return np.arange(len(images), dtype=np.float64)

    def state(self):
        if self.how == "whim-in-state":
            raise GeneratorExit("not now")
        return super().state()

    # -- other exceptions, and what keeps a process

    def interrupts_and_stays(self, run):
        threading.Thread(target=forever).start()
        atexit.register(forever)
        raise KeyboardInterrupt

    def stays(self, run):
        threading.Thread(target=forever).start()
        atexit.register(forever)

    def dies_later(self, run):
        """Between this cell and the next."""
        threading.Timer(0.4, os._exit, (9,)).start()

    def clings(self, run):
        object.__setattr__(self, "_clinging", Clinging())

    def swallows(self, run):
        while True:
            with contextlib.suppress(BaseException):
                note(event="swallows")
                forever()

    # -- the descriptor of the answers

    def writes_a_line(self, run):
        scribble(b"Intel MKL WARNING: no such device\n")
        forever()

    def writes_half_a_line(self, run):
        scribble(b"half a line")

    def writes_without_end(self, run):
        while True:
            scribble(b"\0\xff" * 2**19)

    def writes_another_end(self, run):
        scribble(json.dumps({"key": "0" * 64, "event": "end", "status": "failed", "message": "no"}).encode() + b"\n")

    def closes_all(self, run):
        os.closerange(3, 4096)

    def mutes(self, run):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if int(name) > 2 and stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                    os.dup2(nowhere, int(name))
        forever()

    # -- children

    def leaves_a_daemon(self, run):
        daemon(run)
        os.kill(os.getpid(), signal.SIGKILL)

    def starts_a_daemon(self, run):
        daemon(run)
        while not os.path.exists(self.file):
            time.sleep(0.01)

    def starts_a_clean_daemon(self, run):
        """Another session, no parent, another program, and nothing in its environment."""
        code = "import os, time\nif not os.fork():\n os.setsid()\n print(os.getpid(), flush=True)\n time.sleep(600)"
        program = subprocess.Popen([sys.executable, "-c", code], env={}, stdout=subprocess.PIPE)
        pid = int(program.stdout.readline())
        program.wait()
        note(event="daemon", pid=pid)
        while not os.path.exists(self.file):
            time.sleep(0.01)

    def stands_in_c(self, run):
        """No other thread of the process runs meanwhile."""
        note(event="stands")
        re.match("(a+)+$", "a" * 100 + "b")

    def waits(self, run):
        folder = run.folder
        while not os.path.exists(self.file):
            time.sleep(0.01)
        note(event="goes-on")
        (folder / "checkpoint").write_text("")


def daemon(run):
    """A process of another session, whose parent has gone, that keeps all pipes open."""
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        note(event="daemon", pid=os.getpid())
        os.write(write, b"x")
        forever()
    os.wait()
    os.read(read, 1)


def scribble(data):
    """Into every pipe or socket of this process that can be written, but for its standard streams."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            kind = os.fstat(int(name)).st_mode
            if int(name) > 2 and (stat.S_ISSOCK(kind) or stat.S_ISFIFO(kind)):
                select.select([], [int(name)], [], 0)
                os.write(int(name), data)


@dataclass(frozen=True)
class SlowToRead(misbehaving.Tiny):
    """Never done reading. `how`: "swallows" every exception, or "computes" in C code."""

    how: str = "swallows"

    def problem(self, root, facets):
        note(event="reading")
        while self.how == "swallows":
            with contextlib.suppress(BaseException):
                forever()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**30)


class SlowToJudge(rankbench.Metric):
    """Never done computing."""

    def __call__(self, judged):
        note(event="judging")
        while True:
            with contextlib.suppress(BaseException):
                forever()


@rankbench.hookimpl
def rankbench_datasets():
    return {"slow-to-read": SlowToRead}


@rankbench.hookimpl
def rankbench_metrics():
    return {"slow-to-judge": SlowToJudge}


@rankbench.hookimpl
def rankbench_rankers():
    return {"stubborn": Stubborn}
