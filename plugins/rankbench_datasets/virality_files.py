"""The files of Deza & Parikh's virality repository: MATLAB variables checked and turned into plain arrays.

They may lie as in the repository or all in one folder. Ids are `img_id`s; row numbers in the files count from 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import rankbench
from rankbench_datasets.matlab import MatFile

ATTRIBUTES = ("animal", "synthetically generated", "beautiful", "explicit", "sexual")  # in file order
RELATIVE = "Results_Computations/Relative_Attributes"
FOLDERS = ("animal_N", "synthgen_N", "beautiful_N", "explicit_N", "sexual_N")
CLASSES = {"positive": 1, "negative": -1, "neutral": 0}  # whether the viral image has more
GET = "github.com/ArturoDeza/virality (simplified BSD); put the repository's files here, as they lie there"
PAIRS, TEST_PAIRS, SIDES, VOTES = "pair_matrix.mat", "Top_489_pair.mat", "virality_label.mat", "Attribute_matrix.mat"
SCORES = "Create_Dataset_Code/viral_datasetV2.mat"
EXTREMES = f"{RELATIVE}/Top_Pairs.mat"
SUBMISSIONS = {
    "id": "Create_Dataset_Code/img_id.csv",
    "score": "Create_Dataset_Code/authenticated_shift_score.csv",
    "subreddit": "Create_Dataset_Code/subreddit.csv",
}
# the subreddits whose submissions count: the 20 largest; with them every field of the metadata is recomputed exactly
KEPT = (
    "funny", "pics", "gifs", "WTF", "aww", "GifSound", "atheism", "gaming", "AdviceAnimals", "reactiongifs",
    "reddit.com", "gif", "trees", "fffffffuuuuuuuuuuuu", "woahdude", "photoshopbattles", "4chan", "space", "pokemon",
    "HIFW",
)  # fmt: skip


def located(root, name):
    """Where a file of the repository lies: at its place there, or by its own name in the root."""
    own = root / name.rsplit("/", 1)[-1]
    return own if own.exists() and not (root / name).exists() else root / name


def variable(path, name, shape):
    """A variable of a MATLAB file, of that shape (None: any length)."""
    return MatFile.read(path, (name,), GET).array(name, shape)


@dataclass(frozen=True)
class Judged:
    """The released pairs.

    Attributes: viral, other, (n,) img_ids; left, (n,) bool, whether annotators saw the viral image on the left; votes,
        (n, 5) int8, +1 where the left image was said to have more; test, (n,) bool, the 489 test pairs.
    """

    viral: np.ndarray
    other: np.ndarray
    left: np.ndarray
    votes: np.ndarray
    test: np.ndarray


def read_pairs(root):
    """Every released pair, in the order of the files."""
    path = located(root, PAIRS)
    pairs = variable(path, "pair_matrix_spot", (None, 2)).astype(np.int64)
    count = len(pairs)
    ids, times = np.unique(pairs, return_counts=True)
    if (times > 1).any():
        raise rankbench.DataError(f"{path}: image {ids[times > 1][0]} is in {times.max()} pairs; each is in one.")
    left = variable(located(root, SIDES), "virality_label_spot", (count, 1))[:, 0]
    votes = variable(located(root, VOTES), "Attribute_matrix_spot", (count, 5))
    for name, array, known in ((SIDES, left, (0, 1)), (VOTES, votes, (-1, 0, 1))):
        if not np.isin(array, known).all():
            raise rankbench.DataError(f"{located(root, name)}: holds values other than {', '.join(map(str, known))}.")
    tested = variable(located(root, TEST_PAIRS), "top_pair_matrix_489", (None, 2)).astype(np.int64)
    row_of = {tuple(pair): row for row, pair in enumerate(pairs.tolist())}
    rows = [row_of.get(tuple(pair), -1) for pair in tested.tolist()]
    if min(rows, default=0) < 0:
        lost = tested[rows.index(-1)].tolist()
        raise rankbench.DataError(f"{located(root, TEST_PAIRS)}: pair {lost} is not in {PAIRS}.")
    if len(set(rows)) < len(rows):
        raise rankbench.DataError(f"{located(root, TEST_PAIRS)}: names a pair twice. {GET}")
    test = np.zeros(count, bool)
    test[rows] = True
    return Judged(pairs[:, 0], pairs[:, 1], left == 1, votes.astype(np.int8), test)


@dataclass(frozen=True)
class Records:
    """The images, ascending by img_id: ids (n,) int64, scores (n,) float64, links [n]."""

    ids: np.ndarray
    scores: np.ndarray
    links: list


def read_records(root):
    """Every image of the metadata."""
    path = located(root, SCORES)
    cells = variable(path, "viral_dataset", (1, None))[0]
    try:
        ids = np.array([int(cell["img_id"][0, 0].item()) for cell in cells])
        scores = np.array([float(cell["v_score"][0, 0].item()) for cell in cells])
        links = [str(np.asarray(cell["img_link"][0, 0]).item()) for cell in cells]
    except (ValueError, IndexError, AttributeError, KeyError) as error:
        raise rankbench.DataError(f"{path}: a record lacks img_id, v_score or img_link ({error}). {GET}") from error
    if len(np.unique(ids)) < len(ids) or not np.isfinite(scores).all():
        raise rankbench.DataError(f"{path}: ids are not unique, or a score is not a number. {GET}")
    order = np.argsort(ids)
    return Records(ids[order], scores[order], [links[at] for at in order])


@dataclass(frozen=True)
class Submissions:
    """The csv files: image (n,) int64 img_id, score (n,) float64, subreddit (n,) strings; one row a submission."""

    image: np.ndarray
    score: np.ndarray
    subreddit: np.ndarray


def read_submissions(root):
    """Every submission. A subreddit's name may hold commas: one line is one value."""
    lines = {}
    for name, file in SUBMISSIONS.items():
        path = located(root, file)
        if not path.is_file():
            raise rankbench.MissingData(f"{path}: not found. Get {GET}.")
        try:
            lines[name] = path.read_text(encoding="utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise rankbench.DataError(f"{path}: is not UTF-8 ({error}). Get it again: {GET}.") from error
        lines[name] = lines[name][:-1] if lines[name][-1] == "" else lines[name]
        if len(lines[name]) != len(lines["id"]):
            here, wanted = len(lines[name]), len(lines["id"])
            raise rankbench.DataError(f"{path}: has {here} lines, img_id.csv has {wanted}. Get both again: {GET}.")
    try:
        score = np.array(lines["score"], dtype=np.float64)
    except ValueError as error:
        raise rankbench.DataError(f"{located(root, SUBMISSIONS['score'])}: {error}. Get it again: {GET}.") from error
    number = {}  # img_id: the place, from 1, of a SNAP id in order of first appearance
    image = np.array([number.setdefault(one, len(number) + 1) for one in lines["id"]], dtype=np.int64)
    return Submissions(image, score, np.array([name.strip("\r") for name in lines["subreddit"]]))


def recomputed_scores(submissions, ids):
    """(n,) virality of these images: the largest score of its submissions in KEPT times ln(their number / its mean).

    Source: Deza & Parikh, CVPR 2015; equal to `v_score` to rounding.
    """
    kept = np.isin(submissions.subreddit, KEPT)
    image, size = submissions.image[kept], int(max(submissions.image.max(), ids.max())) + 1
    times = np.bincount(image, minlength=size)[ids]
    best = np.full(size, -np.inf)
    np.maximum.at(best, image, submissions.score[kept])
    with np.errstate(divide="ignore", invalid="ignore"):
        return best[ids] * np.log(times / times.mean())


def prediction_files(root):
    """For each attribute: its split file, and the file of shipped predictions (None where there is none)."""
    found = []
    for number, folder in enumerate(FOLDERS, 1):
        results = sorted((root / RELATIVE / folder).glob("SVM_Result_*.mat")) or sorted(
            root.glob(f"{folder}/SVM_Result_*.mat")
        )
        found.append((located(root, f"{RELATIVE}/split_A{number}_Top.mat"), results[0] if results else None))
    return found


def read_predictions(root):
    """Of each viral test image (img_id), the five predicted classes as +1 (viral has more), −1 or 0."""
    predicted = {}
    for at, (split, result) in enumerate(prediction_files(root)):
        if result is None:
            raise rankbench.MissingData(f"{root / RELATIVE / FOLDERS[at]}/SVM_Result_*.mat: not found. {GET}")
        ids = testing_ids(split)
        classes = variable(result, "class_hat", (len(ids), 1))[:, 0]
        if not np.isin(classes, (1, 2, 3)).all():
            raise rankbench.DataError(f"{result}: class_hat holds classes other than 1, 2 and 3.")
        if len(set(ids)) < len(ids) or (at and set(ids) != set(predicted)):
            raise rankbench.DataError(f"{split}: its tested images are not each named once, as in split_A1_Top.mat.")
        for image, number in zip(ids, classes, strict=True):
            predicted.setdefault(image, np.zeros(len(FOLDERS), np.int8))[at] = (0, 1, -1, 0)[number]
    return predicted


def testing_ids(path):
    """img_ids of the tested viral images, in the order of the predictions: positive, negative, neutral."""
    parts = variable(path, "split", (1, 1))[0, 0]
    found = {}
    for part in np.ravel(parts):
        record = part[0, 0]
        name = str(record["ClassName"][0]).rsplit("/", 1)[-1]  # fields stand in another order in each class
        found[name] = [int(one.item()) for one in np.ravel(record["TestingID"])]
    if set(found) != set(CLASSES):
        raise rankbench.DataError(f"{path}: its classes are {', '.join(sorted(found))}, not {', '.join(CLASSES)}.")
    return [image for name in CLASSES for image in found[name]]


def score_counts(root, records):
    """What the csv files say beside the metadata."""
    if not all(located(root, file).is_file() for file in SUBMISSIONS.values()):
        return [rankbench.Count("csv files", 0, note="without them the scores are not recomputed")]
    submissions = read_submissions(root)
    gap = np.abs(recomputed_scores(submissions, records.ids) - records.scores)
    differ = int((~(gap <= 1e-10)).sum())
    return [
        rankbench.Count("submissions", len(submissions.image), 132_307),
        rankbench.Count("scores that differ from the csv files by over 1e-10", differ, 0),
    ]


def extreme_counts(root, records):
    """Whether the 500 images that the release calls extreme are the ends of the score."""
    path = located(root, EXTREMES)
    if not path.is_file():
        return []
    extreme = variable(path, "Top_Pairs", (None, 1))[:, 0]
    by_score, half = records.ids[np.argsort(records.scores, kind="stable")], len(extreme) // 2
    ends = np.concatenate([by_score[:half], by_score[len(by_score) - half :]])
    return [
        rankbench.Count("released extreme images among the ends of the score", int(np.isin(extreme, ends).sum()), 500)
    ]
