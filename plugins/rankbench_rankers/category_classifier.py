"""A network that tells categories: what the feature `category-network` is made of. No ranker of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

import rankbench
from rankbench_rankers.network_ranker import NetworkRanker


@dataclass
class CategoryClassifier(NetworkRanker):
    """A backbone and a layer of logits, trained by cross-entropy in which every category weighs the same.

    Args: classes, how many categories; held, share of the images held out to choose the best weights by.
    """

    classes: int = 2
    held: float = 0.1

    title = "category-network"

    def build(self, supplement: int) -> Any:
        from rankbench_rankers.networks import PlainNetwork

        return PlainNetwork(self.trunk(), self.classes, supplement)

    def task(self, images: rankbench.Images, pairs: rankbench.Pairs | None, run: rankbench.Run) -> Any:
        from rankbench_rankers.training import Validation
        from rankbench_rankers.training_tasks import Classification

        classes = np.unique(np.asarray(images.columns["category"]), return_inverse=True)[1].ravel()
        order = run.rng.permutation(len(classes))
        held, fitted = np.split(order, [round(self.held * len(classes))])
        if len(np.unique(classes[fitted])) < len(np.unique(classes)) or not len(held):  # a category would not be seen
            held, fitted = held[:0], order
        fitted = np.sort(fitted)
        validation = Validation(held, MeanRecall(classes[held])) if len(held) else None
        return Classification(fitted, classes[fitted], self.batch_size, run.seed), validation


@dataclass
class MeanRecall:
    """Share of right answers, averaged over categories."""

    classes: np.ndarray

    def __call__(self, logits: np.ndarray) -> float:
        right = logits.argmax(axis=1) == self.classes
        return float(np.mean([right[self.classes == one].mean() for one in np.unique(self.classes)]))
