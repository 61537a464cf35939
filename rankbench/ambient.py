"""The state that a process shares with every cell: compared after each, so that none runs on what another left."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from rankbench.imports import WATCH
from rankbench.traits import TORCH_THREADS, TRAITS, Trait, changed_names, same

Snapshot = dict[str, Any]
BY_WORDS = {trait.words: trait for trait in TRAITS}
BY_IMPORTS = [trait for trait in TRAITS if trait.by_imports]
OF_MODULES = {trait.module for trait in TRAITS if trait.module}


def snapshot(traits: list[Trait] = TRAITS) -> Snapshot:
    """Every trait that can be read now, by its words."""
    return {trait.words: trait.value() for trait in traits if trait.there()}


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, list[str]]:
    """What changed of each trait that both have, in words."""
    found = {}
    for words, value in before.items():
        if words in now and not same(value, now[words]):
            said = BY_WORDS[words].change(value, now[words])
            if said:
                found[words] = said
    return found


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What changed, in words: "torch's default dtype is torch.float64, was torch.float32"."""
    return [text for said in changed(before, now).values() for text in said]


class Ambient:
    """Watches the state from now on. What a library changes by being imported is part of it, and no plugin's doing.

    Args: own, top-level packages of plugins, which are no libraries; threads, what a plugin may set torch's number to;
        before, the state as it is known to be now, from the `after` of one that ended just now.
    Attributes: after, the state at the end where nothing had to be put back, else None.
    """

    def __init__(
        self, own: frozenset[str] = frozenset(), threads: int | None = None, before: Snapshot | None = None
    ) -> None:
        self.own, self.threads = own, threads
        self.before = snapshot() if before is None else before
        self.after: Snapshot | None = None
        self._thread = threading.get_ident()
        self._imports: list[str] = []
        self._libraries = 0
        self._at: Snapshot = {}
        WATCH.listeners.add(self)
        WATCH.begin()

    def left(self) -> list[str]:
        """What is not as it was, in words, once it has been put back as far as can be. Ends the watch."""
        WATCH.listeners.discard(self)
        now = snapshot()
        if self.threads is not None and now.get(TORCH_THREADS) == self.threads:
            self.before.pop(TORCH_THREADS, None)
        found = changed(self.before, now)
        self.after = None if found else now
        for words in found:
            put = BY_WORDS[words].put
            try:
                if put is not None:
                    put(self.before[words], now[words])
            except Exception:  # a hard limit that was lowered, say
                continue
        return [text for said in found.values() for text in said]

    # -- imports

    def importing(self, name: str) -> None:
        """A module's code is about to run."""
        if threading.get_ident() != self._thread:
            return
        self._imports.append(name)
        if self._libraries or name.split(".")[0] not in self.own:
            if not self._libraries:
                self._at = snapshot(BY_IMPORTS)
            self._libraries += 1

    def imported(self, name: str) -> None:
        """A module's code has run."""
        if threading.get_ident() != self._thread or not self._imports:
            return
        self._imports.pop()
        if not self._libraries:
            return
        self._libraries -= 1
        if not self._libraries:
            self._take_over(snapshot(BY_IMPORTS))
        if name in OF_MODULES:  # last: reading may import more
            self._arrived(name)

    def _arrived(self, module: str) -> None:
        """A library's own state counts from its import on."""
        self.before |= {trait.words: trait.value() for trait in TRAITS if trait.module == module}

    def _take_over(self, now: Snapshot) -> None:
        for words, value in now.items():
            at, known = self._at.get(words, value), self.before.get(words)
            if same(at, value):
                continue
            if isinstance(known, Mapping) and isinstance(at, Mapping) and isinstance(value, Mapping):
                names = changed_names(at, value)
                kept = {key: one for key, one in known.items() if key not in names}
                self.before[words] = {**kept, **{key: value[key] for key in names if key in value}}
            elif same(known, at):
                self.before[words] = value
