"""network: activations of a convolutional network at a named layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

import rankbench
from rankbench_rankers import weight_files


@dataclass
class Network(rankbench.Feature):
    """Activations of a network at a named layer: AlexNet, VGG-16, CaffeNet, or any torchvision classification model.

    The image is stretched to a square of 8/7 of what the network sees (256 pixels for 224), its center is cut out and
    normalised as the network expects. Layers: "pool5", "fc6" and "fc7" after their ReLU (alexnet, vgg16, caffenet),
    "probabilities" (1,000 class probabilities, the row "Objects"), or the dotted path of a module. Nothing after the
    layer is computed. torchvision's alexnet is not CaffeNet: it has no groups and no response normalisation.

    Args:
        model: "alexnet", "vgg16", "caffenet", or another name of torchvision.
        layer: see above.
        weights: "imagenet", torchvision's first weights (IMAGENET1K_V1), which `data fetch` gets; "file", a state
            dict; "random", drawn from the seed and named so in every table.
        file: the state dict, relative to the data root.
        precision: of the computation, "float16" or "bfloat16" for speed on a GPU.
        seed: of random weights.
    """

    model: str = "alexnet"
    layer: str = "fc7"
    weights: Literal["imagenet", "random", "file"] = "imagenet"
    file: rankbench.File | None = None
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    seed: int = 0

    batch_size: ClassVar[int] = 32

    def __post_init__(self):
        if (self.weights == "file") != (self.file is not None):
            raise rankbench.DataError('network: weights = "file" and file = "…" go together.')
        self._network = None

    @property
    def notes(self):
        """Random weights are named wherever their results are shown."""
        return (f"{self.model}: weights are random, not trained",) if self.weights == "random" else ()

    def needs(self):
        return weight_files.needed(self.model) if self.weights == "imagenet" else []

    def downloads(self):
        return weight_files.downloads(self.model) if self.weights == "imagenet" else []

    def resources(self):
        return rankbench.Resources(gpu=1)

    def extract(self, images, run):
        import torch

        from rankbench_rankers import backbones

        if self._network is None:
            file = None if self.file is None else self.file.path
            network = backbones.built(self.model, self.weights, file, self.seed)
            self._network = network.to(run.device, getattr(torch, self.precision)), backbones.crop_size(self.model)
        network, crop = self._network
        pixels = torch.from_numpy(np.array(run.pixels(images, round(crop * 8 / 7))[:])).to(run.device)
        with torch.inference_mode():
            x = backbones.prepared(pixels, self.model, crop).to(getattr(torch, self.precision))
            return backbones.activations(network, self.model, self.layer, x).cpu().numpy()
