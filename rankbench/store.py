"""ResultStore: one folder per cell, there whole or not at all. Nothing is pickled: a stranger's store is safe to open.

    cells/<key>/record.json, scores.npz, curves.json, model/     a cell that succeeded or was not applicable
    cells/<key>/accepted/<digest>                                an edit of its source declared harmless
    failures/<key>/<attempt>/record.json                         one attempt that failed
    tests/<digest>/test.npz, test.json                           a test set, once
    plans/<benchmark>/<number>.json                              what a run meant to compute

No file is appended to or rewritten in place. Merging two stores is copying one over the other. Every folder has the
checksums of its files beside them (checksums.json), but for those stored before there were any. What is damaged is
named, once, and counts as not there; a run computes it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import xxhash

from rankbench.cell import Outcome, TestSet
from rankbench.claims import Claim
from rankbench.drafts import remove, sweep, sweep_once
from rankbench.errors import DamagedFile, RankbenchError
from rankbench.files import (
    NOTICES,
    arrays_of,
    check_folder,
    checksums,
    read_arrays,
    read_file,
    read_state,
    write_file,
    write_folder,
    write_state,
)
from rankbench.images import frozen
from rankbench.pairs import Pairs
from rankbench.records import (
    WITH_CHECKSUMS,
    AboutTest,
    Curves,
    Done,
    Failed,
    NotApplicable,
    Stored,
    Sums,
    checked_file,
    marked,
    read_stored,
    same_plan,
    sealed,
    stored_bytes,
    stored_cell,
    unsealed,
)
from rankbench.records import Record as Record

LARGEST_TEST = 2**32  # bytes
AGAIN = "`rankbench run` computes its cell again."
LONGEST_NAME = 255  # bytes of a folder's name
EMPTY_MODEL = {"kept": True, "bytes": 0}


class ResultStore:
    """All results of all benchmarks, under one folder."""

    def __init__(self, root: str | Path, cache: Path | None = None) -> None:
        self.root, self.cache = Path(root), cache
        self._named: set[str] = set()
        self._cells: dict[str, tuple[Any, bool, Stored]] = {}  # what the files looked like, whether all were read
        self._tests: dict[str, tuple[Any, str]] = {}
        self._whole: set[tuple[str, str]] = set()  # content of test sets, and the digest it has

    def name(self, error: DamagedFile, how: str) -> None:
        """Say once what is damaged, and how it is mended."""
        if error.path not in self._named:
            self._named.add(error.path)
            NOTICES.mended(error, how)

    def sweep(self) -> None:
        """Delete what writers that were killed left unfinished."""
        for folder in ("cells", "tests"):
            sweep(self.root / folder, unsigned=True)
        for folder in ("failures", "plans"):
            with contextlib.suppress(OSError):
                for entry in os.scandir(self.root / folder):
                    sweep(Path(entry.path), unsigned=True)

    # -- cells

    def cell(self, key: str) -> Path:
        """Folder of a cell, there or not."""
        return self.root / "cells" / key

    def has(self, key: str) -> bool:
        """Whether the cell is stored (succeeded, or not applicable)."""
        return self.record(key) is not None

    def record(self, key: str) -> Record | None:
        """A stored cell's record, or None; a damaged cell is named and counts as not there."""
        try:
            stored = self.stored(key)
        except DamagedFile as error:
            self.name(error, AGAIN)
            return None
        return None if stored is None else stored.record

    def stored(self, key: str, thorough: bool = True) -> Stored | None:
        """A stored cell, whole, or None. A file is read again only when it has changed.

        Args: thorough, look at the curves too, and into scores that were stored without checksums.
        Raises: DamagedFile naming what is not as it was stored, or cannot be right.
        """
        while True:
            seen = self._looks(key)
            known = self._cells.get(key)
            if known is not None and known[0] == seen and known[1] >= thorough:
                return known[2]
            try:
                stored = self._read(key, thorough)
            except DamagedFile:
                if self._looks(key) == seen:
                    raise
                continue  # another process has replaced it meanwhile
            if stored is not None:
                self._cells[key] = seen, thorough, stored
            return stored

    def _looks(self, key: str) -> list[Any]:
        return looks(self.cell(key), "record.json", "scores.npz", "checksums.json", "curves.json")

    def _read(self, key: str, thorough: bool) -> Stored | None:
        folder = self.cell(key)
        found = stored_cell(folder)
        if found is None:
            sweep_once(folder.parent, drop=False)  # a kill may have left it beside its place
            found = stored_cell(folder)
        if found is None:
            return None
        stored, sums = found
        if thorough:
            self._curves(folder, sums)
            if sums is None:
                self._check_outcomes(key, stored.record)
        return stored

    def _check_outcomes(self, key: str, record: Record) -> None:
        """DamagedFile where scores without a checksum cannot be right."""
        tests = record.get("tests", {})
        found = read_arrays(self.cell(key) / "scores.npz") if tests else {}
        for name, test in tests.items():
            about = self._about(test["digest"])
            images = None if about is None else about["images"]
            flaw = self._outcome(key, found, name).flaw(images, test["pairs"], len(record.get("lost", [])))
            if flaw:
                raise self.flawed(key, flaw)

    def check_tests(self, key: str, record: Record, tests: Mapping[str, str]) -> None:
        """DamagedFile where a record names another test set than the data gives. Args: tests, digests by name."""
        for name, test in record.get("tests", {}).items():
            if test["digest"] != tests.get(name):
                path = self.cell(key) / "record.json"
                raise DamagedFile(f"{path}: is damaged: its test {name!r} is not that of the data.", path)

    def flawed(self, key: str, flaw: str) -> DamagedFile:
        """Scores of a cell that cannot be right."""
        path = self.cell(key) / "scores.npz"
        return DamagedFile(f"{path}: is damaged: {flaw}.", path)

    def records(self) -> Iterator[tuple[str, Record]]:
        """Record of every stored cell, whatever its other files are like."""
        for key in sorted(listed(self.root / "cells")):
            try:
                found = marked(self.cell(key), "record.json", Done | NotApplicable)
            except DamagedFile as error:
                self.name(error, "It counts as not there.")
                continue
            if found is not None:
                yield key, found[0]

    def save(
        self,
        key: str,
        record: Record,
        outcomes: Mapping[str, Outcome] | None = None,
        state: Mapping[str, Any] | None = None,
        keep: Callable[[int], bool] = lambda size: True,
        curves: list[dict[str, float]] | None = None,
        replace: bool = False,
    ) -> bool:
        """Store a cell in one rename. False if another process stored it first. `keep(bytes)` decides on the model."""

        def fill(draft: Path) -> None:
            record[WITH_CHECKSUMS] = True
            arrays = {}
            for name, outcome in (outcomes or {}).items():
                for part in ("scores", "margins"):
                    if getattr(outcome, part) is not None:
                        arrays[f"{part}/{name}"] = getattr(outcome, part)
            if arrays:
                np.savez(draft / "scores.npz", **arrays)
            if curves:
                (draft / "curves.json").write_text(json.dumps(curves))
            if state is not None and not state:  # nothing was learned, and nothing need be stored
                record["model"] = EMPTY_MODEL
            elif state is not None:
                (draft / "model").mkdir()
                size = write_state(draft / "model", state, str(record.get("ranker", {}).get("name", "ranker")))
                record["model"] = {"kept": keep(size), "bytes": size}
                if not record["model"]["kept"]:
                    for file in (draft / "model").iterdir():
                        file.unlink()
                    (draft / "model").rmdir()
            (draft / "record.json").write_text(spelled(record))

        return write_folder(self.cell(key), fill, replace or not self.has(key))

    def outcome(self, key: str, test: str) -> Outcome:
        """A stored cell's outcome on one of its tests."""
        return self._outcome(key, read_arrays(self.cell(key) / "scores.npz"), test)

    def _outcome(self, key: str, found: Mapping[str, Any], test: str) -> Outcome:
        scores, margins = (found.get(f"{part}/{test}") for part in ("scores", "margins"))
        if scores is None and margins is None:
            path = self.cell(key) / "scores.npz"
            raise DamagedFile(f"{path}: holds nothing for test {test!r}.", path)
        return Outcome(scores, margins)

    def curves(self, key: str) -> list[dict[str, float]]:
        """Points the ranker logged while it was fitted. DamagedFile where they are not what was stored."""
        found = marked(self.cell(key), "record.json", Any)
        return [] if found is None else self._curves(self.cell(key), found[2])

    def _curves(self, folder: Path, sums: Sums | None) -> list[dict[str, float]]:
        path = folder / "curves.json"
        if "curves.json" not in sums if sums is not None else not os.path.lexists(path):
            return []
        if sums is not None:
            checked_file(folder, path.name, sums)
        return list(read_stored(path, Curves))

    def state(self, key: str) -> dict[str, Any] | None:
        """The stored model, or None if it was not kept. DamagedFile where it is not what was stored."""
        folder = self.cell(key) / "model"
        if folder.exists():
            if (self.record(key) or {}).get(WITH_CHECKSUMS):
                stored = checksums(self.cell(key)) or {}
                check_folder(self.cell(key), {"model/state.json", *(n for n in stored if n.startswith("model/"))})
            return read_state(folder)
        return {} if (self.record(key) or {}).get("model") == EMPTY_MODEL else None

    def accept(self, key: str, source: str) -> None:
        """Record that an edit of the plugin's source leaves this cell's result unchanged."""
        write_file(self.cell(key) / "accepted" / source, time.strftime("%Y-%m-%dT%H:%M:%SZ\n", time.gmtime()))

    def accepted(self, key: str, source: str) -> bool:
        """Whether that source was accepted for the cell."""
        return (self.cell(key) / "accepted" / source).exists()

    def claim(self, key: str) -> Claim:
        """The right to compute a cell, against other runners on the same store."""
        return Claim(self.root / "claims" / key)

    # -- failures

    def save_failure(self, key: str, record: Record) -> None:
        """Store one failed attempt; earlier ones stay."""
        now = time.time_ns()
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now // 10**9))
        path = self.root / "failures" / key / f"{stamp}.{now % 10**9:09d}-{uuid.uuid4().hex[:6]}"

        def fill(draft: Path) -> None:
            (draft / "record.json").write_text(spelled({**record, WITH_CHECKSUMS: True}))

        write_folder(path, fill)

    def failure(self, key: str) -> Record | None:
        """The last failed attempt, or None; a damaged one is named and counts as not there."""
        folder = self.root / "failures" / key
        for attempt in sorted(listed(folder), reverse=True):
            try:
                found = marked(folder / attempt, "record.json", Failed)
            except DamagedFile as error:
                self.name(error, "This failed attempt counts as not there.")
                continue
            if found is not None:
                return Record(found[0])
        return None

    def failure_file(self, key: str) -> Path | None:
        """Where the last failed attempt is recorded, with its traceback and what its plugin printed; or None."""
        return max((p for p in (self.root / "failures" / key).glob("[!.]*/record.json")), default=None)

    # -- test sets

    def save_test(self, test: TestSet) -> str:
        """Store a test set under its digest, once; a damaged one is replaced. Returns the digest."""
        path = self.root / "tests" / test.digest
        if self.has_test(test.digest):
            return test.digest
        pairs, n = test.pairs, len(test.digests)
        steps = np.diff(pairs.left.astype(np.int64) * n + pairs.right, prepend=0)  # sorted pairs: small numbers
        arrays = {"steps": smallest(steps), "label": pairs.judgement, "digests": test.digests}
        if pairs.weight is not None:
            arrays["weight"] = pairs.weight
        arrays |= {f"pair/{name}": array for name, array in pairs.columns.items()}
        arrays |= {f"image/{name}": array for name, array in test.columns.items()}

        def fill(draft: Path) -> None:
            np.savez_compressed(draft / "test.npz", **arrays)  # type: ignore[arg-type]
            about = {"names": test.names, "sided": dict(pairs.sided), "pairs": len(pairs), "images": n}
            (draft / "test.json").write_text(json.dumps({**about, WITH_CHECKSUMS: True}))

        write_folder(path, fill, replace=os.path.lexists(path))
        return test.digest

    def has_test(self, digest: str) -> bool:
        """Whether a test set is stored, and has the digest it is stored under; one that is damaged is named."""
        if not os.path.lexists(self.root / "tests" / digest):
            return False
        try:
            if not self._vouched(self.test_content(digest), digest):
                self.test(digest)
        except DamagedFile as error:
            self.name(error, "It is stored again.")
            return False
        return True

    def name_absent_test(self, digest: str) -> None:
        """Say that a test set has gone that stored cells were judged on."""
        path = self.root / "tests" / digest
        if not os.path.lexists(path):
            self.name(DamagedFile(f"{path}: has gone.", path), "It is stored again.")

    def test(self, digest: str) -> TestSet:
        """A stored test set. DamagedFile where it cannot be read, or its digest is not the one it is stored under."""
        path = self.root / "tests" / digest / "test.npz"
        content = self.test_content(digest)
        try:
            about = self._about(digest) or {}
            with io.BytesIO(stored_bytes(path, LARGEST_TEST)) as file:
                test = unpacked(arrays_of(file), about["names"], about["sided"])
            whole = self._vouched(content, digest) or test.digest == digest
        except DamagedFile:
            raise
        except (Exception, RecursionError) as error:  # whatever damaged arrays lead to
            raise DamagedFile(
                f"{path}: cannot be read ({str(error) or type(error).__name__}).",
                path,
            ) from error
        if not whole:
            raise DamagedFile(f"{path}: is damaged or forged: the test set in it has the digest {test.digest}.", path)
        self._vouch(content, digest)
        return test

    def test_content(self, digest: str) -> str:
        """Checksum of a test set's files, for memos: no word on whether they are what the digest says."""
        folder = self.root / "tests" / digest
        seen = looks(folder, "test.json", "test.npz", "checksums.json")
        known = self._tests.get(digest)
        if known is None or known[0] != seen:
            found = marked(folder, "test.json", AboutTest)
            if found is None:
                raise DamagedFile(f"{folder / 'test.json'}: cannot be read (the folder has gone).", folder)
            content = found[1] + checked_file(folder, "test.npz", found[2], LARGEST_TEST)
            known = self._tests[digest] = seen, xxhash.xxh3_128_hexdigest(content.encode())
        return known[1]

    def _about(self, digest: str) -> Record | None:
        """What a test set's test.json says; None where it is damaged or gone."""
        with contextlib.suppress(DamagedFile):
            found = marked(self.root / "tests" / digest, "test.json", AboutTest)
            return None if found is None else Record(found[0])
        return None

    def _vouched(self, content: str, digest: str) -> bool:
        """Whether the cache remembers that files of this content hold the test set of this digest."""
        if (content, digest) in self._whole:
            return True
        path = None if self.cache is None else self.cache / "tests" / content
        if path is None or not os.path.lexists(path):
            return False
        try:
            remembered = read_file(path, 100)
        except RankbenchError:
            remembered = b""
        if remembered != digest.encode():
            NOTICES.mended(DamagedFile(f"{path}: is damaged.", path), "It is written again.")
            remove(path)
        return remembered == digest.encode()

    def _vouch(self, content: str, digest: str) -> None:
        if not self._vouched(content, digest) and self.cache is not None and self.cache.exists():
            with contextlib.suppress(RankbenchError):  # a full disk: the cache can do without
                write_file(self.cache / "tests" / content, digest)
        self._whole.add((content, digest))

    # -- plans

    def save_plan(self, benchmark: str, plan: Mapping[str, Any]) -> int:
        """Store a plan under the next free number, unless it equals the newest. Returns its number."""
        newest = self.plan(benchmark)
        if newest is not None and same_plan(newest, plan):
            return int(newest["number"])
        number = 1 + max([int(path.stem) for path in self._plans(benchmark)], default=0)
        while True:
            path = self._plan_folder(benchmark) / f"{number:06d}.json"
            if write_file(path, sealed({**plan, "number": number}), replace=False):
                return number
            number += 1  # another runner took it

    def plan(self, benchmark: str) -> dict[str, Any] | None:
        """The newest plan of a benchmark that is not damaged, or None; damaged ones that are newer are named."""
        for path in reversed(self._plans(benchmark)):
            try:
                return unsealed(path)
            except DamagedFile as error:
                self.name(error, "The plan before it counts, until the next run.")
        return None

    def _plans(self, benchmark: str) -> list[Path]:
        folder = self._plan_folder(benchmark)
        numbered = [name for name in listed(folder) if name.endswith(".json") and name[:-5].isdecimal()]
        return [folder / name for name in sorted(numbered, key=lambda name: (len(name.lstrip("0")), name))]

    def _plan_folder(self, benchmark: str) -> Path:
        return self.root / "plans" / folder_name(benchmark)

    def benchmarks(self) -> list[str]:
        """Names of the benchmarks that were ever run into this store."""
        return sorted(name for name in listed(self.root / "plans") if self.plan(name) is not None)


