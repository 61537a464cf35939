"""The network of siamese-small and how it is trained: hides tensors, batches and the schedule."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

import rankbench
from rankbench_rankers.losses import ranknet_loss

SCORING_BATCH = 64  # images; always filled up, so that a score does not depend on how many images are scored
FLIPS: dict[str, list[tuple[int, ...]]] = {  # axes of (n, h, w, 3) along which an image may be turned over
    "none": [()],
    "flip": [(), (2,)],
    "dihedral": [(), (2,), (1,), (1, 2)],
}


class SmallNetwork(nn.Module):
    """Five convolutions down to a sixteenth of the resolution; pooled activations; one score.

    Mean pooling measures how much of a pattern there is, maximum pooling whether it is anywhere.

    Args: width, filters of the first convolution, doubled by each of the next three and kept by the fifth; dropout,
        share of the activations, in [0, 1).
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("pixel_mean", torch.zeros(3))  # of the training images, in [0, 255]
        self.register_buffer("pixel_deviation", torch.ones(3))
        self.convolutions = nn.Sequential(
            *convolution(3, width, size=5, stride=2, pool=2),
            *convolution(width, 2 * width, pool=2),
            *convolution(2 * width, 4 * width, pool=2),
            *convolution(4 * width, 8 * width),
            *convolution(8 * width, 8 * width),
        )
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(2 * 8 * width, 1)
        nn.init.zeros_(self.last.weight)  # every image starts at score 0, where a pair costs log 2
        nn.init.zeros_(self.last.bias)

    def embed(self, pixels: Tensor) -> Tensor:
        """(n, h, w, 3) uint8 to (n, 16 width) float: the activations before the last layer."""
        x = pixels.float().sub_(self.pixel_mean).div_(self.pixel_deviation)
        maps = self.convolutions(x.permute(0, 3, 1, 2))  # (n, 8 width, h / 16, w / 16), channels last in memory
        return torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)

    def forward(self, pixels: Tensor) -> Tensor:
        """(n, h, w, 3) uint8 to (n,) float scores."""
        return self.last(self.dropout(self.embed(pixels)))[:, 0]


def convolution(narrow: int, wide: int, size: int = 3, stride: int = 1, pool: int = 1) -> list[nn.Module]:
    """Pooling comes before normalization, which then costs a quarter on a CPU and sees the same maxima."""
    filters = nn.Conv2d(narrow, wide, size, stride, padding=size // 2, bias=False)
    return [filters, *([nn.MaxPool2d(pool)] if pool > 1 else []), nn.BatchNorm2d(wide), nn.ReLU(inplace=True)]


def new_network(width: int, dropout: float, seed: int) -> SmallNetwork:
    """A network whose weights depend on the seed alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SmallNetwork(width, dropout).to(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Args: epochs, passes over the images; minimum_steps, of the optimizer, for small problems; batch_size, images a
        step; learning_rate, its peak, one score unit being one nat; weight_decay, of the filters and the last layer.
    """

    epochs: float
    minimum_steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float


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


def train(
    network: SmallNetwork,
    pixels: rankbench.Rows,
    pairs: rankbench.Pairs,
    schedule: Schedule,
    flips: list[tuple[int, ...]],
    run: rankbench.Run,
) -> None:
    """Minimize the RankNet loss over all pairs.

    A step takes a batch of images, passes each through the network once, and uses every pair any of them is in: the
    other image stands at the score it got when it last was in a batch, as a constant. Over an epoch each image thus
    gets the gradient of all its pairs at the price of one pass, where a batch of pairs would give it that of one pair.
    Source of the factoring: Burges, "From RankNet to LambdaRank to LambdaMART", MSR-TR-2010-82, section 2.1.
    """
    device = torch.device(run.device)
    partners = Partners(pairs)
    network.to(device).train()
    set_pixel_statistics(network, pixels, partners.images)
    batches = math.ceil(len(partners.images) / schedule.batch_size)
    steps = max(math.ceil(schedule.epochs * batches), schedule.minimum_steps)
    optimizer, scheduler = optimization(network, schedule, steps)
    latest = torch.zeros(len(pixels), device=device)  # the score each image got last

    generator = run.rng
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):  # dropout draws from it
        torch.manual_seed(int(generator.integers(2**62)))
        step = 0
        while step < steps:
            first, total = step, 0.0
            shuffled = np.array_split(generator.permutation(len(partners.images)), batches)
            for places in shuffled[: steps - step]:
                rows = partners.images[places]
                turned = turn(torch.from_numpy(np.array(pixels[rows])), flips, generator)
                scores = network(turned.to(device))
                latest[torch.from_numpy(rows)] = scores.detach()
                own, at = partners.of(places)
                margin = scores[torch.from_numpy(own)] - latest[torch.from_numpy(partners.other[at])]
                label = torch.from_numpy(partners.label[at]).to(device)
                weight = None if partners.weight is None else torch.from_numpy(partners.weight[at]).to(device)
                loss = ranknet_loss(margin, label, weight)
                total += checked(loss, step, scheduler)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
                step += 1
            run.log(step, loss=total / (step - first))


