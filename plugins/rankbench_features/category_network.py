"""category-network: a network trained to tell categories, frozen, as a vector of each image."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np

import rankbench


@dataclass
class CategoryNetwork(rankbench.Feature):
    """What the last layer reads (fc7 of AlexNet) of a network trained on the `category` column.

    It is fitted on the training images of the problem at hand, or by `fit_on = { name = "viral-categories" }` on those
    of another dataset, less every test image. Cross-entropy, each category weighing the same; SGD with momentum 0.9,
    the new layer at `learning_rate`, the rest at a tenth of it; the best weights on a tenth of the images, held out.
    The frozen network sees the middle of the image, without augmentation. On a GPU it uses deterministic algorithms.
    Source: Dubey & Agarwal, ACM MM 2017, section 3.3, which gives neither layer nor settings: they are ours.

    Args:
        backbone, weights, file, width, size, flips, precision: as of the ranker `siamese`.
        recipe: "sgd", "paper" (with dampening 0.9), or "modern": AdamW on one cycle.
        epochs: passes over the images; minimum_steps, maximum_steps: limits of the steps.
        images_per_step, learning_rate, trunk_rate, weight_decay: of the optimizer.
        seed: of new layers, batches, crops and held-out images.
    """

    backbone: str = "alexnet"
    weights: Literal["imagenet", "random", "file"] = "imagenet"
    file: rankbench.File | None = None
    width: int = 16
    size: int | None = None
    recipe: Literal["sgd", "paper", "modern"] = "sgd"
    epochs: float = 30.0
    minimum_steps: int = 0
    maximum_steps: int = 40_000
    images_per_step: int = 32
    learning_rate: float = 1e-2
    trunk_rate: float = 0.1
    weight_decay: float = 5e-4
    flips: Literal["none", "horizontal", "dihedral"] = "horizontal"
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0

    batch_size: ClassVar[int] = 64
    uses: ClassVar[tuple[str, ...]] = ("category",)

    def __post_init__(self) -> None:
        self._classifier(2)  # checks the parameters

    @property
    def notes(self) -> tuple[str, ...]:
        return self._classifier(2).notes

    def needs(self) -> list[rankbench.Need]:
        return self._classifier(2).needs()

    def downloads(self) -> list[rankbench.Download]:
        return self._classifier(2).downloads()

    def resources(self) -> rankbench.Resources:
        return rankbench.Resources(gpu=1, threads=2)

    def fit(self, images: rankbench.Images, run: rankbench.Run) -> CategoryNetwork:
        categories = np.unique(np.asarray(images.columns["category"]))
        if len(categories) < 2:
            raise rankbench.NotApplicable(
                f"category-network needs two categories or more; the {len(images)} training images have "
                f"{len(categories)} ({', '.join(map(str, categories))})"
            )
        self.classes_ = len(categories)
        self._fitted = self._classifier(self.classes_)
        self._fitted.fit(images, None, run)
        self._fitted.flips = "none"  # from now on
        return self

    def extract(self, images: rankbench.Images, run: rankbench.Run) -> np.ndarray:
        return self._fitted.embed(images, run)

    def state(self) -> dict[str, Any]:
        return {"classes": self.classes_, **self._fitted.state()}

    def load(self, state: dict[str, Any]) -> None:
        self.classes_ = int(state["classes"])
        self._fitted = self._classifier(self.classes_)
        self._fitted.load({name: value for name, value in state.items() if name != "classes"})
        self._fitted.flips = "none"

    def _classifier(self, classes: int) -> Any:
        from rankbench_rankers.category_classifier import CategoryClassifier

        same = {
            one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("images_per_step", "seed")
        }
        return CategoryClassifier(
            **same,
            batch_size=self.images_per_step,
            scoring="center",
            validate_every=200,
            classes=classes,
            deterministic=True,
        )
