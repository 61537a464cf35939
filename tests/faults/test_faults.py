"""A share of the fault campaign; `python tests/faults/campaign.py` runs the whole one."""

import campaign
import file_faults
import plugin_faults
import process_faults
import pytest
from rogues import WAYS

FILES = range(0, 300, 31)
PROCESSES = (0,)
PLUGINS = range(0, 60, 13)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A finished run, its table and scores."""
    return campaign.undisturbed(tmp_path_factory.mktemp("faults") / "undisturbed")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Scores of rows without a misbehaving one between them."""
    return plugin_faults.rows_alone(tmp_path_factory.mktemp("faults") / "alone")


@pytest.mark.parametrize("number", PROCESSES)
def test_signals_lose_nothing(number, tmp_path, scene):
    process_faults.experiment(number, tmp_path / "scene", scene[1])


@pytest.mark.parametrize("number", FILES)
def test_a_damaged_file_is_named_and_mended_at_the_first_call(number, tmp_path, scene):
    file_faults.experiment(number, tmp_path / "scene", *scene)


@pytest.mark.parametrize("number", PLUGINS)
def test_a_misbehaving_plugin_changes_no_other_row(number, tmp_path, alone):
    plugin_faults.experiment(number, tmp_path / "scene", alone)


def test_there_are_sixty_ways_to_misbehave():
    assert len(WAYS) >= 60
