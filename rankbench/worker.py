"""Fits one cell, and stores it the moment it ends: what was finished survives any kill."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankbench.ambient import Ambient
from rankbench.cache import recalled, remember
from rankbench.cell import Outcome, TestSet
from rankbench.claims import WAITS
from rankbench.errors import (
    BenchmarkError,
    DataError,
    NotApplicable,
    PluginError,
    RankbenchError,
    UnreadableImage,
    raised_at,
)
from rankbench.images import Images, Ints, masked
from rankbench.loading import Data, DatasetChoice
from rankbench.machine import device_name, host, versions
from rankbench.memory import PeakMemory
from rankbench.plan import DONE, FAILED, NOT_APPLICABLE, feature_choices
from rankbench.plugin import Features, Ranker
from rankbench.printed import Printed
from rankbench.problem import Problem
from rankbench.registry import Registry
from rankbench.seeding import seed_everything
from rankbench.services import CellRun, Clock, Fitting, Services, build_feature, file_parameters
from rankbench.store import Record, ResultStore

LOST_LIMIT = 0.05  # share of a problem's images that may be unreadable
SMALL_MODEL = 50 * 2**20  # bytes up to which every seed's model is kept by default
BUSY = "busy"  # another runner computes the cell at this moment
Task = Mapping[str, Any]
Emit = Callable[[dict[str, Any]], None]


@dataclass
class Workshop:
    """What one process keeps between cells."""

    registry: Registry
    data: Data
    store: ResultStore
    services: Services
    ambient: dict[str, Any] | None = None  # the state of this process, as the last cell left it
    _tests: tuple[Problem, dict[str, tuple[TestSet, Ints]]] | None = None
    last: Any = None  # what the last cell made: a `__del__` of a plugin may never end

    def tests(self, problem: Problem) -> dict[str, tuple[TestSet, Ints]]:
        """The problem's test sets and the rows of their images, made once for all rankers."""
        if self._tests is None or self._tests[0] is not problem:
            self._tests = (problem, {name: TestSet.of(problem, name) for name in problem.tests})
        return self._tests[1]

    @classmethod
    def open(cls, place: Mapping[str, Any], registry: Registry | None = None) -> Workshop:
        """From the places named in a task."""
        registry = registry or load_registry(place["plugins"])
        root, cache = Path(place["data"]), Path(place["cache"])
        data = Data(registry, root, cache)
        services = Services(registry, cache, root, data.memo, scratch=Path(place["scratch"]))
        return cls(registry, data, ResultStore(place["results"], cache), services)


def load_registry(modules: list[str]) -> Registry:
    """Installed plugins, and modules named on top (for trying a plugin out before it is packaged)."""
    import importlib

    registry = Registry.installed()
    for name in modules:
        if not isinstance(name, str):
            raise BenchmarkError(f'plugins: {name!r} is no name of a module; write the name, such as "my_plugins".')
        try:
            module = importlib.import_module(name)
        except ImportError as error:
            raise PluginError(
                f"plugins: module {name!r} cannot be imported ({error}). Is its folder on sys.path?"
            ) from error
        registry.add(module, name, entry_point=name, trial=True)
    return registry


