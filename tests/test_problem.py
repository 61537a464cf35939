"""Problem: what is refused, its canonical form and fingerprint, and what plugins are handed of it."""

import time

import numpy as np
import pytest

import rankbench
from rankbench.cell import TestSet
from rankbench.pairs import coin
from rankbench.testing import Bench, accuracy
from rankbench.worker import judge

COUNT = 40


def pixels(count=COUNT, seed=0):
    return list(np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8))


def random_pairs(rng, rows, n, repeats=1):
    """Judged pairs of these rows, with every kind of array they may carry."""
    left = rng.choice(rows, n)
    right = np.array([rng.choice(rows[rows != one]) for one in left])
    left, right = np.tile(left, repeats), np.tile(right, repeats)
    label = rng.integers(-1, 2, n * repeats)
    return {
        "left": left,
        "right": right,
        "label": label,
        "weight": rng.integers(1, 4, n * repeats).astype(float),
        "columns": {"votes": label * rng.integers(1, 4, n * repeats), "rater": rng.choice(["a", "b"], n * repeats)},
        "inputs": {"other": rng.integers(0, 9, (n * repeats, 2))},
        "sided": {"votes": "negate", "other": "swap"},
    }


def content(seed=0, duplicates=0, repeats=1):
    """All that a dataset could give, as plain values; `duplicates` images have equal bytes in groups."""
    rng = np.random.default_rng(seed)
    arrays = pixels(seed=seed)
    for k in range(duplicates):
        arrays[5 + k] = arrays[k % 2]  # training images
    return {
        "arrays": arrays,
        "columns": {"score": rng.integers(0, 3, COUNT).astype(float), "category": rng.choice(["x", "y"], COUNT)},
        "inputs": {"votes": rng.integers(0, 2, COUNT)},
        "train": random_pairs(rng, np.arange(24), 60, repeats),
        "test": random_pairs(rng, np.arange(26, COUNT), 40, repeats),
        "train_images": np.array([24, 25, 3]),
    }


def build(given, order=None, rng=None, width=np.int64, names="image", **more):
    """The problem; listed in another order, with other sides and names if asked for."""
    order = np.arange(COUNT) if order is None else order
    position = np.argsort(order)

    def pairs(values):
        one = rankbench.Pairs(
            position[values["left"]].astype(width),
            position[values["right"]].astype(width),
            values["label"],
            values["weight"],
            **{kind: values[kind] for kind in ("columns", "inputs", "sided")},
        )
        if rng is not None:
            one = one.swapped(rng.random(len(one)) < 0.5).take(rng.permutation(len(one)))
        return one

    held = {kind: {name: values[order] for name, values in given[kind].items()} for kind in ("columns", "inputs")}
    if rng is not None:
        held = {kind: dict(reversed(values.items())) for kind, values in held.items()}
    images = rankbench.Images.from_arrays(
        [given["arrays"][row] for row in order], names=[f"{names}-{k}" for k in range(COUNT)], **held
    )
    return rankbench.Problem(
        images,
        pairs(given["train"]),
        {"test": pairs(given["test"])},
        {"fold": 1},
        position[given["train_images"]],
        **more,
    )


# -------------------------------------------------------------------------------------------------- what is refused

IMAGES = rankbench.Images.from_arrays(pixels(6), names=list("abcdef"))
TRAIN = rankbench.Pairs([0, 1], [1, 2], [1, 0])
TEST = rankbench.Pairs([3, 4], [4, 5], [1, -1])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": rankbench.Pairs([], [], [])}, "problem fold=3: train has no pairs. Give it some, or leave"),
        ({"tests": {"val": rankbench.Pairs([], [], [])}}, "problem fold=3: test 'val' has no pairs"),
        ({"train": rankbench.Pairs([0, 1], [1, 6], [1, 1])}, "train, pair 1 names image 6; there are 6"),
        ({"tests": rankbench.Pairs([3, 9], [4, 5], [1, 1])}, "test 'test', pair 1 names image 9; there are 6"),
        ({"tests": rankbench.Pairs([3, 4], [4, 5], [0, 0])}, "test 'test' has 2 pairs and every one is a tie"),
        ({"train": rankbench.Pairs([0], [1], None)}, "train has no labels"),
        ({"train": [[0, 1, 1]]}, "train is list; it must be rankbench.Pairs"),
        ({"tests": TRAIN}, r"2 images both in training and in test 'test' \(first: b\)|3 images both in training"),
        ({"train_images": [5]}, r"1 image both in training and in test 'test' \(first: f\). Split by image, or give"),
        ({"train_images": [6]}, "train_images names image 6 of 6"),
        ({"train_images": [0.5]}, "train_images must be one-dimensional integers"),
        ({"facets": {"fold": None}}, "facet 'fold' is None; use a string or a number"),
        ({"facets": {"fold": float("nan")}}, "facet 'fold' is nan"),
        ({"overlap": " "}, "overlap is empty; say why"),
    ],
)
def test_problems_that_cannot_be(parts, message):
    whole = {"images": IMAGES, "train": TRAIN, "tests": {"test": TEST}, "facets": {"fold": 3}, **parts}
    with pytest.raises(rankbench.DataError, match=message):
        rankbench.Problem(**whole)


