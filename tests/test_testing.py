"""The conformance kit: every first-party plugin passes it, and one plugin broken in each way does not."""

import time
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest

import rankbench
from rankbench.errors import MissingData
from rankbench.registry import Registry
from rankbench.testing import (
    Findings,
    bright_squares,
    check,
    check_dataset,
    check_feature,
    check_metric,
    check_ranker,
    dataset_findings,
    feature_findings,
    metric_findings,
    ranker_findings,
)
from rankbench.toys import by_value

REGISTRY = Registry.installed()
ELSEWHERE = {  # need parameters, or weights, or evidence that toys have not: their own tests call the kit
    "network", "precomputed", "xiao-lee", "svm-deep-attributes", "svm-deep-attributes-published", "attribute-votes",
    "reference", "svm-pairs", "seconds", "peak-memory", "given", "siamese",
    "regression-cnn", "viralnet", "category-network",
    # as they are, or with a smaller dictionary, their own tests call the kit too
    "ranksvm", "regression", "hog2x2", "gradient", "color-patches",
}  # fmt: skip
INSTALLED = [
    (kind, name) for (kind, name), plugin in sorted(REGISTRY.plugins.items()) if plugin.distribution == "rankbench"
]


@pytest.mark.parametrize(("kind", "name"), [one for one in INSTALLED if one[1] not in ELSEWHERE])
def test_every_first_party_plugin_passes(kind, name, tmp_path):
    found = check(kind, name, REGISTRY, tmp_path)
    assert not [(one.name, one.message) for one in found if not one.good]
    if kind != "datasets":
        assert sum(not one.skipped for one in found) >= 5


def test_every_kind_has_first_party_plugins():
    assert {kind for kind, _ in INSTALLED} == {"datasets", "rankers", "features", "metrics"}


# ------------------------------------------------------------------------------------------------------ good plugins


def brightness(images):
    return np.array([image.mean() for image in images])


@dataclass
class Good(rankbench.Ranker):
    """Brightness, by the sign that training pairs say."""

    scale: float = 1.0

    def fit(self, images, pairs, run):
        x = brightness(images)
        self.sign_ = float(np.sign(((x[pairs.left] - x[pairs.right]) * pairs.judgement).sum()))
        return self

    def score(self, images, run):
        return self.scale * self.sign_ * brightness(images)


class GoodFeature(rankbench.Feature):
    """Brightness."""

    def extract(self, images, run):
        return brightness(images)[:, None].astype(np.float32)


class GoodMetric(rankbench.Metric):
    """Share of ordered pairs the right way round."""

    def __call__(self, judged):
        ordered = judged.labels != 0
        return float((judged.margins[ordered] * judged.labels[ordered] > 0).mean())


def test_good_plugins_pass():
    check_ranker(Good(scale=2.0))
    check_feature(GoodFeature())
    check_metric(GoodMetric())


# ------------------------------------------------------------------------------------------------------ broken rankers


class NoRanker:
    """Inherits nothing."""


@dataclass
class OddParameter(Good):
    """A parameter that JSON cannot say."""

    scale: object = field(default_factory=object)


class Undecorated(rankbench.Ranker):
    scale: float = 1.0


@dataclass
class Decorated(Good):
    power: float = 1.0


class UndecoratedChild(Decorated):
    offset: "float" = 0.0


class OwnInit(Good):
    def __init__(self, gain=1.0):
        super().__init__(gain)


class NeedsArgument(rankbench.Ranker):
    def __init__(self, gain):
        self.gain = gain


class ReturnsNothing(Good):
    def fit(self, images, pairs, run):
        return None


class WrongShape(Good):
    def score(self, images, run):
        return super().score(images, run)[:, None]


class NotANumber(Good):
    def score(self, images, run):
        return np.full(len(images), np.nan)


class ByTheClock(Good):
    def score(self, images, run):
        return super().score(images, run) * (1 + time.perf_counter_ns() % 10**6 / 1e9)


class HiddenByTheCache(Good):
    """Its shared artefact is built otherwise each time."""

    def fit(self, images, pairs, run):
        self.offset_ = run.shared("offset", {}, lambda own: {"is": time.perf_counter_ns() % 10**6})["is"]
        return super().fit(images, pairs, run)

    def score(self, images, run):
        return super().score(images, run) * (1 + self.offset_ / 1e9)


class SecretlySeeded(Good):
    seeded = False

    def score(self, images, run):
        return super().score(images, run) * (1 + run.seed)


class LeftWins(Good):
    def compare(self, images, pairs, run):
        x = self.score(images, run)
        return x[pairs.left] - x[pairs.right] + 1.0