class Fitter:
    """Carries one cell from data to stored result."""

    def __init__(self, shop: Workshop, task: Task, emit: Emit) -> None:
        self.shop, self.task, self.emit = shop, task, emit
        self.clock, self.memory = Clock(), PeakMemory()
        self.process, self.printed = os.getpid(), Printed()
        self.curves: list[dict[str, float]] = []
        self.holdouts: list[dict[str, Any]] = []
        self.feature_seconds: dict[str, float] = {}
        self.lost: NDArray[np.bool_] | None = None
        self.tests: dict[str, tuple[TestSet, Ints]] = {}
        self.refused: dict[str, str] = {}
        self.made: list[Any] = []  # kept from their `__del__` until the cell's end is known
        self.where = "load"

    def work(self) -> Record:
        """Fit, score and store. Returns the record, stored as a success or as a failure."""
        began = time.time()
        ambient = Ambient(self.shop.registry.packages(), self.task["threads"], self.shop.ambient)
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began))
        record: Record = {**self.task["about"], "started": started, "began": began}
        outcomes: dict[str, Outcome] = {}
        state = None
        try:
            ranker, outcomes, findings = self._fit()
            state = ranker.state()
            if not isinstance(state, dict):
                raise PluginError(f"{self._who()}: state must give a dict, not {type(state).__name__}.")
            record |= {"status": DONE} | findings
        except NotApplicable as error:
            record |= {"status": NOT_APPLICABLE, "error": {"message": str(error)}}
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            record |= {"status": FAILED, "error": self._error(error)}
        self.memory.end()
        left, self.shop.ambient = ambient.left(), ambient.after
        ended = time.time()
        record |= {"left_changed": left} if left else {}
        record |= {"phases": self.clock.phases, "wall_seconds": ended - began, "ended": ended}
        record |= self.memory.record()
        record |= {"device": self.task["device"], "device_name": device_name(self.task["device"])}
        record |= {"gpu": self.task["gpu"], **self.task["provenance"], **host(), "versions": self._versions()}
        self._enter("store")
        try:
            return self._store(record, outcomes, state)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a full disk, or a state or message that no file can hold
            failed = record | {"status": FAILED, "error": self._error(error)}
            self._store_failure(failed)
            return failed

    def _who(self) -> str:
        return str(self.shop.registry.find("rankers", self.task["ranker"]["name"]))

    def _versions(self) -> dict[str, str]:
        """Versions of what decides numbers, the packages of the cell's plugins among them."""
        named = [("datasets", self.task["dataset"]["name"])]
        named += [tuple(place.split("/", 1)) for place in self.task["about"]["sources"]]
        found = dict(versions())
        for place in named:
            plugin = self.shop.registry.plugins.get(place)
            if plugin is not None and plugin.distribution_version:
                found[plugin.distribution] = plugin.distribution_version
        return found

    def _store(self, record: Record, outcomes: dict[str, Outcome], state: dict[str, Any] | None) -> Record:
        if record["status"] == FAILED:
            self._store_failure(record)
            return record
        for test, _ in self.tests.values() if record["status"] == DONE else ():
            self.shop.store.save_test(test)  # only now: what lies on disk while a cell is fitted, a plugin can read
        keep, first = self.task["keep"], self.task["first_seed"]
        saved = self.shop.store.save(
            self.task["key"],
            record,
            outcomes,
            state,
            lambda size: keep == "models" or (keep is None and (size < SMALL_MODEL or first)),
            self.curves,
            self.task["replace"],
        )
        shutil.rmtree(self.task["folder"], ignore_errors=True)
        return record if saved else self.shop.store.record(self.task["key"]) or record

    def _store_failure(self, record: Record) -> None:
        try:
            self.shop.store.save_failure(self.task["key"], record)
        except Exception as error:  # the disk is full, say: the message still reaches the user
            record["error"]["message"] += f" ({error})"

    def _error(self, error: BaseException) -> dict[str, Any]:
        message = str(error)
        if not isinstance(error, RankbenchError):
            message = f"{type(error).__name__}: {error}{raised_at(error, self.shop.registry.packages())}"
        return {
            "type": type(error).__name__,
            "message": message,
            "phase": self.where,
            "traceback": "".join(traceback.format_exception(error)),
            "output": self.printed.tail(),
        }

    # -- fitting

    def _enter(self, phase: str) -> None:
        """Whoever watches knows where a cell was when it died."""
        self.where = phase
        self.emit({"event": "phase", "phase": phase})

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self._enter(name)
        try:
            with self.clock.phase(name):
                yield
        finally:
            if os.getpid() != self.process:  # a child that the plugin forked and did not end: the cell is not its own
                os._exit(1)

    def _fit(self) -> tuple[Ranker, dict[str, Outcome], Record]:
        choice = DatasetChoice(**self.task["dataset"])
        with self._phase("load"):
            self._check_sources()
            problem = self.shop.data.problem(choice, self.task["facets"])
            if problem.fingerprint != self.task["fingerprint"]:
                self.shop.data.forget(choice, self.task["facets"])
                raise DataError(f"dataset {choice.label} changed since the run was planned; run it again.")
            self.tests = self.shop.tests(problem)
        while True:
            try:
                ranker, outcomes = self._attempt(problem)
                return ranker, outcomes, self._findings(problem, outcomes) | {"remarks": self._remarks(ranker)}
            except UnreadableImage as error:
                if self.lost is not None:
                    raise
                self.lost = self._unreadable(problem, error)
                shutil.rmtree(self.task["folder"], ignore_errors=True)  # checkpoints of a fit on other images

    def _check_sources(self) -> None:
        """PluginError where a plugin was edited since the plan: key and record would speak of another source."""
        for place, planned in self.task["about"]["sources"].items():
            kind, _, name = place.partition("/")
            if self.shop.registry.source(kind, name) != planned:
                raise PluginError(
                    f"{self.shop.registry.find(kind, name)}: its source changed since the run was planned; run again."
                )

    def _attempt(self, problem: Problem) -> tuple[Ranker, dict[str, Outcome]]:
        ranker: Ranker = self.shop.registry.build(
            "rankers", self.task["ranker"]["name"], self.task["ranker"]["parameters"]
        )
        self.made.append(ranker)
        self.shop.services.located(ranker)
        seed_everything(self.task["seed"] or 0)
        run = self._run(ranker, problem)
        images, pairs = problem.training(self.lost, ranker.inputs)
        if not len(pairs):
            raise DataError("every training pair has an image that cannot be read.")
        run.fit_digest = images.fingerprint + pairs.digest
        self.memory.begin()
        with self._phase("fit"):
            fitted = ranker.fit(images, pairs, run.door)
        run.fit_digest = None
        if not isinstance(fitted, Ranker):
            raise PluginError(f"{run.who}: fit must return self, not {type(fitted).__name__}.")
        with self._phase("score"):
            outcomes = judge(fitted, problem, run, self.lost, self.tests)
        self.refused = run.refused
        return fitted, outcomes

    def _run(self, ranker: Ranker, problem: Problem) -> CellRun:
        plugin = self.shop.registry.find("rankers", self.task["ranker"]["name"])
        self.curves.clear()
        self.holdouts.clear()
        self.feature_seconds.clear()

        def log(step: float, numbers: dict[str, float]) -> None:
            self.curves.append({"step": step, **numbers})
            self.emit({"event": "log", "step": step, "numbers": numbers})

        declared = Features(feature_choices(ranker))
        run = CellRun(
            services=self.shop.services,
            scope=problem.images,
            seed=self.task["seed"] or 0,
            device=self.task["device"],
            threads=self.task["threads"],
            folder_path=Path(self.task["folder"]),
            who=str(plugin),
            declared=declared,
            source=self.task["about"]["sources"].get(f"rankers/{plugin.name}", ""),
            version=type(ranker).version,
            logger=log,
            expecter=lambda steps: self.emit({"event": "expect", "steps": steps}),
            clock=self.clock,
            holdouts=self.holdouts,
            feature_seconds=self.feature_seconds,
            lost=self.lost,
            files=file_parameters(ranker),
        )
        learned = [choice for choice in declared if build_feature(self.shop.registry, choice).learned()]
        run.fitting = {choice: self._fitting(choice, problem) for choice in learned}
        return run

    def _fitting(self, choice: Any, problem: Problem) -> Fitting:
        if choice.fit_on is None:
            return self.shop.data.fitting(problem, self.lost)
        return self.shop.data.fitting_on(dict(choice.fit_on), problem)

    def _remarks(self, ranker: Ranker) -> list[str]:
        """What the ranker and its features want said wherever their results are shown."""
        features = [build_feature(self.shop.registry, choice) for choice in feature_choices(ranker)]
        texts = [text for one in (ranker, *features) for text in (*one.notes, one.leaks)]
        return list(dict.fromkeys(str(text) for text in texts if text))

    def _unreadable(self, problem: Problem, error: UnreadableImage) -> NDArray[np.bool_]:
        """Which of the problem's images cannot be decoded: one was found, so all are tried.

        Those found before are tried alone, unless they decode now: then the trouble was not in the files.
        """
        path = self.shop.data.cache / "unreadable" / f"{problem.images.fingerprint}-2.json"
        bad: list[int] = recalled(path, list) or []
        if not bad or any(readable(problem.images, row) for row in bad):
            bad = [row for row in range(len(problem.images)) if not readable(problem.images, row)]
            remember(path, bad)
        lost = np.zeros(len(problem.images), bool)
        lost[np.array(bad, dtype=np.int64)] = True
        share = lost.mean()
        if not lost.any():
            raise DataError(
                "an image cannot be read, and it is none of this problem's, or can be read again. A feature fitted on "
                f"another dataset (fit_on) needs every training image of that one. {error}"
            ) from error
        if share > LOST_LIMIT or self.task["strict_data"]:
            limit = "--strict-data allows none" if self.task["strict_data"] else f"at most {LOST_LIMIT:.0%} may be lost"
            raise DataError(
                f"{int(lost.sum())} of {len(lost)} images cannot be read; {limit}. The first: {error}"
            ) from error
        return lost

    def _findings(self, problem: Problem, outcomes: Mapping[str, Outcome]) -> Record:
        tests = {}
        for name, outcome in outcomes.items():
            test = self.tests[name][0]
            kind = "scores" if outcome.scores is not None else "margins"
            tests[name] = {"digest": test.digest, "tied": outcome.tied(test), "kind": kind, "pairs": len(test.pairs)}
        lost = [] if self.lost is None else [problem.images.describe(int(row)) for row in np.flatnonzero(self.lost)]
        return {
            "tests": tests,
            "not_applicable": self.refused,
            "lost": lost,
            "images": len(problem.images),
            "listed": problem.listed | {"lost": [] if self.lost is None else problem.told(np.flatnonzero(self.lost))},
            "holdouts": self.holdouts,
            "feature_seconds": self.feature_seconds,
        }


