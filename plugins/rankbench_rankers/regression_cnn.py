"""regression-cnn: a backbone trained to tell each image's score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

import rankbench
from rankbench_rankers.network_ranker import NetworkRanker

HELD = 0.1  # share of the images held out for validation


@dataclass
class RegressionCNN(NetworkRanker):
    """A backbone whose last layer gives one number, trained by squared error on the `score` column.

    Rows "AlexNet Regression" and "VGG-16 Regression" of the paper, which gives no settings: the target is the score
    standardised over the training images, the new layer learns at 1e-3, the rest at 1e-4, 32 images a step, 20 epochs.
    Every training image with a finite score counts once, whether or not a pair names it. The best weights are those
    whose predictions correlate best, by rank, with the scores of a tenth of the training images, held out by the seed.
    Source: Dubey & Agarwal, ACM MM 2017, table 4.

    Args:
        target: "score", or "rank" of the score, which takes out heavy tails.
    """

    epochs: float = 20.0
    batch_size: int = 32
    trunk_rate: float = 0.1
    target: Literal["score", "rank"] = "score"

    title = "regression-cnn"

    def build(self, supplement: int) -> Any:
        from rankbench_rankers.networks import PlainNetwork

        return PlainNetwork(self.trunk(), 1, supplement)

    def task(self, images: rankbench.Images, pairs: rankbench.Pairs, run: rankbench.Run) -> Any:
        from rankbench_rankers.score_targets import standardised
        from rankbench_rankers.training import Validation
        from rankbench_rankers.training_tasks import ScoreRegression

        targets, known = standardised(images, self.target, self.title)
        rows = np.flatnonzero(known)
        order = run.rng.permutation(len(rows))
        held, fitted = np.split(order, [round(HELD * len(rows)) if self.validation_pairs else 0])
        validation = None
        if len(held) > 1 and len(np.unique(targets[held])) > 1:
            validation = Validation(rows[held], RankCorrelation(targets[held]))
        else:
            fitted = order
        fitted = np.sort(fitted)
        return ScoreRegression(rows[fitted], targets[fitted], self.batch_size, run.seed), validation


@dataclass
class RankCorrelation:
    """Spearman's rank correlation with targets; −1 for predictions that are all equal."""

    targets: np.ndarray

    def __call__(self, predicted: np.ndarray) -> float:
        from scipy.stats import spearmanr

        return float(spearmanr(predicted, self.targets).statistic) if np.ptp(predicted) > 0 else -1.0