class Forgets(Good):
    def state(self):
        return {}

    def load(self, state):
        self.sign_ = -1.0


class Pickles(Good):
    def fit(self, images, pairs, run):
        self.object_ = np.array([object()])
        return super().fit(images, pairs, run)


class Unlearned(Good):
    def score(self, images, run):
        return np.random.default_rng(0).random(len(images))


class Greedy(Good):
    def fit(self, images, pairs, run):
        if len(pairs) < 5:
            raise ValueError("too few")
        return super().fit(images, pairs, run)


class Peeks(Good):
    """Reaches into the core for what it withheld: no attribute of a Run leads there, but a plugin is code."""

    def score(self, images, run):
        from rankbench.door import BEHIND

        scope = BEHIND[run].scope
        scores = scope.columns["score"]
        rows = {image.tobytes(): row for row, image in enumerate(scope)}
        return np.array([scores[rows[image.tobytes()]] for image in images])


class Scribbles(Good):
    def fit(self, images, pairs, run):
        pairs.label.flags.writeable = True
        pairs.label[:] = 1
        return super().fit(images, pairs, run)


class ScribblesLate(Good):
    def compare(self, images, pairs, run):
        margins = super().compare(images, pairs, run)
        pairs.left.flags.writeable = True
        pairs.left[:] = 0
        return margins


class Paints(Good):
    def fit(self, images, pairs, run):
        base = images[0].base
        base.flags.writeable = True
        base[:] = 0
        return super().fit(images, pairs, run)


class DrawsGlobally(Good):
    def fit(self, images, pairs, run):
        np.random.rand()  # noqa: NPY002
        return super().fit(images, pairs, run)


BROKEN_RANKERS = {
    NoRanker: "is a rankbench.Ranker with JSON parameters: NoRanker does not inherit rankbench.Ranker",
    OddParameter: "is a rankbench.Ranker with JSON parameters: BenchmarkError: parameter value .* is no JSON value",
    Undecorated: "with JSON parameters: 'scale' is no parameter. .* dataclass fields: is @dataclass missing",
    UndecoratedChild: "with JSON parameters: 'offset' is no parameter",
    OwnInit: "with JSON parameters: 'gain' is no parameter",
    NeedsArgument: "with JSON parameters: TypeError: .* 'gain'",
    ReturnsNothing: "fits a small problem and returns itself: fit returned NoneType; it must return self",
    WrongShape: r"gives finite numbers of the right shape: .*must give \(40,\) float64, not \(40, 1\)",
    NotANumber: "gives finite numbers of the right shape: .*score gave nan for 40 of 40",
    ByTheClock: "same seed, same scores on CPU: a second fit with the same seed gave others",
    HiddenByTheCache: "same seed, same scores on CPU: a second fit with the same seed gave others",
    SecretlySeeded: "does not depend on the seed, as it says: seeded = False, but seed 1 gave others",
    LeftWins: "swapping the sides negates the margin: margins are not antisymmetric",
    Forgets: "state and load give the same scores, without pickle: a loaded state scores otherwise",
    Pickles: "state and load give the same scores, without pickle: .*'object_' is an array of Python objects",
    Unlearned: "reaches 80% on bright squares: got .*; a baseline that learns nothing says learns = False",
    Greedy: "two images and one pair suffice: ValueError: too few",
    Peeks: "learns nothing from names, test columns, test labels, side or position: scores .* moved when these changed",
    Paints: "leaves images, pairs and global random state as they were: fit wrote to its images or pairs",
    Scribbles: "leaves images, pairs and global random state as they were: fit wrote to its images or pairs",
    ScribblesLate: "leaves images, pairs .* as they were: score or compare wrote to its images or pairs",
    DrawsGlobally: "leaves images, pairs and global random state as they were: a global generator .* draw from run.rng",
}


@pytest.mark.parametrize(("broken", "message"), BROKEN_RANKERS.items(), ids=lambda one: getattr(one, "__name__", ""))
def test_each_broken_ranker_is_found(broken, message):
    found = ranker_findings(broken, REGISTRY)
    with pytest.raises(AssertionError, match=message):
        found.settle()


@pytest.mark.parametrize("convert", [list, np.float32, lambda scores: scores.round().astype(np.int64)])
def test_scores_may_be_whatever_makes_an_array_of_numbers(convert):
    class Converts(Good):
        def score(self, images, run):
            return convert(10 * super().score(images, run))

    check_ranker(Converts())


def test_annotations_that_are_no_parameters_pass():
    class Annotated(Decorated):
        version: ClassVar[str] = "2"
        levels: "ClassVar[int]" = 3
        learns: bool = True
        sign_: float
        _cached: float = 0.0

    assert ranker_findings(Annotated, REGISTRY)[0].good


