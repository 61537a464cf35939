"""The conformance kit: what any dataset, ranker, metric or feature must satisfy.

In a plugin's own tests, with pytest or without:

    import rankbench.testing

    def test_mean_color():
        rankbench.testing.check_ranker(MeanColor())

Each `check_…` raises AssertionError with all that is wrong. `rankbench check-plugin NAME` prints it line by line.
"""

from __future__ import annotations

import dataclasses
import random
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankbench.errors import MissingData, NotApplicable
from rankbench.files import read_state, write_state
from rankbench.findings import TIMEOUT, Finding, Findings, Hang
from rankbench.images import Images, array_bytes
from rankbench.loading import Data, DatasetChoice, missing_message
from rankbench.pairs import Pairs
from rankbench.plugin import Dataset, Feature, Judged, Metric, Ranker
from rankbench.problem import Problem
from rankbench.registry import Registry
from rankbench.services import CellRun
from rankbench.toys import Bench as Bench
from rankbench.toys import accuracy as accuracy
from rankbench.toys import bright_squares as bright_squares
from rankbench.toys import disguised, fresh, odd_images, spies, spread, tolerance

LEARNED = 0.8  # pairwise accuracy a learner must reach on the bright squares
MIXED_BATCH = 1e-4  # how far a score may move with its neighbors, relative to the spread of the scores


# --------------------------------------------------------------------------------------------------------- rankers


def check_ranker(ranker: Ranker, registry: Registry | None = None, data: str | Path = ".") -> None:
    """AssertionError unless the ranker meets every requirement. It is copied through its class and parameters.

    Args: data, the folder that file parameters are relative to.
    """
    ranker_findings(lambda: fresh(ranker), registry, data).settle()


def ranker_findings(
    make: Callable[[], Ranker],
    registry: Registry | None = None,
    data: str | Path = ".",
    found: Findings | None = None,
) -> Findings:
    """Every requirement on a ranker, added to `found` if it is given."""
    found = Findings() if found is None else found
    with found.kit(make, registry), tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), registry, data)
        problem = bright_squares().canonical()
        if not found.declared(make, Ranker):
            return found
        fitted: list[tuple[Ranker, CellRun]] = []
        with found.requirement("fits a small problem and returns itself"):
            one, run = bench.fit(make(), problem)
            assert isinstance(one, Ranker), f"fit returned {type(one).__name__}; it must return self"
            fitted.append((one, run))
        if not fitted:
            return found
        ranker_requirements(found, bench, make, problem, *fitted[0])
        with found.requirement("two images and one pair suffice"):
            tiny = bright_squares(train=2, test=2, pairs=1).canonical()
            other, second = bench.fit(make(), tiny)
            assert bench.margins(other, tiny, second).shape == (1,)
        with found.requirement("leaves images, pairs and global random state as they were"):
            untouched(bench, make)
    return found


def ranker_requirements(
    found: Findings, bench: Bench, make: Callable[[], Ranker], problem: Problem, ranker: Ranker, run: CellRun
) -> None:
    """Requirements on a ranker that has been fitted."""
    margins = np.zeros(0)
    with found.requirement("gives finite numbers of the right shape"):
        margins = bench.margins(ranker, problem, run)
    if not len(margins):
        return
    with found.requirement("same seed, same scores on CPU"):
        again, second = bench.apart().fit(make(), problem)
        assert np.array_equal(bench.margins(again, problem, second), margins), (
            "a second fit with the same seed gave others"
        )
    if not ranker.seeded:
        with found.requirement("does not depend on the seed, as it says"):
            other, third = bench.apart().fit(make(), problem, seed=1)
            assert np.array_equal(bench.margins(other, problem, third), margins), (
                "seeded = False, but seed 1 gave others"
            )
    with found.requirement("swapping the sides negates the margin"):
        one, two = both_ways(bench, ranker, problem)
        assert np.isfinite([one, two]).all(), "gave NaN or infinity"
        assert np.allclose(one, -two, rtol=1e-5, atol=1e-6 * spread(one)), "margins are not antisymmetric"
    with found.requirement("state and load give the same scores, without pickle"):
        twin = make()
        twin.load(stored(ranker.state(), type(ranker).__name__))
        one = bench.margins(ranker, problem, bench.run(problem, ranker))
        assert np.array_equal(bench.margins(twin, problem, bench.run(problem, twin)), one), (
            "a loaded state scores otherwise"
        )
    if ranker.learns:
        with found.requirement(f"reaches {LEARNED:.0%} on bright squares"):
            got = accuracy(margins, next(iter(problem.tests.values())))
            assert got >= LEARNED, f"got {got:.1%}; a baseline that learns nothing says learns = False"
    with found.requirement("learns nothing from names, test columns, test labels, side or position"):
        disguise = disguised(problem)
        again, second = bench.apart().fit(make(), disguise)
        name = next(iter(problem.tests))
        assert np.array_equal(bench.margins(again, disguise, second), margins), (
            f"scores of {name!r} moved when these changed"
        )


