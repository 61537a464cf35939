"""What a patch looks like to a ranker: pool5 of AlexNet, or color histograms and gradients."""

from __future__ import annotations

import numpy as np

from rankbench_rankers.patch_maps import CHANNELS, cell_map, crops

SOURCE = 256  # pixels of the square that patches are cut from
CUT = 32  # pixels of a patch for "color-hog"
BATCH = 64  # patches a network sees at once


class Appearance:
    """Vectors of length 1 for patches of the images, one box an image at a time."""

    def __init__(self, ranker, images, run):
        self.kind, self.device = ranker.chosen("appearance"), run.device
        self.pixels = run.pixels(images, SOURCE if self.kind == "pool5" else 2 * CUT)
        if self.kind == "pool5":
            from rankbench_rankers import backbones

            path = None if ranker.file is None else ranker.file.path
            self.network = backbones.built("alexnet", ranker.weights, path).to(self.device)

    def of(self, boxes):
        """(images, d) float32."""
        parts = []
        for begin in range(0, len(boxes), BATCH):
            pixels = self.pixels[begin : begin + BATCH]
            some = boxes[begin : begin + BATCH]
            parts.append(self._pool5(pixels, some) if self.kind == "pool5" else color_hog(crops(pixels, some, CUT)))
        found = np.concatenate(parts)
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-6)

    def _pool5(self, pixels, boxes):
        import torch

        from rankbench_rankers import backbones

        cut = torch.from_numpy(crops(pixels, boxes, 224)).to(self.device)
        with torch.inference_mode():
            return (
                backbones.activations(self.network, "alexnet", "pool5", backbones.prepared(cut, "alexnet", 224))
                .cpu()
                .numpy()
            )


def color_hog(patches):
    """(n, 50 + 4 × 50 + cells × 10) square roots of color shares, of patch and quarters, and the cell map."""
    from rankbench_features.color_histogram import nearest_color, shares

    color = nearest_color(patches)
    cells = cell_map(patches[:, ::2, ::2])  # (n, 4, 4, CHANNELS)
    gradients = cells.reshape(len(patches), -1, CHANNELS)
    length = np.linalg.norm(gradients.reshape(len(patches), -1), axis=1)[:, None]
    shape = gradients.reshape(len(patches), -1) / np.maximum(length, 1e-3)
    return np.concatenate([np.sqrt(shares(color, 1)), np.sqrt(shares(color, 2)) / 2, shape], axis=1).astype(np.float32)
