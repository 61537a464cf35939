"""What a network is trained to do: order pairs, tell scores, tell categories. Hides how batches are made up.

A task is a pure function of its seed and the step: nothing drawn is kept, so that training goes on after a kill where
it stopped. The one exception, the scores that images got last, is its state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

import rankbench
from rankbench_rankers.image_supply import moved
from rankbench_rankers.losses import ranknet_costs

ORDER, AUGMENT = 0, 1  # streams of random numbers of one seed


@dataclass(frozen=True)
class Batch:
    """Items of a step (pairs, or images) and the images each has: rows (m, 2) or (m, 1)."""

    items: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.items)

    def parts(self, count: int) -> list[Batch]:
        """The batch in so many parts of about equal length; fewer where it has fewer items."""
        cuts = np.array_split(np.arange(len(self)), min(count, len(self)))
        return [Batch(self.items[cut], self.rows[cut]) for cut in cuts]


class Task:
    """Items in batches; each epoch a new order.

    Attributes: items, how many there are; batch_size; seed; batches, of an epoch; left_over, so many items make no
        batch of their own: batch normalisation cannot do with one image.
    """

    left_over = 1

    def __init__(self, items: int, batch_size: int, seed: int) -> None:
        self.items, self.batch_size, self.seed = items, batch_size, seed
        self.batches = max(1, math.ceil((items - self.left_over) / batch_size))
        self._order = lru_cache(maxsize=2)(self._permutation)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_order"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._order = lru_cache(maxsize=2)(self._permutation)

    def _permutation(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, ORDER, epoch)).permutation(self.items)

    def batch(self, step: int) -> Batch:
        """The items of a step; the last batch of an epoch is shorter, or by `left_over` longer."""
        epoch, at = divmod(step, self.batches)
        end = None if at == self.batches - 1 else (at + 1) * self.batch_size
        items = self._order(epoch)[at * self.batch_size : end]
        return Batch(items, self.rows(items))

    def augmentation(self, step: int) -> np.random.Generator:
        """Random numbers of a step's crops and flips."""
        return np.random.default_rng((self.seed, AUGMENT, step))

    def rows(self, items: np.ndarray) -> np.ndarray:
        """(m, k) images of the items."""
        return items[:, None]

    def prepare(self, device: torch.device) -> None:
        """Move what costs need to the device."""

    def weight(self, batch: Batch) -> float:
        """What a batch's costs are divided by."""
        return float(len(batch))

    def costs(self, values: Tensor, batch: Batch) -> Tensor:
        """() sum of the batch's costs, from the network's values (m, k) or (m, 1, classes)."""
        raise NotImplementedError

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to keep."""
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take it over."""


class SampledPairs(Task):
    """RankNet loss on batches of pairs; both images of a pair are drawn anew each time (the published training).

    Args: pairs, with labels; batch_size, pairs a step; seed.
    """

    left_over = 0

    def __init__(self, pairs: rankbench.Pairs, batch_size: int, seed: int) -> None:
        super().__init__(len(pairs), batch_size, seed)
        self._sides, self._labels = (pairs.left, pairs.right), np.array(pairs.label)
        self._weights = None if pairs.weight is None else pairs.weight.astype(np.float32)

    def rows(self, items: np.ndarray) -> np.ndarray:
        return np.stack([side[items] for side in self._sides], axis=1)

    def prepare(self, device: torch.device) -> None:
        self._label = moved(self._labels, device)
        self._weight = None if self._weights is None else moved(self._weights, device)

    def weight(self, batch: Batch) -> float:
        return float(len(batch) if self._weights is None else self._weights[batch.items].sum())

    def costs(self, values: Tensor, batch: Batch) -> Tensor:
        items = moved(batch.items, values.device)
        costs = ranknet_costs(values[:, 0] - values[:, 1], self._label[items])
        return (costs if self._weight is None else costs * self._weight[items]).sum()


