"""xiao-lee: visual chains find the image part an attribute lives in; their patches' appearance ranks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

import rankbench
from rankbench_rankers import weight_files

SETTINGS = {
    "faithful": {
        "first_images": 5, "first_chains": 20, "rounds": 3, "images": 1000, "offsets": 20, "ensemble": 60,
        "keep": None, "appearance": "pool5",
    },
    "fast": {
        "first_images": 5, "first_chains": 16, "rounds": 2, "images": 60, "offsets": 2, "ensemble": 6,
        "keep": 60, "appearance": "color-hog",
    },
}  # fmt: skip
SCALES = (0.25, 0.35, 0.5, 0.7)  # sides of patches, of the image's
STARTS = 16  # first patches lie on a grid of a sixteenth of the image
SMOOTHNESS_WEIGHT = 0.05  # λ: what the detector's liking counts against smoothness
DETECTOR_C = 0.1
NEGATIVES = 1000
SHARE = 0.2  # of the training pairs, held out to select chains
SHRINK, SHIFT = (0.5, 1.0, 1.5), 0.4  # of boxes that are moved off their detections
COSTS = (0.01, 0.1, 1.0, 10.0)  # of the final RankSVM, chosen on the held-out pairs


@dataclass
class XiaoLee(rankbench.Ranker):
    """Visual chains of Xiao & Lee: where an attribute lies is discovered, and RankSVM ranks by what is seen there.

    A global RankSVM sorts the training images. From the strongest ones, chains of patches that change least from image
    to image are found by dynamic programming, grown along the sorted images in rounds, each with a newly trained linear
    detector, and multiplied by shifted and resized copies. Each chain is judged by a RankSVM on the appearance of its
    patches, on held-out pairs; the best are concatenated for the final RankSVM. `locate` gives their boxes, best first.
    Source: Xiao & Lee, ICCV 2015; numbers as reported there. Ours: colors beside gradients in what detectors see; C of
    the final RankSVM is chosen on the held-out pairs.

    Args:
        features: of the global ranker.
        setting: "faithful", with the published numbers (hours without a GPU), or "fast" (seconds): fewer images, only
            patches that detectors propose, and "color-hog" for appearance. The parameters below replace its numbers.
        first_images, first_chains: N_init and K_init. rounds: T. images: longest sorted list a chain covers.
        offsets: K_pert, copies of each chain. ensemble: K_ens, chains that rank. keep: patches of an image that a
            detector proposes, all where not set by the setting.
        appearance: "pool5" (AlexNet on the patch), or "color-hog" (50-color histograms and gradients; ours).
        weights, file: of AlexNet, as for the feature `network`.
    """

    features: rankbench.Features = field(default_factory=lambda: rankbench.Features("hog", "color-histogram"))
    setting: Literal["faithful", "fast"] = "faithful"
    first_images: int | None = None
    first_chains: int | None = None
    rounds: int | None = None
    images: int | None = None
    offsets: int | None = None
    ensemble: int | None = None
    keep: int | None = None
    appearance: Literal["pool5", "color-hog"] | None = None
    weights: Literal["imagenet", "random", "file"] = "imagenet"
    file: rankbench.File | None = None

    def __post_init__(self):
        for name in ("first_images", "first_chains", "images", "ensemble", "keep"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise rankbench.DataError(f"xiao-lee: {name} is {value}; use at least 1.")
        for name in ("rounds", "offsets"):
            if getattr(self, name) is not None and getattr(self, name) < 0:
                raise rankbench.DataError(f"xiao-lee: {name} is {getattr(self, name)}; use at least 0.")
        if (self.weights == "file") != (self.file is not None):
            raise rankbench.DataError('xiao-lee: weights = "file" and file = "…" go together.')

    def chosen(self, name):
        """A number in use: the parameter's own, or the setting's."""
        own = getattr(self, name)
        return SETTINGS[self.setting][name] if own is None else own

    @property
    def notes(self):
        """Random weights are named wherever their results are shown."""
        random = self.weights == "random" and self.chosen("appearance") == "pool5"
        return ("alexnet: weights are random, not trained",) if random else ()

    def needs(self):
        return weight_files.needed("alexnet") if self._reads_imagenet() else []

    def downloads(self):
        return weight_files.downloads("alexnet") if self._reads_imagenet() else []

    def _reads_imagenet(self):
        return self.weights == "imagenet" and self.chosen("appearance") == "pool5"

    def resources(self):
        return rankbench.Resources(gpu=int(self.chosen("appearance") == "pool5"))

    def fit(self, images, pairs, run):
        from rankbench_rankers.patch_appearance import Appearance
        from rankbench_rankers.patch_maps import PatchMaps
        from rankbench_rankers.ranksvm import RankSVM, accuracy

        maps = PatchMaps(images, run, SCALES)
        glob = RankSVM(self.features, C=0.1).fit(images, pairs, run)
        order = np.argsort(-glob.score(images, run), kind="stable")
        chains = self._chains(maps, order, run)
        fitted, held = run.holdout(images, pairs, SHARE)
        if not held.ordered.any() or not fitted.ordered.any():
            fitted = held = pairs
        detectors = np.stack([chain.detector for chain in chains])
        offsets = self._offsets(len(chains), run.rng)  # (copies, 4): chain, dx, dy, ds
        appearance = Appearance(self, images, run)
        boxes = placed(maps, np.arange(len(maps)), detectors, offsets)  # (images, copies, 4)
        described, right = [], np.empty(len(offsets))
        for at in range(len(offsets)):
            described.append(appearance.of(boxes[:, at]))
            weights = solved(described[at], fitted, 1.0, run)
            right[at] = accuracy(described[at] @ weights, held)
            run.log(at, chain_accuracy=right[at])
        best = np.argsort(-right, kind="stable")[: self.chosen("ensemble")]
        x = np.concatenate([described[at] for at in best], axis=1) / np.sqrt(len(best))
        C = max(COSTS, key=lambda cost: (accuracy(x @ solved(x, fitted, cost, run), held), -cost))
        self.weights_ = solved(x, pairs, C, run)
        self.detectors_, self.offsets_, self.accuracies_ = detectors, offsets[best], right[best]
        return self

    def score(self, images, run):
        from rankbench_rankers.patch_appearance import Appearance

        if not len(images):
            return np.zeros(0)
        boxes, appearance = self._boxes(images, run), Appearance(self, images, run)
        x = np.concatenate([appearance.of(boxes[:, at]) for at in range(boxes.shape[1])], axis=1)
        return (x / np.sqrt(boxes.shape[1])).astype(np.float64) @ self.weights_

    def locate(self, images, run):
        boxes = np.clip(self._boxes(images, run), 0, 1)
        return [[(f"chain {at + 1}", tuple(map(float, box))) for at, box in enumerate(row)] for row in boxes]

    def _boxes(self, images, run):
        """(images, ensemble, 4) boxes of the selected chains, best first."""
        from rankbench_rankers.patch_maps import PatchMaps

        maps = PatchMaps(images, run, SCALES)
        return placed(maps, np.arange(len(maps)), self.detectors_, self.offsets_)

    def _chains(self, maps, order, run):
        """Chains over the sorted images, with detectors."""
        from rankbench_rankers import visual_chains as vc

        order = order[np.round(np.linspace(0, len(order) - 1, min(len(order), self.chosen("images")))).astype(int)]
        length = min(self.chosen("first_images"), len(order))
        starts = on_grid(maps.boxes)
        chains = vc.first_chains(maps, order[:length], starts, self.chosen("first_chains"))
        chains = vc.trained(maps, order[:length], chains, DETECTOR_C, NEGATIVES, run.rng)
        rounds = self.chosen("rounds")
        for number in range(1, rounds + 1):
            covered = round(length * (len(order) / length) ** (number / rounds))
            chains = vc.grown(maps, order[:covered], chains, SMOOTHNESS_WEIGHT, self.chosen("keep"))
            chains = vc.trained(maps, order[:covered], chains, DETECTOR_C, NEGATIVES, run.rng)
            run.log(number - rounds - 1, images=covered, cost=float(np.mean([chain.cost for chain in chains])))
        return chains

    def _offsets(self, chains, rng):
        """(chains × (1 + copies), 4): each chain as it is, then moved at random."""
        found = [(at, 0.0, 0.0, 1.0) for at in range(chains)]
        for at in range(chains):
            for _ in range(self.chosen("offsets")):
                dx, dy = rng.uniform(-SHIFT, SHIFT, 2)
                found.append((at, dx, dy, rng.choice(SHRINK)))
        return np.array(found)


def on_grid(boxes):
    """Positions whose upper left corner lies nearest to a grid over the image, once each."""
    corner = np.round(boxes[:, :2] * STARTS)
    gap = np.abs(boxes[:, :2] * STARTS - corner).sum(axis=1)
    size = np.round(boxes[:, 2] - boxes[:, 0], 3)
    best = {}
    for at in np.argsort(gap, kind="stable"):
        best.setdefault((*corner[at], size[at]), int(at))
    return sorted(best.values())


def placed(maps, rows, detectors, offsets):
    """(images, copies, 4) boxes of each moved chain."""
    from rankbench_rankers.visual_chains import detected, moved

    found = detected(maps, rows, detectors)
    return np.stack([moved(maps.boxes[found[:, int(chain)]], offset) for chain, *offset in offsets], axis=1)


def solved(x, pairs, C, run):
    """RankSVM weights (d,) on vectors at hand."""
    from rankbench_rankers.feature_matrix import InMemory
    from rankbench_rankers.ranking_newton import Judgements, minimize

    return minimize(InMemory(x), Judgements(len(x), pairs, C, C, np.float32, run.threads), tolerance=1e-4).weights
