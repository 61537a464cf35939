"""tests/speed/networks.py: the share of a step is measured within one run and lies between 0 and 100 %."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from rankbench_rankers.siamese import Siamese

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def networks():
    """The program as a module."""
    spec = importlib.util.spec_from_file_location("networks", Path(__file__).parent / "speed" / "networks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_computed_is_a_share_of_the_step_it_was_part_of(networks):
    ranker = Siamese(backbone="small", weights="random", recipe="modern", batch_size=8, size=32, width=4)
    stored = ranker.framing().stored
    rows = np.random.default_rng(0).integers(0, 256, (20, stored, stored, 3), dtype=np.uint8)
    engine, computing, share = networks.compared(
        lambda: networks.made(ranker, rows, networks.pairs_of(20, 100), 50, images=20), CPU, 1, 3, 2
    )
    assert 0 < computing < engine
    assert 0 < share < 1


def test_a_share_above_all_is_no_measurement_and_made_again(networks, monkeypatch, capsys):
    answers = iter([(1.0, 1.119), (1.0, 0.9), (1.0, 0.8)])
    monkeypatch.setattr(networks, "timed_steps", lambda *_: next(answers))
    monkeypatch.setattr(networks, "trainer", lambda *_: None)
    assert networks.compared(lambda: None, CPU, 1, 1, 2)[2] == pytest.approx(0.85)
    assert capsys.readouterr().out == "no measurement: 111.9% of a step of 1000.0 ms; once more\n"
    monkeypatch.setattr(networks, "timed_steps", lambda *_: (1.0, 1.1))
    with pytest.raises(SystemExit, match="no measurement in 6 runs"):
        networks.compared(lambda: None, CPU, 1, 1, 2)
