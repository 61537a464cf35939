"""The conformance kit: what any dataset, ranker, metric or feature must satisfy.

In a plugin's own tests, with pytest or without:

    import rankbench.testing

    def test_mean_color():
        rankbench.testing.check_ranker(MeanColor())

Each `check_…` raises AssertionError with all that is wrong. `rankbench check-plugin NAME` prints it line by line.
"""

from __future__ import annotations

import contextlib
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from rankbench.errors import MissingData, NotApplicable
from rankbench.files import read_state, write_state
from rankbench.images import Images
from rankbench.loading import Data, DatasetChoice, missing_message
from rankbench.pairs import Pairs
from rankbench.plan import feature_choices
from rankbench.plugin import Dataset, Feature, Features, Judged, Metric, Ranker
from rankbench.problem import Problem
from rankbench.registry import Registry
from rankbench.services import CellRun, Fitting, Services, build_feature
from rankbench.worker import judge

LEARNED = 0.8  # pairwise accuracy a learner must reach on the bright squares
MIXED_BATCH = 1e-4  # how far a score may move with its neighbors, relative to the spread of the scores


@dataclass(frozen=True)
class Finding:
    """One requirement: met, broken, or not applicable."""

    name: str
    good: bool
    message: str = ""
    skipped: bool = False

    @property
    def mark(self) -> str:
        """`ok`, `--` or `FAILED`."""
        return "--" if self.skipped else "ok" if self.good else "FAILED"


class Findings(list[Finding]):
    """Collects findings; a requirement is a `with` block that asserts."""

    @contextlib.contextmanager
    def requirement(self, name: str) -> Iterator[None]:
        """What happens inside must not raise."""
        try:
            yield
        except (NotApplicable, MissingData) as error:
            self.append(Finding(name, True, str(error), skipped=True))
        except AssertionError as error:
            self.append(Finding(name, False, str(error)))
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}, line {last.lineno}"
            self.append(Finding(name, False, f"{type(error).__name__}: {error} ({where})"))
        else:
            self.append(Finding(name, True))

    def settle(self) -> None:
        """AssertionError naming every broken requirement."""
        broken = [f"{finding.name}: {finding.message}" for finding in self if not finding.good]
        if broken:
            raise AssertionError("\n".join(broken))


# ------------------------------------------------------------------------------------------------------------ toys


def bright_squares(train: int = 60, test: int = 40, pairs: int = 400, size: int = 32, seed: int = 0) -> Problem:
    """A tiny problem every learner can solve: a bright square on noise, its size is the attribute.

    Brightness, edges and layout all tell. Images carry a `score` and a `category` column.
    """
    rng = np.random.default_rng(seed)
    count = train + test
    sides = rng.uniform(4, size - 4, count)
    arrays = []
    for side in sides:
        pixels = rng.integers(0, 96, (size, size, 3), dtype=np.uint8)
        whole = round(float(side))
        top, left = rng.integers(0, size - whole + 1, 2)
        pixels[top : top + whole, left : left + whole] += 128
        arrays.append(pixels)
    names = [f"square-{at:03d}" for at in rng.permutation(count)]
    columns = {"score": sides, "category": np.where(sides > size / 2, "large", "small")}
    images = Images.from_arrays(arrays, names=names, columns=columns)
    tests = {"test": sampled(rng, np.arange(train, count), sides, pairs)}
    return Problem(images, sampled(rng, np.arange(train), sides, pairs), tests)


def sampled(rng: np.random.Generator, rows: NDArray[Any], values: NDArray[Any], count: int) -> Pairs:
    """Distinct ordered pairs of these rows, in random order and orientation."""
    left, right = np.triu_indices(len(rows), 1)
    chosen = rng.permutation(len(left))[:count]
    swap = rng.random(len(chosen)) < 0.5
    a, b = rows[left[chosen]], rows[right[chosen]]
    a, b = np.where(swap, b, a), np.where(swap, a, b)
    return Pairs(a, b, np.sign(values[a] - values[b]).astype(np.int8))