def test_an_overlap_needs_a_reason_and_without_names_a_number():
    nameless = rankbench.Images.from_arrays(pixels(6))
    with pytest.raises(
        rankbench.DataError, match=r"^problem: 1 image both in training and in test 'test' \(first: 3\)"
    ):
        rankbench.Problem(nameless, TRAIN, TEST, train_images=[3])
    kept = rankbench.Problem(nameless, TRAIN, TEST, train_images=[3], overlap="the paper's own split")
    assert kept.canonical().overlap == "the paper's own split"
    reworded = rankbench.Problem(nameless, TRAIN, TEST, train_images=[3], overlap="as published")
    assert reworded.canonical().fingerprint == kept.canonical().fingerprint
    assert len(kept.canonical().training_rows()) == 4


def test_one_pairs_is_the_test_named_test_and_facets_take_numpys_numbers():
    problem = rankbench.Problem(IMAGES, TRAIN, TEST, facets={"fold": np.int64(3), "share": np.float32(0.5)})
    assert list(problem.tests) == ["test"]
    assert dict(problem.facets) == {"fold": 3, "share": 0.5}
    assert type(problem.facets["fold"]) is int
    with pytest.raises(TypeError):
        problem.facets["fold"] = 4
    with pytest.raises(AttributeError):
        problem.train = None


# --------------------------------------------------------------------------------------------------- canonical form


@pytest.mark.parametrize(("duplicates", "repeats"), [(0, 1), (0, 3), (2, 1), (12, 1), (19, 3)])
def test_equal_content_means_an_equal_fingerprint(duplicates, repeats):
    for seed in range(4):
        given = content(seed, duplicates, repeats)
        expected = build(given).canonical()
        for again in range(4):
            rng = np.random.default_rng([seed, again])
            width = np.int32 if again % 2 else np.int64
            other = build(given, rng.permutation(COUNT), rng, width, names=f"renamed-{again}").canonical()
            assert other.fingerprint == expected.fingerprint
            assert np.array_equal(other.images.digests, expected.images.digests)
            assert TestSet.of(other, "test")[0].digest == TestSet.of(expected, "test")[0].digest
        assert expected.canonical().fingerprint == expected.fingerprint


def test_canonical_form_is_sorted_and_keeps_what_each_image_and_pair_says():
    given = content()
    problem = build(given)
    canonical = problem.canonical()
    digests = [row.tobytes() for row in canonical.images.digests]
    assert digests == sorted(digests)
    assert set(map(bytes, problem.images.digests)) == set(digests)
    for pairs in (canonical.train, canonical.tests["test"]):
        assert (pairs.left < pairs.right).all()

    def judgements(problem, pairs):
        who = np.array(problem.images.names)
        turned = pairs.swapped(who[pairs.left] > who[pairs.right])
        rows = zip(who[turned.left], who[turned.right], turned.label, turned.weight, strict=True)
        return sorted(zip(rows, turned.columns["votes"], map(tuple, turned.inputs["other"]), strict=True))

    assert judgements(canonical, canonical.train) == judgements(problem, problem.train)
    scores = dict(zip(problem.images.names, problem.images.columns["score"], strict=True))
    assert scores == dict(zip(canonical.images.names, canonical.images.columns["score"], strict=True))
    trained = {canonical.images.names[row] for row in canonical.train_images}
    assert trained == {"image-24", "image-25", "image-3"}


