"""What the rows of a table see, and who competes for the best: what reads evidence or leaks only with its like."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rankbench.errors import PluginError

if TYPE_CHECKING:
    from rankbench.plugin import Feature, Ranker
    from rankbench.table import Entry, Head


@dataclass
class Sight:
    """What a row's numbers come from.

    Attributes:
        pixels: whether images are read. inputs: evidence given at test time. by_name: features that know images by
        their names. leaks: why the label leaks into what is judged.
    """

    pixels: bool = True
    inputs: tuple[str, ...] = ()
    by_name: tuple[str, ...] = ()
    leaks: tuple[str, ...] = ()

    @classmethod
    def of(cls, ranker: Ranker, features: Sequence[tuple[str, Feature]]) -> Sight:
        """What a ranker and its features, each with its name, declare. PluginError for what is no declaration."""
        learners = (ranker, *(feature for _, feature in features))
        for learner in learners:
            for name, kind in (("inputs", "a tuple of names"), ("leaks", "a string, the reason why")):
                if isinstance(getattr(learner, name), str) != (name == "leaks"):
                    found = getattr(learner, name)
                    raise PluginError(f"{type(learner).__name__}: {name} must be {kind}, not {found!r}.")
        reads = ranker.needs_images()
        return cls(
            any(feature.needs_images() for _, feature in features) if reads == "features" else bool(reads),
            tuple(sorted({name for learner in learners for name in learner.inputs})),
            tuple(sorted({name for name, feature in features if feature.by_name})),
            tuple(dict.fromkeys(learner.leaks for learner in learners if learner.leaks)),
        )

    @classmethod
    def recorded(cls, record: Mapping[str, Any]) -> Sight | None:
        """What a cell's record says; None for one that was stored before records said it."""
        if "by_name" not in record:
            return None
        own = (tuple(record.get(name) or ()) for name in ("inputs", "by_name", "leaks"))
        return cls(bool(record.get("pixels", True)), *own)

    def record(self) -> dict[str, Any]:
        """As a record has it."""
        kept = {"inputs": self.inputs, "by_name": self.by_name, "leaks": self.leaks}
        return {"pixels": self.pixels, **{name: list(value) for name, value in kept.items()}}

    @property
    def evidence(self) -> bool:
        """Whether more than pixels is read in tests."""
        return bool(self.inputs or self.by_name)

    @property
    def remarks(self) -> list[str]:
        """What a reader must know of it."""
        inputs, names = ", ".join(self.inputs), ", ".join(self.by_name)
        told = [f"reads evidence given at test time: {inputs}"] if inputs else []
        return told + ([f"matches images by name: {names}"] if names else [])


def together(sights: Iterable[Sight]) -> Sight:
    """What the cells of one place of a table see in all."""
    every = list(sights)
    parts = ({word for one in every for word in getattr(one, name)} for name in ("inputs", "by_name", "leaks"))
    return Sight(any(one.pixels for one in every), *(tuple(sorted(words)) for words in parts))


def competitors(sights: Mapping[int, Sight]) -> list[int]:
    """Which of a column's rows compete for the best.

    None that leaks where one does not; none that reads evidence where one sees pixels. What reads nothing, as chance
    does, may compete with either.
    """
    fair = [at for at, sight in sights.items() if not sight.leaks] or list(sights)
    if any(sights[at].pixels and not sights[at].evidence for at in fair):
        fair = [at for at in fair if not sights[at].evidence]
    return fair


def mark_best(entries: Sequence[Entry], head: Head) -> None:
    """Mark the best measured values of a column among those that compete; equal at the shown precision is equal."""
    there = {at: entry for at, entry in enumerate(entries) if entry.value is not None}
    fair = competitors({at: entry.sight for at, entry in there.items()})
    shown = {at: round(there[at].value or 0.0, head.decimals) for at in fair}
    if len(shown) > 1 and head.higher_is_better is not None:
        best = max(shown.values()) if head.higher_is_better else min(shown.values())
        for at, entry in there.items():
            entry.best = at in shown and shown[at] == best
            entry.apart = at not in shown


def apart(entries: Iterable[Entry]) -> str:
    """Which measured rows do not compete, for the legend; empty where all do."""
    sights = [entry.sight for entry in entries if entry.apart]
    if any(sight.evidence and not sight.leaks for sight in sights):
        return "rows that read evidence or leak do not compete"
    return "rows whose label leaks do not compete" if sights else ""
