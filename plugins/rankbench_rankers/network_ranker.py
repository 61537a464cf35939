"""What every ranker that trains a network shares: its parameters, and how it is fitted, applied and stored."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

import rankbench
from rankbench_rankers import weight_files

HELD_SHARE = (0.01, 0.05)  # of the pairs: least and most that is held out for validation
JUDGED = 5000  # held-out pairs looked at, so that a validation takes seconds
POSITIVE = ("width", "epochs", "maximum_steps", "batch_size", "learning_rate", "validate_every", "processes")


@dataclass
class NetworkRanker(rankbench.Ranker):
    """A network that scores images, trained by `rankbench_rankers.training`.

    Args:
        backbone: "alexnet", "caffenet", "vgg16", any classification model of torchvision; "small" or
            "small-foveal", a few convolutions for CPUs, the latter for spatial transformers.
        weights: what the backbone starts from: "imagenet" (torchvision's; `data fetch` gets them), "random" or
            "file".
        file: a state dict, relative to the data root.
        width: filters of the first convolution of "small".
        size: pixels of the square that is seen; by default the backbone's own.
        recipe: "paper", SGD with momentum and dampening 0.9 at a constant rate; "sgd", without dampening; "modern",
            AdamW on one cycle.
        epochs, minimum_steps, maximum_steps: how long to train; an epoch is a pass over the pairs (over the images for
            `pairs = "all"`), and steps of the optimizer limit it from both sides.
        batch_size: pairs a step (images for `pairs = "all"`).
        learning_rate: of the last layer.
        trunk_rate: share of it that the backbone gets.
        weight_decay: see the recipe.
        dropout: of the backbone's own dropout layers; None leaves them as they are.
        flips: how an image may be turned over without changing its order: "horizontal", "dihedral" (also upside down)
            or "none".
        cropped: whether training sees random crops, and not the whole image.
        scoring: "ten-crop", the mean over corners and center under all flips, or "center", the center alone under all
            flips.
        validation_pairs: about how many training pairs are held out, with their images, to choose the best weights by
            (1 to 5 % of the pairs, which are 10 to 22 % of the images where all are linked); 0 for none, as where no
            images can be spared: the last weights are taken.
        validate_every: steps. patience: validations without a gain after which training ends; 0 for never.
        precision: of forward and backward passes: "float32" or "bfloat16".
        compiled: whether the network is compiled (torch.compile).
        deterministic: whether a GPU uses algorithms that repeat themselves, wherever torch has them.
        processes: each with a share of every batch and a GPU of its own, where there is one.
        supplement: frozen features that join what the last layer reads.
    """

    backbone: str = "alexnet"
    weights: Literal["imagenet", "random", "file"] = "imagenet"
    file: rankbench.File | None = None
    width: int = 16
    size: int | None = None
    recipe: Literal["paper", "sgd", "modern"] = "paper"
    epochs: float = 400.0
    minimum_steps: int = 0
    maximum_steps: int = 40_000
    batch_size: int = 25
    learning_rate: float = 1e-3
    trunk_rate: float = 1.0
    weight_decay: float = 5e-4
    dropout: float | None = None
    flips: Literal["none", "horizontal", "dihedral"] = "horizontal"
    cropped: bool = True
    scoring: Literal["ten-crop", "center"] = "ten-crop"
    validation_pairs: int = 200
    validate_every: int = 2000
    patience: int = 0
    precision: Literal["float32", "bfloat16"] = "float32"
    compiled: bool = False
    deterministic: bool = False
    processes: int = 1
    supplement: rankbench.Features = field(default_factory=lambda: rankbench.Features())

    def __init_subclass__(cls, **options: Any) -> None:
        """A kind's own page ends with the parameters that it shares with the others."""
        super().__init_subclass__(**options)
        own, shared = inspect.cleandoc(cls.__doc__ or ""), inspect.cleandoc(cls.__mro__[1].__doc__ or "")
        cls.__doc__ = own + ("" if "Args:" in own else "\n\nArgs:") + shared.partition("Args:")[2]

    def __post_init__(self) -> None:
        self._remarks: list[str] = []
        for name in POSITIVE:
            if not (getattr(self, name) > 0 and np.isfinite(getattr(self, name))):
                raise rankbench.DataError(f"{self.title}: {name} is {getattr(self, name)}; it is above 0.")
        for name in ("trunk_rate", "weight_decay", "minimum_steps", "validation_pairs", "patience"):
            if not (getattr(self, name) >= 0 and np.isfinite(getattr(self, name))):
                raise rankbench.DataError(f"{self.title}: {name} is {getattr(self, name)}; it is not negative.")
        if (self.weights == "file") != (self.file is not None):
            raise rankbench.DataError(f'{self.title}: weights = "file" and file = "…" go together.')
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise rankbench.DataError(f"{self.title}: dropout is {self.dropout}; it is in [0, 1).")
        if self.minimum_steps > self.maximum_steps:
            raise rankbench.DataError(
                f"{self.title}: minimum_steps is {self.minimum_steps}, above maximum_steps, {self.maximum_steps}."
            )
        if self.size is not None and self.size < 16:
            raise rankbench.DataError(f"{self.title}: size is {self.size}; it is at least 16 pixels.")

    # -- what a kind of network defines

    title = "network"
    crops = 1  # views of an image that the network takes

    def build(self, supplement: int) -> Any:
        """The network, its new layers drawn from torch's generator. Args: supplement, numbers of the frozen feature."""
        raise NotImplementedError

    def divide(self, images: rankbench.Images, pairs: rankbench.Pairs, run: rankbench.Run) -> tuple[Any, Any]:
        """The training pairs that are fitted, and a Validation on the others or None."""
        return pairs, None

    def task(self, images: rankbench.Images, pairs: rankbench.Pairs, run: rankbench.Run) -> tuple[Any, Any]:
        """What to train, and a Validation where that is its own."""
        raise NotImplementedError

    # -- the contract

    def resources(self) -> rankbench.Resources:
        return rankbench.Resources(gpu=self.processes, threads=max(2, self.processes))

    def needs(self) -> list[rankbench.Need]:
        return weight_files.needed(self.backbone) if self.weights == "imagenet" else []

    def downloads(self) -> list[rankbench.Download]:
        return weight_files.downloads(self.backbone) if self.weights == "imagenet" else []

    @property
    def notes(self) -> tuple[str, ...]:
        """Random weights of what is published with others, and what happened in training."""
        random = self.weights == "random" and not self.backbone.startswith("small")
        own = [f"{self.backbone}: trained from random weights"] if random else []
        return (*own, *self._remarks)

    def fit(self, images: rankbench.Images, pairs: rankbench.Pairs, run: rankbench.Run) -> NetworkRanker:
        import torch

        from rankbench_rankers import training, training_processes

        torch.set_num_threads(run.threads)
        pairs, validation = self.divide(images, pairs, run)
        task, own = self.task(images, pairs, run)
        extra = run.features(images, self.supplement) if self.supplement else None
        self.supplement_ = 0 if extra is None else extra.shape[1]
        self.network_ = self.made(self.supplement_, run.seed)
        self._remarks = self.start(images, pairs, run)
        job = training.Job(
            network=self.network_,
            images=run.pixels(images, self.framing().stored),
            task=task,
            recipe=self.training_recipe(task.batches),
            framing=self.framing(),
            seed=run.seed,
            who=self.title,
            threads=run.threads,
            folder=run.folder,
            supplement=extra,
            validation=validation or own,
        )
        run.expect(job.recipe.steps)
        self._remarks += training_processes.train(job, run.device, self.processes, run.log)
        return self

    def start(self, images: rankbench.Images, pairs: rankbench.Pairs, run: rankbench.Run) -> list[str]:
        """Change the network's first weights: a first stage of training, say. Returns what is to be said of it."""
        return []

    def score(self, images: rankbench.Images, run: rankbench.Run) -> np.ndarray:
        return self._applied(images, run, self.scoring == "ten-crop", "score")

    def embed(self, images: rankbench.Images, run: rankbench.Run) -> np.ndarray:
        """(n, d) float32: what the last layer reads, the mean over the views that a score is the mean of."""
        return self._applied(images, run, self.scoring == "ten-crop", "embed").astype(np.float32)

    def state(self) -> dict[str, Any]:
        weights = {f"network.{name}": value.cpu().numpy() for name, value in self.network_.state_dict().items()}
        return {"supplement": self.supplement_, **weights}

    def load(self, state: dict[str, Any]) -> None:
        import torch

        from rankbench_rankers import backbones

        weights = {name: torch.from_numpy(np.array(value)) for name, value in state.items() if name != "supplement"}
        self.supplement_ = int(state.get("supplement", 0))
        network = self.made(self.supplement_, 0, fresh=True)
        weights = {name.removeprefix("network."): value for name, value in weights.items()}
        backbones.load(network, weights, f"{self.title}: the stored model")
        self.network_ = network

    # -- parts

    def made(self, supplement: int, seed: int, fresh: bool = False) -> Any:
        """A network whose new layers depend on the seed alone; with `fresh` no weights are looked for."""
        import torch
        from torch import nn

        like = replace(self, weights="random", file=None) if fresh else self
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            network = like.build(supplement)
        for module in network.modules():
            if isinstance(module, nn.Dropout) and self.dropout is not None:
                module.p = self.dropout
        return network

    def trunk(self) -> Any:
        """A vector of the whole image, from the backbone."""
        from rankbench_rankers import trunks

        return trunks.vector(self.backbone_model(), self.backbone, self.input_size())

    def backbone_model(self) -> Any:
        """The backbone with its first weights: those named, or drawn from torch's generator."""
        import torch

        from rankbench_rankers import trunks

        seed = int(torch.randint(2**31, ()))
        path = None if self.file is None else self.file.path
        return trunks.backbone(self.backbone, self.weights, path, seed, self.width)

    def input_size(self) -> int:
        """Side of the square that is seen."""
        from rankbench_rankers import trunks

        return self.size or trunks.input_size(self.backbone)

    def framing(self) -> Any:
        from rankbench_rankers.image_views import Framing

        return Framing.of(self.input_size(), self.flips, self.crops, self.cropped)

    def training_recipe(self, batches: int) -> Any:
        """Args: batches, of an epoch."""
        from rankbench_rankers.training import Recipe

        steps = min(max(int(np.ceil(self.epochs * batches)), self.minimum_steps, 1), self.maximum_steps)
        return Recipe(
            name=self.recipe,
            steps=steps,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            rates=self.rates(),
            precision=self.precision,
            compiled=self.compiled,
            deterministic=self.deterministic,
            validate_every=self.validate_every,
            patience=self.patience,
        )

    def rates(self) -> dict[str, float]:
        """Share of the learning rate that each part of the network gets."""
        return {"trunk": self.trunk_rate}

    def _applied(self, images: rankbench.Images, run: rankbench.Run, many: bool, what: str) -> np.ndarray:
        import torch

        from rankbench_rankers import training
        from rankbench_rankers.image_supply import RowSupply

        torch.set_num_threads(run.threads)
        device, framing = torch.device(run.device), self.framing().alone()
        network = self.network_.to(device, memory_format=torch.channels_last)
        supply, extra = RowSupply(run.pixels(images, framing.stored), device, resident=False), None
        if self.supplement and what != "locate":  # where to look does not depend on it
            extra = RowSupply(run.features(images, self.supplement), device, resident=False)
        half = self.precision == "bfloat16"
        return training.scored(
            network, framing, supply, extra, np.arange(len(images)), many, what,
            around=lambda: torch.autocast(device.type, torch.bfloat16, enabled=half),
        )  # fmt: skip


@dataclass
class PairNetworkRanker(NetworkRanker):
    """A network trained to order pairs by the RankNet loss.

    Args:
        pairs: "sampled", batches of pairs (as published); "all", batches of images, in which every pair that any image
            of the batch is in counts, so that each image passes through the network once for many pairs.
    """

    pairs: Literal["sampled", "all"] = "sampled"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pairs == "all" and self.batch_size < 2:
            raise rankbench.DataError(f'{self.title}: pairs = "all" needs a batch_size of 2 images or more.')

    def divide(self, images: rankbench.Images, pairs: rankbench.Pairs, run: rankbench.Run) -> tuple[Any, Any]:
        usable = counting(pairs, self.title)
        if not self.validation_pairs or len(usable) < 2:
            return usable, None
        least, most = HELD_SHARE
        share = min(most, max(least, self.validation_pairs / len(usable)))
        fitted, held = run.holdout(images, usable, share)
        if not (held.ordered.any() and fitted.ordered.any()) or share_images(held, fitted, len(images)):
            return usable, None
        return fitted, ordered_right(held, run.rng)

    def task(self, images: rankbench.Images, pairs: rankbench.Pairs, run: rankbench.Run) -> tuple[Any, Any]:
        from rankbench_rankers import training_tasks as tasks

        if self.pairs == "all":
            return tasks.AllPairs(pairs, len(images), self.batch_size, run.seed), None
        return tasks.SampledPairs(pairs, self.batch_size, run.seed), None


def counting(pairs: rankbench.Pairs, title: str) -> rankbench.Pairs:
    """The pairs of positive weight. NotApplicable where there are none, DataError where all are ties."""
    usable = pairs if pairs.weight is None else pairs.take(pairs.weight > 0)
    if len(usable) == 0:
        raise rankbench.NotApplicable("needs training pairs" + ("" if len(pairs) == 0 else " of positive weight"))
    if not usable.ordered.any():
        raise rankbench.DataError(f"{title}: there are no ordered pairs to learn from, only ties.")
    return usable


def share_images(one: rankbench.Pairs, other: rankbench.Pairs, images: int) -> bool:
    """Whether an image is in pairs of both. Args: images, how many there are."""
    named = np.zeros(images, bool)
    named[one.left] = named[one.right] = True
    return bool(named[other.left].any() or named[other.right].any())


def ordered_right(held: rankbench.Pairs, rng: np.random.Generator) -> Any:
    """Validation by pairwise accuracy on at most 5,000 held-out pairs; a tie of scores counts one half."""
    from rankbench_rankers.training import Validation

    pairs = held.take(np.flatnonzero(held.ordered))
    if len(pairs) > JUDGED:
        pairs = pairs.take(np.sort(rng.permutation(len(pairs))[:JUDGED]))
    rows = np.unique(np.concatenate([pairs.left, pairs.right]))
    return Validation(
        rows, OrderedRight(*(np.searchsorted(rows, side) for side in (pairs.left, pairs.right)), pairs.label)
    )


@dataclass
class OrderedRight:
    """Pairwise accuracy of scores, for pairs of their places."""

    left: np.ndarray
    right: np.ndarray
    label: np.ndarray

    def __call__(self, scores: np.ndarray) -> float:
        return float((1 + np.sign(scores[self.left] - scores[self.right]) * self.label).mean() / 2)