def listed(folder: Path) -> list[str]:
    """What lies in a folder, drafts excepted."""
    try:
        return [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError:
        return []


def looks(folder: Path, *names: str) -> list[Any]:
    """What changes when one of these files is written: size, times, inode; None for one that is not there."""
    seen: list[Any] = []
    for name in names:
        try:
            stat = os.stat(f"{folder}/{name}")
            seen.append((stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino))
        except OSError:
            seen.append(None)
    return seen


def unpacked(found: Mapping[str, Any], images: list[str] | None, sided: Mapping[str, Any]) -> TestSet:
    """A test set from its stored arrays and the names of its images."""
    code = np.cumsum(found["steps"], dtype=np.int64)
    n = len(found["digests"])
    parts = {
        kind: {k.removeprefix(kind): v for k, v in found.items() if k.startswith(kind)} for kind in ("pair/", "image/")
    }
    pairs = Pairs(code // n, code % n, found["label"], found.get("weight"), columns=parts["pair/"], sided=sided)
    return TestSet(
        pairs, frozen(found["digests"], "digests"), None if images is None else tuple(images), parts["image/"]
    )


def folder_name(benchmark: str) -> str:
    """Name of the folder of a benchmark's plans: its own, or where no folder may be called so, one that differs."""
    usable = benchmark.strip(". ") and not re.search(r"[\x00-\x1f\x7f/\\\ud800-\udfff]", benchmark)
    if usable and len(os.fsencode(benchmark)) <= LONGEST_NAME:
        return benchmark
    digest = hashlib.sha256(benchmark.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', benchmark).strip('._')[:80] or 'plan'}-{digest}"


def spelled(record: Record) -> str:
    """A record as indented JSON with sorted keys."""
    text = json.dumps(record, sort_keys=True)
    try:
        return msgspec.json.format(text, indent=1)  # json's own indent costs 5 times as much
    except msgspec.DecodeError:  # half a character, from a path that is no Unicode
        return json.dumps(record, sort_keys=True, indent=1)


def smallest(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same non-negative integers in the narrowest unsigned type that holds them."""
    return values.astype(np.min_scalar_type(int(values.max(initial=0))))
