"""What is in a dataset, counted and held against what its authors published; and what is wrong with it.

Counts are of each problem as the dataset yields it, before unreadable images and copies are taken out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankbench.errors import NotApplicable, UnreadableImage, counted
from rankbench.images import Images
from rankbench.loading import Data, DatasetChoice, blaming
from rankbench.pairs import Pairs
from rankbench.plugin import Count
from rankbench.problem import Problem

Advance = Callable[[int, int], None]  # images decoded, of how many


@dataclass
class Checked:
    """What a check found.

    Attributes:
        counts: of the files. problems: facets and counts of each problem. wrong: what must be mended. remarks: what a
        user should know. fingerprints: of each problem, in the same order.
    """

    counts: list[Count] = field(default_factory=list)
    problems: list[tuple[dict[str, Any], list[Count]]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    remarks: dict[str, list[str]] = field(default_factory=dict)  # and of which problems
    fingerprints: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing is wrong and every published count was found."""
        every = [*self.counts, *(count for _, counts in self.problems for count in counts)]
        return not self.wrong and all(count.published in (None, count.found) for count in every)


def checked(
    data: Data, choice: DatasetChoice, decode: bool = True, advance: Advance = lambda done, of: None
) -> Checked:
    """Check a dataset whose files are there.

    Args: decode, whether every image is decoded; advance, told of each image.
    Raises: DataError where a file is wrong.
    """
    dataset, folder, found = data.dataset(choice), data.folder(choice), Checked()
    with blaming(data.registry, choice):
        found.counts = list(dataset.counts(folder))
        every = data.facets(choice) or [{}]
    seen: set[bytes] = set()
    lost: set[str] = set()
    for facets in every:
        with blaming(data.registry, choice):
            problem = dataset.problem(folder, facets)
            published = dict(dataset.published(facets))
        label = " ".join(f"{k}={v}" for k, v in facets.items())
        for note in problem.notes:
            remark(found.remarks, note, label)
        if problem.images.has_content:
            problem.images.with_digests(data.memo)
            if decode:
                lost |= unreadable(problem.images, seen, advance)
            about_copies(problem, label, found)
        found.problems.append((dict(facets), problem_counts(problem, published)))
        about_pairs(problem, label, found)
        found.fingerprints.append(problem.canonical(data.memo).fingerprint)
    found.wrong += sorted(lost)
    return found


def remark(remarks: dict[str, list[str]], text: str, label: str) -> None:
    remarks.setdefault(text, []).append(label)


def split_pairs(problem: Problem) -> Iterator[tuple[str, Pairs]]:
    """Training pairs and those of each test, by name."""
    if problem.train is not None:
        yield "train", problem.train
    yield from problem.tests.items()


def problem_counts(problem: Problem, published: Mapping[str, float]) -> list[Count]:
    """Images, pairs and ties of training and of each test; a published count of something else is not found."""
    found: dict[str, float] = {"images": len(problem.images), "train images": len(problem.training_rows())}
    for name, pairs in split_pairs(problem):
        if name != "train":
            found[f"{name} images"] = int(problem.rows_of(pairs).sum())
        found[f"{name} pairs"], found[f"{name} ties"] = len(pairs), int((~pairs.ordered).sum())
    absent = {name: number for name, number in published.items() if name not in found}
    return [Count(name, number, published.get(name)) for name, number in found.items()] + [
        Count(name, 0, number) for name, number in absent.items()
    ]


# ------------------------------------------------------------------------------------------------------------ images


def unreadable(images: Images, seen: set[bytes], advance: Advance) -> set[str]:
    """Messages for the images that cannot be decoded; those of digests in `seen` were looked at before."""
    from joblib import Parallel, delayed

    rows = []
    for row, digest in enumerate(images.digests):
        if (one := digest.tobytes()) not in seen:
            seen.add(one)
            rows.append(row)

    def look(row: int) -> str:
        try:
            images[row]
        except NotApplicable:
            return ""
        except UnreadableImage as error:
            return str(error)
        return ""

    messages = set()
    advance(0, len(rows))
    jobs = Parallel(n_jobs=-1, backend="threading", return_as="generator")
    for number, message in enumerate(jobs(delayed(look)(row) for row in rows), 1):
        messages |= {message} - {""}
        advance(number, len(rows))
    return messages


def about_copies(problem: Problem, label: str, found: Checked) -> None:
    """Images of equal bytes, and those of them on both sides."""
    whole = np.ascontiguousarray(problem.images.digests).view("S32").ravel()
    _, group, sizes = np.unique(whole, return_inverse=True, return_counts=True)
    alike = np.flatnonzero(sizes[group] > 1)
    if len(alike):
        names = ", ".join(name_of(problem.images, int(row)) for row in alike[:4])
        text = f"{counted(len(alike), 'image')} whose bytes equal another's ({names}{', …' * (len(alike) > 4)})"
        remark(found.remarks, text, label)
    training, test = np.zeros(len(sizes), bool), np.zeros(len(sizes), bool)
    training[group[problem.training_rows()]] = True
    test[group[problem.test_rows()]] = True
    both = int((training & test).sum())
    rows = np.intersect1d(problem.training_rows(), problem.test_rows())
    if both > len(rows):
        text = f"{counted(both - len(rows), 'training image')} with the bytes of a test image, left out of training"
        remark(found.remarks, text, label)


def name_of(images: Images, row: int) -> str:
    return images.names[row] if images.names is not None else images.describe(row)


# ------------------------------------------------------------------------------------------------------------- pairs


