"""Dictionaries: LLC codes of known geometry, equal to the port, pooled over the pyramid."""

import numpy as np
import ports
import pytest

from rankbench_features import llc


def made(seed=0, rows=9, columns=11, d=12, words=20):
    rng = np.random.default_rng(seed)
    return rng.random((2, rows, columns, d), dtype=np.float32), rng.random((words, d), dtype=np.float32)


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_port(seed):
    descriptors, words = made(seed)
    found = llc.encoded(descriptors, words)
    assert found.shape == (2, 21 * 20)
    for image, ours in zip(descriptors, found, strict=True):
        assert np.abs(ours - ports.llc(image, words)).max() < 1e-5


def test_weights_sum_to_one_and_the_nearest_words_are_used():
    descriptors, words = made(d=5)
    flat = descriptors.reshape(-1, 5)
    nearest, weights = llc.coded(flat, words)
    assert weights.sum(axis=1) == pytest.approx(np.ones(len(flat)), abs=1e-5)
    distance = ((flat[:, None].astype(float) - words) ** 2).sum(axis=2)
    assert np.array_equal(nearest, np.argsort(distance, axis=1)[:, :3])


def test_a_descriptor_on_a_word_is_coded_by_it():
    words = np.eye(6, dtype=np.float32) * 3
    nearest, weights = llc.coded(words[2:3], words)
    assert nearest[0, 0] == 2
    assert weights[0, 0] > 0.9


def test_blocks_do_not_matter(monkeypatch):
    descriptors, words = made()
    flat = descriptors.reshape(-1, 12)
    whole = llc.coded(flat, words)
    monkeypatch.setattr(llc, "BLOCK", 7)
    for one, other in zip(whole, llc.coded(flat, words), strict=True):
        assert one == pytest.approx(other, abs=1e-6)


def test_the_pyramid_says_where_and_how_much():
    nearest, weights = np.array([[0], [1], [1]]), np.array([[0.5], [0.9], [0.2]], np.float32)
    rows, columns = np.array([0, 7, 7]), np.array([0, 7, 0])
    found = llc.pooled(nearest, weights, rows, columns, (8, 8), 2).reshape(21, 2)
    assert found[0] == pytest.approx([0.5, 0.9])
    assert found[1:5] == pytest.approx(np.array([[0.5, 0], [0, 0], [0, 0.2], [0, 0.9]]))
    assert found[5] == pytest.approx([0.5, 0])
    assert found[20] == pytest.approx([0, 0.9])
    assert found[5:].sum() == pytest.approx(1.6)


def test_fewer_words_than_neighbors_and_equal_words():
    descriptors, _ = made(d=3)
    assert llc.encoded(descriptors, np.zeros((1, 3), np.float32))[:, 0] == pytest.approx([1, 1])
    assert np.isfinite(llc.encoded(descriptors, np.zeros((5, 3), np.float32))).all()


def test_a_dictionary_finds_clusters_and_takes_what_there_is():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(4, 6)) * 10
    samples = centers[rng.integers(4, size=2000)] + rng.normal(size=(2000, 6)) / 10
    words = llc.dictionary(samples, 4, 0)
    assert words.dtype == np.float32
    assert np.abs(np.sort(words, axis=0) - np.sort(centers, axis=0)).max() < 0.1
    assert np.array_equal(words, llc.dictionary(samples, 4, 0))
    assert llc.dictionary(samples[:3], 8, 0).shape == (8, 6)
    assert llc.dictionary(np.ones((50, 6)), 8, 0) == pytest.approx(np.ones((8, 6)))


def test_a_row_of_zeros_stays_zero():
    assert llc.unit(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist() == [[0.6, 0.8], [0, 0]]