def judge(
    ranker: Ranker,
    problem: Problem,
    run: CellRun,
    lost: NDArray[np.bool_] | None,
    tests: Mapping[str, tuple[TestSet, Ints]],
) -> dict[str, Outcome]:
    """What a fitted ranker gives for every test of a problem, checked. Each image is scored once."""
    images, rows = problem.judged(lost, ranker.inputs)
    for name, pairs in problem.tests.items():
        if lost is not None and (lost[pairs.left] | lost[pairs.right]).all():
            raise DataError(f"every pair of test {name!r} has an image that cannot be read.")
    position = np.full(len(problem.images), -1, np.int64)
    position[rows] = np.arange(len(rows))
    if type(ranker).compare is Ranker.compare:
        scores = checked(ranker.score(images, run.door), len(rows), f"{run.who}: score", problem.images.take(rows))
        everywhere = np.full(len(problem.images), np.nan)
        everywhere[rows] = scores
        return {name: Outcome(scores=everywhere[own]) for name, (_, own) in tests.items()}
    outcomes = {}
    for name in problem.tests:
        try:
            outcomes[name] = compared(ranker, problem, name, images, position, run)
        except NotApplicable as error:  # pairs of this test lack what it reads, say
            run.refused[name] = str(error)
    if not outcomes and run.refused:
        raise NotApplicable(next(iter(run.refused.values())))
    return outcomes


