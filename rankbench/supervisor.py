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
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rankbench.errors import RankbenchError
from rankbench.machine import host, versions
from rankbench.plan import FAILED
from rankbench.progress import Progress
from rankbench.store import Record, ResultStore
from rankbench.worker import BUSY, Task, Workshop, execute

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
}
GRACE = 2.0  # seconds an idle worker is given to end by itself
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

    def run_here(self, shop: Workshop) -> None:
        """One after another in this process."""
        try:
            for task in self.tasks:
                gpu = joined(self.gpus[: self._wanted(task)])
                self.progress.started(task["title"], task["about"]["row"])
                record = execute(shop, {**task, "gpu": gpu}, self._heard)
                self._finished(task, record["status"], record.get("error", {}).get("message", ""))
        finally:
            self.progress.close()

    def _heard(self, message: Mapping[str, Any]) -> None:
        if message["event"] == "begin":
            self.progress.fitting()

    def run(self) -> None:
        """In parallel. Ctrl-C once finishes what is running, twice stops it."""
        self.logs = Path(tempfile.mkdtemp(prefix="rankbench-"))
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
            self.progress.close()
            shutil.rmtree(self.logs, ignore_errors=True)

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
            if self.stopped:  # the user stopped it: no failure of the cell
                return
            status, message = FAILED, str(lost)
            self._record_loss(task, lost)
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
            with self.lock:
                self.later.append(task)
        else:
            self._finished(task, status, message)

    def _finished(self, task: Task, status: str, message: str) -> None:
        if status == FAILED:
            self.failed[task["key"]] = message
        self.progress.finished(task["title"], status, message)

    def _worker(self, task: Task) -> Worker:
        """An idle worker with these threads and this GPU, both fixed when a process starts, or a new one.

        One that has served other distributions is none: what a plugin does to its process is its own distribution's.
        """
        kind = (task["threads"], task["gpu"], tuple(task["distributions"]))
        with self.lock:
            fitting = [worker for worker in self.idle if worker.kind == kind][:1]
            spare = [] if fitting else self.idle[: max(0, len(self.idle) - self.threads + 1)]
            for worker in fitting + spare:
                self.idle.remove(worker)
        for worker in spare:
            worker.kill()
        worker = fitting[0] if fitting else Worker(kind, self.logs)
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
    """A worker died ("killed") or ran out of time ("timeout").

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
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    own = {**dict.fromkeys(THREAD_VARIABLES, str(threads)), "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": gpu or ""}
    own["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS repeats itself only with a fixed workspace
    return {**PREFERRED, **os.environ, **own}


class Worker:
    """A process that fits one cell after another, watched.

    Args: kind, its threads, ids of its GPUs, and the distributions whose cells it serves.
    Attributes: spent, whether its last cell left it unfit for another.
    """

    def __init__(self, kind: tuple[int, str | None, tuple[str, ...]], logs: Path) -> None:
        self.kind, self.spent = kind, False
        try:
            handle, name = tempfile.mkstemp(dir=logs, suffix=".log")
            self.log = Path(name)
            with os.fdopen(handle, "wb") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "rankbench.worker"],  # -P: no module of the folder we stand in
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=environment(*kind[:2]),
                    start_new_session=True,  # Ctrl-C is the runner's to handle
                )
        except OSError as error:
            raise RankbenchError(
                f"no worker process could be started ({error}). What was finished is stored; run again."
            ) from error
        self.messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.threads = [threading.Thread(target=target, daemon=True) for target in (self._listen, self._watch)]
        for thread in self.threads:
            thread.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as answers:
            for line in answers:
                if line.endswith(b"\n"):  # a killed process may leave half a line
                    self.messages.put(json.loads(line))
        self.messages.put(None)

    def _watch(self) -> None:
        """When the process ends, so does whatever it started: nothing keeps its output open."""
        self.process.wait()
        self._signal_group()

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def work(self, task: Task, progress: Progress) -> tuple[str, str]:
        """Status and message of one cell. WorkerLost if the process dies or outlasts the limit."""
        began, phase, since = time.time(), "start", self.log.stat().st_size
        deadline: float | None = None
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(task).encode() + b"\n")
            self.process.stdin.flush()
        except (OSError, ValueError):  # it died while idle, or was stopped
            raise self._lost(phase, began, since) from None
        while True:
            try:
                message = self.messages.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise self._late(task["timeout"], phase, began, since) from None
            if message is None:
                raise self._lost(phase, began, since)
            if message.get("key", task["key"]) != task["key"]:  # from a process that an earlier cell left behind
                continue
            if message["event"] == "begin":
                progress.fitting()
                began = time.time()
                deadline = time.monotonic() + task["timeout"] if task["timeout"] else None
            elif message["event"] == "phase":
                phase = message["phase"]
            elif message["event"] == "log":
                progress.logged(task["title"], message["step"], message["numbers"])
            elif message["event"] == "end":
                self.spent = message["status"] == FAILED or message.get("replace", False)
                return message["status"], message["message"]

    def _late(self, limit: float, phase: str, began: float, since: int) -> WorkerLost:
        memory = self._peak_memory()
        self.kill()
        text = f"stopped after its time limit of {limit:g} s, in phase {phase!r}. "
        text += "Raise `timeout` in the benchmark file if it needs longer."
        return WorkerLost("timeout", text, phase, self._tail(since), began, memory)

    def _lost(self, phase: str, began: float, since: int) -> WorkerLost:
        code = self.process.wait()
        tail = self._tail(since)
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
            pass
        self._signal_group()
        self.process.wait()
        self.dismiss()
        for thread in self.threads:
            thread.join(timeout=1)
