"""Fits the cells the store lacks, in parallel worker processes; a failing, hanging or dying one never harms the others.

The runner plans, hands cells to workers as JSON, watches time limits, and records what a dead worker could not. Slots
are counted in CPU threads and GPUs. Workers store their own cells: what was finished survives any kill.
"""

from __future__ import annotations

import concurrent.futures
import fnmatch
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rankbench.benchmark import Benchmark
from rankbench.errors import BenchmarkError, RankbenchError
from rankbench.loading import Data
from rankbench.plan import (
    DONE,
    FAILED,
    MISSING,
    NOT_APPLICABLE,
    STALE,
    TODO,
    Plan,
    PlannedCell,
    Planner,
    default_cache,
    edit_of,
)
from rankbench.registry import Registry
from rankbench.store import Record, ResultStore
from rankbench.worker import Workshop, execute, load_registry

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
Task = dict[str, Any]


@dataclass
class Options:
    """How to run, not what: nothing here changes a result.

    Args:
        data, results, cache: folders. only: glob on row labels. jobs: CPU threads to use at once (default: all cores).
        device: "auto", "cpu" or "cuda". gpus: ids of the GPUs to use (default: those of this machine).
        rerun: "stale" or "all" stored cells again. accept_stale: edits of the source leave stored results valid.
        retry: run failed cells again. strict_data: no unreadable image is tolerated.
        in_process: fit in this process, one cell after another; for debugging.
        plugins: importable modules with hooks, on top of the installed packages.
        quiet: no progress.
    """

    data: str | Path | None = None
    results: str | Path = "results"
    cache: str | Path | None = None
    only: str = "*"
    jobs: int | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gpus: Sequence[str] | None = None
    rerun: Literal["", "stale", "all"] = ""
    accept_stale: bool = False
    retry: bool = True
    strict_data: bool = False
    in_process: bool = False
    plugins: Sequence[str] = ()
    quiet: bool = False

    @property
    def data_root(self) -> Path:
        """The data root: `data`, `$RANKBENCH_DATA`, or ./data."""
        return Path(self.data or os.environ.get("RANKBENCH_DATA", "data")).absolute()

    @property
    def cache_root(self) -> Path:
        """The cache folder: `cache`, `$RANKBENCH_CACHE`, or ./cache."""
        return Path(self.cache or default_cache()).absolute()


