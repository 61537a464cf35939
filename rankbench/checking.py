"""What is in a dataset, counted and held against what its authors published; and what is wrong with it.

Counts are of each problem as the dataset yields it, before unreadable images and copies are taken out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankbench.errors import NotApplicable, UnreadableImage, counted
from rankbench.images import Images
from rankbench.loading import Data, DatasetChoice, FileMemo, blaming
from rankbench.pairs import Pairs
from rankbench.plugin import Count
from rankbench.problem import Problem

NUMBER = re.compile(r"(?<![^\s(])\d[\d,]*(?=[\s,;)]|$)")  # that stands alone: no part of a name
Advance = Callable[[str, int, int], None]  # what is done with images (read, decode), with how many, of how many


@dataclass
class Checked:
    """What a check found.

    Attributes:
        counts: of the files. problems: facets and counts of each problem. wrong: what must be mended. remarks: what a
        user should know. fingerprints: of each problem, in the same order. files: path, bytes and sha-256 of the files
        that hold the judgements.
    """

    counts: list[Count] = field(default_factory=list)
    problems: list[tuple[dict[str, Any], list[Count]]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    remarks: dict[str, list[str]] = field(default_factory=dict)  # and of which problems
    fingerprints: list[str] = field(default_factory=list)
    files: list[tuple[Path, int, str]] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing is wrong and every published count was found."""
        every = [*self.counts, *(count for _, counts in self.problems for count in counts)]
        return not self.wrong and all(count.published in (None, count.found) for count in every)


def checked(
    data: Data, choice: DatasetChoice, decode: bool = True, advance: Advance = lambda what, done, of: None
) -> Checked:
    """Check a dataset whose files are there.

    Args: decode, whether every image is decoded; advance, told of each image.
    Raises: DataError where a file is wrong.
    """
    dataset, folder, found = data.dataset(choice), data.folder(choice), Checked()
    found.files = annotation_files(data, choice)
    with blaming(data.registry, choice):
        found.counts = list(dataset.counts(folder))
    seen: set[bytes] = set()
    lost: set[str] = set()
    memo, together = ToldMemo(data.memo, advance), Together()
    for facets in data.facets(choice) or [{}]:
        with blaming(data.registry, choice):
            problem = dataset.problem(folder, facets)
            published = dict(dataset.published(facets))
        label = " ".join(f"{k}={v}" for k, v in facets.items())
        for note in problem.notes:
            remark(found.remarks, note, label)
        if problem.images.has_content:
            problem.images.with_digests(memo)
            if decode:
                lost |= unreadable(problem.images, seen, advance)
            about_copies(problem, label, found)
        found.problems.append((dict(facets), problem_counts(problem, published)))
        together.add(problem, label)
        about_pairs(problem, label, found, bool(published))
        found.fingerprints.append(problem.canonical(data.memo).fingerprint)
    found.remarks = dict(together.remarks()) | found.remarks  # what concerns several problems comes first
    found.wrong += sorted(lost)
    return found


def annotation_files(data: Data, choice: DatasetChoice) -> list[tuple[Path, int, str]]:
    """Path, bytes and sha-256 of each file that the dataset needs beside its images."""
    paths = list(dict.fromkeys(need.path for need in data.needs(choice) if not need.images and need.path.is_file()))
    digests = data.memo.digests(paths)
    return [(path, path.stat().st_size, row.tobytes().hex()) for path, row in zip(paths, digests, strict=True)]


@dataclass(frozen=True)
class ToldMemo:
    """The memo of digests, which tells how far it has come."""

    memo: FileMemo
    advance: Advance

    def digests(self, paths: Sequence[Path]) -> NDArray[np.uint8]:
        return self.memo.digests(paths, lambda done, of: self.advance("read", done, of))


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
    advance("decode", 0, len(rows))
    jobs = Parallel(n_jobs=-1, backend="threading", return_as="generator")
    for number, message in enumerate(jobs(delayed(look)(row) for row in rows), 1):
        messages |= {message} - {""}
        advance("decode", number, len(rows))
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