def changes():
    """Name and a function that changes one thing about the content."""

    def pixel(given):
        given["arrays"][30] = given["arrays"][30].copy()
        given["arrays"][30][0, 0, 0] ^= 1

    def of(*path, value):
        def change(given):
            for step in path[:-2]:
                given = given[step]
            array = np.array(given[path[-2]])
            array[path[-1]] = value(array[path[-1]])
            given[path[-2]] = array

        return change

    def renamed(given):
        given["columns"]["attractiveness"] = given["columns"].pop("score")

    return {
        "a pixel": pixel,
        "a label": of("train", "label", 0, value=lambda v: (v + 2) % 3 - 1),
        "a test label": of("test", "label", 0, value=lambda v: (v + 2) % 3 - 1),
        "a weight": of("test", "weight", 1, value=lambda v: v + 1),
        "a pair": of("train", "left", 2, value=lambda v: 25),
        "a column": of("columns", "score", 7, value=lambda v: v + 1),
        "a category": of("columns", "category", 8, value=lambda v: "z"),
        "an input": of("inputs", "votes", 9, value=lambda v: v + 1),
        "a pair's column": of("train", "columns", "votes", 3, value=lambda v: v + 1),
        "a pair's input": of("test", "inputs", "other", 3, value=lambda v: v + 1),
        "a training image": of("train_images", 2, value=lambda v: 0),
        "a column's name": renamed,
    }


def test_one_change_means_another_fingerprint():
    prints = {"": build(content()).canonical().fingerprint}
    for name, change in changes().items():
        given = content()
        change(given)
        prints[name] = build(given).canonical().fingerprint
    prints["overlap"] = build(content(), overlap="as published").canonical().fingerprint
    # image 3 is in training pairs already, so naming it or image 0 beside them says the same
    assert prints.pop("a training image") == prints[""]
    assert len(set(prints.values())) == len(prints)


def test_facets_and_notes_are_no_content():
    given = content()
    one = build(given).canonical()
    other = rankbench.Problem(one.images, one.train, one.tests, {"fold": 2}, one.train_images, notes=("seen",))
    assert other.canonical().fingerprint == one.fingerprint
    assert other.canonical().notes == ("seen",)


def test_the_fingerprint_never_changes():
    count = 6
    arrays = [np.full((2, 2, 3), 40 * k, np.uint8) for k in range(count)]
    images = rankbench.Images.from_arrays(arrays, columns={"score": np.arange(count)})
    train = rankbench.Pairs([0, 1], [1, 2], [-1, 0], [1, 2])
    problem = rankbench.Problem(images, train, rankbench.Pairs([3, 5], [4, 4], [-1, 1]))
    assert problem.canonical().fingerprint == "59d0effb3c9624d99673901c58b50acb5c13ec32e829f16d03b63d30f6b1cffc"


@pytest.mark.parametrize(
    "links", [[(0, 3), (1, 4), (2, 5)], [(0, 1), (1, 2), (2, 0), (3, 4)], [(0, 3), (0, 4), (1, 5)]]
)
def test_images_of_equal_bytes_are_told_apart_by_their_judgements_alone(links):
    arrays = pixels(9)
    for k in range(1, 3):
        arrays[k], arrays[3 + k] = arrays[0], arrays[3]
    links = np.array([*links, (6, 0)])
    rng, prints = np.random.default_rng(0), set()
    for _ in range(12):
        order = rng.permutation(9)
        at = np.argsort(order)
        images = rankbench.Images.from_arrays([arrays[row] for row in order], names=[str(k) for k in range(9)])
        train = rankbench.Pairs(at[links[:, 0]], at[links[:, 1]], np.ones(len(links)))
        problem = rankbench.Problem(images, train, rankbench.Pairs(at[[7]], at[[8]], [1])).canonical()
        assert len(problem.images) == len(set(links.ravel().tolist())) + 2
        prints.add(problem.fingerprint)
    assert len(prints) == 1


def test_many_images_of_equal_bytes_take_no_time():
    blank = np.zeros((2, 2, 3), np.uint8)
    rng = np.random.default_rng(0)
    left = rng.integers(0, 2000, 8000)
    train = rankbench.Pairs(left, (left + rng.integers(1, 2000, 8000)) % 2000, rng.integers(-1, 2, 8000))
    images = rankbench.Images.from_arrays([blank] * 2000 + pixels(2))
    begun = time.perf_counter()
    problem = rankbench.Problem(images, train, rankbench.Pairs([2000], [2001], [1])).canonical()
    assert len(problem.images) == 2 + len(np.union1d(train.left, train.right))
    assert time.perf_counter() - begun < 20  # comparing everything with everything would take minutes


