"""Pairs: what is refused, what happens when sides are swapped, the coin, canonical order, and the hold-out."""

import numpy as np
import pandas as pd
import pytest

import rankbench
from rankbench.pairs import coin, hold_out, sorted_pairs

RNG = np.random.default_rng(0)
DIGESTS = RNG.integers(0, 256, (400, 32), dtype=np.uint8)


def random_pairs(n=300, images=400, seed=0, **more):
    rng = np.random.default_rng(seed)
    left = rng.integers(0, images, n)
    right = (left + rng.integers(1, images, n)) % images
    return rankbench.Pairs(left, right, rng.integers(-1, 2, n), **more)


# -------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("left", "right", "label", "message"),
    [
        ([0, 1], [1, 2, 3], [1, 1], r"right has shape \(3,\), left has \(2,\)"),
        ([0, 1], [1, 2], [1], r"label has shape \(1,\), left has \(2,\)"),
        ([0, 1], [1, 2], [[1], [1]], r"label has shape \(2, 1\)"),
        ([0, 1], [1, 2], [1, 2], r"label 2 in row 1; a label is \+1, -1 or 0 for a tie"),
        ([0, 1], [1, 2], [0.5, 1], "label 0.5 in row 0"),
        ([0, 1], [1, 2], [np.nan, 1], "label nan in row 0"),
        ([0, 1], [1, 2], [[1], [2]], "label 2 in row 1"),
        ([0, 1], [1, 2], [True, False], r"labels of type bool; a label is the number \+1"),
        ([0, 1], [1, 2], ["+", "-"], "labels of type <U1"),
        ([0, 1], [2, 1], [1, 1], "row 1 pairs image 1 with itself; remove it"),
        ([0.0, 1.0], [1, 2], [1, 1], r"left must be one-dimensional integers, not \(2,\) float64"),
        ([[0, 1]], [1, 2], [1, 1], "left must be one-dimensional integers"),
        ([0, 1], [1, -4], [1, 1], "right names image -4 in row 1; image rows start at 0"),
    ],
)
def test_pairs_that_cannot_be(left, right, label, message):
    with pytest.raises(rankbench.DataError, match=f"pairs: {message}"):
        rankbench.Pairs(left, right, label)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1, -2], "weight -2.0 in row 1; a weight is finite and at least 0"),
        ([np.inf, 1], "weight inf in row 0"),
        ([np.nan, 1], "weight nan in row 0"),
        (["much", "little"], "weights must be numbers"),
        ([1], r"weight has shape \(1,\)"),
    ],
)
def test_weights_that_cannot_be(weight, message):
    with pytest.raises(rankbench.DataError, match=f"pairs: {message}"):
        rankbench.Pairs([0, 1], [1, 2], [1, -1], weight)


@pytest.mark.parametrize(
    ("sided", "message"),
    [
        ({"votes": "mirror"}, "'votes' is sided 'mirror'; use 'negate' or 'swap'"),
        ({"votes": "swap"}, r"'votes' is sided 'swap' and needs two columns or more: \(2,\)"),
        ({"sure": "negate"}, "'sure' is sided 'negate' and needs signed numbers, not bool"),
        ({"vote": "negate"}, "sided names 'vote', no column or input. Did you mean 'votes'"),
    ],
)
def test_sides_that_cannot_be(sided, message):
    with pytest.raises(rankbench.DataError, match=f"pairs: {message}"):
        rankbench.Pairs([0, 1], [1, 2], [1, 1], columns={"votes": [1, 2], "sure": [True, False]}, sided=sided)


def test_columns_need_a_row_a_pair():
    with pytest.raises(rankbench.DataError, match=r"pairs.inputs 'votes' has shape \(3,\); its first dimension"):
        rankbench.Pairs([0, 1], [1, 2], [1, 1], inputs={"votes": [1, 2, 3]})


def test_arrays_are_kept_as_numbers_and_read_only():
    table = pd.DataFrame({"left": [0, 1], "right": [1, 2], "label": [1.0, 0.0], "weight": [1, 2]})
    pairs = rankbench.Pairs(table.left, table.right, table.label, table.weight)
    assert (pairs.left.dtype, pairs.label.dtype, pairs.weight.dtype) == (np.int64, np.int8, np.float64)
    assert rankbench.Pairs(np.int32([0]), np.int32([1]), [1]).left.dtype == np.int32
    assert rankbench.Pairs(np.uint8([0]), np.uint8([1]), [1]).right.dtype == np.int64
    assert (len(pairs), pairs.ordered.tolist()) == (2, [True, False])
    assert len(rankbench.Pairs([], [], [])) == 0
    for array in (pairs.left, pairs.right, pairs.label, pairs.weight):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


# ------------------------------------------------------------------------------------------------------------ sides