def test_a_findings_message_says_where_a_plugin_raised():
    found = ranker_findings(Greedy, REGISTRY)
    (finding,) = [one for one in found if not one.good]
    assert finding.mark == "FAILED"
    assert "(test_testing.py, line" in finding.message


def test_not_applicable_is_no_failure():
    class Picky(Good):
        def fit(self, images, pairs, run):
            raise rankbench.NotApplicable("needs votes")

    found = ranker_findings(Picky, REGISTRY)
    assert all(one.good for one in found)
    assert [one.mark for one in found if "fits a small problem" in one.name] == ["--"]


# ----------------------------------------------------------------------------------------------------- broken features


class Doubles(GoodFeature):
    def extract(self, images, run):
        return super().extract(images, run).astype(np.float64)


class Flat(GoodFeature):
    def extract(self, images, run):
        return super().extract(images, run)[:, 0]


class OneShort(GoodFeature):
    def extract(self, images, run):
        return super().extract(images, run)[1:]


class Infinite(GoodFeature):
    def extract(self, images, run):
        return super().extract(images, run) * np.float32(np.inf)


class Noisy(GoodFeature):
    def extract(self, images, run):
        return super().extract(images, run) + np.float32(time.perf_counter_ns() % 1000)


class Neighborly(GoodFeature):
    def extract(self, images, run):
        rows = super().extract(images, run)
        return rows - rows.mean(axis=0)


class Forgetful(GoodFeature):
    def fit(self, images, run):
        self.mean_ = float(brightness(images).mean())
        return self

    def extract(self, images, run):
        return super().extract(images, run) - np.float32(self.mean_)

    def state(self):
        return {"mean_": 0.0}


class NeedsMany(GoodFeature):
    def fit(self, images, run):
        if len(images) < 5:
            raise ValueError("too few")
        self.seen_ = len(images)
        return self


class AsLargeAsTheImage(GoodFeature):
    def extract(self, images, run):
        return np.stack([image.ravel() for image in images]).astype(np.float32)


class SeedsGlobally(GoodFeature):
    def extract(self, images, run):
        np.random.seed(0)  # noqa: NPY002
        return super().extract(images, run)


class PaintsOver(GoodFeature):
    def extract(self, images, run):
        rows = super().extract(images, run)
        base = images[0].base
        base.flags.writeable = True
        base[0, 0, 0] ^= 1
        return rows


BROKEN_FEATURES = {
    NoRanker: "is a rankbench.Feature with JSON parameters: NoRanker does not inherit rankbench.Feature",
    Doubles: r"gives \(n, d\) float32, finite: gave float64; it must be float32",
    Flat: r"gives \(n, d\) float32, finite: gave \(32,\)",
    OneShort: r"gives \(n, d\) float32, finite: gave \(31, 1\) for 32 images",
    Infinite: r"gives \(n, d\) float32, finite: gave NaN or infinity",
    Noisy: "same seed, same rows: a second extraction gave other rows",
    Neighborly: "a row does not depend on its neighbors: moved by",
    Forgetful: "state and load give the same rows, without pickle: a loaded state gives other rows",
    NeedsMany: "two training images suffice: ValueError: too few",
    AsLargeAsTheImage: "takes grey, tiny and oblong images: ValueError",
    SeedsGlobally: "leaves images and global random state as they were: a global generator",
    PaintsOver: "leaves images and global random state as they were: images were written to",
}


@pytest.mark.parametrize(("broken", "message"), BROKEN_FEATURES.items(), ids=lambda one: getattr(one, "__name__", ""))
def test_each_broken_feature_is_found(broken, message):
    with pytest.raises(AssertionError, match=message):
        feature_findings(broken, REGISTRY).settle()


def test_a_feature_that_uses_a_column_the_toy_has_not_is_skipped():
    class UsesVotes(GoodFeature):
        uses = ("votes",)

        def fit(self, images, run):
            raise AssertionError("must not be called")

    found = feature_findings(UsesVotes, REGISTRY)
    assert [one.mark for one in found] == ["ok", "--"]
    assert "needs the column 'votes'" in found[-1].message


# ------------------------------------------------------------------------------------------------------ broken metrics


class GivesArray(GoodMetric):
    def __call__(self, judged):
        return np.array([super().__call__(judged)])


class GivesNan(GoodMetric):
    def __call__(self, judged):
        return float("nan")


class Sided(GoodMetric):
    def __call__(self, judged):
        return float((judged.margins > 0).mean())


