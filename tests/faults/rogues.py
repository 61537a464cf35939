"""Sixty ways to misbehave in `fit`: global state left changed, odd ends, foul answers, processes left behind.

Each function is one; its name, with hyphens, is the parameter `how` of the ranker `rogue`.
"""

from __future__ import annotations

import atexit
import builtins
import contextlib
import ctypes
import gc
import json
import locale
import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import dataclass

import numpy as np

import rankbench

WAYS = {}


def way(function):
    """One more of them."""
    WAYS[function.__name__.replace("_", "-")] = function
    return function


@dataclass
class Rogue(rankbench.Ranker):
    """Goes wrong as `how` says."""

    how: str
    learns = False

    def fit(self, images, pairs, run):
        self.extra_ = np.zeros(1)
        return WAYS[self.how](self, images, run) or self

    def score(self, images, run):
        if self.how == "kills-itself-in-score":
            os.kill(os.getpid(), signal.SIGKILL)
        return np.arange(len(images), dtype=np.float64)


# -- global state


@way
def changes_the_folder(self, images, run):
    os.chdir("/")


@way
def sets_variables(self, images, run):
    os.environ.update(OMP_NUM_THREADS="7", PYTHONHASHSEED="3", RANKBENCH_CACHE="/nowhere", TMPDIR="/nowhere")


@way
def clears_the_environment(self, images, run):
    os.environ.clear()


@way
def sets_the_umask(self, images, run):
    os.umask(0o777)


@way
def limits_open_files(self, images, run):
    resource.setrlimit(resource.RLIMIT_NOFILE, (32, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


@way
def limits_file_sizes(self, images, run):
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))


@way
def limits_memory(self, images, run):
    resource.setrlimit(resource.RLIMIT_AS, (2**28, 2**28))


@way
def ignores_signals(self, images, run):
    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGPIPE", "SIGCHLD"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)


@way
def blocks_signals(self, images, run):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})


@way
def sets_an_alarm(self, images, run):
    signal.alarm(1)


@way
def turns_warnings_into_errors(self, images, run):
    warnings.simplefilter("error")


@way
def raises_on_small_numbers(self, images, run):
    np.seterr(all="raise")


@way
def prints_arrays_short(self, images, run):
    np.set_printoptions(precision=1, threshold=2)


@way
def seeds_all_generators(self, images, run):
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002


@way
def sets_torchs_dtype(self, images, run):
    import torch

    torch.set_default_dtype(torch.float64)


@way
def sets_torchs_device(self, images, run):
    import torch

    torch.set_default_device("meta")


@way
def turns_gradients_off(self, images, run):
    import torch

    torch.set_grad_enabled(False)


@way
def sets_torchs_threads(self, images, run):
    import torch

    torch.set_num_threads(2 if torch.get_num_threads() == 1 else 1)


@way
def turns_determinism_on(self, images, run):
    import torch

    torch.use_deterministic_algorithms(True)
    torch.set_float32_matmul_precision("medium")


@way
def flushes_denormals(self, images, run):
    import torch

    torch.set_flush_denormal(True)


@way
def takes_cut_images(self, images, run):
    from PIL import Image, ImageFile

    ImageFile.LOAD_TRUNCATED_IMAGES = True
    Image.MAX_IMAGE_PIXELS = 1


@way
def spoils_a_module(self, images, run):
    import numpy.linalg

    numpy.linalg.norm = None
    json.detect_encoding = None


@way
def spoils_the_core(self, images, run):
    import rankbench.features

    rankbench.features.resize = lambda pixels, size, fit: np.zeros((size, size, 3), np.uint8)


@way
def spoils_another_plugin(self, images, run):
    import busy

    busy.moments = lambda images: np.zeros((len(images), 3))


@way
def spoils_builtins(self, images, run):
    builtins.sorted = lambda values, **_: list(values)


@way
def sets_the_locale(self, images, run):
    with contextlib.suppress(locale.Error):
        locale.setlocale(locale.LC_ALL, "C")


