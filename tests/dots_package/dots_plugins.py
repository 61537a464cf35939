"""Grey squares whose brightness is the attribute, and rankers whose results are known beforehand."""

import time
from dataclasses import dataclass, field

import numpy as np

import rankbench

KINDS = ("bright", "pale")


@dataclass(frozen=True)
class Dots(rankbench.Dataset):
    """Two attributes; per attribute eight images to learn from and four to be tested on."""

    get = "run the tests"

    tests: list[str] = field(default_factory=lambda: ["test"])
    fixed: bool = True
    shared: str = ""
    note: str = ""

    def facets(self, root):
        if not self.fixed:
            assert root.exists(), "asked for facets without data"
        return [{"attribute": kind} for kind in KINDS]

    def problem(self, root, facets):
        files = sorted(root.glob(f"{facets['attribute']}-*.pgm"))
        levels = np.array([int(file.stem.split("-")[1]) for file in files])
        images = rankbench.Images(files, names=[file.name for file in files], columns={"score": levels / 1.0})

        def pairs(rows):
            left, right = np.array([(a, b) for a in rows for b in rows if a < b]).T
            return rankbench.Pairs(left, right, np.sign(levels[left] - levels[right]))

        tests = {name: pairs(range(8 - 4 * bool(self.shared) + k, 12)) for k, name in enumerate(self.tests)}
        notes = (self.note,) if self.note and facets["attribute"] == "bright" else ()
        return rankbench.Problem(images, pairs(range(8)), tests, facets, overlap=self.shared or None, notes=notes)


def grey(images):
    return np.array([image.mean() for image in images])


@dataclass
class Brightness(rankbench.Ranker):
    """Mean grey level, which is the truth."""

    seeded = False
    version = "1"

    sign: int = 1

    def fit(self, images, pairs, run):
        return self

    def score(self, images, run):
        return self.sign * grey(images)


@dataclass
class Level(rankbench.Ranker):
    """The score of every image is `values[seed]`, plus the mean grey level of the test images."""

    values: list[float] = field(default_factory=lambda: [0.0])
    threads: int = 1

    def fit(self, images, pairs, run):
        return self

    def score(self, images, run):
        return np.full(len(images), grey(images).mean() + self.values[run.seed])

    def resources(self):
        return rankbench.Resources(threads=self.threads)


class Comparer(rankbench.Ranker):
    """Looks at both images; says that every pair of neighbors is a tie."""

    inputs = ("votes",)

    def fit(self, images, pairs, run):
        return self

    def compare(self, images, pairs, run):
        gap = grey(images)[pairs.left] - grey(images)[pairs.right]
        return np.where(abs(gap) <= 10, 0, gap)


@dataclass
class Featured(rankbench.Ranker):
    """The first number of its features, which a file turns round."""

    seeded = False

    @property
    def notes(self):
        return () if len(self.features) == 1 else (f"of {len(self.features)} features only the first counts",)

    features: rankbench.Features = field(default_factory=lambda: rankbench.Features("grey"))
    file: rankbench.File = field(default_factory=lambda: rankbench.File("sign.txt"))

    def fit(self, images, pairs, run):
        self.sign_ = int(self.file.path.read_text())
        return self

    def score(self, images, run):
        return self.sign_ * run.features(images, self.features)[:][:, 0].astype(np.float64)


class Grey(rankbench.Feature):
    """Mean grey level."""

    def extract(self, images, run):
        return np.array([[image.mean(), 1] for image in images], np.float32)


class Centered(Grey):
    """Mean grey level less that of the training images."""

    notes = ("centered on the training images",)

    def fit(self, images, run):
        self.mean_ = float(grey(images).mean())
        return self

    def extract(self, images, run):
        return super().extract(images, run) - np.float32(self.mean_)


class Boom(rankbench.Ranker):
    """Always fails."""

    def fit(self, images, pairs, run):
        raise ValueError("boom")


@dataclass
class Weightless(rankbench.Ranker):
    """Needs a file that it only looks for when it is fitted."""

    def fit(self, images, pairs, run):
        raise rankbench.MissingData("weights.pt: not found.\nPut it there.")


class Sleeper(rankbench.Ranker):
    """Takes its time."""

    seconds: float = 0.5

    def fit(self, images, pairs, run):
        time.sleep(self.seconds)
        return self

    def score(self, images, run):
        return grey(images)


@dataclass
class Clumsy(rankbench.Ranker):
    """Cannot even be made."""

    def __post_init__(self):
        raise RuntimeError("the battery is empty")


class Refuses(rankbench.Ranker):
    """Is never applicable."""

    def fit(self, images, pairs, run):
        raise rankbench.NotApplicable("needs images.columns['category']")


class Unplannable(rankbench.Ranker):
    """Does not know what it takes."""

    def resources(self):
        raise KeyError("gpu")


class NoRanker:
    """Forgot its base class."""


class Broken:
    """Named by a hook, but its module does not import."""


@dataclass(frozen=True)
class MeanScore(rankbench.Metric):
    """Mean of the image scores."""

    decimals = 1

    less: float = 0.0

    def __call__(self, judged):
        if judged.scores is None:
            raise rankbench.NotApplicable("needs image scores")
        return float(judged.scores.mean()) - self.less


class Error(rankbench.Metric):
    """Share of pairs in the wrong order: lower is better."""

    percent = True
    higher_is_better = False
    decimals = 1

    def __call__(self, judged):
        return float((judged.margins * judged.labels < 0).mean())


class Faulty(rankbench.Metric):
    """Divides by zero, or is no number."""

    def __call__(self, judged):
        if judged.scores is None:
            return float("nan")
        return 1 / 0


@rankbench.hookimpl
def rankbench_datasets():
    return {"dots": Dots, "no-dataset": "dots_plugins:NoRanker"}


@rankbench.hookimpl
def rankbench_rankers():
    return {
        "brightness": Brightness,
        "level": Level,
        "comparer": Comparer,
        "featured": Featured,
        "boom": Boom,
        "sleeper": Sleeper,
        "refuses": Refuses,
        "weightless": Weightless,
        "clumsy": Clumsy,
        "unplannable": Unplannable,
        "no-ranker": "dots_plugins:NoRanker",
        "broken": "dots_broken:Broken",
    }


@rankbench.hookimpl
def rankbench_features():
    return {"grey": Grey, "centered": Centered}


@rankbench.hookimpl
def rankbench_metrics():
    return {"mean-score": MeanScore, "error": Error, "faulty": Faulty}
