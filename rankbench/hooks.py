"""The four hooks a plugin package may implement. Imports no NumPy: listing plugins must cost next to nothing."""

from __future__ import annotations

from collections.abc import Mapping

import pluggy

hookspec = pluggy.HookspecMarker("rankbench")
hookimpl = pluggy.HookimplMarker("rankbench")


class Hooks:
    """The four hooks. Each returns {"kebab-case-name": class or "package.module:Class"}."""

    @hookspec
    def rankbench_datasets(self) -> Mapping[str, type | str]:  # type: ignore[empty-body]
        """Datasets this package brings."""

    @hookspec
    def rankbench_rankers(self) -> Mapping[str, type | str]:  # type: ignore[empty-body]
        """Rankers this package brings."""

    @hookspec
    def rankbench_metrics(self) -> Mapping[str, type | str]:  # type: ignore[empty-body]
        """Metrics this package brings."""

    @hookspec
    def rankbench_features(self) -> Mapping[str, type | str]:  # type: ignore[empty-body]
        """Features this package brings."""
