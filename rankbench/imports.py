"""Sees every module that is imported in this process: what an import costs or changes is no cell's own."""

from __future__ import annotations

import importlib.abc
import sys
import weakref
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Protocol


class Listener(Protocol):
    """Told before and after each module's code runs, those it imports itself in between."""

    def importing(self, name: str) -> None:
        """The module's code is about to run."""

    def imported(self, name: str) -> None:
        """The module's code has run, or has failed."""


class Watch(importlib.abc.MetaPathFinder):
    """Finds what the other finders find; its loaders tell.

    Attributes: after, what to do with a module of that name right after its import.
    """

    def __init__(self) -> None:
        self.after: dict[str, Callable[[ModuleType], None]] = {}
        self.listeners: weakref.WeakSet[Listener] = weakref.WeakSet()  # one that was dropped hears nothing

    def begin(self) -> None:
        """Watch from now on."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """What the other finders find."""
        for finder in sys.meta_path:
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec: ModuleSpec | None = find(name, path, target) if find is not None else None
            if spec is not None:
                if spec.loader is not None:
                    self._telling(spec.loader)
                return spec
        return None

    def _telling(self, loader: importlib.abc.Loader) -> None:
        """The loader stays what it was (others look at its type); only its last step does more."""
        execute = getattr(loader, "exec_module", None)
        if execute is None or isinstance(loader, type) or getattr(execute, "tells", False):
            return

        def exec_module(module: ModuleType) -> None:
            listeners = list(self.listeners)
            for listener in listeners:
                listener.importing(module.__name__)
            try:
                execute(module)
            finally:
                for listener in listeners:
                    listener.imported(module.__name__)
            if module.__name__ in self.after:
                self.after[module.__name__](module)

        exec_module.tells = True  # type: ignore[attr-defined]
        try:
            loader.exec_module = exec_module  # type: ignore[method-assign]
        except AttributeError:  # one without a place for it
            return


WATCH = Watch()
