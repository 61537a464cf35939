"""The training engine: one loop for every network. Hides batches, devices, precision and checkpoints.

A step draws its batch, crops and dropout from the seed and its own number alone, so that training resumed from a
checkpoint ends, on a CPU, with the weights of one that was never stopped. Devices, autocast and data parallelism are
Lightning Fabric's; the loop is the same for one process and for several: each passes its share of a batch through the
network, all exchange what came out, and each computes the loss of the whole batch, in which its own share is live.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

import rankbench
from rankbench_rankers.backbones import load
from rankbench_rankers.image_supply import RowSupply
from rankbench_rankers.image_views import Framing
from rankbench_rankers.training_tasks import Batch, Task

SCORED = 64  # images scored at once; always filled up, so that a score does not depend on how many are scored
POINTS = 200  # of a loss curve
CHECKPOINT = "checkpoint.pt"
WARM = 0.2  # share of the steps in which a one-cycle rate rises
HALVES = "memory ran out: each batch was computed in two halves"
DROPOUT = 2  # stream of random numbers
Log = Callable[..., None]


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    "paper": SGD with momentum 0.9 and dampening 0.9, as Torch's optim.sgd has by default (v ← 0.9 v + 0.1 g, the first
    step v = g), the same rate throughout, weight decay on everything. "sgd": the same without dampening. "modern":
    AdamW, a rate that rises for a fifth of the steps and falls along a cosine, weight decay on filters and matrices
    alone.

    Args: steps; learning_rate, of the last layer, the peak where it changes; rates, what the other parts' are
        multiplied by; weight_decay; precision of forward and backward passes; compiled, by torch.compile;
        deterministic, algorithms on a GPU; validate_every, steps; patience, validations without a gain after which
        training ends, 0 for never; checkpoint_seconds, between checkpoints.
    """

    name: Literal["paper", "sgd", "modern"]
    steps: int
    learning_rate: float
    weight_decay: float
    rates: Mapping[str, float] = field(default_factory=dict)
    precision: Literal["float32", "bfloat16"] = "float32"
    compiled: bool = False
    deterministic: bool = False
    validate_every: int = 2000
    patience: int = 0
    checkpoint_seconds: float = 120.0

    def optimizer(self, groups: Mapping[str, list[nn.Parameter]]) -> torch.optim.Optimizer:
        """For a network's parameters by part."""
        parts = []
        for name, parameters in groups.items():
            peak = self.learning_rate * self.rates.get(name, 1.0)
            decayed = [p for p in parameters if p.ndim > 1 or self.name != "modern"]
            rest = [p for p in parameters if p.ndim <= 1 and self.name == "modern"]
            for some, decay in ((decayed, self.weight_decay), (rest, 0.0)):
                if some:
                    parts.append({"params": some, "lr": peak, "peak": peak, "weight_decay": decay})
        if self.name == "modern":
            return torch.optim.AdamW(parts, fused=True)
        return torch.optim.SGD(parts, momentum=0.9, dampening=0.9 if self.name == "paper" else 0.0, fused=True)

    def factor(self, step: int) -> float:
        """What the peak rate is multiplied by at a step."""
        if self.name != "modern":
            return 1.0
        warm = WARM * self.steps
        if step < warm:
            return 0.04 + 0.96 * (1 - math.cos(math.pi * step / warm)) / 2
        return 1e-4 + (1 - 1e-4) * (1 + math.cos(math.pi * (step - warm) / (self.steps - warm))) / 2


@dataclass(frozen=True)
class Validation:
    """Images held out from training, and how good scores of them are: the larger the better."""

    rows: np.ndarray
    judge: Callable[[np.ndarray], float]


@dataclass
class Job:
    """One training, as a process is handed it.

    Args: network; images, (n, stored, stored, 3) uint8 rows; supplement, (n, d) rows of a frozen feature, or None;
        task; validation, or None; recipe; framing; seed; folder, for checkpoints; who, for messages; threads, of all
        processes; parts, that each batch is computed in from the start.
    """

    network: nn.Module
    images: rankbench.Rows
    task: Task
    recipe: Recipe
    framing: Framing
    seed: int
    who: str
    threads: int
    folder: Path | None = None
    supplement: rankbench.Rows | None = None
    validation: Validation | None = None
    parts: int = 1


class MemoryRanOut(rankbench.RankbenchError):
    """A device's memory does not suffice for a batch."""


