"""Ridge regression of each image's score: learning the amount itself instead of the order of pairs."""

from dataclasses import dataclass, field

import numpy as np

import rankbench


@dataclass
class Ridge(rankbench.Ranker):
    """Least squares with a squared penalty, from features to the `score` column; the prediction ranks images.

    Minimises |y − Xw − b|² + alpha |w|², where y is the score standardised over the training images. Every training
    image with a finite score counts once, whether or not a pair names it; the pairs are not used.

    Args: features, what describes an image; alpha, the penalty, in units of the standardised score.
    """

    features: rankbench.Features = field(default_factory=lambda: rankbench.Features("hog"))
    alpha: float = 1.0

    seeded = False

    def fit(self, images, pairs, run):
        if "score" not in images.columns:
            raise rankbench.NotApplicable(
                "ridge needs a score of each image, and this dataset has none (the column `score`)"
            )
        if not (self.alpha > 0 and np.isfinite(self.alpha)):
            raise rankbench.DataError(f"ridge: alpha is {self.alpha}; a penalty is finite and above 0.")
        target = np.asarray(images.columns["score"], dtype=np.float64)
        if target.ndim != 1:
            raise rankbench.NotApplicable(f"ridge needs one score an image, not shape {target.shape}")
        known = np.isfinite(target)
        if len(np.unique(target[known])) < 2:
            raise rankbench.DataError("ridge: the training images' scores are all equal; there is nothing to predict.")
        x = np.asarray(run.features(images, self.features)[:], dtype=np.float64)[known]
        bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
        if len(bad):
            raise rankbench.DataError(
                f"ridge: features that are not finite, of {len(bad)} of {len(x)} images (first: {bad[0]})."
            )
        from sklearn.linear_model import Ridge as LeastSquares

        y = (target[known] - target[known].mean()) / target[known].std()
        model = LeastSquares(alpha=self.alpha, solver="cholesky").fit(x, y)
        self.weights_, self.intercept_ = model.coef_, float(model.intercept_)
        return self

    def score(self, images, run):
        rows = run.features(images, self.features)
        blocks = (block.astype(np.float64) @ self.weights_ + self.intercept_ for block in rows.blocks(4096))
        return np.concatenate([np.zeros(0), *blocks])
