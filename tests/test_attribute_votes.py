"""attribute-votes and reference: signed sums, and what cannot be computed."""

import numpy as np
import pytest

import rankbench
from rankbench.testing import check_ranker
from rankbench_rankers.attribute_votes import AttributeVotes
from rankbench_rankers.deep_attributes import PublishedDeepAttributes
from rankbench_rankers.reference import Reference


def pairs(votes, name="attribute_votes"):
    count = len(votes)
    return rankbench.Pairs(
        np.arange(count), np.arange(count) + 1, np.ones(count), inputs={name: np.array(votes)}, sided={name: "negate"}
    )


def test_a_signed_sum():
    found = AttributeVotes().compare(
        None, pairs([[1, 0, 0, 0, 0], [0, 0, 1, 0, 1], [1, 1, 1, 0, 1], [-1, 0, -1, 0, 0]]), None
    )
    assert found.tolist() == [1, -2, 0, 0]
    assert AttributeVotes(attributes=2).compare(None, pairs([[1, 1, 1, 1, 1]]), None).tolist() == [2]
    assert AttributeVotes(signs=(1, -1)).compare(None, pairs([[1, 1], [0, -1]]), None).tolist() == [0, 1]


def test_flipped_pairs_give_negated_margins():
    some = pairs(np.random.default_rng(0).integers(-1, 2, (50, 5)))
    mask = np.arange(50) % 2 == 0
    found, flipped = (AttributeVotes().compare(None, one, None) for one in (some, some.swapped(mask)))
    assert np.array_equal(np.where(mask, -found, found), flipped)


def test_without_votes_it_does_not_apply():
    with pytest.raises(rankbench.NotApplicable, match="needs pairs with the input 'attribute_votes'"):
        AttributeVotes().compare(None, pairs([[1, 1]], "other"), None)


@pytest.mark.parametrize(
    ("ranker", "votes", "message"),
    [
        (AttributeVotes(), [[1, 1]], r"must be \(n, 5\)"),
        (AttributeVotes(), [1, -1], r"must be \(n, 5\)"),
        (AttributeVotes(attributes=6), [[0] * 5], "attributes is 6; there are 5"),
        (AttributeVotes(attributes=0), [[0] * 5], "attributes is 0"),
    ],
)
def test_other_shapes_are_refused(ranker, votes, message):
    with pytest.raises(rankbench.DataError, match=message):
        ranker.compare(None, pairs(votes), None)


def test_what_reads_evidence_and_what_leaks_says_so():
    assert AttributeVotes().inputs == ("attribute_votes",)
    assert PublishedDeepAttributes().inputs == ("predicted_attributes",)
    assert AttributeVotes().notes == ()
    assert "label leaks" in PublishedDeepAttributes().notes[0]
    assert not AttributeVotes().needs_images()


def test_a_reference_cannot_be_computed():
    with pytest.raises(rankbench.NotApplicable, match="a service that is gone"):
        Reference(reason="a service that is gone").fit(None, None, None)
    assert not Reference().needs_images()


@pytest.mark.parametrize("ranker", [AttributeVotes(), PublishedDeepAttributes(), Reference()])
def test_conform(ranker):
    check_ranker(ranker)