@way
def turns_the_collector_off(self, images, run):
    gc.disable()
    sys.setrecursionlimit(120)


@way
def changes_the_path(self, images, run):
    sys.path[:] = ["/nowhere"]


@way
def replaces_the_output(self, images, run):
    sys.stdout = sys.stderr = None


@way
def closes_the_output(self, images, run):
    os.close(1)
    os.close(2)


@way
def logs_everything(self, images, run):
    logging.disable(logging.CRITICAL)
    logging.getLogger().setLevel(1)


@way
def traces_everything(self, images, run):
    sys.settrace(lambda *_: None)
    threading.settrace(lambda *_: None)


@way
def sets_the_start_method(self, images, run):
    multiprocessing.set_start_method("fork", force=True)


@way
def sets_the_time_zone(self, images, run):
    os.environ["TZ"] = "Pacific/Apia"
    time.tzset()


# -- odd ends


@way
def raises(self, images, run):
    raise ValueError("a kangaroo")


@way
def raises_at_length(self, images, run):
    raise ValueError("\x1b[31mkangaroo\x07 " * 10_000)


@way
def raises_what_cannot_be_said(self, images, run):
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("not even that")

    raise Mute


@way
def is_interrupted(self, images, run):
    raise KeyboardInterrupt


@way
def exits(self, images, run):
    sys.exit(0)


@way
def ends_the_generator(self, images, run):
    raise GeneratorExit


@way
def leaves_at_once(self, images, run):
    os._exit(0)


@way
def kills_itself(self, images, run):
    os.kill(os.getpid(), signal.SIGKILL)


@way
def kills_itself_in_score(self, images, run):
    return None


@way
def crashes(self, images, run):
    ctypes.string_at(0)


@way
def aborts(self, images, run):
    os.abort()


@way
def recurses(self, images, run):
    return recurses(self, images, run)


@way
def runs_out_of_memory(self, images, run):
    raise MemoryError


@way
def hangs(self, images, run):
    time.sleep(600)


@way
def hangs_with_signals_blocked(self, images, run):
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    time.sleep(600)


@way
def stops_itself(self, images, run):
    os.kill(os.getpid(), signal.SIGSTOP)


@way
def is_interrupted_beside_a_thread(self, images, run):
    threading.Thread(target=time.sleep, args=(600,)).start()
    raise KeyboardInterrupt


@way
def leaves_beside_an_exit_hook(self, images, run):
    atexit.register(time.sleep, 600)
    raise SystemExit(3)


@way
def leaves_a_thread(self, images, run):
    threading.Thread(target=time.sleep, args=(600,)).start()


# -- foul answers


@way
def writes_garbage_everywhere(self, images, run):
    for handle in range(3, 64):
        with contextlib.suppress(OSError):
            if os.fstat(handle).st_mode & 0o170000 in (0o010000, 0o140000):  # pipes and sockets
                os.write(handle, b"\x00\xff this is no answer\n{}\n[1]\nnull\n")


@way
def forges_an_end(self, images, run):
    print('{"event": "end", "status": "done", "message": ""}', flush=True)
    os.write(1, b'{"event": "end"')


@way
def closes_everything(self, images, run):
    os.closerange(3, 256)


@way
def closes_its_input(self, images, run):
    os.close(0)


# -- what stays behind


@way
def leaves_children(self, images, run):
    subprocess.Popen(["sleep", "600"])


@way
def leaves_a_daemon(self, images, run):
    subprocess.Popen(["sleep", "600"], start_new_session=True)


@way
def forks_and_both_go_on(self, images, run):
    os.fork()


@way
def removes_its_folder(self, images, run):
    shutil.rmtree(run.folder)


@way
def fills_its_folder(self, images, run):
    (run.folder / "deep" / "deeper").mkdir(parents=True)
    (run.folder / "link").symlink_to("/")
    with socket.socket(socket.AF_UNIX) as ear, contextlib.suppress(OSError):
        ear.bind(str(run.folder / "s"))


@rankbench.hookimpl
def rankbench_rankers():
    return {"rogue": Rogue}
