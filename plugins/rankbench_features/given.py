"""given: vectors that the dataset itself ships as an input of its images."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import rankbench


@dataclass
class Given(rankbench.Feature):
    """The rows of an image input, as released with a dataset; reads no pixels.

    Args: input, its name: (n, d) finite numbers.
    """

    input: str = "released_features"

    batch_size: ClassVar[int] = 256

    @property
    def inputs(self):
        return (self.input,)

    def needs_images(self):
        return False

    def extract(self, images, run):
        if self.input not in images.inputs:
            raise rankbench.NotApplicable(f"the images have no input {self.input!r}")
        rows = np.asarray(images.inputs[self.input])
        if rows.ndim != 2 or rows.dtype.kind not in "biuf":
            raise rankbench.DataError(f"input {self.input!r} must be (n, d) numbers, not {rows.shape} {rows.dtype}.")
        return rows.astype(np.float32)