def stored(state: Mapping[str, Any], who: str) -> dict[str, Any]:
    """A state as it comes back from a store."""
    with tempfile.TemporaryDirectory() as folder:
        write_state(Path(folder), state, who)
        return read_state(Path(folder))


def handed(problem: Problem, ranker: Ranker) -> tuple[Images, Pairs]:
    """What `score` and `compare` are given of the first test set."""
    images, rows = problem.judged(inputs=ranker.inputs)
    position = np.full(len(problem.images), -1)
    position[rows] = np.arange(len(rows))
    return images, next(iter(problem.tests.values())).reindexed(position).without_labels(ranker.inputs)


def both_ways(bench: Bench, ranker: Ranker, problem: Problem) -> tuple[NDArray[Any], NDArray[Any]]:
    """Margins, and margins with the sides swapped."""
    images, pairs = handed(problem, ranker)
    turned = pairs.swapped(np.ones(len(pairs), bool))
    one, two = (np.asarray(ranker.compare(images, asked, bench.run(problem, ranker).door)) for asked in (pairs, turned))
    return one, two


def untouched(bench: Bench, make: Callable[[], Ranker]) -> None:
    """AssertionError where a ranker writes into what it is given, or draws from a global generator."""
    problem, ranker, drawn = bright_squares().canonical(), make(), global_state()
    images, pairs = problem.training(inputs=ranker.inputs)
    given = contents(images, pairs)
    run = bench.apart().run(problem, ranker)
    run.fit_digest = images.fingerprint
    fitted = ranker.fit(images, pairs, run.door)
    assert contents(images, pairs) == given, "fit wrote to its images or pairs"
    images, pairs = handed(problem, ranker)
    given = contents(images, pairs)
    margins = np.asarray(fitted.compare(images, pairs, run.door))
    assert np.isfinite(margins).all(), "compare gave NaN or infinity"
    assert contents(images, pairs) == given, "score or compare wrote to its images or pairs"
    assert global_state() == drawn, "a global generator of random numbers was used or seeded; draw from run.rng"


def contents(images: Images, pairs: Pairs | None = None) -> list[bytes]:
    """Everything a plugin could write to."""
    arrays: list[NDArray[Any]] = [images[row] for row in range(len(images))]
    arrays += images.columns.values()
    if pairs is not None:
        arrays += [pairs.left, pairs.right, *([] if pairs.label is None else [pairs.label])]
    return [array_bytes(array) for array in arrays]


def global_state() -> list[Any]:
    """State of the generators that belong to nobody."""
    numpy = np.random.get_state(legacy=False)  # noqa: NPY002
    torch = sys.modules.get("torch")
    return [random.getstate(), repr(numpy), b"" if torch is None else bytes(torch.get_rng_state().numpy())]


def imported_torch(before: list[Any]) -> bool:
    """Whether torch came in since; then its generator is moved on, so that seeding it alike each time still shows."""
    torch = sys.modules.get("torch")
    if before[2] or torch is None:
        return False
    torch.rand(1)
    return True