def test_swapping_turns_label_and_every_sided_array():
    pairs = rankbench.Pairs(
        [0, 1],
        [2, 3],
        [1, -1],
        [0.5, 2],
        columns={"votes": [3, -2], "year": [2019, 2020]},
        inputs={"counts": [[1, 2, 9], [3, 4, 9]], "other": [[5, 6], [7, 8]]},
        sided={"votes": "negate", "counts": "swap"},
    )
    turned = pairs.swapped(np.array([False, True]))
    assert (turned.left.tolist(), turned.right.tolist(), turned.label.tolist()) == ([0, 3], [2, 1], [1, 1])
    assert turned.columns["votes"].tolist() == [3, 2]
    assert turned.inputs["counts"].tolist() == [[1, 2, 9], [4, 3, 9]]
    assert turned.inputs["other"].tolist() == [[5, 6], [7, 8]]
    assert (turned.columns["year"].tolist(), turned.weight.tolist()) == ([2019, 2020], [0.5, 2])
    assert turned.swapped(np.array([False, True])).digest == pairs.digest
    assert pairs.swapped(np.zeros(2, bool)) is pairs


def test_withheld_labels_and_inputs():
    pairs = rankbench.Pairs(
        [0], [1], [1], inputs={"a": [2], "b": [3]}, columns={"c": [4]}, sided={"a": "negate", "c": "negate"}
    )
    seen = pairs.without_labels(["a", "absent"])
    assert (seen.label, seen.weight, dict(seen.columns), list(seen.inputs)) == (None, None, {}, ["a"])
    assert dict(seen.sided) == {"a": "negate"}
    assert seen.swapped(np.array([True])).inputs["a"].tolist() == [-2]
    with pytest.raises(rankbench.DataError, match="labels are withheld"):
        _ = seen.judgement
    bare = pairs.without_inputs()
    assert (dict(bare.inputs), list(bare.columns), dict(bare.sided)) == ({}, ["c"], {"c": "negate"})


def test_the_digest_tells_every_array_and_no_width():
    def of(left=(0, 1), right=(1, 2), label=(1, -1), *more, **others):
        return rankbench.Pairs(left, right, label, *more, **others).digest

    votes = {"votes": [1, 2]}
    digests = [of(), of(right=(2, 1), left=(1, 0)), of(label=(1, 0)), of((0, 1), (1, 2), (1, -1), [1, 1])]
    digests += [of(columns=votes), of(inputs=votes), of(columns=votes, sided={"votes": "negate"}), of(label=None)]
    digests += [of((0, 1), (1, 2), (1, -1), [1, 2]), of(columns={"votes": [1, 3]}), of(left=(0, 3))]
    assert len(set(digests)) == len(digests)
    assert of(np.int32([0, 1]), np.int32([1, 2]), np.float32([1, -1])) == of()


# --------------------------------------------------------------------------------------------------------- the coin


def test_the_coin_is_symmetric_fair_and_blind():
    pairs = random_pairs(20_000)
    turned = coin(DIGESTS, pairs)
    everything = np.ones(len(pairs), bool)
    assert np.array_equal(turned, coin(DIGESTS, pairs.swapped(everything)))
    assert abs(turned.mean() - 0.5) < 5 * 0.5 / np.sqrt(len(pairs))
    for label in (-1, 0, 1):
        assert abs(turned[pairs.label == label].mean() - 0.5) < 5 * 0.5 / np.sqrt(6000)
    assert np.array_equal(turned, coin(DIGESTS, pairs.without_labels([])))
    order = RNG.permutation(len(pairs))
    assert np.array_equal(turned[order], coin(DIGESTS, pairs.take(order)))
    per_image = np.bincount(pairs.left, turned, 400) / np.bincount(pairs.left, minlength=400)
    assert 0.2 < per_image.min() < per_image.max() < 0.8  # no image is always on one side


def test_the_coin_is_fair_for_digests_that_differ_in_any_few_bytes():
    for at in (0, 12, 30):
        digests = np.zeros((400, 32), np.uint8)
        digests[:, at : at + 2] = np.arange(400, dtype="<u2").view(np.uint8).reshape(400, 2)
        pairs = random_pairs(20_000)
        assert abs(coin(digests, pairs).mean() - 0.5) < 0.02
        low = pairs.left < pairs.right
        assert abs(coin(digests, pairs)[low].mean() - 0.5) < 0.03


def test_the_coin_never_changes():
    pairs = rankbench.Pairs(np.arange(24), np.arange(24) + 1, np.ones(24))
    digests = np.arange(25 * 32, dtype=np.uint32).astype(np.uint8).reshape(25, 32)
    digests[:, 0] = np.arange(25)
    golden = "000001111010010110001100"
    assert "".join(map(str, coin(digests, pairs).astype(int))) == golden


# -------------------------------------------------------------------------------------------------- canonical order


