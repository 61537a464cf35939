"""viral-categories: images of five subreddits, rebuilt from the submissions that Deza & Parikh released."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

import rankbench
from rankbench_datasets import virality_files as files
from rankbench_datasets.listed_images import images_need, lacking, names_there, pictures
from rankbench_datasets.virality import GET_IMAGES, file_names, tested

CATEGORIES = ("funny", "WTF", "aww", "atheism", "gaming")
EXCLUSIVE = (4_683, 521, 428, 166, 232)


@dataclass(frozen=True)
class ViralCategories(rankbench.Dataset):
    """Images of five subreddits (funny, WTF, aww, atheism, gaming) and their category; no pairs.

    For category networks: name it in a feature's `fit_on`.
    Source: Deza & Parikh, "Understanding image virality", CVPR 2015, whose 425 images (85 a category) are not in the
    release; these are rebuilt from its csv files.
    Licence: as `virality`: annotations simplified BSD, images without a licence.
    Layout: that of `virality`, in its folder: `Create_Dataset_Code/*.csv`, `viral_datasetV2.mat` and
    `images/<img_id>.jpg`.
    Protocol: an image's score in a subreddit is the largest of its submissions there. `balanced85`: of the images whose
    best score is at least twice that in any other of the five, the 85 best a category. `all`: every image submitted to
    one of the five alone, so that categories are of unequal size. Columns: `category`, and `score`, the best score.
    `strict` leaves out the images of the released virality tests; `paper` does not.
    Known problems: the published selection (a ratio of virality scores) is described in a sentence only, so the images
    are not the same ones.

    Args: select; per_category, how many `balanced85` takes; protocol.
    """

    select: Literal["balanced85", "all"] = "balanced85"
    per_category: int = 85
    protocol: Literal["strict", "paper"] = "strict"

    folder = "virality"
    get = files.GET

    def facets(self, root):
        return [{}]

    def needs(self, root):
        names = [files.SCORES, *files.SUBMISSIONS.values()]
        names += [files.PAIRS, files.TEST_PAIRS, files.SIDES, files.VOTES] if self.protocol == "strict" else []
        paths = [files.located(root, name) for name in names]
        needs = [rankbench.Need(path, path.is_file(), f"get {files.GET}") for path in paths]
        lacking = not all(need.found for need in needs)

        def listed():
            return [] if lacking else file_names(files.read_records(root).ids[self._choose(root)[0]])

        return [*needs, images_need(root / "images", listed, GET_IMAGES)]

    def problem(self, root, facets):
        if facets:
            raise rankbench.DataError(f"viral-categories has one problem, without facets; not {dict(facets)}.")
        rows, category, score = self._choose(root)
        ids = files.read_records(root).ids[rows]
        there, note = names_there(root / "images", file_names(ids))
        if note and not there.any():
            raise rankbench.MissingData(f"{root / 'images'}: {lacking(file_names(ids), there)}. Get {GET_IMAGES}.")
        if not there.any():
            raise rankbench.DataError(f"{root}: no image is left in any of the categories {', '.join(CATEGORIES)}.")
        names = file_names(ids[there])
        columns = {"category": np.array(CATEGORIES)[category[there]], "score": score[there]}
        images = pictures(root / "images", names, columns=columns)
        return rankbench.Problem(images, train_images=np.arange(len(names)), notes=note)

    def _choose(self, root):
        """Rows of the chosen records, ascending, their category and best score."""
        records = files.read_records(root)
        best = category_scores(files.read_submissions(root), records.ids)
        category, ranked = best.argmax(axis=1), np.sort(best, axis=1)
        top, second = ranked[:, -1], ranked[:, -2]
        chosen = np.isfinite(top)
        if self.protocol == "strict":
            chosen[tested(files.read_pairs(root), records.ids)] = False
        if self.select == "all":
            chosen &= ~np.isfinite(second)
        else:
            chosen &= (top > 0) & (top >= 2 * np.maximum(second, 0))
            for number in range(len(CATEGORIES)):
                rows = np.flatnonzero(chosen & (category == number))
                rows = rows[np.argsort(-top[rows], kind="stable")]
                chosen[rows[self.per_category :]] = False
        rows = np.flatnonzero(chosen)
        return rows, category[rows], top[rows]

    def published(self, facets):
        if self.select == "balanced85":
            return {"images": 425} if self.per_category == 85 else {}
        return {"images": 6_030} if self.protocol == "paper" else {}

    def counts(self, root):
        best = category_scores(files.read_submissions(root), files.read_records(root).ids)
        there = np.isfinite(best)
        alone = there & (there.sum(axis=1) == 1)[:, None]
        return [
            rankbench.Count("images in the five subreddits", int(there.any(axis=1).sum()), 8_921),
            rankbench.Count("images in one of them alone", int(alone.sum()), 6_030),
            *(
                rankbench.Count(f"images in {name} alone", int(alone[:, at].sum()), EXCLUSIVE[at])
                for at, name in enumerate(CATEGORIES)
            ),
        ]


def category_scores(submissions, ids):
    """(n, 5) the largest score of an image's submissions in each category, −inf where it has none."""
    best = np.full((int(max(submissions.image.max(), ids.max())) + 1, len(CATEGORIES)), -np.inf)
    for at, name in enumerate(CATEGORIES):
        mine = submissions.subreddit == name
        np.maximum.at(best[:, at], submissions.image[mine], submissions.score[mine])
    return best[ids]
