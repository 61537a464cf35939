"""viralnet: learns where to look, then ranks what is seen there beside the whole image."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import numpy as np

import rankbench
from rankbench_rankers.network_ranker import PairNetworkRanker

APART = ("file", "supplement")  # parameters whose content the core adds to the key of a first stage
SHRINK = (1, 2, 4)  # what the image is shrunk by for each scale of -M


@dataclass
class ViralNet(PairNetworkRanker):
    """ViralNet, -M, -C and -MC: a spatial transformer chooses a crop; crop and whole image are ranked together.

    "single" is the network of Singh & Lee. "M" has three localisation networks, on the image, at half and at a quarter
    of its resolution, that share the ranker; each crop has its own random place in training. "C" appends a frozen
    feature, by default a category network fitted on the `category` column of the training images, to what the last
    layer reads. "MC" does both.
    Sources: Singh & Lee, ECCV 2016 and its released code (network, initialisation, optimisation, crops, spatial loss,
    two stages of training); Dubey & Agarwal, ACM MM 2017, sections 3.2 to 3.4 (scales, category network). Ours:
    torchvision's AlexNet in place of CaffeNet (backbone = "caffenet", with converted weights, is theirs); at most
    40,000 steps; the best weights on held-out images; -M enlarges each shrunk image for its localiser.

    Args:
        variant: see above.
        sees: "combined", crops and whole image, or "crop" alone.
        stages: 2 trains the crop-only network first, whose localisers the combined one starts from; 1 starts fresh.
        scale: s at the start: the crop's side as a share of the image's; at the other scales a half and a quarter of
            it, or what `pyramid` says.
        multiplier: constant that s is multiplied by, so that it changes slower than the place; lower it if s runs away.
        localiser_rate: share of the learning rate that localisation networks get.
        spatial_loss: "replace", the ranking loss's gradient is replaced where a crop's center leaves the image, or
            "add".
        pyramid: factors of `scale` for the three scales.
        pyramid_source: what a crop is taken from: the "shrunk" image, as published, or the "full" one.
        supplement: the frozen features of C and MC: a category network, a face embedding, a scene network.
    """

    variant: Literal["single", "M", "C", "MC"] = "single"
    sees: Literal["combined", "crop"] = "combined"
    stages: Literal[1, 2] = 2
    scale: float = 0.33
    multiplier: float = 0.05
    localiser_rate: float = 0.1
    spatial_loss: Literal["replace", "add"] = "replace"
    pyramid: tuple[float, ...] = (1.0, 0.5, 0.25)
    pyramid_source: Literal["shrunk", "full"] = "shrunk"

    title = "viralnet"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variant in ("C", "MC") and not self.supplement:
            self.supplement = rankbench.Features("category-network")
        if self.variant in ("single", "M") and self.supplement:
            raise rankbench.DataError(f'viralnet: variant "{self.variant}" has no supplement; "C" and "MC" have.')
        if not 0 < self.scale <= 1 or not self.multiplier > 0 or len(self.pyramid) != 3 or min(self.pyramid) <= 0:
            raise rankbench.DataError(
                "viralnet: scale is in (0, 1], multiplier is above 0, and pyramid has three factors above 0."
            )
        if self.localiser_rate < 0:
            raise rankbench.DataError(f"viralnet: localiser_rate is {self.localiser_rate}; it is not negative.")

    @property
    def scales(self) -> int:
        return 3 if self.variant in ("M", "MC") else 1

    @property
    def crops(self) -> int:
        return 1 if self.scales == 1 else self.scales + (self.sees == "combined")

    def build(self, supplement: int) -> Any:
        from rankbench_rankers import trunks
        from rankbench_rankers.networks import ViralNetwork
        from rankbench_rankers.spatial_transformer import Localiser

        localisers = []
        for factor in self.pyramid[: self.scales]:
            maps = trunks.maps(self.backbone_model(), self.backbone, self.input_size())
            localisers.append(Localiser(maps, self.scale * factor, self.multiplier))
        return ViralNetwork(
            self.trunk(),
            localisers,
            SHRINK[: self.scales],
            self.sees == "combined",
            supplement,
            self.spatial_loss,
            self.pyramid_source == "full",
        )

    def rates(self) -> dict[str, float]:
        return {"trunk": self.trunk_rate, "localiser": self.localiser_rate}

    def start(self, images: rankbench.Images, pairs: rankbench.Pairs, run: rankbench.Run) -> list[str]:
        """The localisers of a crop-only network, trained once for every row that starts from them."""
        if self.stages == 1 or self.sees == "crop":
            return []
        import torch

        variant: Any = "M" if self.scales > 1 else "single"
        none = rankbench.Features()
        without = replace(self, sees="crop", stages=1, variant=variant, supplement=none, scoring="center")

        def build(apart: rankbench.Run) -> dict[str, Any]:
            fitted = without.fit(images, pairs, apart)
            weights = fitted.network_.localisers.state_dict()
            return {"remarks": fitted._remarks, **{name: value.cpu().numpy() for name, value in weights.items()}}

        parameters = {one.name: getattr(without, one.name) for one in fields(self) if one.name not in APART}
        found = dict(run.shared("crop-only stage", parameters, build, none))
        remarks = [f"crop-only stage: {remark}" for remark in found.pop("remarks", [])]
        self.network_.localisers.load_state_dict({name: torch.from_numpy(np.array(v)) for name, v in found.items()})
        return remarks

    def locate(
        self, images: rankbench.Images, run: rankbench.Run
    ) -> list[list[tuple[str, tuple[float, float, float, float]]]]:
        """Per image the crop of each scale, as it lies in the image; a crop may overhang it."""
        import torch

        from rankbench_rankers.spatial_transformer import boxes

        framing = self.framing().alone()
        where = torch.from_numpy(self._applied(images, run, False, "locate"))  # (n, scales, 3)
        labels = (
            ["crop"] if self.scales == 1 else [f"crop at 1/{factor}" if factor > 1 else "crop" for factor in SHRINK]
        )
        middle = framing.fixed(False)[0][0]
        offset = torch.tensor([middle[1], middle[0], middle[1], middle[0]])
        found = [(boxes(one) * framing.side + offset) / framing.stored for one in where.unbind(1)]
        return [
            [(label, tuple(box[row].tolist())) for label, box in zip(labels, found, strict=True)]
            for row in range(len(images))
        ]
