"""Hands cells to worker processes as CPU threads and GPUs come free, and survives whatever becomes of the workers.

A worker that dies or outlasts the time limit ends its own cell alone: the failure is recorded here, and the next cell
gets a new process. Slots are counted in CPU threads and GPUs.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rankbench.answers import LONGEST, understood
from rankbench.ending import PROGRAM
from rankbench.errors import RankbenchError
from rankbench.limit import Limit
from rankbench.machine import host, versions
from rankbench.offspring import MARK, kill_descendants, kill_marked
from rankbench.plan import FAILED, word_for
from rankbench.progress import Progress
from rankbench.runner_folder import runner_folder
from rankbench.store import Record, ResultStore
from rankbench.worker import BUSY, Task, Workshop, execute, settled

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
PREFERRED = {  # where the user's environment says nothing else
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait starve other cells,
    "GOMP_SPINCOUNT": "5000",  # but those that sleep at once are late: a network's step took 1.4 times as long
    # glibc else returns to the system what a network's layer has freed and fetches it anew for the next
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
    "CUDA_MODULE_LOADING": "LAZY",  # some versions of torch set it in the midst of a cell, which is no plugin's doing
}
PLACES = ("HF_HOME", "TMPDIR", "TORCH_HOME", "XDG_CACHE_HOME")  # variables that may name a folder relative to ours
GRACE = 2.0  # seconds an idle worker is given to end by itself, and one at the end of a cell to clear up
PULSE = 0.5  # seconds after which a waiting runner looks whether it stood still itself
TAIL = 8192  # bytes of a dead worker's output that its failure record keeps


class Slots:
    """Runs tasks on so many CPU threads and these GPUs.

    Attributes:
        failed: message of each task that failed, by the cell's key.
    """

    def __init__(self, tasks: Sequence[Task], threads: int, gpus: list[str], progress: Progress, store: ResultStore):
        self.tasks, self.threads, self.gpus = list(tasks), threads, gpus
        self.progress, self.store = progress, store
        self.failed: dict[str, str] = {}
        self.later: list[Task] = []  # another runner was at them
        self.idle: list[Worker] = []
        self.busy: set[Worker] = set()
        self.lock = threading.Lock()
        self.stopped = False
        self.mark = uuid.uuid4().hex  # of all that descends from this run

    def run_here(self, shop: Workshop) -> None:
        """One after another in this process."""
        try:
            for task in self.tasks:
                gpu = joined(self.gpus[: self._wanted(task)])
                self.progress.started(task["title"], task["about"]["row"])
                record = execute(shop, {**task, "gpu": gpu}, partial(self._heard, task["title"]))
                self._finished(task, word_for(record), record.get("error", {}).get("message", ""))
        finally:
            self.progress.close()

    def _heard(self, title: str, message: Mapping[str, Any]) -> None:
        if message["event"] == "begin":
            self.progress.fitting()
        else:
            self.progress.heard(title, message)

    def run(self) -> None:
        """In parallel. Ctrl-C once finishes what is running, twice stops it."""
        with runner_folder(self.mark) as self.logs, PROGRAM.last(self._abandon):
            self._run()

    def _abandon(self) -> None:
        """Without a lock, and without waiting for a worker's last words."""
        self.stopped = True
        kill_marked(self.mark)
        shutil.rmtree(self.logs, ignore_errors=True)

    def _run(self) -> None:
        pool = concurrent.futures.ThreadPoolExecutor(max_workers=self.threads + len(self.gpus))
        try:
            self._hand_out(pool)
        finally:
            with self.lock:
                self.stopped = True
                idle, busy = list(self.idle), list(self.busy)
            for worker in busy:
                worker.kill()
            for worker in idle:
                worker.dismiss()
            for worker in idle:
                worker.kill(grace=GRACE)
            pool.shutdown()
            kill_marked(self.mark)
            self.progress.close()

    def _hand_out(self, pool: concurrent.futures.Executor) -> None:
        threads, gpus = self.threads, list(self.gpus)
        running: dict[concurrent.futures.Future[None], tuple[int, list[str]]] = {}
        interrupted = False
        while self.tasks or running or (self.later and not interrupted):
            try:
                if not self.tasks and not interrupted:
                    with self.lock:
                        self.tasks, self.later = [{**task, "wait": True} for task in self.later], []
                for task in list(self.tasks):
                    if not threads:
                        break
                    cost = min(task["threads"], self.threads)
                    wanted = self._wanted(task)
                    if cost > threads or wanted > len(gpus):
                        continue
                    self.tasks.remove(task)
                    own, gpus = gpus[:wanted], gpus[wanted:]
                    threads -= cost
                    running[pool.submit(self._one, {**task, "gpu": joined(own)})] = (cost, own)
                for future in concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED).done:
                    cost, own = running.pop(future)
                    threads += cost
                    gpus = [gpu for gpu in self.gpus if gpu in (*gpus, *own)]
                    future.result()
            except KeyboardInterrupt:
                if interrupted:
                    raise
                interrupted, self.tasks, self.later = True, [], []
                self.progress.say(
                    f"Stopping once what runs is finished ({len(running)} now). Ctrl-C again stops that too."
                )
        if interrupted:
            raise KeyboardInterrupt

    def _wanted(self, task: Task) -> int:
        """GPUs a task takes: those it asks for, as far as there are so many."""
        return min(task["gpus"], len(self.gpus)) if task["device"] == "cuda" else 0

    def _one(self, task: Task) -> None:
        worker = self._worker(task)
        self.progress.started(task["title"], task["about"]["row"])
        try:
            status, message = worker.work(task, self.progress)
        except WorkerLost as lost:
            worker.spent = True  # also one that hangs in the system, and goes on to be alive
            if self.stopped:  # the user stopped it: no failure of the cell
                return
            status, message = self._lost(task, lost, worker.used)
        finally:
            with self.lock:
                self.busy.discard(worker)
                if worker.alive() and not worker.spent:
                    self.idle.append(worker)
                else:
                    worker.dismiss()
            if worker.spent:
                worker.kill()
        if status == BUSY:
            self.progress.postponed(task["title"])
            with self.lock:
                self.later.append(task)
        else:
            self._finished(task, status, message)

    def _lost(self, task: Task, lost: WorkerLost, used: bool) -> tuple[str, str]:
        """Status and message of a cell whose worker is lost: it may be stored all the same, by it or by another.

        One that had not begun, in a process that an earlier cell left in such a state, is tried again.
        """
        if stored := settled(self.store, task, lost.began):
            return str(stored["status"]), ""
        if used and lost.phase == "start" and lost.kind != "timeout":
            return BUSY, ""
        self._record_loss(task, lost)
        return FAILED, str(lost)

    def _finished(self, task: Task, status: str, message: str) -> None:
        if status == FAILED:
            self.failed[task["key"]] = message
        kept = self.store.root / ("failures" if status == FAILED else "cells") / task["key"]
        self.progress.finished(task["title"], status, message, f"whole in {kept}")

    def _worker(self, task: Task) -> Worker:
        """An idle worker with these threads and this GPU, both fixed when a process starts, or a new one.

        One that has served other distributions is none: what a plugin does to its process is its own distribution's.
        """
        kind = (task["threads"], task["gpu"], tuple(task["distributions"]))
        with self.lock:
            # what a plugin left in one may have ended it
            self.idle = [worker for worker in self.idle if worker.alive()]
            fitting = [worker for worker in self.idle if worker.kind == kind][:1]
            spare = [] if fitting else self.idle[: max(0, len(self.idle) - self.threads + 1)]
            for worker in fitting + spare:
                self.idle.remove(worker)
        for worker in spare:
            worker.kill()
        worker = fitting[0] if fitting else Worker(kind, self.logs, self.mark)
        with self.lock:
            self.busy.add(worker)
            stopped = self.stopped
        if stopped:
            worker.kill()
        return worker

    def _record_loss(self, task: Task, lost: WorkerLost) -> None:
        error = {"type": lost.kind, "message": str(lost), "phase": lost.phase, "traceback": lost.log}
        record: Record = {
            **task["about"],
            "status": FAILED,
            "error": error,
            "device": task["device"],
            "gpu": task["gpu"],
            "began": lost.began,
            "ended": lost.ended,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(lost.began)),
            "wall_seconds": lost.ended - lost.began,
            "phases": {},
            "peak_memory_bytes": lost.memory,
            "peak_memory_of": "process",
            **task["provenance"],
            **host(),
            "versions": versions(),
        }
        try:
            self.store.save_failure(task["key"], record)
        except RankbenchError as full:
            self.progress.say(str(full))