def test_listed_order_and_sides_leave_no_trace():
    rng = np.random.default_rng(1)
    left = rng.integers(0, 12, 400)
    right = (left + rng.integers(1, 12, 400)) % 12  # 66 different pairs: every one stands there several times
    votes = rng.integers(-3, 4, 400)
    pairs = rankbench.Pairs(
        left,
        right,
        rng.integers(-1, 2, 400),
        rng.integers(1, 3, 400),
        columns={"votes": votes, "rater": rng.choice(["ann", "bob"], 400)},
        inputs={"counts": rng.integers(0, 3, (400, 2))},
        sided={"votes": "negate", "counts": "swap"},
    )
    canonical = sorted_pairs(pairs, DIGESTS[:12])
    assert (canonical.left < canonical.right).all()
    assert (np.diff(canonical.left * 12 + canonical.right) >= 0).all()
    for _ in range(10):
        shuffled = pairs.swapped(rng.random(400) < 0.5).take(rng.permutation(400))
        assert sorted_pairs(shuffled, DIGESTS[:12]).digest == canonical.digest
    assert sorted_pairs(canonical, DIGESTS[:12]).digest == canonical.digest


def test_among_repeated_judgements_a_place_tells_no_label():
    images = np.arange(400)
    left, right = np.repeat(images[:-1], 2), np.repeat(images[1:], 2)
    pairs = sorted_pairs(rankbench.Pairs(left, right, np.tile([-1, 1], 399)), DIGESTS)
    assert abs(pairs.label[::2].mean()) < 5 / np.sqrt(399)


# ---------------------------------------------------------------------------------------------------------- holdout


def components(count, size, images=None):
    """`count` chains of `size` images each."""
    left = np.concatenate([np.arange(size - 1) + k * size for k in range(count)])
    return rankbench.Pairs(left, left + 1, np.ones(len(left))), count * size


def touched(pairs):
    return set(pairs.left.tolist()) | set(pairs.right.tolist())


def split(pairs, images, share, seed=0):
    fitted, held, record = hold_out(pairs, images, share, np.random.default_rng(seed))
    assert (record["fitted"], record["held"]) == (len(fitted), len(held))
    assert record["dropped"] == len(pairs) - len(fitted) - len(held)
    if record["by"] != "pairs":
        assert not touched(fitted) & touched(held)
    return fitted, held, record


def test_whole_components_are_held_first_and_no_pair_is_dropped():
    pairs, images = components(40, 6)
    fitted, held, record = split(pairs, images, 0.25)
    assert (record["by"], record["dropped"], len(held), len(fitted)) == ("components", 0, 50, 150)
    assert split(pairs, images, 0.25)[1].digest == held.digest
    assert split(pairs, images, 0.25, seed=1)[1].digest != held.digest


def test_one_large_component_is_split_by_images():
    left, right = np.triu_indices(60, 1)
    pairs = rankbench.Pairs(left, right, np.ones(len(left)))
    fitted, held, record = split(pairs, 60, 0.2)
    assert record["by"] == "images"
    assert len(held) >= 0.2 * len(pairs)
    assert len(fitted) > 0.2 * len(pairs)


def test_pairs_are_held_where_images_would_leave_too_few():
    star = rankbench.Pairs(np.zeros(199, int), np.arange(1, 200), np.ones(199))
    for seed in range(5):
        fitted, held, record = split(star, 200, 0.2, seed)
        assert (record["by"], record["dropped"], len(held), len(fitted)) == ("pairs", 0, 40, 159)
    small = rankbench.Pairs(*np.triu_indices(6, 1), np.ones(15))
    assert split(small, 6, 0.2)[2] == {"by": "pairs", "fitted": 12, "held": 3, "dropped": 0}


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.9, 0.99])
def test_both_sides_get_something_however_small_the_problem(share):
    for count, size in ((1, 3), (2, 2), (3, 2), (1, 12), (5, 3)):
        pairs, images = components(count, size)
        fitted, held, _ = split(pairs, images, share)
        assert len(fitted) >= 1
        assert len(held) >= 1
    one, images = components(1, 2)
    assert [len(part) for part in split(one, images, share)[:2]] == [1, 0]


def test_many_judgements_of_one_pair_are_one_component():
    pairs = rankbench.Pairs(np.repeat([0, 2], 256), np.repeat([1, 3], 256), np.ones(512))
    fitted, held, record = split(pairs, 4, 0.5)
    assert (record["by"], len(fitted), len(held)) == ("components", 256, 256)


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_a_share_is_between_0_and_1(share):
    with pytest.raises(rankbench.DataError, match="holdout: share must be between 0 and 1"):
        hold_out(random_pairs(), 400, share, np.random.default_rng(0))


@pytest.mark.parametrize("name", ["left", "right", "label", "weight", "votes"])
def test_a_masked_value_in_pairs_is_a_missing_one(name):
    arrays = {"left": [0, 1, 2], "right": [1, 2, 0], "label": [1, -1, 0], "weight": [1.0, 2.0, 3.0], "votes": [1, 2, 3]}

    def built(mask):
        given = {**arrays, name: np.ma.array(arrays[name], mask=mask)}
        return rankbench.Pairs(*(given[n] for n in ("left", "right", "label", "weight")), columns={"v": given["votes"]})

    assert built(False).label.tolist() == [1, -1, 0]
    assert type(built([False] * 3).weight) is np.ndarray
    with pytest.raises(rankbench.DataError, match=r"^pairs.*: 1 of 3 values is masked \(first: row 2\); a masked"):
        built([False, False, True])