# -------------------------------------------------------------------------------------------------------- features


def check_feature(feature: Feature, registry: Registry | None = None, data: str | Path = ".") -> None:
    """AssertionError unless the feature meets every requirement.

    Args: data, the folder that file parameters are relative to.
    """
    feature_findings(lambda: fresh(feature), registry, data).settle()


def feature_findings(
    make: Callable[[], Feature],
    registry: Registry | None = None,
    data: str | Path = ".",
    found: Findings | None = None,
) -> Findings:
    """Every requirement on a feature, added to `found` if it is given."""
    found = Findings() if found is None else found
    with found.kit(make, registry), tempfile.TemporaryDirectory() as folder:
        if found.declared(make, Feature):
            feature_requirements(found, Bench(Path(folder), registry, data), make)
    return found


def feature_requirements(found: Findings, bench: Bench, make: Callable[[], Feature]) -> None:
    """Requirements on what a feature gives."""
    problem = bright_squares(train=24, test=8).canonical()
    images, like = problem.images, make()
    view = images.take(np.arange(len(images)), names=like.by_name, columns=(), inputs=())
    before, drawn = contents(images), global_state()

    def rows_of(seen: Images, training: Problem = problem) -> NDArray[Any]:
        feature = make()
        run = bench.run(training, feature)
        return np.asarray(learned(feature, training, run).extract(seen, run.door))

    rows = np.zeros((0, 0), np.float32)
    with found.requirement("gives (n, d) float32, finite"):
        rows = rows_of(view)
        assert rows.ndim == 2, f"gave {rows.shape}"
        assert rows.shape[0] == len(images), f"gave {rows.shape} for {len(images)} images"
        assert rows.dtype == np.float32, f"gave {rows.dtype}; it must be float32"
        assert np.isfinite(rows).all(), "gave NaN or infinity"
    if found[-1].skipped or not found[-1].good:
        return
    drawn = global_state() if imported_torch(drawn) else drawn
    with found.requirement("same seed, same rows"):
        assert np.array_equal(rows_of(view), rows), "a second extraction gave other rows"
    with found.requirement("a row does not depend on its neighbors"):
        order = np.random.default_rng(0).permutation(len(images))[: len(images) // 2]
        moved = float(np.abs(rows_of(view.take(order)) - rows[order]).max())
        assert moved <= MIXED_BATCH * spread(rows), f"moved by {moved:g} beside other images"
    with found.requirement("state and load give the same rows, without pickle"):
        feature, twin = make(), make()
        run = bench.run(problem, feature)
        bench.services.located(twin)
        twin.load(stored(learned(feature, problem, run).state(), type(feature).__name__))
        assert np.array_equal(twin.extract(view, run.door), rows), "a loaded state gives other rows"
    with found.requirement("leaves images and global random state as they were"):
        assert contents(images) == before, "images were written to"
        assert global_state() == drawn, "a global generator of random numbers was used or seeded; draw from run.rng"
    if like.learned():
        with found.requirement("two training images suffice"):
            got = rows_of(view, bright_squares(train=2, test=2, pairs=1).canonical())
            assert len(got) == len(images), f"gave {got.shape} for {len(images)} images"
            assert np.isfinite(got).all(), "gave NaN or infinity"
    if not (like.by_name or like.inputs):
        with found.requirement("takes grey, tiny and oblong images"):
            got = rows_of(odd_images())
            assert got.shape == (4, rows.shape[1]), f"gave {got.shape}, not (4, {rows.shape[1]})"
            assert np.isfinite(got).all(), "gave NaN or infinity"


def learned(feature: Feature, problem: Problem, run: CellRun) -> Feature:
    """The feature, fitted on a problem's training images if it has a fit."""
    if feature.learned():
        seen = problem.images.take(problem.training_rows(), names=False, inputs=())
        missing = [name for name in feature.uses if name not in seen.columns]
        if missing:
            raise NotApplicable(f"its fit needs the column {missing[0]!r}, which the toy images do not have")
        feature.fit(seen.take(np.arange(len(seen)), columns=feature.uses), run.door)
    return feature


# --------------------------------------------------------------------------------------------------------- metrics


def check_metric(metric: Metric) -> None:
    """AssertionError unless the metric meets every requirement."""
    metric_findings(lambda: fresh(metric)).settle()


def metric_findings(make: Callable[[], Metric], found: Findings | None = None) -> Findings:
    """Every requirement on a metric, added to `found` if it is given."""
    found = Findings() if found is None else found
    with found.kit(make):
        if found.declared(make, Metric):
            metric_requirements(found, make)
    return found


def metric_requirements(found: Findings, make: Callable[[], Metric]) -> None:
    """Requirements on what a metric gives."""
    rng = np.random.default_rng(0)
    scores = rng.normal(size=50)
    left, right = np.triu_indices(50, 1)
    truth = scores + rng.normal(size=50) / 4

    def judged(values: NDArray[np.float64], flip: Sequence[Any] | slice = slice(0, 0)) -> Judged:
        margins, labels = values[left] - values[right], np.sign(np.round(truth[left] - truth[right], 1)).astype(np.int8)
        margins[flip], labels[flip] = -margins[flip], -labels[flip]
        return Judged(margins, labels, np.ones(len(left)), values, truth, {"fit": 2.0, "score": 1.0}, 10**8)

    with found.requirement("gives a finite number"):
        value = make()(judged(scores))
        assert isinstance(value, int | float), f"gave {type(value).__name__}; it must be a float"
        assert np.isfinite(value), f"gave {value}"
    with found.requirement("flipped pairs leave it unchanged"):
        some = slice(0, None, 3)
        assert np.isclose(make()(judged(scores, some)), make()(judged(scores)), atol=1e-12), "it depends on the side"
    with found.requirement("knows which way is better"):
        if make().higher_is_better is None:
            raise NotApplicable("neither way is better")
        better, worse = make()(judged(truth)), make()(judged(-truth))
        assert np.isfinite([better, worse]).all(), f"a perfect order gives {better}, its reverse {worse}"
        knows = better > worse if make().higher_is_better else better < worse
        assert knows, f"a perfect order gives {better}, its reverse {worse}"
    with found.requirement("leaves what it judges untouched"):
        given = judged(scores)
        arrays = (given.margins, given.labels, given.weights, given.scores, given.targets)
        before = [array_bytes(array) for array in arrays if array is not None]
        make()(given)
        assert [array_bytes(array) for array in arrays if array is not None] == before, "it wrote to its argument"
    with found.requirement("does without weights, image scores and targets, or says that it cannot"):
        whole = judged(scores)
        value = make()(Judged(whole.margins, whole.labels))
        assert np.isfinite(value), f"gave {value}"


# -------------------------------------------------------------------------------------------------------- datasets


def check_dataset(dataset: Dataset, root: str | Path, registry: Registry | None = None, limit: int = 3) -> None:
    """AssertionError unless the dataset meets every requirement; looks at `limit` of its problems."""
    dataset_findings(lambda: fresh(dataset), Path(root), limit).settle()


def dataset_findings(
    make: Callable[[], Dataset], root: Path, limit: int = 3, name: str = "", found: Findings | None = None
) -> Findings:
    """Every requirement on a dataset, its files lying in `root`; messages call it by its name, or its class's."""
    found = Findings() if found is None else found
    with found.kit(make):
        dataset_requirements(found, make, root, limit, name)
    return found


def dataset_requirements(found: Findings, make: Callable[[], Dataset], root: Path, limit: int, name: str) -> None:
    """Requirements on a dataset and its problems."""
    with found.requirement("says what it needs"):
        for need in make().needs(root):
            assert need.found == need.path.exists() or not need.found, f"{need.path} is not there, but said to be"
            assert need.found or need.get, (
                f"{need.path} is missing and `get` does not say where to get it; set `get`, or, if the dataset reads "
                'no files, set folder = ""'
            )
        lacking = [need for need in make().needs(root) if not need.found]
        if lacking:
            raise MissingData(missing_message(DatasetChoice(name or type(make()).__name__), lacking))
    if found[-1].skipped or not found[-1].good or not found.declared(make, Dataset):
        return
    facets: list[dict[str, Any]] = []
    with found.requirement("lists distinct facets"):
        facets = make().facets(root)
        assert facets, "has no problem"
        assert len({str(sorted(one.items())) for one in facets}) == len(facets), "two problems have equal facets"
    for one in facets[:limit]:
        label = " ".join(f"{k}={v}" for k, v in one.items()) or "the problem"
        problems: list[Problem] = []
        with found.requirement(f"{label}: loads alone, the same each time"):
            problem = make().problem(root, one)
            assert dict(problem.facets) == one, f"problem({one}) has facets {dict(problem.facets)}"
            problems.append(problem.canonical())
            again = make().problem(root, one).canonical()
            assert again.fingerprint == problems[0].fingerprint, "a second load gave another fingerprint"
        if problems:
            problem_findings(found, problems[0], label)


def problem_findings(found: Findings, problem: Problem, label: str) -> None:
    """Images decode, and spies that look at anything but pixels learn nothing."""
    with found.requirement(f"{label}: images are (H, W, 3) uint8"):
        if not problem.images.has_content:
            raise NotApplicable("images are names alone")
        for row in np.linspace(0, len(problem.images) - 1, 5).astype(int):
            pixels = problem.images[int(row)]
            assert pixels.dtype == np.uint8, f"{problem.images.describe(int(row))}: {pixels.dtype}"
            assert pixels.ndim == 3, f"{problem.images.describe(int(row))}: {pixels.shape}"
            assert pixels.shape[2] == 3, f"{problem.images.describe(int(row))}: {pixels.shape}"
    for name in problem.tests:
        for spy, guess in spies(problem, name).items():
            with found.requirement(f"{label}: {name}: a spy on {spy} gets 50 %"):
                got, allowed = accuracy(guess, problem.tests[name]), tolerance(problem.tests[name])
                assert abs(got - 0.5) <= allowed, f"got {got:.1%}, more than {allowed:.1%} from chance"


# ----------------------------------------------------------------------------------------------------- by its name


def check(
    kind: str,
    name: str,
    registry: Registry | None = None,
    data: Path | None = None,
    timeout: float = TIMEOUT,
    hang: Hang | None = None,
    **parameters: Any,
) -> Findings:
    """Every requirement on an installed plugin, with its default parameters or those given.

    Args: timeout, seconds for each requirement; hang, called from another thread with all findings where a plugin
        outlasts them and cannot be interrupted.
    """
    registry, root = registry or Registry.installed(), Path(data or "data")
    found = Findings(timeout, hang)
    wanting = [one for one in required(registry.find(kind, name).load()) if one not in parameters]
    if wanting:
        example = f"rankbench.testing.check_{kind[:-1]}(…, data=…)"
        message = f"has no default for {', '.join(wanting)}; check it with one in its own tests: {example}"
        found.append(Finding("can be checked with its default parameters", True, message, skipped=True))
        return found

    def make() -> Any:
        return registry.build(kind, name, parameters)

    if kind == "rankers":
        return ranker_findings(make, registry, root, found)
    if kind == "features":
        return feature_findings(make, registry, root, found)
    if kind == "metrics":
        return metric_findings(make, found)
    folder = Data(registry, root, Path("cache")).folder(DatasetChoice(name, parameters))
    return dataset_findings(make, folder, name=name, found=found)


def required(cls: type) -> list[str]:
    """Parameters without a default."""
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    free = (dataclasses.MISSING, dataclasses.MISSING)
    return [one.name for one in fields if one.init and (one.default, one.default_factory) == free]