@dataclass
class Trained:
    """What training ends with: weights, as arrays (shared tensors die with a process), and what is to be said of it."""

    state: dict[str, np.ndarray]
    remarks: list[str]
    curves: list[tuple[int, dict[str, float]]]


class Trainer:
    """One process's part in a training."""

    def __init__(self, job: Job, fabric: Any, log: Log) -> None:
        self.job, self.fabric, self.log = job, fabric, log
        self.task, self.recipe = job.task, job.recipe
        self.device = fabric.device
        self.step, self.parts = 0, job.parts  # parts a batch is split into, two once memory has run out
        self.losses: list[Tensor] = []  # since the last point of the curve
        self.curves: list[tuple[int, dict[str, float]]] = []
        self.best: tuple[float, int] | None = None  # value and step
        self.best_state: dict[str, Tensor] = {}
        self.remarks = [HALVES] if job.parts > 1 else []
        self.every = max(1, self.recipe.steps // POINTS)
        self.saved = time.monotonic()

    def run(self) -> Trained:
        """All steps that are left."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices), deterministic(self.recipe.deterministic):
            self._set_up()
            self._resume()
            for batch, views, supplement in self._batches():
                self._advance(batch, views, supplement)
                if not self._after():
                    break
        state = self.best_state or {name: value.cpu() for name, value in self.job.network.state_dict().items()}
        return Trained({name: value.numpy().copy() for name, value in state.items()}, self.remarks, self.curves)

    # -- before the first step

    def _set_up(self) -> None:
        job, network = self.job, self.job.network
        network.to(self.device, memory_format=torch.channels_last).train()
        self.optimizer = self.recipe.optimizer(network.groups())
        if self.recipe.compiled:
            torch.compiler.reset()  # what was compiled for another network counts against a limit
        # dynamic=False, as the gradient of an affine grid cannot be compiled for any number of images
        forward = torch.compile(network, dynamic=False) if self.recipe.compiled else network
        with quiet():
            self.model, self.optimizer = self.fabric.setup(forward, self.optimizer)
        self.task.prepare(self.device)
        self.images = RowSupply(job.images, self.device)
        self.extra = None if job.supplement is None else RowSupply(job.supplement, self.device)

    def _resume(self) -> None:
        path = None if self.job.folder is None else self.job.folder / CHECKPOINT
        if path is None or not path.exists():
            return
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
            if missing := self._content().keys() - found.keys():
                raise KeyError(*missing)
        except Exception as error:  # damaged by whatever killed the last try
            self.remarks.append(f"trained anew, as the checkpoint could not be read ({type(error).__name__})")
            return
        load(self.job.network, found["network"], f"{self.job.who}: checkpoint {path} (delete it to train anew)")
        self.optimizer.load_state_dict(found["optimizer"])
        self.task.load({name: value.to(self.device) for name, value in found["task"].items()})
        self.step, self.parts = found["step"], max(found["parts"], self.parts)
        self.remarks = list(dict.fromkeys([*self.remarks, *found["remarks"]]))
        self.losses = list(found["losses"].to(self.device))
        self.best, self.best_state = found["best"], found["best_state"]
        self.curves = [(step, dict(numbers)) for step, numbers in found["curves"]]
        for step, numbers in self.curves:
            self.log(step, **numbers)

    def _batches(self) -> Iterator[tuple[Batch, list[Tensor], Tensor | None]]:
        """Each step's batch, this process's views of its images, and their supplement."""
        plans: deque[tuple[Batch, np.ndarray, np.ndarray, np.ndarray]] = deque()
        framing = self.job.framing

        def wanted() -> Iterator[np.ndarray]:
            for step in range(self.step, self.recipe.steps):
                batch = self.task.batch(step)
                offsets, flips = framing.drawn(batch.rows.size, self.task.augmentation(step))
                mine = self._share(batch)
                plans.append((batch, batch.rows.ravel()[mine], offsets[mine], flips[mine]))
                yield plans[-1][1]

        for pixels in self.images.stream(wanted()):
            batch, rows, offsets, flips = plans.popleft()
            yield batch, framing.views(pixels, offsets, flips), self.extra and self.extra.take(rows)

    def _share(self, batch: Batch) -> np.ndarray:
        """Places in `batch.rows`, part by part, that this process passes through the network; each has as many."""
        width, begin, found = batch.rows.shape[1], 0, []
        for part in batch.parts(self.parts):
            count = self._count(part)
            items = np.minimum(np.arange(count) + count * self.fabric.global_rank, len(part) - 1) + begin
            found.append(items[:, None] * width + np.arange(width))
            begin += len(part)
        return np.concatenate(found).ravel()

    def _count(self, part: Batch) -> int:
        """Items of a part that each process passes through the network."""
        return -(-len(part) // self.fabric.world_size)

    # -- a step

    def _advance(self, batch: Batch, views: list[Tensor], supplement: Tensor | None) -> None:
        """One step of the optimizer; where a GPU's memory runs out, its gradients once more in two halves."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self.recipe.factor(self.step)
        if not self._differentiated(batch, views, supplement):
            if self.device.type == "cuda":
                torch.cuda.empty_cache()  # here, as the error held on to what had been computed
            self._differentiated(batch, views, supplement)
        self.optimizer.step()

    def _differentiated(self, batch: Batch, views: list[Tensor], supplement: Tensor | None) -> bool:
        """The batch's gradients; False where memory ran out for the first time."""
        try:
            self.losses.append(self._gradients(batch, views, supplement))
        except torch.OutOfMemoryError as error:
            self._halve(batch, error)
            return False
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise rankbench.RankbenchError(
                f"{self.job.who}: batch normalisation cannot do with one image whose maps have one cell. Raise the "
                "batch's size or the images'."
            ) from error
        return True

    def _halve(self, batch: Batch, error: BaseException) -> None:
        """From now on batches are computed in two parts. MemoryRanOut where that was tried already."""
        if self.parts > 1 or self.fabric.world_size > 1 or len(batch) < 2:  # several processes all begin anew
            share = "half a" if self.parts > 1 else "a"
            raise MemoryRanOut(
                f"{self.job.who}: the {self.device.type}'s memory does not suffice for {share} batch of {len(batch)}. "
                "Lower batch_size or size."
            ) from error
        self.parts = 2
        self.images.leave()
        self._say(parts_of_a_batch=2)  # also where only the curves are kept: in work that cells share
        self.remarks.append(HALVES)

    def _gradients(self, batch: Batch, views: list[Tensor], supplement: Tensor | None) -> Tensor:
        """() the loss; its gradients are in the network's parameters."""
        self._seed_dropout()
        self.optimizer.zero_grad()
        weight, width, begin = self.task.weight(batch), batch.rows.shape[1], 0
        total = torch.zeros((), device=self.device)
        for part in batch.parts(self.parts):
            end = begin + self._count(part) * width
            extra = None if supplement is None else supplement[begin:end]
            output = self.model([view[begin:end] for view in views], extra)
            values, penalty = (self._gathered(one, len(part) * width) for one in output)
            loss = self.task.costs(values.unflatten(0, (len(part), width)), part) / max(weight, 1e-12)
            pulled = loss if penalty is None else loss + penalty.sum() / len(batch)
            self.fabric.backward(pulled * self.fabric.world_size)
            total += loss.detach()
            begin = end
        return total

    def _seed_dropout(self) -> None:
        """As torch.manual_seed, which takes half a millisecond for a step's place in the program."""
        seed = mixed(self.job.seed, self.step, self.fabric.global_rank)
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def _gathered(self, mine: Tensor | None, count: int) -> Tensor | None:
        """What every process computed, (count, …); only this one's share can be differentiated."""
        if mine is None or self.fabric.world_size == 1:
            return mine
        parts = [torch.empty_like(mine) for _ in range(self.fabric.world_size)]
        torch.distributed.all_gather(parts, mine.detach().contiguous())
        parts[self.fabric.global_rank] = mine
        return torch.cat(parts)[:count]

    # -- after a step

    def _after(self) -> bool:
        """Curves, validation and checkpoint when they are due; whether training goes on."""
        self.step += 1
        last, more = self.step == self.recipe.steps, True
        point = last or self.step % self.every == 0
        validate = self.job.validation is not None and (last or self.step % self.recipe.validate_every == 0)
        save = self.job.folder is not None and time.monotonic() - self.saved >= self.recipe.checkpoint_seconds
        if point or validate or save:
            losses = self._checked()
        if point:
            self._say(loss=sum(losses) / len(losses))
            self.losses = []
        if validate:
            more = self._validate()
        if save and more and not last:
            self.save()
        return more

    def _say(self, **numbers: float) -> None:
        self.curves.append((self.step, numbers))
        self.log(self.step, **numbers)

    def _checked(self) -> list[float]:
        """The losses since the last point of the curve. RankbenchError if one is no number."""
        losses: list[float] = torch.stack(self.losses).tolist()
        bad = [at for at, loss in enumerate(losses) if not math.isfinite(loss)]
        if bad:
            step = self.step - len(losses) + bad[0]
            rate = self.recipe.learning_rate * self.recipe.factor(step)
            raise rankbench.RankbenchError(
                f"{self.job.who}: the loss is {losses[bad[0]]} at step {step}, at learning rate {rate:.2g}. Lower "
                "`learning_rate`."
            )
        return losses

    def _validate(self) -> bool:
        """Keep the weights if they are the best yet; False once none were for too long."""
        validation = self.job.validation
        assert validation is not None
        network, framing = self.job.network, self.job.framing.alone()
        scores = scored(
            network, framing, self.images, self.extra, validation.rows, many=False, around=self.fabric.autocast
        )
        value = float(self.fabric.broadcast(float(validation.judge(scores))))
        network.train()
        self._say(validation=value)
        if self.best is None or value > self.best[0]:
            self.best = (value, self.step)
            weights = network.state_dict()
            self.best_state = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
        waited = (self.step - self.best[1]) / self.recipe.validate_every
        return not self.recipe.patience or waited < self.recipe.patience

    def save(self) -> None:
        """A checkpoint, there whole or not at all."""
        self.saved = time.monotonic()
        if self.fabric.global_rank != 0 or self.job.folder is None:
            return
        path = self.job.folder / CHECKPOINT
        draft = path.with_name(f".{CHECKPOINT}.{os.getpid()}")
        torch.save(self._content(), draft)
        os.replace(draft, path)

    def _content(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "step": self.step,
            "parts": self.parts,
            "network": self.job.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "task": self.task.state(),
            "losses": torch.stack(self.losses) if self.losses else torch.zeros(0),
            "best": self.best,
            "best_state": self.best_state,
            "curves": self.curves,
            "remarks": self.remarks,
        }


def scored(
    network: nn.Module,
    framing: Framing,
    images: RowSupply,
    supplement: RowSupply | None,
    rows: np.ndarray,
    many: bool,
    what: str = "score",
    around: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
) -> np.ndarray:
    """What a network gives for images, (n, …) float64: the mean over the views that the framing fixes.

    Args: rows, (n,) which images; many, ten crops instead of the middle; what, "score" (n,), "embed" (n, d) or "locate"
        (n, scales, 3), which only the plain middle is looked at for; around, autocast.
    """
    network.eval()
    fixed = [(framing.fixed(False)[0][0], 0)] if what == "locate" else framing.fixed(many)
    parts = [rows[begin : begin + SCORED] for begin in range(0, len(rows), SCORED)]
    parts = [np.concatenate([part, np.repeat(part[-1:], SCORED - len(part))]) for part in parts]
    found = []
    with torch.inference_mode(), around():
        for part, pixels in zip(parts, images.stream(parts), strict=True):
            extra = None if supplement is None else supplement.take(part)
            total: Tensor | float = 0.0
            for place, flip in fixed:
                view = framing.view(pixels, place, flip).contiguous(memory_format=torch.channels_last)
                total = total + APPLIED[what](network, [view] * framing.crops, extra).double()
            found.append((total / len(fixed)).cpu())
    return torch.cat(found)[: len(rows)].numpy() if found else np.zeros(0)


APPLIED = {
    "score": lambda network, views, extra: network(views, extra)[0],
    "embed": lambda network, views, extra: network.embed(views, extra),
    "locate": lambda network, views, extra: torch.stack(network.locate(views), 1),
}


def mixed(*numbers: int) -> int:
    """A seed for torch from several numbers."""
    return int(np.random.SeedSequence((DROPOUT, *numbers)).generate_state(1, np.uint64)[0] >> 1)


@contextlib.contextmanager
def deterministic(on: bool) -> Iterator[None]:
    """Deterministic algorithms, where torch has them; else it warns.

    The gradient of a crop is by name among those it has none for, but repeats here, as images need no gradient. Without
    `on`, cuDNN may try out which of its algorithms is fastest.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fastest, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, not on
    if on:
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = fastest
        if on:
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings that a library gives of itself."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