class Bench:
    """Fits rankers and features on toys as the core would, in a cache of its own."""

    def __init__(self, folder: Path, registry: Registry | None = None) -> None:
        self.folder = folder
        self.registry = registry or Registry.installed()
        self.services = Services(self.registry, folder / "cache")

    def run(self, problem: Problem, plugin: Any, seed: int = 0) -> CellRun:
        """A Run as the core hands it out."""
        declared = Features(feature_choices(plugin))
        run = CellRun(
            self.services, problem.images, seed, "cpu", 1, self.folder / "run", f"{type(plugin).__name__}", declared
        )
        learned = [choice for choice in declared if build_feature(self.registry, choice).learned()]
        fitting = Fitting(problem.images.take(problem.training_rows()))
        run.fitting = dict.fromkeys(learned, fitting)
        return run

    def fit(self, ranker: Ranker, problem: Problem, seed: int = 0) -> tuple[Ranker, CellRun]:
        """A fitted ranker of a canonical problem, and its Run."""
        run = self.run(problem, ranker, seed)
        images, pairs = problem.training(inputs=ranker.inputs)
        run.fit_digest = images.fingerprint + pairs.digest
        fitted = ranker.fit(images, pairs, run)
        run.fit_digest = None
        return fitted, run

    def margins(self, ranker: Ranker, problem: Problem, run: CellRun) -> NDArray[np.float64]:
        """Margins of the first test set."""
        from rankbench.cell import TestSet

        tests = {name: TestSet.of(problem, name) for name in list(problem.tests)[:1]}
        name, (test, _) = next(iter(tests.items()))
        return judge(ranker, problem, run, None, tests)[name].pair_margins(test.pairs)

    def accuracy(self, ranker: Ranker, problem: Problem, seed: int = 0) -> float:
        """Pairwise accuracy on the first test set; a predicted tie counts one half."""
        fitted, run = self.fit(ranker, problem, seed)
        name = next(iter(problem.tests))
        return accuracy(self.margins(fitted, problem, run), problem.tests[name])


def accuracy(margins: NDArray[np.float64], pairs: Pairs) -> float:
    ordered = pairs.ordered
    return float((1 + np.sign(margins[ordered]) * pairs.judgement[ordered]).mean() / 2)


# --------------------------------------------------------------------------------------------------------- rankers


def check_ranker(ranker: Ranker, registry: Registry | None = None) -> None:
    """AssertionError unless the ranker meets every requirement. It is copied through its class and parameters."""
    ranker_findings(lambda: fresh(ranker), registry).settle()


def fresh(plugin: Any) -> Any:
    """The same plugin, unfitted."""
    names = [f.name for f in getattr(plugin, "__dataclass_fields__", {}).values() if f.init]
    return type(plugin)(**{name: getattr(plugin, name) for name in names})


def ranker_findings(make: Callable[[], Ranker], registry: Registry | None = None) -> Findings:
    """Every requirement on a ranker."""
    found = Findings()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), registry)
        problem = bright_squares().canonical()
        with found.requirement("is a rankbench.Ranker with JSON parameters"):
            from rankbench.registry import resolved

            assert isinstance(make(), Ranker), f"{type(make()).__name__} does not inherit rankbench.Ranker"
            resolved(make())
        fitted: list[tuple[Ranker, CellRun]] = []
        with found.requirement("fits a small problem and returns itself"):
            one, run = bench.fit(make(), problem)
            assert isinstance(one, Ranker), f"fit returned {type(one).__name__}; it must return self"
            fitted.append((one, run))
        if fitted:
            fitted_ranker_findings(found, bench, make, problem, *fitted[0])
        with found.requirement("two images and one pair suffice"):
            tiny = bright_squares(train=2, test=2, pairs=1).canonical()
            margins = bench.margins(*with_problem(bench.fit(make(), tiny), tiny))
            assert margins.shape == (1,), f"gave {margins.shape} for one pair"
        with found.requirement("learns nothing from column, name, side or position"):
            no_leak(bench, make, problem)
    return found


