"""Targets of a regression: the `score` column, standardised."""

import numpy as np

import rankbench


def standardised(images, target, title):
    """(k,) standardised targets of the images with a finite score, and (n,) which those are.

    Args: target, "score", or "rank" of the score; title, of the ranker, for messages.
    Raises: NotApplicable without a score an image; DataError where all are equal.
    """
    if "score" not in images.columns:
        raise rankbench.NotApplicable(
            f"{title} needs a score of each image, and this dataset has none (the column `score`)"
        )
    score = np.asarray(images.columns["score"], dtype=np.float64)
    if score.ndim != 1:
        raise rankbench.NotApplicable(f"{title} needs one score an image, not shape {score.shape}")
    known = np.isfinite(score)
    score = score[known]
    if len(np.unique(score)) < 2:
        raise rankbench.DataError(f"{title}: the training images' scores are all equal; there is nothing to predict.")
    if target == "rank":
        from scipy.stats import rankdata

        score = rankdata(score)
    return (score - score.mean()) / score.std(), known
