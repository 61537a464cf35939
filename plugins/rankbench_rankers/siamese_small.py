"""A small Siamese network with the RankNet loss, trained from nothing in about a minute on two CPU threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

import rankbench


@dataclass
class SiameseSmall(rankbench.Ranker):
    """Both images of a pair pass through one small convolutional network; the RankNet loss orders their scores.

    Source of the loss: Burges et al., "Learning to rank using gradient descent", ICML 2005. The network is ours.

    Args:
        size: side of the square that images are stretched to, in pixels; 16 or more.
        width: filters of the first of five convolutions; the next three double them, the last keeps them.
        augment: how images may be turned over without changing their order: "flip" (left to right), "dihedral" (also
            upside down) or "none". Training draws a turn for each image, and a score is the mean over all turns.
        epochs: passes over the training images.
        minimum_steps: of the optimizer, so that a small problem is learned too.
        batch_size: images a step.
        learning_rate: the peak of a one-cycle schedule, AdamW.
        weight_decay: of convolutions and last layer, a share of the learning rate (decoupled).
        dropout: share of the activations before the last layer left out in training, in [0, 1).
    """

    size: int = 96
    width: int = 16
    augment: Literal["none", "flip", "dihedral"] = "flip"
    epochs: float = 25.0
    minimum_steps: int = 200
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    dropout: float = 0.0

    def resources(self) -> rankbench.Resources:
        return rankbench.Resources(gpu=1, threads=2)

    def fit(self, images: rankbench.Images, pairs: rankbench.Pairs, run: rankbench.Run) -> SiameseSmall:
        import torch

        from rankbench_rankers import siamese_small_network as small

        counting = pairs if pairs.weight is None else pairs.take(pairs.weight > 0)
        if len(counting) == 0:
            raise rankbench.NotApplicable("needs training pairs" + ("" if len(pairs) == 0 else " of positive weight"))
        torch.set_num_threads(run.threads)
        self.network_ = small.new_network(self.width, self.dropout, run.seed)
        schedule = small.Schedule(
            self.epochs, self.minimum_steps, self.batch_size, self.learning_rate, self.weight_decay
        )
        pixels = run.pixels(images, self.size)
        small.train(self.network_, pixels, counting, schedule, small.FLIPS[self.augment], run)
        return self

    def score(self, images: rankbench.Images, run: rankbench.Run) -> np.ndarray:
        return self._apply(self.network_, images, run)

    def embed(self, images: rankbench.Images, run: rankbench.Run) -> np.ndarray:
        """(n, 16 width) float32: pooled activations, the mean over all turns."""
        return self._apply(self.network_.embed, images, run).astype(np.float32)

    def state(self) -> dict[str, np.ndarray]:
        return {f"network.{name}": value.cpu().numpy() for name, value in self.network_.state_dict().items()}

    def load(self, state: dict[str, np.ndarray]) -> None:
        import torch

        from rankbench_rankers import siamese_small_network as small

        self.network_ = small.new_network(self.width, self.dropout, seed=0)
        weights = {name.removeprefix("network."): torch.from_numpy(np.array(value)) for name, value in state.items()}
        self.network_.load_state_dict(weights)

    def _apply(self, function, images: rankbench.Images, run: rankbench.Run) -> np.ndarray:
        import torch

        from rankbench_rankers import siamese_small_network as small

        torch.set_num_threads(run.threads)
        return small.apply(function, self.network_, run.pixels(images, self.size), small.FLIPS[self.augment], run)