# ------------------------------------------------------------------------------------------------- byte-equal copies


def test_training_copies_of_test_images_are_removed_with_their_pairs():
    arrays = pixels(8)
    arrays[0] = arrays[6].copy()
    images = rankbench.Images.from_arrays(arrays, names=list("abcdefgh"))
    train = rankbench.Pairs([0, 1, 2], [1, 2, 3], [1, -1, 1])
    problem = rankbench.Problem(images, train, rankbench.Pairs([6], [7], [1]), train_images=[0, 4])
    canonical = problem.canonical()
    assert sorted(canonical.images.names) == list("bcdegh")
    assert (len(canonical.train), len(canonical.train_images)) == (2, 1)
    assert canonical.notes == ("1 training images with the bytes of a test image were removed with their pairs",)
    told = rankbench.Problem(images, train, problem.tests, train_images=[0, 4], overlap="as published").canonical()
    assert (len(told.images), len(told.train), told.notes) == (7, 3, ())


def test_nothing_is_left_when_every_training_pair_has_a_copy():
    arrays = pixels(4)
    arrays[0] = arrays[2]
    problem = rankbench.Problem(
        rankbench.Images.from_arrays(arrays), rankbench.Pairs([0], [1], [1]), rankbench.Pairs([2], [3], [1])
    )
    with pytest.raises(
        rankbench.DataError, match="problem: every training pair has an image whose bytes are in a test"
    ):
        problem.canonical()


def test_copies_on_one_side_stay_separate_images():
    arrays = pixels(6)
    arrays[1] = arrays[0]
    train = rankbench.Pairs([0, 1], [2, 2], [1, -1])  # the same bytes, judged both ways
    problem = rankbench.Problem(rankbench.Images.from_arrays(arrays), train, rankbench.Pairs([4], [5], [1])).canonical()
    assert (len(problem.images), len(problem.train), problem.notes) == (5, 2, ())
    assert sorted(problem.train.swapped(np.ones(2, bool)).label.tolist()) == [-1, 1]


# --------------------------------------------------------------------------------------------- what plugins are handed


def test_fit_sees_training_images_and_pairs_without_names():
    problem = build(content()).canonical()
    images, pairs = problem.training(inputs=("votes", "absent"))
    assert (len(images), images.names, sorted(images.columns)) == (26, None, ["category", "score"])
    assert (list(images.inputs), list(pairs.inputs), sorted(pairs.columns)) == (["votes"], [], ["rater", "votes"])
    tested = {digest.tobytes() for digest in problem.images.digests[problem.test_rows()]}
    assert not tested & {digest.tobytes() for digest in images.digests}
    turned = coin(images.digests, pairs)
    assert np.array_equal(turned, pairs.left > pairs.right)
    assert pairs.swapped(turned).digest == problem.training(inputs=("votes",))[1].swapped(turned).digest
    assert list(problem.training(inputs=("other",))[1].inputs) == ["other"]


def test_score_sees_test_images_without_columns_or_names():
    problem = build(content()).canonical()
    images, rows = problem.judged(inputs=("votes",))
    assert (images.names, dict(images.columns), list(images.inputs)) == (None, {}, ["votes"])
    assert np.array_equal(rows, problem.test_rows())
    assert problem.judged()[0].inputs == {}
    assert images.describe(0) == "image 0"


def test_lost_images_leave_with_their_pairs():
    problem = build(content()).canonical()
    lost = np.zeros(len(problem.images), bool)
    lost[[problem.train.left[0], problem.test_rows()[0]]] = True
    images, pairs = problem.training(lost)
    assert len(images) == 25
    assert len(pairs) == (~(lost[problem.train.left] | lost[problem.train.right])).sum() < 60
    assert pairs.left.max() < 25
    judged, rows = problem.judged(lost)
    assert (len(judged), len(rows)) == (len(problem.test_rows()) - 1,) * 2
    assert problem.test_rows()[0] not in rows


