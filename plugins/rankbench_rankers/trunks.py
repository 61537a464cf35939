"""What networks are built on: a backbone without its last layer, as a vector, and its convolutions alone, as maps.

A trunk takes pixels in [0, 255] and normalises them as its backbone expects, so that whatever lies before it (crops,
flips, a spatial transformer) works on plain RGB.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

import rankbench
from rankbench_rankers import backbones

SMALL = {"small": 96, "small-foveal": 64}  # pixels they see where nothing else is said
FOVEA = 3 / 16  # of the side
HEADS = ("fc", "classifier", "head", "heads")  # what torchvision calls the part that ends in the last layer


class SmallBackbone(nn.Module):
    """Five convolutions with batch normalisation, for CPUs and tests; what they give is pooled in two ways.

    The plain one goes down to a sixteenth of the resolution and pools by mean (how much there is of a pattern) and
    maximum (whether it is anywhere). The foveal one stops at an eighth and pools evenly and by a Gaussian about the
    center, so that a spatial transformer is rewarded for what it looks at and not for what is merely in sight.

    Args: width, filters of the first convolution, doubled by the next ones; foveal.
    """

    def __init__(self, width: int, foveal: bool) -> None:
        super().__init__()
        self.foveal = foveal
        wide = (4 if foveal else 8) * width
        self.features = nn.Sequential(
            *convolution(3, width, size=5, stride=2, pool=1 if foveal else 2),
            *convolution(width, 2 * width, pool=2),
            *convolution(2 * width, 4 * width, pool=2),
            *convolution(4 * width, wide),
            *convolution(wide, wide),
        )
        self.dropout = nn.Dropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, s, s) to (n, 16 width), or (n, 8 width) if foveal."""
        maps = self.features(x)
        second = (maps * fovea(maps)).sum((2, 3)) if self.foveal else maps.amax((2, 3))
        return self.dropout(torch.cat([maps.mean((2, 3)), second], dim=1))


def fovea(maps: Tensor) -> Tensor:
    """(h, w) weights of sum 1 that fall off from the center, with a deviation of 3/16 of the side."""
    profiles = []
    for cells in maps.shape[2:]:
        place = (torch.arange(cells, device=maps.device, dtype=maps.dtype) + 0.5) / cells - 0.5
        profiles.append(torch.softmax(-0.5 * (place / FOVEA) ** 2, 0))
    return profiles[0][:, None] * profiles[1]


