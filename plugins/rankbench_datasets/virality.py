"""virality: Reddit images by virality, with the votes and predictions that Deza & Parikh released."""

from dataclasses import dataclass

import numpy as np

import rankbench
from rankbench_datasets import virality_files as files

GET_IMAGES = "the images by the links in viral_datasetV2.mat, as images/<img_id>.jpg (they may be gone from their host)"


@dataclass(frozen=True)
class Virality(rankbench.Dataset):
    """Reddit images by virality: the released pairs, votes on five attributes, and shipped attribute predictions.

    Source: Deza & Parikh, "Understanding image virality", CVPR 2015; github.com/ArturoDeza/virality (simplified BSD).
    The images carry no licence, and some are not safe for work.
    Layout: `virality/` as in the repository (or its files in one folder), and `virality/images/<img_id>.jpg`. Column
    `score` is the virality score. Rows that read only inputs need no images.
    Protocol: 10,078 images in 5,039 pairs, one above the median score and one below. Test `viral-random-pairs`: the 489
    pairs that hold the 500 most extreme images; training: the other 4,550, whose images are in no test pair. A pair's
    inputs: `attribute_votes` (n, 5), +1 where the left image was voted to be more animal, synthetically generated,
    beautiful, explicit and sexual; in the test also `predicted_attributes`, the classes that the released SVMs gave.
    Known problems: the score is mostly the number of submissions; among images submitted seldom, more votes mean a
    lower score. The released SVMs saw every pair as viral minus other, in training and in test, so their class bias
    tells the label.
    """

    folder = "virality"
    get = files.GET

    def facets(self, root):
        return [{}]

    def needs(self, root):
        names = (files.PAIRS, files.TEST_PAIRS, files.SIDES, files.VOTES, files.SCORES)
        paths = [files.located(root, name) for name in names]
        for number, (split, result) in enumerate(files.prediction_files(root)):
            folder = root / files.RELATIVE / files.FOLDERS[number]
            paths += [split, result or folder / "SVM_Result_*.mat"]
        needs = [rankbench.Need(path, path.exists(), files.GET) for path in paths]
        images = root / "images"
        return [*needs, rankbench.Need(images, images.is_dir(), GET_IMAGES, images=True)]

    def problem(self, root, facets):
        if facets:
            raise rankbench.DataError(f"virality has one problem, without facets; not {dict(facets)}.")
        judged, (ids, scores) = files.read_pairs(root), files.read_scores(root)
        order = np.argsort(ids)
        ids, scores = ids[order], scores[order]
        for pair in (judged.viral, judged.other):
            unknown = pair[~np.isin(pair, ids)]
            if len(unknown):
                raise rankbench.DataError(
                    f"{files.located(root, files.SCORES)}: has no image {unknown[0]}, which {files.PAIRS} names."
                )
        train = as_pairs(judged, ~judged.test, ids)
        test = as_pairs(judged, judged.test, ids, files.read_predictions(root))
        return rankbench.Problem(pictures(root / "images", ids, scores), train, {"viral-random-pairs": test})


def as_pairs(judged, chosen, ids, predicted=None):
    """The chosen pairs as annotators saw them, with their evidence."""
    left = judged.left[chosen]
    viral, other = (np.searchsorted(ids, one[chosen]) for one in (judged.viral, judged.other))
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


def pictures(folder, ids, scores):
    """The images, by their files where there is a folder of them, else by name alone."""
    names, columns = [f"{image}.jpg" for image in ids], {"score": scores}
    if folder.is_dir():
        return rankbench.Images([folder / name for name in names], columns=columns)
    return rankbench.Images.from_names(names, columns=columns)
