"""seconds and peak-memory: what a cell took."""

import numpy as np
import pytest

import rankbench
from rankbench.testing import check_metric
from rankbench_metrics.cost import PeakMemory, Seconds


def judged(**spent):
    return rankbench.Judged(np.ones(1), np.ones(1, np.int8), **spent)


def test_seconds_are_those_of_fitting_scoring_and_features():
    spent = {"fit": 3.0, "score": 0.5, "shared": 1.0, "features": 20.0, "store": 9.0}
    assert Seconds()(judged(seconds=spent)) == 24.5
    assert Seconds(features=False)(judged(seconds=spent)) == 4.5


def test_memory_is_in_gigabytes():
    assert PeakMemory()(judged(peak_memory=2_500_000_000)) == 2.5


@pytest.mark.parametrize("measured", [-278_528, 0, 999_999])
def test_what_was_not_measured_is_no_nought(measured):
    with pytest.raises(rankbench.NotApplicable, match="less than a megabyte"):
        PeakMemory()(judged(peak_memory=measured))
    assert f"{PeakMemory()(judged(peak_memory=10**6)):.{PeakMemory.decimals}f}" == "0.001"


@pytest.mark.parametrize("metric", [Seconds(), PeakMemory()])
def test_what_is_not_known_does_not_apply(metric):
    with pytest.raises(rankbench.NotApplicable):
        metric(judged())


@pytest.mark.parametrize("metric", [Seconds(), PeakMemory()])
def test_conform(metric):
    check_metric(metric)
    assert metric.higher_is_better is None
