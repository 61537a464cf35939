"""Running from Python: short representations, and options that are checked."""

import pytest

import rankbench
import rankbench.runner
from rankbench.errors import BenchmarkError, PluginError

TOY = """
title = "Toy"
dataset = "dots"
metric = "pairwise-accuracy"
[[column]]
label = "Bright"
where = { attribute = "bright" }
[[row]]
label = "Truth"
ranker = "brightness"
[[row]]
label = "Boom"
ranker = "boom"
"""


def test_what_is_printed_of_a_result_fits_a_line(lab):
    result = lab.run(TOY)
    assert repr(result) == "<Result of toy: 1 done, 1 failed; table() gives the numbers>"
    assert repr(result.plan) == "<Plan of toy: 2 cells>"
    assert repr(result.cells[0]) == "<PlannedCell Truth · dots attribute=bright: done>"
    assert repr(result.runner).startswith("<Runner of Options(data=")


def test_an_unknown_option_is_answered_with_the_closest(lab):
    with pytest.raises(
        BenchmarkError, match=r"^rankbench\.run has no option 'job'\. Did you mean 'jobs'\? It has: data,"
    ):
        lab.run(TOY, job=1)
    assert not lab.results.exists()


def test_a_module_that_is_not_there_is_named(lab):
    with pytest.raises(PluginError, match=r"^plugins: module 'no_such_module' cannot be imported \(No module named"):
        lab.run(TOY, plugins=["no_such_module"])


def test_every_option_is_explained():
    for name in rankbench.runner.Options.__dataclass_fields__:
        assert name in rankbench.run.__doc__
