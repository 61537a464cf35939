"""ViralNet finds the disc that tells: on `shapes`, from random weights, within five minutes on two cores (slow)."""

import time

import numpy as np
import pytest
from simple_run import SimpleRun

from rankbench.testing import accuracy
from rankbench_datasets.shapes import Shapes
from rankbench_rankers.siamese import Siamese
from rankbench_rankers.viralnet import ViralNet

MINUTES = 5
SETTINGS = {
    "backbone": "small-foveal", "weights": "random", "recipe": "modern", "flips": "none", "batch_size": 32,
    "learning_rate": 2e-3, "weight_decay": 0.05, "validation_pairs": 0,
}  # fmt: skip
LOOKING = {"scale": 0.46, "multiplier": 0.02, "localiser_rate": 0.3}


class TwoThreads(SimpleRun):
    """A Run of two threads, whose first stage is a crop-only network that was trained before."""

    threads = 2

    def __init__(self, seed, first=None):
        super().__init__(seed)
        self.first = first

    def shared(self, name, parameters, build, features=None):
        return {name: value.numpy() for name, value in self.first.network_.localisers.state_dict().items()}


@pytest.fixture(scope="module")
def shapes():
    return Shapes().problem(None, {})


def judged(ranker, shapes, seed, first=None):
    """Accuracy on the test, seconds of fitting, and share of test images whose crop is small and shows the disc."""
    run, test = TwoThreads(seed, first), shapes.tests["test"]
    began = time.perf_counter()
    ranker.fit(shapes.images, shapes.train, run)
    seconds = time.perf_counter() - began
    rows = np.unique(np.concatenate([test.left, test.right]))
    images = shapes.images.take(rows)
    scores = np.zeros(len(shapes.images))
    scores[rows] = ranker.score(images, run)
    right = accuracy(scores[test.left] - scores[test.right], test)
    if not isinstance(ranker, ViralNet):
        return right, seconds, None
    crops = np.array([boxes[0][1] for boxes in ranker.locate(images, run)])
    return right, seconds, shown(crops, shapes.images.columns["box"][rows])


def shown(crops, discs):
    """Share of crops with a side of at most 28 of 64 px that cover 90 % of the disc's box."""
    overlap = np.minimum(crops[:, 2:], discs[:, 2:]) - np.maximum(crops[:, :2], discs[:, :2])
    covered = np.clip(overlap, 0, None).prod(axis=1) / (discs[:, 2:] - discs[:, :2]).prod(axis=1)
    small = (crops[:, 2] - crops[:, 0]) * 64 <= 28
    return float(((covered >= 0.9) & small).mean())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_crops_show_the_disc_and_both_networks_beat_the_siamese_one(shapes, seed):
    looking = ViralNet(**SETTINGS, **LOOKING, sees="crop", epochs=8.0)
    crop = judged(looking, shapes, seed)
    combined = judged(ViralNet(**SETTINGS, **LOOKING, stages=2, epochs=8.0), shapes, seed, looking)
    seconds = crop[1] + combined[1]
    one_epoch = judged(Siamese(**SETTINGS, epochs=1.0), shapes, seed)[1]
    epochs = 1.3 * seconds / one_epoch  # an epoch among others takes less than one alone
    siamese = judged(Siamese(**SETTINGS, epochs=epochs), shapes, seed)
    print(f"seed {seed}: crop {crop}, combined {combined}, siamese {siamese} in {epochs:.0f} epochs")
    assert seconds < 60 * MINUTES
    assert siamese[1] > 0.95 * seconds, "the Siamese network is given the wall time of both stages"
    assert crop[2] >= 0.9
    assert combined[2] >= 0.8
    assert min(crop[0], combined[0]) > siamese[0]


def test_the_best_constant_box_shows_the_disc_on_two_thirds_of_the_images(shapes):
    """What a ranker that looks nowhere in particular could reach: the goal is well above it."""
    discs, best = shapes.images.columns["box"], 0.0
    for left in np.linspace(0, 0.56, 29):
        for top in np.linspace(0, 0.56, 29):
            box = np.array([[left, top, left + 28 / 64, top + 28 / 64]]).repeat(len(discs), 0)
            best = max(best, shown(box - [[0, 0, 1e-9, 1e-9]], discs))
    assert 0.5 < best < 0.7