def test_a_problem_may_have_images_and_columns_alone():
    images = rankbench.Images.from_arrays(pixels(5), columns={"category": list("xyxyx")})
    problem = rankbench.Problem(images).canonical()
    assert (len(problem.images), len(problem.training_rows()), len(problem.test_rows())) == (5, 5, 0)
    with pytest.raises(rankbench.NotApplicable, match="no training pairs"):
        problem.training()
    some = rankbench.Problem(images, train_images=[0, 3]).canonical()
    assert len(some.images) == 2
    assert some.fingerprint != problem.fingerprint
    tested = rankbench.Problem(images, tests=rankbench.Pairs([0], [1], [1])).canonical()
    assert (len(tested.images), len(tested.training_rows())) == (2, 0)


# ------------------------------------------------------------------------------------------------------------- spies


def leaky_problem(count=240, seed=0):
    """Column, name, place, listed side and listed order each give the answer away to whoever sees them."""
    rng = np.random.default_rng(seed)
    images = rankbench.Images.from_arrays(
        pixels(count, seed), names=[f"{k:04d}" for k in range(count)], columns={"score": np.arange(count)}
    )

    def pairs(rows):
        low, high = rng.permutation(rows).reshape(2, -1).tolist(), None
        low, high = np.minimum(*low), np.maximum(*low)
        again = rng.permutation(len(low))[: len(low) // 2]  # judged twice, the second time the other way round
        left, right = np.concatenate([high, high[again]]), np.concatenate([low, low[again]])
        return rankbench.Pairs(left, right, np.concatenate([np.ones(len(low)), -np.ones(len(again))]))

    return rankbench.Problem(images, pairs(np.arange(count // 2)), pairs(np.arange(count // 2, count))).canonical()


class Spy(rankbench.Ranker):
    """Guesses from anything but pixels."""

    learns = False

    def __init__(self, guess):
        self.guess = guess

    def fit(self, images, pairs, run):
        return self

    def compare(self, images, pairs, run):
        return np.asarray(self.guess(images, pairs), dtype=np.float64)


def by_image(value):
    def guess(images, pairs):
        found = np.array([value(images, row) for row in range(len(images))], dtype=float)
        return found[pairs.left] - found[pairs.right]

    return guess


def place_among_equals(images, pairs):
    """Later judgements of the same two images are guessed to go the other way, with or against the index."""
    low, high = np.minimum(pairs.left, pairs.right), np.maximum(pairs.left, pairs.right)
    seen: set[tuple[int, int]] = set()
    first = [not ((a, b) in seen or seen.add((a, b))) for a, b in zip(low.tolist(), high.tolist(), strict=True)]
    return np.where(first, 1.0, -1.0) * np.where(pairs.left > pairs.right, 1, -1)


SPIES = {
    "column": by_image(lambda images, row: images.columns.get("score", np.zeros(len(images)))[row]),
    "name": by_image(lambda images, row: float(images.names[row]) if images.names else 0),
    "origin": by_image(lambda images, row: float("".join(c for c in images.describe(row) if c.isdigit()) or 0)),
    "index": by_image(lambda images, row: row),
    "side": lambda images, pairs: np.ones(len(pairs)),
    "list position": lambda images, pairs: np.arange(len(pairs)) - len(pairs) / 2 + 0.25,
    "weight": lambda images, pairs: np.zeros(len(pairs)) if pairs.weight is None else pairs.weight,
    "place among equals": place_among_equals,
    "label": lambda images, pairs: np.zeros(len(pairs)) if pairs.label is None else pairs.label,
}


@pytest.mark.parametrize("spy", SPIES)
def test_spies_get_half_the_pairs_right(spy, tmp_path):
    bench, right = Bench(tmp_path), []
    for seed in range(6):
        problem = leaky_problem(seed=seed)
        ranker, run = bench.fit(Spy(SPIES[spy]), problem)
        tests = {"test": TestSet.of(problem, "test")}
        margins = judge(ranker, problem, run, None, tests)["test"].pair_margins(tests["test"][0].pairs)
        right.append(accuracy(margins, problem.tests["test"]))
    assert abs(np.mean(right) - 0.5) < 0.09  # 540 pairs; answers that leak give 67 % or more


@pytest.mark.parametrize("spy", ["index", "side"])
def test_training_sides_tell_nothing_either(spy):
    found = []
    for seed in range(6):
        images, pairs = leaky_problem(seed=seed).training()
        found.append(accuracy(SPIES[spy](images, pairs), pairs))
    assert abs(np.mean(found) - 0.5) < 0.09