def convolution(narrow: int, wide: int, size: int = 3, stride: int = 1, pool: int = 1) -> list[nn.Module]:
    """Pooling comes before normalisation, which then costs a quarter on a CPU and sees the same maxima."""
    filters = nn.Conv2d(narrow, wide, size, stride, padding=size // 2, bias=False)
    return [filters, *([nn.MaxPool2d(pool)] if pool > 1 else []), nn.BatchNorm2d(wide), nn.ReLU(inplace=True)]


class Trunk(nn.Module):
    """A part of a backbone behind the normalisation of its pixels.

    Attributes: shape, of one image's output: (d,) for a vector, (c, h, w) for maps.
    """

    def __init__(self, name: str, body: nn.Module, size: int) -> None:
        super().__init__()
        self.body = body
        self.flip, mean, deviation = backbones.normalisation(name)
        self.register_buffer("factor", 1 / deviation, persistent=False)
        self.register_buffer("shift", -mean / deviation, persistent=False)
        self.shape = self._output(name, size)

    def _output(self, name: str, size: int) -> tuple[int, ...]:
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                found = self(torch.zeros(1, 3, size, size))
        except (RuntimeError, AssertionError) as error:
            raise rankbench.DataError(
                f"backbone {name!r} cannot see {size} × {size} pixels ({error}). Give another `size`; its own is "
                f"{input_size(name)}."
            ) from error
        self.train(training)
        return tuple(found.shape[1:])

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, s, s) RGB in [0, 255] to (n, *shape)."""
        x = torch.addcmul(self.shift, x, self.factor)  # one pass over the pixels
        return self.body(x.flip(1) if self.flip else x)


def input_size(name: str) -> int:
    """Pixels of the square a backbone sees where nothing else is said."""
    if name in SMALL:
        return SMALL[name]
    return 227 if name in ("alexnet", "caffenet") else backbones.crop_size(name)


def backbone(name: str, weights: str, file: Path | None, seed: int, width: int) -> nn.Module:
    """A whole backbone. DataError for an unknown one, MissingData for weights that are not there."""
    if name not in SMALL:
        return backbones.built(name, weights, file, seed).train()
    if weights == "imagenet":
        raise rankbench.DataError(f'backbone "{name}" has no ImageNet weights: give weights = "random" or a file.')
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = SmallBackbone(width, name == "small-foveal")
    if weights == "file":
        backbones.load(model, backbones.read_state_dict(backbones.given(file, name)), str(file))
    return model


def vector(model: nn.Module, name: str, size: int) -> Trunk:
    """The backbone without its last layer: fc7 of AlexNet, VGG-16 and CaffeNet (with their dropout), else what the
    last linear layer reads."""
    if name not in SMALL:
        model = headless(model, name)
    return Trunk(name, model, size)


def headless(model: nn.Module, name: str) -> nn.Module:
    """The model with its last linear layer replaced by nothing."""
    if hasattr(model, "aux_logits"):  # googlenet and inception_v3 have side exits for training
        model.aux_logits = False
        for side in ("aux1", "aux2", "AuxLogits"):
            setattr(model, side, None)
    if name.startswith("squeezenet"):  # ends in a convolution to classes
        model.classifier = nn.Sequential(nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1))
        return model
    linear = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear or not (name == "caffenet" or linear[-1].split(".")[0] in HEADS):
        raise rankbench.DataError(f"backbone {name!r} has no last linear layer that could be taken off.")
    parent, _, last = linear[-1].rpartition(".")
    # Caffe drops out after fc6 and fc7; torchvision's alexnet before them, so that fc7 lacks one before a new layer
    setattr(model.get_submodule(parent), last, nn.Dropout(0.5) if name == "alexnet" else nn.Identity())
    return model


def maps(model: nn.Module, name: str, size: int) -> Trunk:
    """The convolutions alone, through the last pooling that keeps a grid: (c, h, w). pool5 of AlexNet and CaffeNet."""
    return Trunk(name, convolutions(model, name, size), size)


def convolutions(model: nn.Module, name: str, size: int) -> nn.Module:
    if name in SMALL:
        return model.features
    if name == "caffenet":
        parts = list(model.named_children())
        return nn.Sequential(*[part for _, part in parts[: [label for label, _ in parts].index("fc6")]])
    if name.startswith(("alexnet", "vgg")):
        return nn.Sequential(model.features, model.avgpool)
    if name.startswith(("vit", "swin", "maxvit")):
        raise rankbench.DataError(f"backbone {name!r} has no convolutional maps; a localisation network needs some.")
    from torchvision.models.feature_extraction import create_feature_extractor

    node = last_grid(model, name, size)
    extractor = create_feature_extractor(model, {node: "maps"})
    return nn.Sequential(extractor, Named("maps"))


class Named(nn.Module):
    """One of the outputs of a module that gives several by name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, outputs: dict[str, Tensor]) -> Tensor:
        return outputs[self.name]


def last_grid(model: nn.Module, name: str, size: int) -> str:
    """The last child module of the model whose output is a grid of more than one cell."""
    found: list[str] = []
    handles = [
        child.register_forward_hook(
            lambda _module, _inputs, output, label=label: found.append(label) if is_grid(output) else None
        )
        for label, child in model.named_children()
    ]
    model.eval()
    with torch.no_grad():
        model(torch.zeros(1, 3, size, size))
    for handle in handles:
        handle.remove()
    model.train()
    if not found:
        raise rankbench.DataError(f"backbone {name!r} leaves no grid of {size} pixels; give a larger size.")
    return found[-1]


def is_grid(output: object) -> bool:
    return isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] > 1
