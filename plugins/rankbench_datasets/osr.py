"""osr: Outdoor Scene Recognition, with the relative attributes of its categories."""

from dataclasses import dataclass

import rankbench
from rankbench_datasets.relative_attributes import ARCHIVE, RelativeAttributes

ATTRIBUTES = ("natural", "open", "perspective", "size-large", "diagonal-plane", "depth-close")
FOLDERS = ("images", "spatial_envelope_256x256_static_8outdoorcategories")
SITE = "people.csail.mit.edu/torralba/code/spatialenvelope"
ORDERED = {  # training and test pairs with an order
    "natural": (18_900, 1_857_012), "open": (20_700, 2_154_896), "perspective": (24_300, 2_511_068),
    "size-large": (22_500, 2_334_124), "diagonal-plane": (23_400, 2_410_024), "depth-close": (16_200, 1_838_916),
}  # fmt: skip
TRAIN_PAIRS = 28_680


@dataclass(frozen=True)
class Osr(RelativeAttributes):
    """Outdoor scenes by six attributes: 2,688 images, relative attributes of their 8 categories.

    Source: images, Oliva & Torralba, IJCV 42, 2001 (the spatial envelope); labels, Parikh & Grauman, ICCV 2011
    (Relative attributes). Cite both.
    Licence: no text seen; released for research.
    Layout: `osr/data.mat` and beside it `images/` or, under its original name,
    `spatial_envelope_256x256_static_8outdoorcategories/`; only images that `im_names` lists are read. data.mat may also
    lie where its archive unpacks it, in `osr/relative_attributes/osr/`. Columns: `category`, and `score`, the rank of
    the category in the attribute.
    Protocol: that of Parikh & Grauman. 240 training images (30 a category) and 2,448 test images; training pairs are
    all 28,680 pairs inside the training images, ties included; tests are all ordered pairs inside the test images.
    Known problems: labels are judgements of categories, not of images, so that a scene classifier solves the task, and
    features learned from scene categories see the label almost directly. Two pairs of files are equal byte by byte,
    one of them in two categories (insidecity and tallbuilding); all four are test images. Other splits are in use.

    Args: test_pairs, how many ordered test pairs are drawn (None: all, 1.8 to 2.5 million); test_seed, of that draw.
    """

    test_pairs: int | None = None
    test_seed: int = 0

    attributes = ATTRIBUTES
    release = "osr"
    image_folders = FOLDERS
    get_images = f"{FOLDERS[1]}.zip from {SITE}; unpack it beside data.mat (the folder may also be named images)"

    def published(self, facets):
        train, test = ORDERED[facets["attribute"]]
        return {
            "images": 2_688,
            "train images": 240,
            "train pairs": TRAIN_PAIRS,
            "train ties": TRAIN_PAIRS - train,
            "test images": 2_448,
            "test pairs": test if self.test_pairs is None else min(test, self.test_pairs),
            "test ties": 0,
        }

    def downloads(self, root):
        labels, images = self.needs(root)
        found = [] if labels.found else [archive()]
        if not images.found:
            found.append(rankbench.Download((f"https://{SITE}/{FOLDERS[1]}.zip",), ".", "archive", most=2**30))
        return found


def archive():
    """Labels of osr and pubfig, and pubfig's images."""
    url = "https://" + ARCHIVE.split(" from ")[1].replace(
        "relative.html", "relative_attributes/relative_attributes_v2.zip"
    )
    return rankbench.Download((url,), ".", "archive", most=2**30)