def with_problem(fitted: tuple[Ranker, CellRun], problem: Problem) -> tuple[Ranker, Problem, CellRun]:
    return fitted[0], problem, fitted[1]


def fitted_ranker_findings(
    found: Findings, bench: Bench, make: Callable[[], Ranker], problem: Problem, ranker: Ranker, run: CellRun
) -> None:
    """Requirements on a ranker that has been fitted."""
    margins = np.zeros(0)
    with found.requirement("gives finite scores or margins of the right shape"):
        margins = bench.margins(ranker, problem, run)
    if not len(margins):
        return
    with found.requirement("same seed, same scores on CPU"):
        again, second = bench.fit(make(), problem)
        assert np.array_equal(bench.margins(again, problem, second), margins), (
            "a second fit with the same seed gave others"
        )
    if not ranker.seeded:
        with found.requirement("does not depend on the seed, as it says"):
            other, third = bench.fit(make(), problem, seed=1)
            assert np.array_equal(bench.margins(other, problem, third), margins), (
                "seeded = False, but seed 1 gave others"
            )
    with found.requirement("swapping the sides negates the margin"):
        name = next(iter(problem.tests))
        images, rows = problem.judged(inputs=ranker.inputs)
        position = np.full(len(problem.images), -1)
        position[rows] = np.arange(len(rows))
        asked = problem.tests[name].reindexed(position).without_labels(ranker.inputs)
        one = np.asarray(ranker.compare(images, asked, bench.run(problem, ranker)))
        turned = asked.swapped(np.ones(len(asked), bool))
        two = np.asarray(ranker.compare(images, turned, bench.run(problem, ranker)))
        assert np.allclose(one, -two, rtol=1e-5, atol=1e-6 * spread(one)), "margins are not antisymmetric"
    with found.requirement("state and load give the same scores, without pickle"):
        with tempfile.TemporaryDirectory() as folder:
            write_state(Path(folder), ranker.state(), type(ranker).__name__)
            state = read_state(Path(folder))
        twin = make()
        twin.load(state)
        run.__dict__.pop("rng", None)
        one = bench.margins(ranker, problem, bench.run(problem, ranker))
        assert np.array_equal(bench.margins(twin, problem, bench.run(problem, twin)), one), (
            "a loaded state scores otherwise"
        )
    if ranker.learns:
        with found.requirement(f"reaches {LEARNED:.0%} on bright squares"):
            got = accuracy(margins, problem.tests[next(iter(problem.tests))])
            assert got >= LEARNED, f"got {got:.1%}; a baseline that learns nothing says learns = False"


def no_leak(bench: Bench, make: Callable[[], Ranker], problem: Problem) -> None:
    """Scores must not move when names, test columns or the listed order of images and pairs change."""
    fitted, run = bench.fit(make(), problem)
    before = bench.margins(fitted, problem, run)
    rng = np.random.default_rng(1)
    images, pairs = problem.images, next(iter(problem.tests.values()))
    order = rng.permutation(len(images))
    position = np.argsort(order)
    shuffled = images.take(order, names=False)
    test = pairs.reindexed(position).swapped(rng.random(len(pairs)) < 0.5).take(rng.permutation(len(pairs)))
    train = None if problem.train is None else problem.train.reindexed(position)
    other = Problem(shuffled, train, {"test": test}).canonical()
    again, second = bench.fit(make(), other)
    assert np.array_equal(bench.margins(again, other, second), before), "scores depend on names, listed order or side"


def spread(values: NDArray[Any]) -> float:
    return float(np.std(values)) or 1.0


# -------------------------------------------------------------------------------------------------------- features


