"""The conformance kit on plugins that leave their process changed, never end, or give NaN where none is looked for."""

import os
import signal
import threading
import time
import warnings

import numpy as np
import pytest
from test_testing import REGISTRY, Good, GoodDataset, GoodFeature, GoodMetric

from rankbench.findings import Findings
from rankbench.testing import check, dataset_findings, feature_findings, metric_findings, ranker_findings

LEAVES = "leaves the process's global state as it was: "


class Moves(Good):
    def fit(self, images, pairs, run):
        os.chdir("/")
        return super().fit(images, pairs, run)


class Quiet(GoodFeature):
    def extract(self, images, run):
        warnings.filterwarnings("ignore", "a kangaroo")
        return super().extract(images, run)


class Careless(GoodMetric):
    def __call__(self, judged):
        np.seterr(divide="ignore", invalid="raise")
        return super().__call__(judged)


class Truncates(GoodDataset):
    def problem(self, root, facets):
        from PIL import ImageFile

        ImageFile.LOAD_TRUNCATED_IMAGES = True
        return super().problem(root, facets)


class Endless(Good):
    """Also against those who catch everything."""

    def fit(self, images, pairs, run):
        try:
            time.sleep(600)
        except Exception:
            time.sleep(600)


class EndlessForTwo(Good):
    def fit(self, images, pairs, run):
        if len(pairs) == 1:
            time.sleep(600)
        return super().fit(images, pairs, run)


class NothingLearned(GoodFeature):
    """The spread of one training image is 0, and of one pair's worth of images may be."""

    def fit(self, images, run):
        self.spread_ = 1.0 if len(images) > 2 else float("nan")
        return self

    def extract(self, images, run):
        return super().extract(images, run) * np.float32(self.spread_)


class OddImagesAreNan(GoodFeature):
    def extract(self, images, run):
        rows = super().extract(images, run)
        rows[[image.size == 3 for image in images]] = np.nan
        return rows


class NanForTheWorst(GoodMetric):
    higher_is_better = False

    def __call__(self, judged):
        value = super().__call__(judged)
        return value if 0.05 < value < 0.95 else float("nan")


class NeverBetter(GoodMetric):
    higher_is_better = False

    def __call__(self, judged):
        return 0.5


class InfiniteWhenAlone(Good):
    """Infinite where margins are asked for directly, as antisymmetric as can be."""

    def compare(self, images, pairs, run):
        return np.where(pairs.left > pairs.right, np.inf, -np.inf)


def broken(found):
    return {one.name: one.message for one in found if not one.good}


def test_what_a_plugin_leaves_changed_is_named_and_put_back(tmp_path):
    from PIL import ImageFile

    here, errors, filters = os.getcwd(), np.geterr(), list(warnings.filters)
    for found, message in (
        (ranker_findings(Moves, REGISTRY), "the working directory is /"),
        (feature_findings(Quiet, REGISTRY), "warnings filters changed"),
        (metric_findings(Careless), "floating-point errors divide is ignore, was warn; numpy's"),
        (dataset_findings(Truncates, tmp_path), "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is True, was False"),
    ):
        assert list(broken(found)) == ["leaves the process's global state as it was"]
        with pytest.raises(AssertionError, match=LEAVES) as caught:
            found.settle()
        assert message in str(caught.value)
    assert (os.getcwd(), np.geterr(), list(warnings.filters)) == (here, errors, filters)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_plugin_that_never_ends_fails_and_the_kit_ends():
    began, handler = time.monotonic(), signal.getsignal(signal.SIGALRM)
    found = ranker_findings(Endless, REGISTRY, found=Findings(timeout=0.3))
    assert broken(found) == {
        "fits a small problem and returns itself": "took more than 0.3 s; what comes after is left out"
    }
    found = ranker_findings(EndlessForTwo, REGISTRY, found=Findings(timeout=1.5))
    assert list(broken(found)) == ["two images and one pair suffice"]
    assert time.monotonic() - began < 10
    assert signal.getsignal(signal.SIGALRM) is handler
    assert not any(signal.getitimer(signal.ITIMER_REAL))


def test_an_alarm_that_was_set_before_still_rings():
    signal.setitimer(signal.ITIMER_REAL, 60)
    try:
        with Findings(timeout=5).requirement("ends"):
            pass
        assert 50 < signal.getitimer(signal.ITIMER_REAL)[0] <= 60
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def test_one_that_cannot_be_interrupted_is_given_up():
    told, ended = [], threading.Event()

    def hang(found):
        told.extend(found)
        ended.set()

    class Deaf(Good):
        def fit(self, images, pairs, run):
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
            try:
                assert ended.wait(20)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, signal.SIG_IGN)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})

    try:
        ranker_findings(Deaf, REGISTRY, found=Findings(0.1, hang))
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    assert [one.mark for one in told] == ["ok", "FAILED"]
    assert told[1].line == (
        "  FAILED fits a small problem and returns itself: took more than 0.1 s; what comes after is left out"
    )


@pytest.mark.parametrize(
    ("found", "name"),
    [
        (lambda: feature_findings(NothingLearned, REGISTRY), "two training images suffice"),
        (lambda: feature_findings(OddImagesAreNan, REGISTRY), "takes grey, tiny and oblong images"),
        (lambda: metric_findings(NanForTheWorst), "knows which way is better"),
        (lambda: metric_findings(NeverBetter), "knows which way is better"),
    ],
)
def test_nan_is_not_ok(found, name):
    assert name in broken(found())


def test_infinite_margins_are_not_antisymmetric():
    assert "gives finite numbers of the right shape" in broken(ranker_findings(InfiniteWhenAlone, REGISTRY))


def test_the_command_takes_a_limit(tmp_path):
    found = check("metrics", "pairwise-accuracy", REGISTRY, tmp_path, timeout=30)
    assert found.timeout == 30
    assert found[-1].name == "leaves the process's global state as it was"
    assert all(one.good for one in found)
