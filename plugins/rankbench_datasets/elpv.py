"""elpv: photographs of solar cells, as shipped by the Python package `elpv-dataset`."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import rankbench
from rankbench_datasets.sampling import pairs_by_score, seeded, split_images

SPLITS = 5
TEST_SHARE = 0.2
SEED = 20180  # of the splits and of the training pairs; the five splits differ by their number
GET = "pip install elpv-dataset (2,624 photographs, 90 MB, CC BY-NC-SA 4.0)"


@dataclass(frozen=True)
class Elpv(rankbench.Dataset):
    """Solar cells by defect likelihood: 2,624 photographs, five random 80:20 image splits.

    Electroluminescence photographs (300 × 300 px, grey) of solar cells cut from 44 modules, with the likelihood of a
    defect as judged by experts (0, 1/3, 2/3, 1; the `score` column) and the cell type (mono, poly; `category`).

    Source: the package `elpv-dataset` on the Python package index (github.com/zae-bayern/elpv-dataset).
    Licence: CC BY-NC-SA 4.0. Cite: Buerhop-Lutz et al., EU PVSEC 2018; Deitsch et al., Solar Energy 185, 2019; Deitsch
    et al., Machine Vision and Applications 32, 2021.
    Layout: none to keep; the images lie in the installed package.
    Protocol: ours, as the source ranks nothing. Facet `split` = 0..4, each a random 80:20 split of the images (2,099
    and 525). Tests are all ordered pairs of the test images. Training pairs are drawn uniformly and without repeats
    from the ordered pairs of the training images, and `train_ties` more from those of equal likelihood. `train_images`
    names every training image.
    Known problems: which cells come from one module is not published, so that a module's cells are on both sides of
    every split; four levels leave 43 % of all pairs tied; defects are commoner in mono cells, so the cell type alone
    tells a little.

    Args: train_pairs, ordered training pairs a split; train_ties, tied ones beside them. A number above what there is
    means all of them.
    """

    train_pairs: int = 20_000
    train_ties: int = 2_000

    folder = ""

    def published(self, facets):
        return {"images": 2_624, "train images": 2_099, "test images": 525}

    def facets(self, root):
        return [{"split": split} for split in range(SPLITS)]

    def needs(self, root):
        home = package_folder()
        paths = [home / "labels.csv", home / "images"]
        return [rankbench.Need(path, path.exists(), GET) for path in paths]

    def problem(self, root, facets):
        if dict(facets) not in self.facets(root):
            raise rankbench.DataError(f"elpv has no problem {dict(facets)}; splits are 0 to {SPLITS - 1}.")
        paths, scores, kinds = read_labels(package_folder() / "labels.csv")
        rng = seeded(SEED, facets["split"])
        train, test = split_images(len(paths), TEST_SHARE, rng)
        return rankbench.Problem(
            rankbench.Images(paths, columns={"score": scores, "category": kinds}),
            pairs_by_score(scores, train, self.train_pairs, self.train_ties, rng),
            pairs_by_score(scores, test),
            facets,
            train_images=train,
        )


def package_folder():
    """Folder with labels.csv, found without importing the package; a path relative to nowhere if it is not there."""
    spec = importlib.util.find_spec("elpv_dataset")
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0] if places else "elpv_dataset") / "data"


def read_labels(file):
    """Image paths, scores (n,) in {0, 1/3, 2/3, 1} and cell types, in the file's order."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise rankbench.MissingData(f"{file}: {error.strerror}. {GET}") from error
    paths, thirds, kinds = [], [], []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            path, likelihood, kind = line.split()
            third = 3 * float(likelihood)
        except ValueError:
            third = kind = None
        if kind not in ("mono", "poly") or not (0 <= third <= 3) or abs(third - round(third)) > 0.01:
            raise rankbench.DataError(
                f"{file}, line {number}: {line.strip()!r} is not an image, a likelihood in {{0, 1/3, 2/3, 1}} and mono "
                "or poly. Install the package again: pip install --force-reinstall elpv-dataset"
            )
        paths.append(file.parent / path)
        thirds.append(round(third))
        kinds.append(kind)
    return paths, np.array(thirds) / 3, kinds