@dataclass
class Together:
    """What only all problems together tell: images that none of them judges, and those on both sides.

    Attributes: judged, names of images in a pair of any problem; idle, of those listed in a problem but in none of its
        pairs; shared, by test and reason: how many images, the first of them and the problem's label.
    """

    judged: set[str] = field(default_factory=set)
    idle: dict[str, None] = field(default_factory=dict)
    shared: dict[tuple[str, str | None], list[tuple[int, str, str]]] = field(default_factory=dict)

    def add(self, problem: Problem, label: str) -> None:
        """Take a problem into account; one without pairs says nothing of either."""
        paired = problem.rows_of(problem.train)
        for name, pairs in problem.tests.items():
            tested = problem.rows_of(pairs)
            both = np.intersect1d(problem.training_rows(), np.flatnonzero(tested))
            paired |= tested
            if len(both):
                first = name_of(problem.images, int(both[0]))
                self.shared.setdefault((name, problem.overlap), []).append((len(both), first, label))
        if paired.any():
            self.judged.update(name_of(problem.images, row) for row in np.flatnonzero(paired).tolist())
            self.idle |= {name_of(problem.images, row): None for row in np.flatnonzero(~paired).tolist()}

    def remarks(self) -> Iterator[tuple[str, list[str]]]:
        """Each remark with the problems it is about; of the images in no pair these are all."""
        for (name, reason), cases in self.shared.items():
            least, most = min(count for count, *_ in cases), max(count for count, *_ in cases)
            many = counted(most, "image") if least == most else f"{least:,} to {counted(most, 'image')}"
            text = f"{many} both in training and in test {name!r} (first: {cases[0][1]})"
            yield f"{text}; reason given: {reason}", [label for *_, label in cases]
        idle = [name for name in self.idle if name not in self.judged]
        if idle:
            yield f"{counted(len(idle), 'image')} in no pair (first: {idle[0]})", []


def about_pairs(problem: Problem, label: str, found: Checked, published: bool) -> None:
    """What contradicts itself, and what hangs together.

    Parts that were never compared matter in training, where one ranking is learned. Published tests are often made of
    pairs that share no image; a user's own tests are spoken of.
    """
    for name, pairs in split_pairs(problem):
        parts = name == "train" or not published
        for text in about_judgements(pairs, len(problem.images), problem.images.columns.get("score"), parts):
            remark(found.remarks, f"{name}: {text}", label)


def about_judgements(pairs: Pairs, images: int, score: NDArray[Any] | None, parts: bool = True) -> Iterator[str]:
    """What one set of pairs says twice, against itself, or in circles, and whether it hangs together (with `parts`)."""
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
        how = [f"{against:,} of them with opposite labels"] * (against > 0)
        how += [f"{unsure:,} {'of them ' * (not against)}once as a tie and once not"] * (unsure > 0)
        yield f"{counted(repeated, 'pair')} judged more than once, {' and '.join(how) or 'each time alike'}"
    yield from about_graph(pairs, images, score, parts)