class AllPairs(Task):
    """RankNet loss on batches of images: every pair that an image of the batch is in counts, at one pass an image.

    Two images of a batch are ordered by the scores they get; a pair's image that is not in the batch stands at the
    score it got last, as a constant. An epoch gives each image the gradient of all its pairs.
    Source of the factoring: Burges, "From RankNet to LambdaRank to LambdaMART", MSR-TR-2010-82, section 2.1.

    Args: pairs, with labels; images, how many there are; batch_size, images a step; seed.
    """

    def __init__(self, pairs: rankbench.Pairs, images: int, batch_size: int, seed: int) -> None:
        self.partners = Partners(pairs)
        super().__init__(len(self.partners.images), batch_size, seed)
        self.images = images

    def rows(self, items: np.ndarray) -> np.ndarray:
        return self.partners.images[items][:, None]

    def prepare(self, device: torch.device) -> None:
        self._latest = torch.zeros(self.images, device=device)

    def weight(self, batch: Batch) -> float:
        _, at = self.partners.of(batch.items)
        return float(len(at) if self.partners.weight is None else self.partners.weight[at].sum())

    def costs(self, values: Tensor, batch: Batch) -> Tensor:
        device, scores = values.device, values[:, 0]
        own, at = self.partners.of(batch.items)
        self._latest[moved(batch.rows[:, 0], device)] = scores.detach()
        margin = scores[moved(own, device)] - self._latest[moved(self.partners.other[at], device)]
        costs = ranknet_costs(margin, moved(self.partners.label[at], device))
        if self.partners.weight is not None:
            costs = costs * moved(self.partners.weight[at], device)
        return costs.sum()

    def state(self) -> dict[str, Tensor]:
        return {"latest": self._latest.cpu().clone()}

    def load(self, state: dict[str, Tensor]) -> None:
        self._latest.copy_(state["latest"])


class Partners:
    """Each image's pairs, seen from that image: who it was judged against, with which label and weight."""

    def __init__(self, pairs: rankbench.Pairs) -> None:
        own = np.concatenate([pairs.left, pairs.right])
        order = np.argsort(own, kind="stable")
        self.other = np.concatenate([pairs.right, pairs.left])[order]
        self.label = np.concatenate([pairs.label, -pairs.label])[order]
        self.weight = None if pairs.weight is None else np.tile(pairs.weight, 2)[order].astype(np.float32)
        self.images, starts = np.unique(own[order], return_index=True)  # images that are in a pair
        self.starts = np.append(starts, len(own))

    def of(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For `images[places]`: which of them each pair belongs to, and the pair's row here."""
        counts = self.starts[places + 1] - self.starts[places]
        own = np.repeat(np.arange(len(places)), counts)
        within = np.arange(len(own)) - np.repeat(np.cumsum(counts) - counts, counts)
        return own, np.repeat(self.starts[places], counts) + within


class ScoreRegression(Task):
    """Squared error of each image's value against a target.

    Args: rows, (n,) images; targets, (n,) float, standardised; batch_size, images a step; seed.
    """

    def __init__(self, rows: np.ndarray, targets: np.ndarray, batch_size: int, seed: int) -> None:
        super().__init__(len(rows), batch_size, seed)
        self._rows, self._targets = rows, targets.astype(np.float32)

    def rows(self, items: np.ndarray) -> np.ndarray:
        return self._rows[items][:, None]

    def costs(self, values: Tensor, batch: Batch) -> Tensor:
        return (values[:, 0] - moved(self._targets[batch.items], values.device)).square().sum()


class Classification(Task):
    """Cross-entropy of each image's category, every category weighing the same in all.

    Args: rows, (n,) images; classes, (n,) int from 0; batch_size, images a step; seed.
    """

    def __init__(self, rows: np.ndarray, classes: np.ndarray, batch_size: int, seed: int) -> None:
        super().__init__(len(rows), batch_size, seed)
        self._rows, self._classes = rows, classes.astype(np.int64)
        counts = np.bincount(self._classes)
        self._weight = (len(classes) / (np.count_nonzero(counts) * np.maximum(counts, 1))).astype(np.float32)

    def rows(self, items: np.ndarray) -> np.ndarray:
        return self._rows[items][:, None]

    def weight(self, batch: Batch) -> float:
        return float(self._weight[self._classes[batch.items]].sum())

    def costs(self, values: Tensor, batch: Batch) -> Tensor:
        classes = moved(self._classes[batch.items], values.device)
        weight = moved(self._weight, values.device)
        return F.cross_entropy(values[:, 0], classes, weight, reduction="sum")