def compared(ranker: Ranker, problem: Problem, name: str, images: Images, position: Ints, run: CellRun) -> Outcome:
    """Margins of one test set from a ranker that must see both images, back in the test's own orientation."""
    from rankbench.pairs import coin

    pairs = problem.tests[name]
    known = (position[pairs.left] >= 0) & (position[pairs.right] >= 0)
    turned = coin(problem.images.digests, pairs)
    asked = pairs.take(known).swapped(turned[known]).reindexed(position).without_labels(ranker.inputs)
    found = checked(ranker.compare(images, asked, run.door), len(asked), f"{run.who}: compare", None)
    margins = np.full(len(pairs), np.nan, np.float32)
    margins[known] = single(np.where(turned[known], -found, found))
    return Outcome(margins=margins)


def checked(values: Any, count: int, what: str, images: Images | None) -> NDArray[np.float64]:
    """What a ranker gave, as (count,) float64. PluginError for another shape or a number that is not finite."""
    if said := masked(values):
        raise PluginError(f"{what}: {said}; a masked value is no number.")
    array = np.asarray(values)
    if array.shape != (count,) or array.dtype.kind not in "fiu":
        raise PluginError(f"{what} must give ({count},) float64, not {array.shape} {array.dtype}.")
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        first = f", first for {images.describe(int(bad[0]))}" if images is not None else ""
        raise PluginError(f"{what} gave {array[bad[0]]} for {len(bad)} of {count}{first}. Training may have diverged.")
    return array.astype(np.float64)


def single(margins: NDArray[np.float64]) -> NDArray[np.float32]:
    """Margins as float32, scaled by the largest where they would not fit; only a zero becomes a tie."""
    with np.errstate(over="ignore"):
        cast = margins.astype(np.float32)
    if np.isfinite(cast).all() and (cast != 0)[margins != 0].all():
        return cast
    cast = (margins / np.abs(margins).max()).astype(np.float32)
    least = np.copysign(np.finfo(np.float32).smallest_subnormal, margins).astype(np.float32)
    return np.where((cast == 0) & (margins != 0), least, cast)


def readable(images: Images, row: int) -> bool:
    """Whether an image decodes."""
    try:
        images[row]
    except UnreadableImage:
        return False
    return True


def execute(shop: Workshop, task: Task, emit: Emit = lambda event: None, wait: bool = True) -> Record:
    """Compute and store one cell. Where another runner did so, its record; where one is at it, BUSY unless `wait`."""
    key, since, again = task["key"], time.time(), False
    claim = shop.store.claim(key)
    while True:
        if stored := settled(shop.store, task, since):
            return stored
        if not claim.take():
            if not wait:
                return {"status": BUSY}
            with WAITS:
                time.sleep(0.1)
            continue
        try:
            if stored := settled(shop.store, task, since):
                return stored
            failure = shop.store.failure(key)
            if failure is not None and failure["ended"] > since:  # while we waited
                return failure
            emit({"event": "begin"})
            shop.last = Fitter(shop, task, emit)
            record: Record = shop.last.work()
            if record["status"] != FAILED or again or claim.ours():
                return record
            again, since = True, time.time()  # another took over from us, who were silent: what it finds is the outcome
        finally:
            claim.release()


def settled(store: ResultStore, task: Task, since: float) -> Record | None:
    """The record of a stored cell; where it is to be computed again, only of one computed after `since`."""
    stored = store.record(task["key"])
    return stored if stored and (not task["replace"] or stored.get("ended", 0.0) > since) else None