class Runner:
    """Runs one benchmark."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.registry: Registry = load_registry(list(options.plugins))
        self.store = ResultStore(Path(options.results).absolute())
        self.data = Data(self.registry, options.data_root, options.cache_root)
        self.planner = Planner(self.registry, self.data, self.store)

    def plan(self, benchmark: Benchmark) -> Plan:
        """What there is to do; stores nothing but memos in the cache."""
        plan = self.planner.plan(benchmark)
        if not self.selected(plan):
            labels = ", ".join(row.label for row in benchmark.row)
            raise BenchmarkError(f"--only {self.options.only!r} matches no row. The rows are: {labels}.")
        return plan

    def selected(self, plan: Plan) -> list[PlannedCell]:
        """The cells `only` asks for."""
        return [cell for cell in plan.cells if fnmatch.fnmatchcase(cell.row, self.options.only)]

    def due(self, plan: Plan) -> list[PlannedCell]:
        """The cells to fit now, each key once, cells of one problem side by side."""
        statuses = {TODO}
        if self.options.retry:
            statuses.add(FAILED)
        if self.options.rerun:
            statuses.add(STALE)
        if self.options.rerun == "all":
            statuses |= {DONE, NOT_APPLICABLE}
        due: dict[str | None, PlannedCell] = {}
        for cell in self.selected(plan):
            if cell.parts and cell.status in statuses:
                due.setdefault(cell.key, cell)
        order: dict[str, int] = {}
        for cell in plan.cells:
            order.setdefault(str(cell.parts.get("problem")), len(order))
        return sorted(due.values(), key=lambda cell: order[str(cell.parts["problem"])])

    def run(self, benchmark: Benchmark, progress: Callable[[Progress], None] | None = None) -> Plan:
        """Fit what is due and return the plan with every cell's status afterwards."""
        plan = self.plan(benchmark)
        if self.options.accept_stale:
            self._accept(plan)
        self.store.save_plan(benchmark.name, plan.to_json())
        due = self.due(plan)
        if due:
            tasks = [self._task(plan, cell) for cell in due]
            slots = Slots(self.options, tasks, Progress(len(tasks), self.options.quiet), self.store)
            try:
                if self.options.in_process:
                    slots.run_here(Workshop.open(tasks[0]["place"], self.registry))
                else:
                    slots.run()
            finally:
                self.rejudge(plan)
        return plan

    def rejudge(self, plan: Plan) -> None:
        """Read every cell's status from the store again."""
        for cell in plan.cells:
            cell.status, cell.reason = TODO, ""
            self.planner.judge(cell)

    def _accept(self, plan: Plan) -> None:
        for cell in self.selected(plan):
            if cell.status == STALE and cell.key:
                record = self.store.record(cell.key) or {}
                self.store.accept(cell.key, edit_of({**record["sources"], **cell.sources}))
                cell.status = DONE

    def _task(self, plan: Plan, cell: PlannedCell) -> Task:
        benchmark, options = plan.benchmark, self.options
        gpus = visible_gpus(options)
        place = {
            "data": str(options.data_root),
            "results": str(self.store.root),
            "cache": str(options.cache_root),
            "plugins": list(options.plugins),
        }
        about = {
            "benchmark": benchmark.name,
            "row": cell.row,
            **cell.description,
            "key_parts": cell.parts,
            "sources": cell.sources,
            "inputs": cell.inputs,
            "threads": cell.threads,
            "notes": cell.notes,
        }
        return {
            "key": cell.key,
            "title": cell.title,
            "place": place,
            "about": about,
            "dataset": {
                "name": cell.dataset.name,
                "parameters": dict(cell.dataset.parameters),
                "folder": cell.dataset.folder,
            },
            "facets": cell.facets,
            "ranker": cell.ranker,
            "seed": cell.seed,
            "threads": cell.threads,
            "fingerprint": cell.parts["problem"],
            "device": "cuda" if cell.gpu and gpus else "cpu",
            "gpu": None,
            "timeout": cell.timeout,
            "folder": str(options.cache_root / "running" / str(cell.key)),
            "keep": benchmark.keep,
            "first_seed": cell.seed in (None, benchmark.seeds[0]),
            "replace": cell.status in (STALE, DONE, NOT_APPLICABLE),
            "strict_data": options.strict_data,
            "provenance": git_provenance(),
        }


def exit_code(cells: Sequence[PlannedCell]) -> int:
    """0 all good or not applicable, 1 some failed, 3 nothing failed but data is missing."""
    statuses = {cell.status for cell in cells}
    return 1 if statuses & {FAILED, TODO} else 3 if MISSING in statuses else 0


# ----------------------------------------------------------------------------------------------------------- slots


