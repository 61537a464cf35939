"""Files that the rankers and features of a benchmark need beside data: what of them is there, and how to fetch it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rankbench.benchmark import Benchmark, named
from rankbench.errors import RankbenchError
from rankbench.plan import feature_choices
from rankbench.plugin import Dataset, Download, Learner, Need
from rankbench.registry import Registry, plain
from rankbench.services import build_feature


@dataclass(frozen=True)
class OwnFiles(Dataset):
    """What one ranker or feature needs; to a Fetcher a dataset that lies in one of the folders of it.

    `label` is `feature network`.
    """

    label: str
    learner: Learner

    def folders(self) -> list[Path]:
        """Where files lie that are not there, or may be fetched."""
        needs = self.learner.needs()
        if needs and all(need.found for need in needs):
            return []
        paths = [
            *(need.path for need in needs if not need.found),
            *(Path(one.path) for one in self.learner.downloads()),
        ]
        return sorted({path.parent for path in paths})

    def missing(self, folder: Path) -> list[Need]:
        """What is not there of one folder."""
        return [need for need in self.learner.needs() if not need.found and need.path.parent == folder]

    def needs(self, root: Path) -> list[Need]:
        return []

    def downloads(self, root: Path) -> list[Download]:
        return [
            replace(one, path=Path(one.path).name) for one in self.learner.downloads() if Path(one.path).parent == root
        ]


def own_files(registry: Registry, benchmark: Benchmark) -> list[OwnFiles]:
    """Of every ranker and feature of a benchmark that needs any, each set of files once."""
    found: dict[Any, OwnFiles] = {}
    for label, learner in learners(registry, benchmark):
        needs = learner.needs()
        if needs or type(learner).downloads is not Learner.downloads:
            found.setdefault((label, tuple(need.path for need in needs)), OwnFiles(label, learner))
    return [one for one in found.values() if one.learner.needs() or one.learner.downloads()]


def learners(registry: Registry, benchmark: Benchmark) -> Iterator[tuple[str, Learner]]:
    """Every ranker and feature; without those that cannot be built, of which a run tells."""
    for row in benchmark.row:
        for column in filter(row.fills, benchmark.column):
            name = named(row.ranker)["name"]
            try:
                ranker = registry.build("rankers", name, plain(row.parameters(column)))
                features = [(choice.name, build_feature(registry, choice)) for choice in feature_choices(ranker)]
            except RankbenchError:
                continue
            yield f"ranker {name}", ranker
            yield from ((f"feature {feature}", built) for feature, built in features)
