"""ResultStore: one folder per cell, there whole or not at all. Nothing is pickled: a stranger's store is safe to open.

    cells/<key>/record.json, scores.npz, curves.json, model/     a cell that succeeded or was not applicable
    cells/<key>/accepted/<digest>                                an edit of its source declared harmless
    failures/<key>/<attempt>/record.json                         one attempt that failed
    tests/<digest>/test.npz, test.json                           a test set, once
    plans/<benchmark>/<number>.json                              what a run meant to compute

No file is appended to or rewritten in place. Merging two stores is copying one over the other.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from rankbench.cell import Outcome, TestSet
from rankbench.errors import StoreError
from rankbench.files import (
    Claim,
    canonical_json,
    read_arrays,
    read_json,
    read_state,
    write_file,
    write_folder,
    write_state,
)
from rankbench.images import frozen
from rankbench.pairs import Pairs

Record = dict[str, Any]
LONGEST_NAME = 255  # bytes of a folder's name
EMPTY_MODEL = {"kept": True, "bytes": 0}


class ResultStore:
    """All results of all benchmarks, under one folder."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    # -- cells

    def cell(self, key: str) -> Path:
        """Folder of a cell, there or not."""
        return self.root / "cells" / key

    def has(self, key: str) -> bool:
        """Whether the cell is stored (succeeded, or not applicable)."""
        return self.record(key) is not None

    def record(self, key: str) -> Record | None:
        """A stored cell's record, or None; a damaged one counts as not there, and is replaced by the next run."""
        return whole_record(self.cell(key) / "record.json")

    def records(self) -> Iterator[tuple[str, Record]]:
        """Every stored cell."""
        for path in sorted((self.root / "cells").glob("*/record.json")):
            record = None if path.parent.name.startswith(".") else whole_record(path)
            if record is not None:
                yield path.parent.name, record

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
        path = self.cell(key) / "scores.npz"
        found = read_arrays(path)
        scores, margins = (found.get(f"{part}/{test}") for part in ("scores", "margins"))
        if scores is None and margins is None:
            raise StoreError(f"{path}: holds nothing for test {test!r}.")
        return Outcome(scores, margins)

    def curves(self, key: str) -> list[dict[str, float]]:
        """Points the ranker logged while it was fitted."""
        path = self.cell(key) / "curves.json"
        return list(read_json(path)) if path.exists() else []

    def state(self, key: str) -> dict[str, Any] | None:
        """The stored model, or None if it was not kept."""
        folder = self.cell(key) / "model"
        if folder.exists():
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
            (draft / "record.json").write_text(spelled(record))

        write_folder(path, fill)

    def failure(self, key: str) -> Record | None:
        """The last failed attempt, or None."""
        attempts = sorted(p for p in (self.root / "failures" / key).glob("*/record.json") if p.parent.name[0] != ".")
        return next(filter(None, map(whole_record, reversed(attempts))), None)

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
            names = {"names": test.names, "sided": dict(pairs.sided), "pairs": len(pairs), "images": n}
            (draft / "test.json").write_text(json.dumps(names))

        write_folder(path, fill, replace=path.exists())
        return test.digest

    def has_test(self, digest: str) -> bool:
        """Whether a test set is stored and not cut short."""
        path = self.root / "tests" / digest
        try:
            read_json(path / "test.json")
        except (StoreError, OSError):
            return False
        return zipfile.is_zipfile(path / "test.npz")

    def test(self, digest: str) -> TestSet:
        """A stored test set."""
        path = self.root / "tests" / digest
        about, found = read_json(path / "test.json"), read_arrays(path / "test.npz")
        code = np.cumsum(found["steps"], dtype=np.int64)
        n = len(found["digests"])
        parts = {
            kind: {k.removeprefix(kind): v for k, v in found.items() if k.startswith(kind)}
            for kind in ("pair/", "image/")
        }
        pairs = Pairs(
            code // n, code % n, found["label"], found.get("weight"), columns=parts["pair/"], sided=about["sided"]
        )
        names = None if about["names"] is None else tuple(about["names"])
        return TestSet(pairs, frozen(found["digests"], "digests"), names, parts["image/"])

    # -- plans

    def save_plan(self, benchmark: str, plan: Mapping[str, Any]) -> int:
        """Store a plan under the next free number, unless it equals the newest. Returns its number."""
        newest = self.plan(benchmark)
        if newest is not None and canonical_json({**newest, "number": 0}) == canonical_json({**plan, "number": 0}):
            return int(newest["number"])
        number = 1 + max([int(path.stem) for path in self._plans(benchmark)], default=0)
        while True:
            path = self._plan_folder(benchmark) / f"{number:06d}.json"
            if write_file(path, json.dumps({**plan, "number": number}, indent=1, sort_keys=True), replace=False):
                return number
            number += 1  # another runner took it

    def plan(self, benchmark: str) -> dict[str, Any] | None:
        """The newest plan of a benchmark that is not damaged, or None."""
        for path in reversed(self._plans(benchmark)):
            with contextlib.suppress(StoreError, OSError):
                plan = read_json(path)
                if isinstance(plan, dict) and plan:
                    return plan
        return None

    def _plans(self, benchmark: str) -> list[Path]:
        numbered = self._plan_folder(benchmark).glob("[0-9]*.json")
        return sorted((path for path in numbered if path.stem.isdecimal()), key=lambda path: int(path.stem))

    def _plan_folder(self, benchmark: str) -> Path:
        return self.root / "plans" / folder_name(benchmark)

    def benchmarks(self) -> list[str]:
        """Names of the benchmarks that were ever run into this store."""
        return sorted(path.name for path in (self.root / "plans").glob("*") if self.plan(path.name) is not None)


def folder_name(benchmark: str) -> str:
    """Name of the folder of a benchmark's plans: its own, or where no folder may be called so, one that differs."""
    usable = benchmark.strip(". ") and not re.search(r"[\x00-\x1f\x7f/\\\ud800-\udfff]", benchmark)
    if usable and len(os.fsencode(benchmark)) <= LONGEST_NAME:
        return benchmark
    digest = hashlib.sha256(benchmark.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', benchmark).strip('._')[:80] or 'plan'}-{digest}"


def whole_record(path: Path) -> Record | None:
    """A record, or None where there is none or it is damaged."""
    with contextlib.suppress(StoreError, OSError):
        record = read_json(path)
        if isinstance(record, dict) and record:
            return record
    return None


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
