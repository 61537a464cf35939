"""The spatial transformer of Singh & Lee: where to look (localisation network), and the crop that is seen there.

A crop is (s, t_x, t_y): half its side s, relative to half the image's, and its center (s t_x, s t_y) in coordinates
that go from -1 to 1. The affine matrix is [[s, 0, s t_x], [0, s, s t_y]]: scale times translation, as the released
code has it (the paper writes plain translations). Corners are aligned, what lies outside is 0.
Source: Jaderberg et al., NIPS 2015; Singh & Lee, ECCV 2016 and its code.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rankbench_rankers.trunks import Trunk

SpatialLoss = Literal["replace", "add"]
MIDDLE, HIDDEN = 128, 128  # channels and units of the localisation network


class Localiser(nn.Module):
    """Localisation network: convolutions, a 1 × 1 convolution to 128, a layer of 128, then (s, t_x, t_y).

    The row of s starts with zero weights, so that s is `scale` for every image at first; its output is multiplied by
    the constant `multiplier`, which slows it down against the translation.

    Args: maps, convolutions of a backbone; scale, in (0, 1]; multiplier, above 0.
    """

    def __init__(self, maps: Trunk, scale: float, multiplier: float) -> None:
        super().__init__()
        channels, height, width = maps.shape
        self.maps = maps
        self.narrow = nn.Conv2d(channels, MIDDLE, 1)
        self.hidden = nn.Linear(MIDDLE * height * width, HIDDEN)
        self.last = nn.Linear(HIDDEN, 3)
        self.register_buffer("multiplier", torch.tensor([multiplier, 1.0, 1.0]))
        torch_uniform(self.narrow, self.hidden, self.last)
        with torch.no_grad():
            self.last.weight[0] = 0
            self.last.bias.zero_()
            self.last.bias[0] = scale / multiplier

    def forward(self, x: Tensor) -> Tensor:
        """(n, 3, h, w) RGB in [0, 255] to (n, 3): s, t_x, t_y."""
        x = F.relu(self.hidden(F.relu(self.narrow(self.maps(x)).flatten(1))))
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 would round s and t
            return self.last(x.float()) * self.multiplier


def torch_uniform(*layers: nn.Module) -> None:
    """Weights and biases uniform in ±1/√fan_in, as Torch's layers start."""
    for layer in layers:
        bound = layer.weight[0].numel() ** -0.5
        nn.init.uniform_(layer.weight, -bound, bound)
        nn.init.uniform_(layer.bias, -bound, bound)


def crops(images: Tensor, where: Tensor, size: int) -> Tensor:
    """The crops of images, sampled bilinearly.

    Args: images, (n, c, h, w); where, (n, 3): s, t_x, t_y; size, pixels of the side of a crop.
    Returns: (n, c, size, size), differentiable in both.
    """
    scale, x, y = where.float().unbind(1)
    nothing = torch.zeros_like(scale)
    rows = (torch.stack([scale, nothing, scale * x], 1), torch.stack([nothing, scale, scale * y], 1))
    theta = torch.stack(rows, 1)  # stacked, not built by torch.tensor, which would cut the gradient
    with torch.autocast(images.device.type, enabled=False):  # places need more than eight bits
        grid = F.affine_grid(theta, [len(images), images.shape[1], size, size], align_corners=True)
        # F.grid_sample(…, mode="bilinear", padding_mode="zeros"); that goes to cuDNN on a GPU, which always computes
        # the images' gradient too, and takes them in one layout only
        return torch.ops.aten.grid_sampler_2d(images.float(), grid, 0, 0, True)  # type: ignore[no-any-return]


def outside(where: Tensor) -> Tensor:
    """(n,) whether a crop's center is outside the image."""
    scale, x, y = where.unbind(1)
    return ((scale * x).abs() > 1) | ((scale * y).abs() > 1)


def spatial_loss(where: Tensor) -> Tensor:
    """(n,) half the squared distance of the crop's center from the image's, where it is outside; 0 elsewhere.

    Source: the released code of Singh & Lee: ½ ((s t_x)² + (s t_y)²), once the center leaves the image.
    """
    scale, x, y = where.unbind(1)
    return torch.where(outside(where), 0.5 * ((scale * x) ** 2 + (scale * y) ** 2), torch.zeros_like(scale))


def steering(where: Tensor, mode: SpatialLoss) -> Tensor:
    """(n, 3) where to sample. In "replace" a crop that is outside gets no gradient from the ranking loss, so that the
    spatial loss stands in its place; in "add" it gets both."""
    if mode == "add":
        return where
    return torch.where(outside(where)[:, None], where.detach(), where)


def boxes(where: Tensor) -> Tensor:
    """(n, 4) left, top, right, bottom of the crops, relative to the image; a crop may overhang. Negative s turns a crop
    upside down and takes the same place."""
    scale, x, y = where.double().unbind(1)
    half = scale.abs()
    center_x, center_y = scale * x, scale * y
    found = torch.stack([center_x - half, center_y - half, center_x + half, center_y + half], 1)
    return (found + 1) / 2