class WrongWay(GoodMetric):
    higher_is_better = False


class Overwrites(GoodMetric):
    def __call__(self, judged):
        value = super().__call__(judged)
        judged.margins[:] = 0
        return value


class NeedsTargets(GoodMetric):
    def __call__(self, judged):
        return super().__call__(judged) + 0 * float(judged.targets.mean())


BROKEN_METRICS = {
    NoRanker: "is a rankbench.Metric with JSON parameters: NoRanker does not inherit rankbench.Metric",
    GivesArray: "gives a finite number: gave ndarray; it must be a float",
    GivesNan: "gives a finite number: gave nan",
    Sided: "flipped pairs leave it unchanged: it depends on the side",
    WrongWay: "knows which way is better: a perfect order gives",
    Overwrites: "leaves what it judges untouched: it wrote to its argument",
    NeedsTargets: "does without weights, image scores and targets, or says that it cannot: AttributeError",
}


@pytest.mark.parametrize(("broken", "message"), BROKEN_METRICS.items(), ids=lambda one: getattr(one, "__name__", ""))
def test_each_broken_metric_is_found(broken, message):
    with pytest.raises(AssertionError, match=message):
        metric_findings(broken).settle()


# ----------------------------------------------------------------------------------------------------- broken datasets


class GoodDataset(rankbench.Dataset):
    """Bright squares, twice."""

    get = "Draw them."

    def facets(self, root):
        return [{"number": number} for number in (0, 1)]

    def problem(self, root, facets):
        toy = bright_squares(seed=facets["number"])
        return rankbench.Problem(toy.images, toy.train, toy.tests, facets)


class SaysItIsThere(GoodDataset):
    def needs(self, root):
        return [rankbench.Need(root / "nowhere", True, "Draw it.")]


class SaysNotWhere(GoodDataset):
    def needs(self, root):
        return [rankbench.Need(root / "nowhere", False)]


class Empty(GoodDataset):
    def facets(self, root):
        return []


class LooseParameter(GoodDataset):
    count: int = 3


class Repeats(GoodDataset):
    def facets(self, root):
        return [{"number": 0}, {"number": 0}]


class OtherFacets(GoodDataset):
    def problem(self, root, facets):
        return super().problem(root, {"number": 1 - facets["number"]})


class Moves(GoodDataset):
    def problem(self, root, facets):
        toy = bright_squares(seed=time.perf_counter_ns() % 2**32)
        return rankbench.Problem(toy.images, toy.train, toy.tests, facets)


class Raises(GoodDataset):
    def problem(self, root, facets):
        raise rankbench.DataError("pairs.csv, line 7: no number")


class OrderedDigests(GoodDataset):
    """Digests that grow with the score: the order of the images tells the label."""

    def problem(self, root, facets):
        toy = bright_squares(train=40, test=400, pairs=4000, size=16, seed=facets["number"])
        order = np.argsort(toy.images.columns["score"]).argsort()
        digests = [int(rank).to_bytes(8, "big") + bytes(24) for rank in order]
        images = rankbench.Images.from_decoder(digests, lambda row: toy.images[row])
        return rankbench.Problem(images, toy.train, toy.tests, facets)


BROKEN_DATASETS = {
    SaysItIsThere: "says what it needs: .*nowhere is not there, but said to be",
    SaysNotWhere: "says what it needs: .*nowhere is missing and `get` does not say where to get it; set `get`, or, "
    'if the dataset reads no files, set folder = ""',
    Empty: "lists distinct facets: has no problem",
    LooseParameter: "is a rankbench.Dataset with JSON parameters: 'count' is no parameter",
    Repeats: "lists distinct facets: two problems have equal facets",
    OtherFacets: r"number=0: loads alone, the same each time: problem\(\{'number': 0\}\) has facets \{'number': 1\}",
    Moves: "number=0: loads alone, the same each time: a second load gave another fingerprint",
    Raises: "number=0: loads alone, the same each time: DataError: pairs.csv, line 7: no number",
    OrderedDigests: "number=0: test: a spy on image index gets 50 %: got",
}


def test_a_good_dataset_passes(tmp_path):
    check_dataset(GoodDataset(), tmp_path)
    found = dataset_findings(GoodDataset, tmp_path)
    assert sum("a spy on" in one.name for one in found) == 12


@pytest.mark.parametrize(("broken", "message"), BROKEN_DATASETS.items(), ids=lambda one: getattr(one, "__name__", ""))
def test_each_broken_dataset_is_found(broken, message, tmp_path):
    with pytest.raises(AssertionError, match=message):
        dataset_findings(broken, tmp_path).settle()


