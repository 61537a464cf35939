"""network: rows equal those of the model itself, and random weights are named."""

import numpy as np
import pytest
import torch
from simple_run import SimpleRun
from test_features import drawn

import rankbench
from rankbench.registry import Registry
from rankbench.testing import check_feature
from rankbench_features.network import Network
from rankbench_rankers import backbones

SMALL = {"model": "squeezenet1_1", "layer": "features.3", "weights": "random"}


def images(count=3):
    return rankbench.Images.from_arrays(drawn([(60, 80)] * count))


def test_rows_are_those_of_the_model():
    some, run = images(), SimpleRun()
    found = Network(**SMALL, seed=4).extract(some, run)
    model = backbones.built("squeezenet1_1", "random", seed=4)
    pixels = torch.from_numpy(run.pixels(some, 256)[:])
    with torch.inference_mode():
        expected = model.features[:4](backbones.prepared(pixels, "squeezenet1_1", 224)).flatten(1).numpy()
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=1e-5)


def test_probabilities_are_shares():
    rows = Network(model="squeezenet1_1", layer="probabilities", weights="random").extract(images(2), SimpleRun())
    assert rows.shape == (2, 1000)
    assert rows.sum(axis=1) == pytest.approx([1, 1], abs=1e-5)


def test_the_network_is_made_once():
    feature, run = Network(**SMALL), SimpleRun()
    feature.extract(images(1), run)
    network = feature._network
    feature.extract(images(1), run)
    assert feature._network is network
    assert feature.state() == {}


def test_half_precision_is_near():
    some, run = images(2), SimpleRun()
    exact, half = (Network(**SMALL, precision=name).extract(some, run) for name in ("float32", "bfloat16"))
    assert half.dtype == np.float32
    assert np.abs(half - exact).max() < 0.05 * np.abs(exact).max()


def test_random_weights_are_named_and_others_are_not():
    assert Network(**SMALL).notes == ("squeezenet1_1: weights are random, not trained",)
    assert Network().notes == ()
    assert Network().resources().gpu == 1


def test_a_file_and_its_use_go_together():
    registry = Registry.installed()
    built = registry.build("features", "network", {"weights": "file", "file": "net.pth"})
    assert isinstance(built.file, rankbench.File)
    for parameters in ({"weights": "file"}, {"file": rankbench.File("net.pth")}):
        with pytest.raises(rankbench.DataError, match="go together"):
            Network(**parameters)


def test_conforms():
    check_feature(Network(**SMALL))
