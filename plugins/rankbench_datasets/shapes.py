"""shapes: images drawn from a seed, for which it is known where to look."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np

import rankbench
from rankbench_datasets.sampling import pairs_by_score, seeded

DRAWING = 1  # raised whenever the same seed gives other pixels
SIZE = 64  # px
SPOTS = np.array([[16, 16], [48, 16], [16, 48], [48, 48]])  # (4, 2) x, y in px; the first is the known one
JITTER = 15.0  # px: a disc's center is up to this far from its spot, on each axis
RADII = (7.5, 8.5)  # px
GAP = 0.5  # px between two discs, and between a disc and the edge
HUES = (0.0, 0.66)  # red to blue, the short way: a hue grows with the amount and never comes round again
CONTOUR = 2.0  # px
X, Y = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)  # (64, 64) pixel centers


@dataclass(frozen=True)
class Shapes(rankbench.Dataset):
    """Drawn discs: the hue of the right one of four is the attribute, the others' hues are noise.

    Source: rankbench.
    Licence: that of rankbench.
    Layout: nothing to get: 64 × 64 px images drawn from a seed. Four discs alike but for their hue lie near four spots,
    on a noisy ground, never overlapping, never cut off. An attribute's amount (the `score` column, uniform in [0, 1])
    is the hue of one of them, from red to blue; the other three hues are drawn alike and mean nothing. So colour over
    the whole image tells something, the right disc everything.

    Which disc is right is told by `cue`. "place": the one near the spot at the upper left, its center in that quarter.
    "outline": the one with a dark contour, near any of the four spots. Discs wander so far about their spots that no
    fixed window of 28 px shows 90 % of the right disc's box on more than 65 % of the images: to see all of it, a ranker
    must look where it is.
    Column `box` (n, 4): the right disc's box (left, top, right, bottom), relative to the image; for checking what a
    ranker looked at, never for learning.

    Protocol: the first `train_share` of the images is for training. Images are independent, so nothing is lost by that.
    Known problems: it is a toy: who finds the disc has solved it.

    Args: images, how many in all; train_share, in (0, 1); train_pairs, test_pairs, how many pairs are drawn without
    repeats from each side (None: all); cue, "place" or "outline"; seed, of images and pairs.
    """

    images: int = 1000
    train_share: float = 0.8
    train_pairs: int | None = 4000
    test_pairs: int | None = None
    cue: str = "place"
    seed: int = 0

    folder = ""

    def facets(self, root):
        return [{}]

    def needs(self, root):
        return []

    def problem(self, root, facets):
        if facets:
            raise rankbench.DataError(f"shapes has one problem, without facets; not {dict(facets)}.")
        trained = self._trained()
        scenes = [self.scene(row) for row in range(self.images)]
        scores = np.array([scene.amount for scene in scenes])
        columns = {"score": scores, "box": np.array([scene.box for scene in scenes])}
        digests = [self._digest(row) for row in range(self.images)]
        train, test = np.arange(trained), np.arange(trained, self.images)
        rng = seeded(self.seed, self.images)
        return rankbench.Problem(
            rankbench.Images.from_decoder(digests, self.draw, columns=columns),
            pairs_by_score(scores, train, self.train_pairs, rng=rng),
            pairs_by_score(scores, test, self.test_pairs, rng=rng),
            train_images=train,
        )

    def _trained(self):
        if self.cue not in ("place", "outline"):
            raise rankbench.DataError(f"shapes: cue is {self.cue!r}; use 'place' or 'outline'.")
        trained = round(self.train_share * self.images) if 0 < self.train_share < 1 else 0
        if trained < 2 or self.images - trained < 2:
            raise rankbench.DataError(
                f"shapes: {self.images} images with train_share {self.train_share} leave {trained} for training; "
                "training and test need two or more each."
            )
        return trained

    def _digest(self, row):
        """Stands for the pixels of image `row`: all that they are drawn from."""
        drawn_from = {"drawing": DRAWING, "cue": self.cue, "seed": self.seed, "row": row}
        return hashlib.sha256(("rankbench shapes " + json.dumps(drawn_from, sort_keys=True)).encode()).digest()

    def _rng(self, row, stage):
        return seeded(self.seed, row, stage)

    def scene(self, row):
        """What image `row` shows; the same whatever other images there are."""
        rng = self._rng(row, 0)
        amounts = rng.random(4)
        radii = rng.uniform(*RADII, size=4)
        right = int(rng.integers(4)) if self.cue == "outline" else 0
        while True:
            centers = SPOTS + rng.uniform(-JITTER, JITTER, size=(16, 4, 2))
            fits = np.flatnonzero(apart(centers, radii))
            if len(fits):
                return Scene(centers[fits[0]], radii, amounts, right)

    def draw(self, row):
        """(64, 64, 3) uint8 RGB."""
        scene, rng = self.scene(row), self._rng(row, 1)
        ground = np.float32(rng.uniform(90, 150))
        image = np.full((SIZE, SIZE, 3), ground, np.float32)
        for disc, (center, radius, amount) in enumerate(zip(scene.centers, scene.radii, scene.amounts, strict=True)):
            inside = radius - np.hypot(X - center[0], Y - center[1])  # (64, 64) px to the rim
            color = 255 * rng.uniform(0.75, 0.95) * color_of(amount)
            if self.cue == "outline":  # colored areas stay alike, so that only the contour tells
                if disc == scene.right:
                    image[inside > 0] = 0
                inside = inside - CONTOUR
            image[inside > 0] = color
        image += 14 * rng.standard_normal(image.shape, dtype=np.float32)
        return np.clip(np.rint(image), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Scene:
    """Four discs: centers (4, 2) and radii (4,) in px, amounts (4,) in [0, 1], and which is the right one."""

    centers: np.ndarray
    radii: np.ndarray
    amounts: np.ndarray
    right: int

    @property
    def amount(self):
        return self.amounts[self.right]

    @property
    def box(self):
        """(4,) left, top, right, bottom of the right disc, relative to the image."""
        center, radius = self.centers[self.right], self.radii[self.right]
        return np.concatenate([center - radius, center + radius]) / SIZE


def apart(centers, radii):
    """(k,) which of k layouts (k, 4, 2) keep discs apart from each other and from the edge."""
    room = radii[:, None] + GAP
    inside = ((centers >= room) & (centers <= SIZE - room)).all(axis=(1, 2))
    first, second = np.triu_indices(4, 1)
    distance = np.hypot(*np.moveaxis(centers[:, first] - centers[:, second], -1, 0))
    return inside & (distance >= radii[first] + radii[second] + GAP).all(axis=1)


def color_of(amount):
    """(3,) RGB in [0, 1] of the hue that stands for an amount, at saturation 0.85 and value 1."""
    hue = HUES[0] + (HUES[1] - HUES[0]) * amount
    pure = np.clip(np.abs((6 * hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return 1 - 0.85 * (1 - pure)