def optimization(network: SmallNetwork, schedule: Schedule, steps: int):
    """AdamW on one cycle: the rate rises for a fifth of the steps, then falls to nothing along a cosine."""
    filters = [p for p in network.parameters() if p.ndim > 1]
    rest = [p for p in network.parameters() if p.ndim == 1]  # biases and normalization, which need no decay
    groups = [{"params": filters, "weight_decay": schedule.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=schedule.learning_rate)
    peak, warm = schedule.learning_rate, 0.2
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=steps + 1, pct_start=warm)
    return optimizer, scheduler


def checked(loss: Tensor, step: int, scheduler) -> float:
    """The loss as a number; an error if it is none."""
    value = float(loss.detach())
    if not math.isfinite(value):
        rate = scheduler.get_last_lr()[0]
        raise rankbench.RankbenchError(
            f"siamese-small: the loss is {value} at step {step}, at learning rate {rate:.2g}. Lower `learning_rate`."
        )
    return value


def set_pixel_statistics(network: SmallNetwork, pixels: rankbench.Rows, rows: np.ndarray) -> None:
    """Mean and deviation of each channel over a spread of at most 1000 training images."""
    spread = rows[np.linspace(0, len(rows) - 1, min(len(rows), 1000)).astype(int)]
    counts = np.zeros((3, 256), np.int64)
    for batch in np.array_split(spread, math.ceil(len(spread) / SCORING_BATCH)):
        sample = np.asarray(pixels[batch])
        counts += [np.bincount(sample[..., channel].ravel(), minlength=256) for channel in range(3)]
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ np.arange(256)
    deviation = np.sqrt(share @ np.arange(256) ** 2 - mean**2).clip(min=1.0)  # a constant channel stays finite
    network.pixel_mean.copy_(torch.from_numpy(mean))
    network.pixel_deviation.copy_(torch.from_numpy(deviation))


def turn(pixels: Tensor, flips: list[tuple[int, ...]], generator: np.random.Generator) -> Tensor:
    """Each image of (n, h, w, 3) turned over along axes drawn from `flips`, in place."""
    drawn = generator.integers(len(flips), size=len(pixels))
    for choice, axes in enumerate(flips):
        if axes:
            rows = torch.from_numpy(np.flatnonzero(drawn == choice))
            pixels[rows] = pixels[rows].flip(axes)
    return pixels


def apply(
    function: Callable[[Tensor], Tensor],
    network: SmallNetwork,
    pixels: rankbench.Rows,
    flips: list[tuple[int, ...]],
    run: rankbench.Run,
) -> np.ndarray:
    """`function` of every image, averaged over the flips: (n, …) float64."""
    network.to(run.device).eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(pixels), SCORING_BATCH):
            block = np.asarray(pixels[start : start + SCORING_BATCH])
            full = np.zeros((SCORING_BATCH, *block.shape[1:]), np.uint8)
            full[: len(block)] = block
            batch = torch.from_numpy(full).to(run.device)
            values = sum(function(batch.flip(axes) if axes else batch).double() for axes in flips) / len(flips)
            parts.append(values[: len(block)].cpu().numpy())
    return np.concatenate(parts)