def about_graph(pairs: Pairs, images: int, score: NDArray[Any] | None, parts: bool) -> Iterator[str]:
    """Components of the pairs (with `parts`), and circles in their order; an order that follows a score has none."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    def components(left: NDArray[Any], right: NDArray[Any], directed: bool) -> NDArray[Any]:
        graph = coo_array((np.ones(len(left), bool), (left, right)), shape=(images, images))
        found: NDArray[Any] = connected_components(graph.tocsr(), directed=directed, connection="strong")[1]
        return found

    if parts:
        touched = np.flatnonzero(np.bincount(pairs.left, minlength=images) + np.bincount(pairs.right, minlength=images))
        sizes = np.bincount(components(pairs.left, pairs.right, False)[touched])
        sizes = np.sort(sizes[sizes > 0])[::-1]
        if len(sizes) > 1:
            yield (
                f"{len(sizes):,} connected components (the largest has {sizes[0]:,} of {len(touched):,} images): "
                "images of two components were never compared, even through others"
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
        "files": [{"path": str(path), "bytes": size, "sha256": digest} for path, size, digest in found.files],
        "counts": rows(found.counts),
        "problems": [
            {"facets": facets, "fingerprint": mark, "counts": rows(counts)}
            for (facets, counts), mark in zip(found.problems, found.fingerprints, strict=True)
        ],
    }


def remarks(found: Checked) -> list[str]:
    """Each remark once, with the problems it is about."""
    return [about(text, labels, found) for text, labels in found.remarks.items()]


def about(text: str, labels: list[str], found: Checked) -> str:
    problems = which(labels, len(found.problems))
    return f"{text} ({problems})" if problems else text


def short_remarks(found: Checked) -> list[str]:
    """The same for reading: remarks that differ in their numbers alone are one, with the least and the most of each."""
    alike: dict[str, list[str]] = {}
    for text in found.remarks:
        alike.setdefault(NUMBER.sub("#", text.replace("pairs", "pair").replace("images", "image")), []).append(text)
    told = []
    for texts in alike.values():
        labels = [label for text in texts for label in found.remarks[text]]
        ranges = iter([spread(found_numbers) for found_numbers in zip(*map(NUMBER.findall, texts), strict=True)])
        told.append(about(NUMBER.sub(lambda _, ranges=ranges: next(ranges), max(texts, key=len)), labels, found))  # type: ignore[misc]
    return told


def spread(numbers: Sequence[str]) -> str:
    """`7`, or `7 to 12`."""
    values = sorted({int(number.replace(",", "")) for number in numbers})
    return f"{values[0]:,}" if len(values) == 1 else f"{values[0]:,} to {values[-1]:,}"


def verdict(found: Checked, decoded: bool, lacking: bool) -> str:
    """What it comes to, and what to do where that is not all good."""
    every = [*found.counts, *(count for _, counts in found.problems for count in counts)]
    published = [count for count in every if count.published is not None]
    differing = sum(count.published != count.found for count in published)
    lost, told = len(found.wrong), []
    if differing:
        told.append(f"Not as published: {counted(differing, 'count')} {'differs' if differing == 1 else 'differ'}.")
    if lost:
        them, their = ("it", "its") if lost == 1 else ("them", "their")
        told.append(
            f"{counted(lost, 'image')} cannot be read. Replace or remove {them}: a run leaves {them} out with {their} "
            "pairs, and fails where more than 5% are lost."
        )
    if not told and lacking:
        told.append("What is there is good, but data is missing.")
    elif not told:
        told.append(
            "Good." + " All published counts are met." * bool(published) + " Every image can be read." * decoded
        )
    return " ".join(told)


def table(found: Checked) -> list[tuple[str, str, str, str, str]]:
    """Rows (what, found, published, verdict, which problems); equal counts of several problems share a row.

    Rows about the same thing stand together.
    """
    rows: dict[tuple[str, float, float | None, str], list[str]] = {}
    for count in found.counts:
        rows[count.what, count.found, count.published, count.note] = []
    for facets, counts in found.problems:
        for count in counts:
            label = " ".join(f"{k}={v}" for k, v in facets.items())
            rows.setdefault((count.what, count.found, count.published, count.note), []).append(label)
    first = {what: at for at, what in reversed(list(enumerate(what for what, *_ in rows)))}
    return [
        (
            what,
            number(value),
            "" if published is None else number(published),
            "" if published is None else "ok" if published == value else "DIFFERS",
            "; ".join(filter(None, [which(labels, len(found.problems)), note])),
        )
        for (what, value, published, note), labels in sorted(rows.items(), key=lambda row: first[row[0][0]])
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