def check_feature(feature: Feature, registry: Registry | None = None) -> None:
    """AssertionError unless the feature meets every requirement."""
    feature_findings(lambda: fresh(feature), registry).settle()


def feature_findings(make: Callable[[], Feature], registry: Registry | None = None) -> Findings:
    """Every requirement on a feature."""
    found = Findings()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), registry)
        problem = bright_squares(train=24, test=8).canonical()
        images = problem.images
        view = images.take(np.arange(len(images)), names=make().by_name, columns=(), inputs=make().inputs)

        def learned(run: CellRun) -> Feature:
            feature = make()
            if feature.learned():
                rows = problem.training_rows()
                feature.fit(images.take(rows, names=False, columns=feature.uses, inputs=()), run)
            return feature

        rows = np.zeros((0, 0), np.float32)
        with found.requirement("gives (n, d) float32, finite"):
            run = bench.run(problem, make())
            rows = np.asarray(learned(run).extract(view, run))
            assert rows.ndim == 2, f"gave {rows.shape}"
            assert rows.shape[0] == len(images), f"gave {rows.shape}"
            assert rows.dtype == np.float32, f"gave {rows.dtype}; it must be float32"
            assert np.isfinite(rows).all(), "gave NaN or infinity"
        if not rows.size:
            return found
        with found.requirement("same seed, same rows"):
            run = bench.run(problem, make())
            assert np.array_equal(learned(run).extract(view, run), rows), "a second extraction gave other rows"
        with found.requirement("a row does not depend on its neighbors"):
            run = bench.run(problem, make())
            order = np.random.default_rng(0).permutation(len(images))
            mixed = learned(run).extract(view.take(order), run)
            moved = float(np.abs(mixed - rows[order]).max())
            assert moved <= MIXED_BATCH * spread(rows), f"moved by {moved:g} in another order"
        with found.requirement("state and load give the same rows, without pickle"):
            run = bench.run(problem, make())
            first = learned(run)
            with tempfile.TemporaryDirectory() as place:
                write_state(Path(place), first.state(), type(first).__name__)
                twin = make()
                twin.load(read_state(Path(place)))
            assert np.array_equal(twin.extract(view, run), rows), "a loaded state gives other rows"
        with found.requirement("takes grey, tiny and oblong images"):
            rng = np.random.default_rng(0)
            shapes = [(1, 1, 3), (3, 90, 3), (90, 3, 3), (64, 64, 3)]
            odd = Images.from_arrays(
                [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes], names=["a", "b", "c", "d"]
            )
            run = bench.run(Problem(odd), make())
            if not (make().by_name or make().inputs):
                first = learned(bench.run(problem, make()))
                assert np.asarray(first.extract(odd, run)).shape == (4, rows.shape[1]), (
                    "the number of columns depends on the image"
                )
    return found


# --------------------------------------------------------------------------------------------------------- metrics


def check_metric(metric: Metric) -> None:
    """AssertionError unless the metric meets every requirement."""
    metric_findings(lambda: fresh(metric)).settle()


def metric_findings(make: Callable[[], Metric]) -> Findings:
    """Every requirement on a metric."""
    found = Findings()
    rng = np.random.default_rng(0)
    scores = rng.normal(size=50)
    left, right = np.triu_indices(50, 1)
    truth = scores + rng.normal(size=50) / 4

    def judged(values: NDArray[np.float64], flip: Sequence[Any] | slice = slice(0, 0)) -> Judged:
        margins, labels = values[left] - values[right], np.sign(np.round(truth[left] - truth[right], 1)).astype(np.int8)
        margins[flip], labels[flip] = -margins[flip], -labels[flip]
        return Judged(margins, labels, np.ones(len(left)), values, truth)

    with found.requirement("gives a finite number"):
        value = make()(judged(scores))
        assert isinstance(value, int | float), f"gave {type(value).__name__}; it must be a float"
        assert np.isfinite(value), f"gave {value}"
    with found.requirement("flipped pairs leave it unchanged"):
        some = slice(0, None, 3)
        assert np.isclose(make()(judged(scores, some)), make()(judged(scores)), atol=1e-12), "it depends on the side"
    with found.requirement("knows which way is better"):
        better, worse = make()(judged(truth)), make()(judged(-truth))
        assert (better > worse) == make().higher_is_better, f"a perfect order gives {better}, its reverse {worse}"
    with found.requirement("leaves what it judges untouched"):
        given = judged(scores)
        for array in (given.margins, given.labels, given.weights, given.scores, given.targets):
            if array is not None:
                array.flags.writeable = False
        make()(given)
    return found


