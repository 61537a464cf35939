"""virality: Reddit images by virality, with the votes and predictions that Deza & Parikh released."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

import rankbench
from rankbench_datasets import virality_files as files
from rankbench_datasets.listed_images import images_need, lacking, names_there, pictures
from rankbench_datasets.sampling import pairs_by_score, seeded, split_images

GET_IMAGES = "`rankbench data fetch virality`, or the images as images/<img_id>.jpg (they may be gone from their host)"
OVERLAP = "published protocol: the 80:20 split is over all images, so that test images are in training too"
VOTES = ((1050, 1020, 2969), (1236, 1258, 2545), (686, 630, 3723), (368, 326, 4345), (312, 319, 4408))


@dataclass(frozen=True)
class Virality(rankbench.Dataset):
    """Reddit images by virality: three test sets, votes on five attributes, and shipped attribute predictions.

    Source: Deza & Parikh, "Understanding image virality", CVPR 2015, arturodeza.github.io/virality; submissions,
    Lakkaraju et al., ICWSM 2013. Test sets and sizes: Dubey & Agarwal, ACM MM 2017.
    Licence: annotations simplified BSD, (c) 2015 Arturo Deza (github.com/ArturoDeza/virality). The images are content
    of Reddit's users without a licence, and some are not safe for work.
    Layout: `virality/` as in the repository (or its files in one folder), and `virality/images/<img_id>.jpg`. Column
    `score` is the virality score. Rows that read only inputs need no images. Images that are not there are left out
    with their pairs, and a note says how many; more than 5 % lacking is missing data.
    Protocol: 10,078 images. Tests: `viral-complete`, 1,000,000 pairs drawn from the test images of an 80:20 split;
    `viral-pairs`, the 250 highest against the 250 lowest scores, one to one by a fixed permutation, as the published
    pairing was not released; `viral-pairs-all`, all 62,500 of these pairs; `viral-random-pairs`, the 489 released pairs
    of an extreme image and a random one from the other side of the median. Training: 10,000,000 pairs drawn from the
    training images; equal scores make no pair; facet `split` numbers the random splits. `strict` takes the 978 images
    of the released tests out first, so that no test image is ever a training image. `paper` splits all images, as
    published: test images are in training, and tables say so. `released` is Deza & Parikh's own: one problem, the 489
    pairs against the 4,550 other pairs of the release.
    A released pair's inputs: `attribute_votes` (n, 5), +1 where the left image was voted to be more animal,
    synthetically generated, beautiful, explicit and sexual; in the test also `predicted_attributes`, the classes that
    the released SVMs gave.
    Known problems: the score is mostly the number of submissions; among images submitted seldom, more votes mean a
    lower score. The released SVMs saw every pair as viral minus other, in training and in test, so their class bias
    tells the label. The paper's splits and drawn pairs were not released. About 100 image files are known to be broken.

    Args: protocol; splits, how many random splits; train_pairs and test_pairs, how many are drawn (more than there are:
        all); extremes, images at each end of `viral-pairs`; seed, of splits and draws.
    """

    protocol: Literal["strict", "paper", "released"] = "strict"
    splits: int = 3
    train_pairs: int = 10_000_000
    test_pairs: int = 1_000_000
    extremes: int = 250
    seed: int = 0

    folder = "virality"
    get = files.GET

    def __post_init__(self):
        if self.splits < 1 or self.extremes < 1 or self.seed < 0:
            raise rankbench.DataError("virality: splits and extremes are at least 1, and seed is not negative.")

    def facets(self, root):
        return [{}] if self.protocol == "released" else [{"split": split} for split in range(self.splits)]

    def needs(self, root):
        names = (files.PAIRS, files.TEST_PAIRS, files.SIDES, files.VOTES, files.SCORES)
        paths = [files.located(root, name) for name in names]
        for number, (split, result) in enumerate(files.prediction_files(root)):
            folder = root / files.RELATIVE / files.FOLDERS[number]
            paths += [split, result or folder / "SVM_Result_*.mat"]
        needs = [rankbench.Need(path, path.exists(), f"get {files.GET}") for path in paths]
        return [*needs, images_need(root / "images", lambda: listed(root), GET_IMAGES)]

    def problem(self, root, facets):
        if dict(facets) not in self.facets(root):
            raise rankbench.DataError(
                f"virality ({self.protocol}) has no problem {dict(facets)}; its facets are {self.facets(root)}."
            )
        judged, records = files.read_pairs(root), files.read_records(root)
        check_known(root, judged, records.ids)
        there, note = names_there(root / "images", file_names(records.ids))
        pictures = Pictures(root / "images", records, there)
        test = pictures.as_judged(judged, judged.test, files.read_predictions(root))
        if self.protocol == "released":
            train, tests, chosen = pictures.as_judged(judged, ~judged.test), {}, None
        else:
            train, tests, chosen = self._drawn(records.scores, there, tested(judged, records.ids), facets["split"])
            train, chosen = train.reindexed(pictures.row), pictures.row[chosen]
            tests = {name: pairs.reindexed(pictures.row) for name, pairs in tests.items()}
        tests["viral-random-pairs"] = test
        if note and not all(map(len, (train, *tests.values()))):
            gone = lacking(file_names(records.ids), there)
            raise rankbench.MissingData(f"{root / 'images'}: {gone}, and no pair of a test is left without them.")
        return rankbench.Problem(
            pictures.images,
            train,
            tests,
            facets,
            train_images=chosen,
            overlap=OVERLAP if self.protocol == "paper" else None,
            notes=note,
        )

    def _drawn(self, scores, there, tested, split):
        """Training pairs, drawn tests and training rows, as rows of the records; without the images that are not there.

        The split is drawn before images are left out, so that it does not depend on them.
        """
        by_score = np.argsort(scores, kind="stable")
        low, high = by_score[: self.extremes], by_score[-self.extremes :]
        pool = np.arange(len(scores))
        if self.protocol == "strict":
            pool = np.setdiff1d(pool, np.concatenate([tested, low, high]))
        rng = seeded(self.seed, split)
        train, test = (pool[part] for part in split_images(len(pool), 0.2, rng))
        high = seeded(self.seed).permutation(high)
        both = there[low] & there[high]
        low_all, high_all = (part.ravel() for part in np.meshgrid(low[there[low]], high[there[high]]))
        train = train[there[train]]
        drawn = pairs_by_score(scores, train, self.train_pairs, 0, rng)
        tests = {
            "viral-complete": pairs_by_score(scores, test[there[test]], self.test_pairs, 0, rng),
            "viral-pairs": rankbench.Pairs(high[both], low[both], np.ones(both.sum(), np.int8)),
            "viral-pairs-all": rankbench.Pairs(high_all, low_all, np.ones(len(low_all), np.int8)),
        }
        return drawn, tests, train

    def published(self, facets):
        counts = {"images": 10_078, "viral-random-pairs pairs": 489, "viral-random-pairs images": 978}
        if self.protocol == "released":
            return counts | {"train pairs": 4_550, "train images": 9_100, "train ties": 0}
        if self.extremes != 250:  # of which the pools of the drawn pairs depend too
            return counts | {"train ties": 0}
        drawn = {"train pairs": (self.train_pairs, 10_000_000), "viral-complete pairs": (self.test_pairs, 1_000_000)}
        counts |= {name: wanted for name, (wanted, published) in drawn.items() if wanted <= published}
        return counts | {"train ties": 0, "viral-pairs pairs": 250, "viral-pairs-all pairs": 62_500}

    def counts(self, root):
        judged, records = files.read_pairs(root), files.read_records(root)
        found = [rankbench.Count("released pairs", len(judged.viral), 5_039)]
        for at, (name, published) in enumerate(zip(files.ATTRIBUTES, VOTES, strict=True)):
            for sign, said, number in zip((1, -1, 0), ("more", "less", "equal"), published, strict=True):
                found.append(rankbench.Count(f"votes {name}: {said}", int((judged.votes[:, at] == sign).sum()), number))
        return [*found, *files.score_counts(root, records), *files.extreme_counts(root, records)]

    def downloads(self, root):
        annotations = rankbench.Download(
            ("https://github.com/ArturoDeza/virality/archive/HEAD.zip",), ".", "archive", most=2**30, strip=True
        )
        found = [] if all(need.found for need in self.needs(root) if not need.images) else [annotations]
        if not files.located(root, files.SCORES).is_file():
            return found
        records = files.read_records(root)
        links = zip(records.ids.tolist(), records.links, strict=True)
        return [*found, *(rankbench.Download((link,), f"images/{image}.jpg", "image") for image, link in links)]


def listed(root):
    """Names of the image files that the release speaks of; none where it cannot be read, which `problem` reports."""
    path = files.located(root, files.PAIRS)
    try:
        return file_names(np.sort(files.variable(path, "pair_matrix_spot", (None, 2)).ravel()))
    except rankbench.DataError:
        return []


def file_names(ids):
    return [f"{image}.jpg" for image in ids.tolist()]


def check_known(root, judged, ids):
    """DataError for a released pair with an image that the metadata lacks."""
    for pair in (judged.viral, judged.other):
        unknown = pair[~np.isin(pair, ids)]
        if len(unknown):
            raise rankbench.DataError(
                f"{files.located(root, files.SCORES)}: has no image {unknown[0]}, which {files.PAIRS} names."
            )


def tested(judged, ids):
    """Rows of the images of the released test pairs."""
    return np.searchsorted(ids, np.concatenate([judged.viral[judged.test], judged.other[judged.test]]))


class Pictures:
    """The images that are there, by their files where there is a folder of them, else all by name alone.

    Attributes: images; row (n,), of each record, its image (−1: not there).
    """

    def __init__(self, folder, records, there):
        self.ids, self.there = records.ids, there
        self.row = np.where(there, np.cumsum(there) - 1, -1)
        names, columns = file_names(records.ids[there]), {"score": records.scores[there]}
        self.images = pictures(folder, names, columns=columns)

    def as_judged(self, judged, chosen, predicted=None):
        """The chosen released pairs as annotators saw them, with their evidence."""
        viral, other = (np.searchsorted(self.ids, one) for one in (judged.viral, judged.other))
        chosen = chosen & self.there[viral] & self.there[other]
        left, viral, other = judged.left[chosen], self.row[viral[chosen]], self.row[other[chosen]]
        inputs = {"attribute_votes": judged.votes[chosen]}
        if predicted is not None:
            lacking = [image for image in judged.viral[chosen].tolist() if image not in predicted]
            if lacking:
                raise rankbench.DataError(f"virality: the shipped predictions lack the test image {lacking[0]}.")
            of_viral = np.stack([predicted[image] for image in judged.viral[chosen].tolist()])
            inputs["predicted_attributes"] = np.where(left[:, None], of_viral, -of_viral).astype(np.int8)
        return rankbench.Pairs(
            np.where(left, viral, other),
            np.where(left, other, viral),
            np.where(left, 1, -1),
            inputs=inputs,
            sided=dict.fromkeys(inputs, "negate"),
        )