class Slots:
    """Hands tasks to workers as CPU threads and GPUs come free."""

    def __init__(self, options: Options, tasks: list[Task], progress: Progress, store: ResultStore) -> None:
        self.tasks, self.progress, self.store = list(tasks), progress, store
        self.threads = options.jobs or os.cpu_count() or 1
        self.gpus = visible_gpus(options)
        self.idle: list[Worker] = []
        self.busy: set[Worker] = set()
        self.lock = threading.Lock()
        self.stopped = False
        self.logs = Path(tempfile.mkdtemp(prefix="rankbench-"))

    def run_here(self, shop: Workshop) -> None:
        """One after another in this process."""
        for task in self.tasks:
            record = execute(shop, task | {"gpu": self.gpus[0] if task["device"] == "cuda" else None})
            self.progress.finished(task, record["status"], record.get("error", {}).get("message", ""))
        self.progress.close()

    def run(self) -> None:
        """In parallel. Ctrl-C once finishes what is running, twice stops it."""
        free_threads, free_gpus = self.threads, list(self.gpus)
        pool = concurrent.futures.ThreadPoolExecutor(max_workers=self.threads + len(self.gpus))
        running: dict[concurrent.futures.Future[None], tuple[int, str | None]] = {}
        interrupted = False
        try:
            while self.tasks or running:
                try:
                    for task in list(self.tasks):
                        cost = min(task["threads"], self.threads)
                        if cost > free_threads or (task["device"] == "cuda" and not free_gpus):
                            if free_threads == 0:
                                break
                            continue
                        self.tasks.remove(task)
                        gpu = free_gpus.pop(0) if task["device"] == "cuda" else None
                        free_threads -= cost
                        running[pool.submit(self._one, task | {"gpu": gpu})] = (cost, gpu)
                    done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                    for future in done:
                        cost, gpu = running.pop(future)
                        free_threads += cost
                        free_gpus += [gpu] if gpu is not None else []
                        future.result()
                except KeyboardInterrupt:
                    if interrupted:
                        raise
                    interrupted, self.tasks = True, []
                    self.progress.say(
                        f"Stopping: {len(running)} running cells will be finished. Ctrl-C again stops them too."
                    )
            if interrupted:
                raise KeyboardInterrupt
        finally:
            self.stopped = True
            for worker in [*self.idle, *self.busy]:
                worker.kill()
            pool.shutdown()
            self.progress.close()
            shutil.rmtree(self.logs, ignore_errors=True)

    def _one(self, task: Task) -> None:
        worker = self._worker(task)
        try:
            status, message = worker.work(task, self.progress)
        except WorkerLost as lost:
            if self.stopped:  # the user stopped it: no failure of the cell
                return
            status, message = FAILED, lost.message
            self._record_loss(task, lost)
        finally:
            with self.lock:
                self.busy.discard(worker)
                if worker.alive():
                    self.idle.append(worker)
        self.progress.finished(task, status, message)

    def _worker(self, task: Task) -> Worker:
        """An idle worker with these threads and this GPU, or a new one: threads are fixed when a process starts."""
        kind = (task["threads"], task["gpu"])
        with self.lock:
            fitting = [worker for worker in self.idle if worker.kind == kind]
            spare = fitting[:1] or self.idle[: max(0, len(self.idle) - self.threads + 1)]
            for worker in spare:
                self.idle.remove(worker)
        for worker in spare[0 if not fitting else 1 :]:
            worker.kill()
        worker = fitting[0] if fitting else Worker(kind, self.logs)
        with self.lock:
            self.busy.add(worker)
        return worker

    def _record_loss(self, task: Task, lost: WorkerLost) -> None:
        error = {"type": lost.kind, "message": lost.message, "phase": lost.kind, "traceback": lost.log}
        record: Record = {
            **task["about"],
            "status": FAILED,
            "error": error,
            "device": task["device"],
            "gpu": task["gpu"],
            "began": lost.began,
            "ended": time.time(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(lost.began)),
            "wall_seconds": time.time() - lost.began,
            **task["provenance"],
        }
        try:
            self.store.save_failure(task["key"], record)
        except RankbenchError as full:
            self.progress.say(str(full))


class WorkerLost(Exception):
    """A worker died or ran out of time."""

    def __init__(self, kind: str, message: str, log: str, began: float) -> None:
        super().__init__(message)
        self.kind, self.message, self.log, self.began = kind, message, log, began