# -------------------------------------------------------------------------------------------------------- datasets


def check_dataset(dataset: Dataset, root: str | Path, registry: Registry | None = None, limit: int = 3) -> None:
    """AssertionError unless the dataset meets every requirement; looks at `limit` of its problems."""
    dataset_findings(lambda: fresh(dataset), Path(root), limit).settle()


def dataset_findings(make: Callable[[], Dataset], root: Path, limit: int = 3) -> Findings:
    """Every requirement on a dataset, its files lying in `root`."""
    found = Findings()
    with found.requirement("says what it needs"):
        for need in make().needs(root):
            assert need.found == need.path.exists() or not need.found, f"{need.path} is not there, but said to be"
            assert need.found or need.get, f"{need.path} is missing and `get` does not say where to get it"
        lacking = [need for need in make().needs(root) if not need.found]
        if lacking:
            raise MissingData(missing_message(DatasetChoice(type(make()).__name__), lacking))
    if found[-1].skipped or not found[-1].good:
        return found
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
    return found


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


def spies(problem: Problem, name: str) -> Mapping[str, NDArray[np.float64]]:
    """Margins, in the canonical orientation, of rankers that use what must tell nothing."""
    from rankbench.pairs import coin

    images, rows = problem.judged()
    pairs = problem.tests[name]
    turned = coin(problem.images.digests, pairs)
    sign = np.where(turned, -1.0, 1.0)
    position = np.full(len(problem.images), -1)
    position[rows] = np.arange(len(rows))
    handed = pairs.swapped(turned).reindexed(position)
    column = next(iter(images.columns.values()), np.zeros(len(images)))
    by_column = np.asarray([crc32(str(value).encode()) for value in column], dtype=np.float64)
    by_name = np.arange(len(images), dtype=np.float64) if images.names is not None else np.zeros(len(images))
    index = np.arange(len(images), dtype=np.float64)
    place = np.arange(len(pairs), dtype=np.float64)
    return {
        "columns": sign * (by_column[handed.left] - by_column[handed.right]),
        "names": sign * (by_name[handed.left] - by_name[handed.right]),
        "image index": sign * (index[handed.left] - index[handed.right]),
        "side": sign,
        "list position": sign * (place - place.mean()),
    }


def tolerance(pairs: Pairs) -> float:
    """Five standard errors of a blind guess; pairs that share an image are not independent, so images count."""
    images = len(np.unique(np.concatenate([pairs.left, pairs.right])))
    return float(2.5 / np.sqrt(max(1, min(int(pairs.ordered.sum()), images / 2))))


# ----------------------------------------------------------------------------------------------------- by its name


def check(
    kind: str, name: str, registry: Registry | None = None, data: Path | None = None, **parameters: Any
) -> Findings:
    """Every requirement on an installed plugin, with its default parameters or those given."""
    registry = registry or Registry.installed()

    def make() -> Any:
        return registry.build(kind, name, parameters)

    if kind == "rankers":
        return ranker_findings(make, registry)
    if kind == "features":
        return feature_findings(make, registry)
    if kind == "metrics":
        return metric_findings(make)
    root = Data(registry, Path(data or "data"), Path("cache")).folder(DatasetChoice(name, parameters))
    return dataset_findings(make, root)