class Telling(GoodDataset):
    """Names and columns that grow with the score; the first column tells nothing."""

    def problem(self, root, facets):
        toy = bright_squares(train=40, test=400, pairs=4000, size=16, seed=facets["number"])
        rank = toy.images.columns["score"].argsort().argsort()
        columns = {
            "blank": np.zeros(len(rank)),
            "score": toy.images.columns["score"],
            "grade": [f"grade {place:04d}" for place in rank],
            "vector": np.stack([rank // 20, rank], axis=1),
        }
        names = [f"square-{place:04d}" for place in rank]
        images = rankbench.Images.from_arrays(list(toy.images), names=names, columns=columns)
        return rankbench.Problem(images, toy.train, toy.tests, facets)


@pytest.mark.parametrize("leak", ["names", "columns"])
def test_the_spies_catch_a_core_that_leaks(leak, tmp_path, monkeypatch):
    check_dataset(Telling(), tmp_path)

    def leaky(problem, lost=None, inputs=()):
        rows = problem.test_rows()
        kept = {"names": True, "columns": ()} if leak == "names" else {"names": False, "columns": None}
        return problem.images.take(rows, inputs=(), **kept), rows

    monkeypatch.setattr("rankbench.problem.Problem.judged", leaky)
    broken = {one.name.split(": ")[-1] for one in dataset_findings(Telling, tmp_path) if not one.good}
    spies = {"names": ["names"], "columns": ["column 'grade'", "column 'score'", "column 'vector'"]}[leak]
    assert sorted(broken) == [f"a spy on {spy} gets 50 %" for spy in spies]


def test_spies_pass_over_values_nobody_knows():
    assert by_value(np.array([3, np.nan, -1])).tolist() == [3, 0, -1]
    assert by_value(np.array([True, False])).tolist() == [1, 0]
    assert by_value(np.array(["b", "c", "a", "b"])).tolist() == [1, 2, 0, 1]


def test_missing_data_is_no_failure_and_says_what_was_looked_for(tmp_path):
    found = dataset_findings(GoodDataset, tmp_path / "absent")
    assert [one.mark for one in found] == ["--"]
    assert str(tmp_path / "absent") in found[0].message
    assert "Draw them." in found[0].message


def test_a_check_by_name_calls_a_dataset_by_that_name(tmp_path):
    (finding,) = check("datasets", "manifest", REGISTRY, tmp_path)
    assert finding.mark == "--"
    assert finding.message.startswith(f"dataset manifest: not found:\n  {tmp_path / 'manifest'}")


def test_images_that_are_names_alone_pass(tmp_path):
    class Names(GoodDataset):
        def problem(self, root, facets):
            toy = bright_squares(seed=facets["number"])
            images = rankbench.Images.from_names(toy.images.names)
            return rankbench.Problem(images, toy.train, toy.tests, facets)

    found = dataset_findings(Names, tmp_path)
    assert all(one.good for one in found)
    assert sum(one.skipped for one in found) == 2


# ------------------------------------------------------------------------------------------------------------ by name


def test_check_skips_what_has_no_default_and_takes_parameters(tmp_path):
    @dataclass(kw_only=True)
    class Weighted(Good):
        factor: rankbench.File

        def fit(self, images, pairs, run):
            self.factor_ = float(self.factor.path.read_text())
            return super().fit(images, pairs, run)

        def score(self, images, run):
            return self.factor_ * self.sign_ * brightness(images)

    registry = Registry.installed()
    registry.add(hooks(weighted=Weighted), "tests")
    (finding,) = check("rankers", "weighted", registry, tmp_path)
    assert finding.mark == "--"
    assert "has no default for factor" in finding.message
    (tmp_path / "factor.txt").write_text("2.5")
    found = check("rankers", "weighted", registry, tmp_path, factor="factor.txt")
    assert not [one.message for one in found if not one.good]
    check_ranker(Weighted(factor=rankbench.File("factor.txt")), data=tmp_path)


def hooks(**rankers):
    class Plugin:
        @rankbench.hookimpl
        def rankbench_rankers(self):
            return rankers

    return Plugin()


def test_findings_settle_names_every_broken_requirement():
    found = Findings()
    with found.requirement("one"):
        raise AssertionError("first")
    with found.requirement("two"):
        pass
    with found.requirement("three"):
        raise MissingData("nowhere")
    with found.requirement("four"):
        raise KeyError("x")
    with pytest.raises(AssertionError, match=r"^one: first\nfour: KeyError: 'x' \(test_testing.py, line \d+\)$"):
        found.settle()
    assert [one.mark for one in found] == ["FAILED", "ok", "--", "FAILED"]
