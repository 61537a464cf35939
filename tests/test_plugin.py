"""What a plugin author gets for nothing: the defaults of Dataset, Ranker, Feature and Metric."""

from dataclasses import dataclass

import numpy as np
import pytest
from traced import toy

import rankbench
from rankbench.plugin import Judged


class Simple(rankbench.Dataset):
    """Writes only `problems`."""

    get = "https://example.org"

    def problems(self, root):
        for fold in range(3):
            problem = toy()
            yield rankbench.Problem(problem.images, problem.train, problem.tests, {"fold": fold})


class Large(rankbench.Dataset):
    """Writes `facets` and `problem`."""

    def facets(self, root):
        return [{"fold": 0}, {"fold": 1}]

    def problem(self, root, facets):
        problem = toy()
        return rankbench.Problem(problem.images, problem.train, problem.tests, facets)


def test_a_dataset_that_yields_problems_has_facets_and_finds_one(tmp_path):
    assert Simple().facets(tmp_path) == [{"fold": 0}, {"fold": 1}, {"fold": 2}]
    assert dict(Simple().problem(tmp_path, {"fold": 2}).facets) == {"fold": 2}
    with pytest.raises(rankbench.DataError, match=r"Simple has no problem with facets \{'fold': 3\}"):
        Simple().problem(tmp_path, {"fold": 3})
    assert [dict(problem.facets) for problem in Large().problems(tmp_path)] == [{"fold": 0}, {"fold": 1}]


def test_a_dataset_needs_its_folder(tmp_path):
    found, absent = Simple().needs(tmp_path)[0], Simple().needs(tmp_path / "absent")[0]
    assert (found.path, found.found, found.images) == (tmp_path, True, False)
    assert (absent.found, absent.get) == (False, "https://example.org")


def test_what_a_class_leaves_out_is_said_by_its_name(tmp_path):
    ranker, feature = rankbench.Ranker(), rankbench.Feature()
    images, pairs = toy().training()
    for call in (
        lambda: ranker.fit(images, pairs, None),
        lambda: ranker.score(images, None),
        lambda: feature.extract(images, None),
        lambda: rankbench.Metric()(None),
    ):
        with pytest.raises(NotImplementedError, match=r"(Ranker|Feature|Metric) defines no (fit|score|extract|value)"):
            call()
    for call in (
        lambda: ranker.locate(images, None),
        lambda: ranker.embed(images, None),
        lambda: ranker.export_onnx(tmp_path / "x.onnx"),
    ):
        with pytest.raises(
            rankbench.NotApplicable, match=r"^Ranker (locates nothing|has no embedding|cannot be exported)"
        ):
            call()
    assert feature.fit(images, None) is feature
    assert (rankbench.Feature.learned(), ranker.needs_images(), ranker.resources().gpu) == (False, True, 0)


def test_a_ranker_that_scores_compares_by_difference():
    class Level(rankbench.Ranker):
        def score(self, images, run):
            return np.array([image.mean() for image in images])

    images, _ = toy().judged()
    pairs = rankbench.Pairs([0, 1], [1, 2], None)
    levels = Level().score(images, None)
    assert Level().compare(images, pairs, None).tolist() == [levels[0] - levels[1], levels[1] - levels[2]]


@pytest.mark.parametrize("frozen", [True, False])
def test_what_fit_learned_is_the_state_and_can_be_loaded(frozen):
    @dataclass(frozen=frozen)
    class Fitted(rankbench.Ranker):
        c: float = 1.0

        def fit(self, images, pairs, run):
            object.__setattr__(self, "weights_", np.arange(3))
            object.__setattr__(self, "cache", "not learned")
            return self

    state = Fitted(2.0).fit(None, None, None).state()
    assert list(state) == ["weights_"]
    twin = Fitted(2.0)
    twin.load(state)
    assert twin.weights_.tolist() == [0, 1, 2]


def test_a_frozen_plugin_may_inherit_and_judged_is_plain_data():
    @dataclass(frozen=True)
    class Weighted(rankbench.Metric):
        weighted: bool = False

        def __call__(self, judged):
            return float(np.average(judged.margins * judged.labels > 0, weights=judged.weights))

    judged = Judged(np.array([1.0, -1.0]), np.array([1, 1], np.int8), np.array([3.0, 1.0]))
    assert Weighted(True)(judged) == 0.75
    assert (judged.scores, judged.targets) == (None, None)


def test_the_package_gives_its_names_and_no_others():
    assert all(hasattr(rankbench, name) for name in rankbench.__all__)
    with pytest.raises(AttributeError, match="module 'rankbench' has no attribute 'ranker'"):
        _ = rankbench.ranker


@pytest.mark.parametrize(
    ("given", "said"), [(None, "gave NoneType"), (3, "gave int"), ([None], "yielded NoneType"), ([3], "yielded int")]
)
def test_a_dataset_that_gives_something_else_than_problems_is_told_so(tmp_path, given, said):
    class Wrong(rankbench.Dataset):
        def problems(self, root):
            return given

    for ask in (lambda: Wrong().facets(tmp_path), lambda: Wrong().problem(tmp_path, {})):
        with pytest.raises(rankbench.errors.PluginError, match=rf"Wrong: problems\(\) {said}; it must yield rankbench"):
            ask()