class WorkerLost(Exception):
    """A worker died ("killed"), ran out of time ("timeout") or was disturbed ("disturbed").

    Attributes:
        phase: what the cell was at. log: the end of what the process printed. began, ended: seconds since the epoch.
        memory: what its process held of late, in bytes, None where it is not known.
    """

    def __init__(self, kind: str, message: str, phase: str, log: str, began: float, memory: int | None) -> None:
        super().__init__(message)
        self.kind, self.phase, self.log, self.began, self.memory = kind, phase, log, began, memory
        self.ended = time.time()


def joined(gpus: Sequence[str]) -> str | None:
    """Ids of a task's GPUs, as CUDA_VISIBLE_DEVICES has them; None where it has none."""
    return ",".join(gpus) or None


def environment(threads: int, gpu: str | None) -> dict[str, str]:
    """Variables of a worker process.

    Args: threads, of its libraries; gpu, ids of its GPUs, as CUDA_VISIBLE_DEVICES has them.
    """
    paths = os.pathsep.join(map(os.path.abspath, sys.path))  # the worker stands in another folder
    own = {**dict.fromkeys(THREAD_VARIABLES, str(threads)), "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": gpu or ""}
    own["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS repeats itself only with a fixed workspace
    own |= {name: os.path.abspath(os.environ[name]) for name in PLACES if os.environ.get(name)}
    return {**PREFERRED, **os.environ, **own}


class Worker:
    """A process that fits one cell after another, watched.

    Args: kind, its threads, ids of its GPUs, and the distributions whose cells it serves; logs, the folder for what it
        prints; mark, of all that descends from the run.
    Attributes: spent, whether its last cell left it unfit for another.
    """

    def __init__(self, kind: tuple[int, str | None, tuple[str, ...]], logs: Path, mark: str = "") -> None:
        self.kind, self.noise, self.used, self.spent = kind, b"", False, False
        self.mark = f"{mark}:{uuid.uuid4().hex}"
        outer = f"{os.environ[MARK]}:" if MARK in os.environ else ""  # a ranker that runs a benchmark
        self.answers, theirs = socket.socketpair()
        try:
            handle, name = tempfile.mkstemp(dir=logs, suffix=".log")
            self.log = Path(name)
            self.folder = tempfile.mkdtemp(dir=logs)  # where it works: a relative path leads a plugin to no results
            with os.fdopen(handle, "wb") as log, theirs:
                self.process = subprocess.Popen(
                    # -P: no module of the folder we stand in
                    [sys.executable, "-P", "-m", "rankbench.serving", self.folder],
                    stdin=subprocess.PIPE,
                    stdout=theirs.fileno(),
                    stderr=log,
                    env={**environment(*kind[:2]), MARK: outer + self.mark, "PWD": self.folder},
                    start_new_session=True,  # Ctrl-C is the runner's to handle
                )
        except OSError as error:
            self.answers.close()
            raise RankbenchError(
                f"no worker process could be started ({error}). What was finished is stored; run again."
            ) from error
        self.messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.threads = [threading.Thread(target=target, daemon=True) for target in (self._listen, self._watch)]
        for thread in self.threads:
            thread.start()

    def _listen(self) -> None:
        """Hears messages, and says at the end, however that comes about, that there are no more."""
        try:
            with self.answers, self.answers.makefile("rb") as answers:
                while line := answers.readline(LONGEST):
                    message = understood(line)
                    if message is None:
                        if line.endswith(b"\n") or len(line) == LONGEST:  # a killed process may leave half a line
                            self.noise = line
                            self._end()
                        break
                    self.messages.put(message)
        finally:
            self.messages.put(None)

    def _watch(self) -> None:
        """When the process ends, so does whatever it started, and nobody else is heard in its place."""
        code = self.process.wait()
        self.dismiss()
        self._signal_group()
        shutil.rmtree(self.folder, ignore_errors=True)
        if code:
            kill_marked(self.mark)  # it had no time to see to it itself
        try:
            self.answers.shutdown(socket.SHUT_RD)
        except OSError:  # nobody hears it any more
            pass

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def work(self, task: Task, progress: Progress) -> tuple[str, str]:
        """Status and message of one cell. WorkerLost if the process dies, outlasts the limit or is disturbed."""
        limit, phase, since = Limit(task["timeout"]), "start", self.log.stat().st_size
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(task).encode() + b"\n")
            self.process.stdin.flush()
        except (OSError, ValueError):  # it died while idle, or was stopped
            raise self._lost(phase, limit.began, since) from None
        while True:
            try:
                message = self._next(limit)
            except queue.Empty:
                raise self._late(task["timeout"], phase, limit.began, since) from None
            if message is None:
                raise self._lost(phase, limit.began, since)
            if message["key"] != task["key"]:  # from a process that an earlier cell left behind
                continue
            limit.heard(message["event"])
            if message["event"] == "begin":
                progress.fitting()
            elif message["event"] == "phase":
                phase = message["phase"]
            elif message["event"] == "say":
                progress.say(message["text"])
            elif message["event"] == "end":
                self.spent = bool(message.get("replace"))
                self.used = True
                self._clear_up(task["key"])
                return message["status"], message["message"]
            else:
                progress.heard(task["title"], message)

    def _next(self, limit: Limit) -> dict[str, Any] | None:
        """The next message, None if there are no more; queue.Empty where time is up."""
        while True:
            asked, wanted = time.monotonic(), min(PULSE, limit.left())
            try:
                return self.messages.get(timeout=wanted)
            except queue.Empty:
                if not wanted:
                    raise
            finally:
                late = time.monotonic() - asked - wanted
                if late > PULSE:  # this process stood still, and so may the other have done
                    limit.extend(late)

    def _clear_up(self, key: str) -> None:
        """Until the process is ready for another cell; it ends where a plugin's `__del__` keeps it."""
        limit = Limit(GRACE)
        limit.heard("taken")
        try:
            while (message := self._next(limit)) is not None:
                if message["key"] == key and message["event"] == "ready":
                    return
            self.spent = True  # it is ending, which may take a moment
        except queue.Empty:
            self.kill()

    def _late(self, limit: float, phase: str, began: float, since: int) -> WorkerLost:
        memory = self._peak_memory()
        self.kill()
        text = f"stopped after its time limit of {limit:g} s, in phase {phase!r}. "
        text += "Raise `timeout` in the benchmark file if it needs longer."
        return WorkerLost("timeout", text, phase, self._tail(since), began, memory)

    def _lost(self, phase: str, began: float, since: int) -> WorkerLost:
        """What became of a process that says no more."""
        try:
            code = self.process.wait(timeout=GRACE)
        except subprocess.TimeoutExpired:  # it lives, and is not heard
            self.kill()
            text = f"a plugin closed the descriptor through which its process answers, in phase {phase!r}."
            return WorkerLost("disturbed", text, phase, self._tail(since), began, None)
        tail = self._tail(since)
        if self.noise:
            text = f"something in its process wrote to a descriptor that is not its own, in phase {phase!r}: "
            return WorkerLost("disturbed", text + repr(self.noise[:40]), phase, tail, began, None)
        if code == -signal.SIGTERM:  # whoever ends all processes of a job has told the runner too, and it is to hear it
            time.sleep(PULSE)
        if code < 0:
            name = signal.Signals(-code).name
            hint = " The system may have run out of memory." if name == "SIGKILL" else ""
            text = f"its process was killed by signal {-code} ({name}) in phase {phase!r}.{hint}"
        else:
            last = tail.strip().splitlines()[-1:] or [""]
            text = f"its process ended with exit code {code} in phase {phase!r}, before it had finished. {last[0]}"
        return WorkerLost("killed", text.strip(), phase, tail, began, None)

    def _tail(self, since: int) -> str:
        try:
            with open(self.log, "rb") as log:
                log.seek(max(since, self.log.stat().st_size - TAIL))
                return log.read().decode(errors="replace")
        except OSError:
            return ""

    def _peak_memory(self) -> int | None:
        """Bytes of the process of late: it starts the count anew time and again."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return None
        found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(found[0]) * 1024 if found else None

    def _signal_group(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass

    def _end(self) -> None:
        """At once, and whatever it started."""
        if self.alive():
            kill_descendants(self.process.pid)
        self._signal_group()

    def dismiss(self) -> None:
        """No more cells: an idle process ends by itself."""
        try:
            self.process.stdin.close()  # type: ignore[union-attr]
        except OSError:
            pass

    def kill(self, grace: float = 0.0) -> None:
        """End the process and whatever it started, after `grace` seconds."""
        try:
            self.process.wait(timeout=grace)
        except subprocess.TimeoutExpired:
            self._end()
        try:
            self.process.wait(timeout=GRACE)
        except subprocess.TimeoutExpired:  # it hangs in the system, and ends when that lets go of it
            pass
        self.dismiss()
        for thread in self.threads:
            thread.join(timeout=1)
