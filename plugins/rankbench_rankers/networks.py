"""The trained networks: a score from a whole image (Siamese, regression), and the ViralNets, which also look closer.

Both images of a pair pass through the same weights, so a network is a scorer of single images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rankbench_rankers import spatial_transformer as spatial
from rankbench_rankers.trunks import Trunk

Output = tuple[Tensor, Tensor | None]
"""What a network gives for n images: (n,) scores or (n, classes), and the (n,) spatial loss, if it has any."""


class PlainNetwork(nn.Module):
    """A trunk and one linear layer: scores of images, or logits of classes.

    Args: trunk, of the whole image; outputs, 1 for a score; supplement, numbers of a frozen feature that join the last
        layer's input.
    """

    def __init__(self, trunk: Trunk, outputs: int = 1, supplement: int = 0) -> None:
        super().__init__()
        self.trunk = trunk
        self.last = last_layer(trunk.shape[0] + supplement, outputs)

    def embed(self, views: Sequence[Tensor], supplement: Tensor | None = None) -> Tensor:
        """(n, d) what the last layer reads, of one (n, 3, s, s) view in [0, 255]."""
        return joined([self.trunk(views[0])], supplement)

    def forward(self, views: Sequence[Tensor], supplement: Tensor | None = None) -> Output:
        values = self.last(self.embed(views, supplement)).float()
        return (values[:, 0] if values.shape[1] == 1 else values), None

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by the learning rate they get."""
        return {"trunk": list(self.trunk.parameters()), "last": list(self.last.parameters())}


class ViralNetwork(nn.Module):
    """ViralNet: one shared trunk sees the crops that localisation networks choose, and the whole image.

    With several scales, localiser k sees the image shrunk by its factor (and enlarged again to the input's size), and
    its crop is taken from the shrunk image, as published, or with `full` from the image itself. The crops come first,
    then the whole image, then the supplement.
    Source: Singh & Lee, ECCV 2016 (one scale); Dubey & Agarwal, ACM MM 2017, sections 3.2 and 3.4 (three).

    Args: trunk, shared by all; localisers, one a scale; shrink, what the image is shrunk by for each; combined, whether
        the whole image is seen beside the crops; supplement, numbers that join the last layer's input; mode, of the
        spatial loss; full, see above.
    """

    def __init__(
        self,
        trunk: Trunk,
        localisers: Sequence[spatial.Localiser],
        shrink: Sequence[int],
        combined: bool,
        supplement: int = 0,
        mode: spatial.SpatialLoss = "replace",
        full: bool = False,
    ) -> None:
        super().__init__()
        self.trunk, self.localisers = trunk, nn.ModuleList(localisers)
        self.shrink, self.combined, self.mode, self.full = tuple(shrink), combined, mode, full
        self.last = last_layer(trunk.shape[0] * (len(localisers) + combined) + supplement, 1)

    def locate(self, views: Sequence[Tensor]) -> list[Tensor]:
        """For each scale (n, 3): s, t_x, t_y of its crop in the view it looks at."""
        return [one for one, _ in self._looked(views)]

    def _looked(self, views: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """For each scale where its crop lies, and what that is taken from."""
        found = []
        for at, (localiser, factor) in enumerate(zip(self.localisers, self.shrink, strict=True)):
            view = views[min(at, len(views) - 1)]
            small = shrunk(view, factor)
            where = localiser(small if factor == 1 else resized(small, view.shape[2:]))
            found.append((where, view if self.full else small))
        return found

    def embed(self, views: Sequence[Tensor], supplement: Tensor | None = None) -> Tensor:
        """(n, d) what the last layer reads."""
        return self._seen(views, supplement)[0]

    def _seen(self, views: Sequence[Tensor], supplement: Tensor | None) -> tuple[Tensor, Tensor]:
        looked = self._looked(views)
        size = views[0].shape[2]
        seen = [spatial.crops(source, spatial.steering(where, self.mode), size) for where, source in looked]
        seen += [views[-1]] if self.combined else []
        parts = self.trunk(torch.cat(seen)).chunk(len(seen))  # one pass of the shared trunk
        penalty = torch.stack([spatial.spatial_loss(where) for where, _ in looked]).sum(0)
        return joined(parts, supplement), penalty

    def forward(self, views: Sequence[Tensor], supplement: Tensor | None = None) -> Output:
        """Scores of images, of views (n, 3, s, s) in [0, 255]: one for all, or one a scale and the whole image's."""
        embedded, penalty = self._seen(views, supplement)
        return self.last(embedded).float()[:, 0], penalty

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by the learning rate they get."""
        trunk, last = list(self.trunk.parameters()), list(self.last.parameters())
        return {"trunk": trunk, "last": last, "localiser": list(self.localisers.parameters())}


def shrunk(images: Tensor, factor: int) -> Tensor:
    """The images at 1/factor of their resolution, antialiased."""
    if factor == 1:
        return images
    return resized(images, [max(1, round(side / factor)) for side in images.shape[2:]], antialias=True)


def resized(images: Tensor, size: Sequence[int], antialias: bool = False) -> Tensor:
    """Bilinear, in float32 whatever the precision of the network."""
    with torch.autocast(images.device.type, enabled=False):
        return F.interpolate(images.float(), tuple(size), mode="bilinear", antialias=antialias)


def joined(parts: Sequence[Tensor], supplement: Tensor | None) -> Tensor:
    """Side by side."""
    return torch.cat([*parts, *([] if supplement is None else [supplement.to(parts[0].dtype)])], dim=1)


def last_layer(inputs: int, outputs: int) -> nn.Linear:
    """Uniform in ±√(6 / (fan_in + fan_out)), biases 0."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