class Worker:
    """A process that fits one cell after another, watched."""

    def __init__(self, kind: tuple[int, str | None], logs: Path) -> None:
        self.kind = kind
        threads, gpu = kind
        paths = os.pathsep.join(path for path in sys.path if path)
        environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), "PYTHONPATH": paths}
        environment["CUDA_VISIBLE_DEVICES"] = gpu or ""
        environment["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS repeats itself only with a fixed workspace
        handle, name = tempfile.mkstemp(dir=logs, suffix=".log")
        self.log = Path(name)
        with os.fdopen(handle, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "rankbench.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,  # Ctrl-C is the runner's to handle
            )
        self.messages: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.messages.put(json.loads(line))
        self.messages.put(None)

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def work(self, task: Task, progress: Progress) -> tuple[str, str]:
        """Status and message of one cell. WorkerLost if the process dies or outlasts the limit."""
        began, limit, since = time.time(), task["timeout"], self.log.stat().st_size
        try:
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(task).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            raise self._lost(began, since) from None
        deadline = None
        while True:
            try:
                message = self.messages.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self.kill()
                hint = "Raise `timeout` in the benchmark file if it needs longer."
                text = f"stopped after its time limit of {limit:g} s. {hint}"
                raise WorkerLost("timeout", text, self._tail(since), began) from None
            if message is None:
                raise self._lost(began, since)
            if message["event"] == "begin" and limit:
                deadline = time.monotonic() + limit
            elif message["event"] == "log":
                progress.logged(task, message["step"], message["numbers"])
            elif message["event"] == "end":
                return message["status"], message["message"]

    def _lost(self, began: float, since: int) -> WorkerLost:
        code = self.process.wait()
        tail = self._tail(since)
        if code < 0:
            name = signal.Signals(-code).name
            hint = " The system may have run out of memory." if name == "SIGKILL" else ""
            text = f"its process was killed by signal {-code} ({name}).{hint}"
        else:
            text = f"its process ended with exit code {code} before it had finished."
        last = tail.strip().splitlines()[-1:] or [""]
        return WorkerLost("killed", f"{text} {last[0]}".strip(), tail, began)

    def _tail(self, since: int) -> str:
        with open(self.log, "rb") as log:
            log.seek(max(since, self.log.stat().st_size - 8192))
            return log.read().decode(errors="replace")

    def kill(self) -> None:
        """End the process and whatever it started."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and pipe is self.process.stdin:
                try:
                    pipe.close()
                except OSError:
                    pass


# -------------------------------------------------------------------------------------------------------- progress


class Progress:
    """A bar with an estimate on a terminal, a line a cell elsewhere; on standard error."""

    def __init__(self, total: int, quiet: bool) -> None:
        from tqdm import tqdm

        self.total, self.count, self.quiet = total, 0, quiet
        self.began = time.time()
        self.starts: dict[str, float] = {}
        self.lock = threading.Lock()
        bar = not quiet and sys.stderr.isatty()
        self.bar = tqdm(total=total, unit="cell", dynamic_ncols=True, smoothing=0.1) if bar else None

    def logged(self, task: Task, step: float, numbers: Mapping[str, float]) -> None:
        """A point of a running cell's curves."""
        if self.bar is not None:
            shown = " ".join(f"{name} {value:.4g}" for name, value in numbers.items())
            self.bar.set_postfix_str(f"{task['about']['row']}: {step:g} {shown}"[:60])

    def finished(self, task: Task, status: str, message: str) -> None:
        """One cell more is done."""
        with self.lock:
            self.count += 1
            first = message.splitlines()[0] if message else ""
            line = f"{status:<5} {task['title']}" + (f": {first}" if first else "")
            if self.bar is not None:
                self.bar.update()
                if status != DONE:
                    self.bar.write(line, file=sys.stderr)
            elif not self.quiet:
                spent = time.time() - self.began
                left = spent / self.count * (self.total - self.count)
                estimate = f" ({duration(left)} left)" if self.count < self.total else f" ({duration(spent)} in all)"
                print(f"[{self.count}/{self.total}] {line}{estimate}", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A line between."""
        if self.bar is not None:
            self.bar.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """No more to come."""
        if self.bar is not None:
            self.bar.close()


def duration(seconds: float) -> str:
    """`42 s`, `3 min 5 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


# ------------------------------------------------------------------------------------------------------ the machine


def visible_gpus(options: Options) -> list[str]:
    """Ids of the GPUs to use. BenchmarkError if one is asked for and there is none."""
    if options.device == "cpu":
        return []
    found = list(options.gpus) if options.gpus is not None else machine_gpus()
    if options.device == "cuda" and not found:
        raise BenchmarkError("--device cuda: no GPU was found (nvidia-smi lists none). Use --device auto or cpu.")
    return found


_GPUS: list[list[str]] = []


def machine_gpus() -> list[str]:
    """Ids of this machine's NVIDIA GPUs, asked once; CUDA_VISIBLE_DEVICES counts."""
    if not _GPUS:
        listed = os.environ.get("CUDA_VISIBLE_DEVICES")
        if listed is not None:
            _GPUS.append([name.strip() for name in listed.split(",") if name.strip() not in ("", "-1")])
        elif shutil.which("nvidia-smi"):
            answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
            _GPUS.append([str(n) for n, line in enumerate(answer.stdout.splitlines()) if line.startswith("GPU ")])
        else:
            _GPUS.append([])
    return _GPUS[0]


_GIT: list[dict[str, Any]] = []


def git_provenance() -> dict[str, Any]:
    """Commit of the repository the run was started in, and whether it had uncommitted changes; asked once."""
    if not _GIT:
        commit = dirty = None
        if shutil.which("git"):
            asked = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
            if asked.returncode == 0:
                commit = asked.stdout.strip()
                changed = subprocess.run(
                    ["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, check=False
                )
                dirty = bool(changed.stdout.strip())
        _GIT.append({"git_commit": commit, "git_dirty": dirty})
    return _GIT[0]