def about_pairs(problem: Problem, label: str, found: Checked) -> None:
    """Overlap of training and tests, images nobody judged, what contradicts itself, what hangs together."""
    training = problem.training_rows()
    for name, pairs in problem.tests.items():
        shared = np.intersect1d(training, np.flatnonzero(problem.rows_of(pairs)))
        if len(shared):
            first = name_of(problem.images, int(shared[0]))
            text = f"{counted(len(shared), 'image')} both in training and in test {name!r} (first: {first})"
            remark(found.remarks, f"{text}; reason given: {problem.overlap}", label)
    used = np.union1d(training, problem.test_rows())
    if len(used) < len(problem.images):
        idle = np.setdiff1d(np.arange(len(problem.images)), used)
        first = name_of(problem.images, int(idle[0]))
        remark(found.remarks, f"{counted(len(idle), 'image')} in no pair (first: {first})", label)
    for name, pairs in split_pairs(problem):
        for text in about_judgements(pairs, len(problem.images), problem.images.columns.get("score")):
            remark(found.remarks, f"{name}: {text}", label)


def about_judgements(pairs: Pairs, images: int, score: NDArray[Any] | None) -> Iterator[str]:
    """What one set of pairs says twice, against itself, or in circles, and whether it hangs together."""
    low, high = np.minimum(pairs.left, pairs.right).astype(np.int64), np.maximum(pairs.left, pairs.right)
    label = np.where(pairs.left == low, pairs.judgement, -pairs.judgement)
    code = low * images + high
    ascending = np.sort(code)  # np.unique hashes, which takes ten times as long for ten million
    if (ascending[1:] == ascending[:-1]).any():
        order = np.argsort(code, kind="stable")
        first = np.flatnonzero(np.diff(code[order], prepend=-1))
        label = label[order]
        ups, downs, ties = (np.logical_or.reduceat(label == sign, first) for sign in (1, -1, 0))
        repeated = int((np.diff(first, append=len(code)) > 1).sum())
        against, unsure = int((ups & downs).sum()), int((ties & (ups | downs)).sum())
        yield (
            f"{counted(repeated, 'pair')} judged more than once, {against:,} of them with opposite labels and "
            f"{unsure:,} once as a tie and once not"
        )
    yield from about_graph(pairs, images, score)


def about_graph(pairs: Pairs, images: int, score: NDArray[Any] | None) -> Iterator[str]:
    """Components of the pairs, and circles in their order; an order that follows a score has none."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    def components(left: NDArray[Any], right: NDArray[Any], directed: bool) -> NDArray[Any]:
        graph = coo_array((np.ones(len(left), bool), (left, right)), shape=(images, images))
        found: NDArray[Any] = connected_components(graph.tocsr(), directed=directed, connection="strong")[1]
        return found

    touched = np.flatnonzero(np.bincount(pairs.left, minlength=images) + np.bincount(pairs.right, minlength=images))
    sizes = np.bincount(components(pairs.left, pairs.right, False)[touched])
    parts = np.sort(sizes[sizes > 0])[::-1]
    if len(parts) > 1:
        yield (
            f"{len(parts):,} connected components (the largest has {parts[0]:,} of {len(touched):,} images): images of "
            "two components were never compared, even through others"
        )
    ordered = pairs if pairs.ordered.all() else pairs.take(pairs.ordered)
    if score is not None and (np.sign(score[ordered.left] - score[ordered.right]) == ordered.judgement).all():
        return
    left_won = ordered.judgement > 0
    won, lost = np.where(left_won, ordered.left, ordered.right), np.where(left_won, ordered.right, ordered.left)
    strong = components(won, lost, True)
    inside = int((strong[won] == strong[lost]).sum())
    if inside:
        among = np.bincount(strong)
        yield (
            f"{counted(inside, 'ordered pair')} in circles (A over B over … over A), among "
            f"{int(among[among > 1].sum()):,} images: no score satisfies them all"
        )


def as_json(found: Checked) -> dict[str, Any]:
    """For programs."""

    def rows(counts: list[Count]) -> list[dict[str, Any]]:
        return [{k: v for k, v in vars(count).items() if v not in (None, "")} for count in counts]

    return {
        "good": found.good,
        "wrong": found.wrong,
        "remarks": remarks(found),
        "counts": rows(found.counts),
        "problems": [
            {"facets": facets, "fingerprint": mark, "counts": rows(counts)}
            for (facets, counts), mark in zip(found.problems, found.fingerprints, strict=True)
        ],
    }


def remarks(found: Checked) -> list[str]:
    """Each remark once, with the problems it is about."""
    of = {text: which(labels, len(found.problems)) for text, labels in found.remarks.items()}
    return [f"{text} ({labels})" if labels else text for text, labels in of.items()]


def table(found: Checked) -> list[tuple[str, str, str, str, str]]:
    """Rows (what, found, published, verdict, which problems); equal counts of several problems share a row."""
    rows: dict[tuple[str, float, float | None, str], list[str]] = {}
    for count in found.counts:
        rows[count.what, count.found, count.published, count.note] = []
    for facets, counts in found.problems:
        for count in counts:
            label = " ".join(f"{k}={v}" for k, v in facets.items())
            rows.setdefault((count.what, count.found, count.published, count.note), []).append(label)
    return [
        (
            what,
            number(value),
            "" if published is None else number(published),
            "" if published is None else "ok" if published == value else "DIFFERS",
            "; ".join(filter(None, [which(labels, len(found.problems)), note])),
        )
        for (what, value, published, note), labels in rows.items()
    ]


def number(value: float) -> str:
    return f"{value:,.2f}" if isinstance(value, float) and not value.is_integer() else f"{int(value):,}"


def which(labels: list[str], problems: int) -> str:
    """Of which problems something holds."""
    if not labels or labels == [""]:
        return ""
    if len(labels) == problems:
        return "all problems"
    return ", ".join(labels[:3]) + (f" and {len(labels) - 3} more" if len(labels) > 3 else "")
