"""rankbench: a benchmark harness for pairwise attribute ranking of images.

Public names load when first used, so that `import rankbench` costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rankbench.api import Result as Result
    from rankbench.api import run as run
    from rankbench.benchmark import Benchmark as Benchmark
    from rankbench.errors import DataError as DataError
    from rankbench.errors import MissingData as MissingData
    from rankbench.errors import NotApplicable as NotApplicable
    from rankbench.errors import RankbenchError as RankbenchError
    from rankbench.hooks import hookimpl as hookimpl
    from rankbench.images import Images as Images
    from rankbench.pairs import Pairs as Pairs
    from rankbench.plugin import Count as Count
    from rankbench.plugin import Dataset as Dataset
    from rankbench.plugin import Download as Download
    from rankbench.plugin import Feature as Feature
    from rankbench.plugin import Features as Features
    from rankbench.plugin import File as File
    from rankbench.plugin import Judged as Judged
    from rankbench.plugin import Metric as Metric
    from rankbench.plugin import Need as Need
    from rankbench.plugin import Ranker as Ranker
    from rankbench.plugin import Resources as Resources
    from rankbench.plugin import Rows as Rows
    from rankbench.plugin import Run as Run
    from rankbench.plugin import added_later as added_later
    from rankbench.problem import Problem as Problem

HOME = {
    "hooks": ("hookimpl",),
    "api": ("Result", "run"),
    "benchmark": ("Benchmark",),
    "errors": ("DataError", "MissingData", "NotApplicable", "RankbenchError"),
    "images": ("Images",),
    "pairs": ("Pairs",),
    "problem": ("Problem",),
    "plugin": (
        "Count", "Dataset", "Download", "Feature", "Features", "File", "Judged", "Metric", "Need", "Ranker",
        "Resources", "Rows", "Run", "added_later",
    ),
}  # fmt: skip
WHERE = {name: module for module, names in HOME.items() for name in names}
__all__ = sorted(WHERE)


def __getattr__(name: str) -> Any:
    if name not in WHERE:
        raise AttributeError(f"module 'rankbench' has no attribute {name!r}")
    value = getattr(import_module(f"rankbench.{WHERE[name]}"), name)
    globals()[name] = value
    return value
