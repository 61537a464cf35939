"""What every feature owes: size, finiteness, independence of neighbors, odd images; and the conformance kit."""

import numpy as np
import pytest
from simple_run import SimpleRun

import rankbench
from rankbench.testing import check_feature
from rankbench_features.cell_statistics import CellStatistics
from rankbench_features.color_histogram import ColorHistogram
from rankbench_features.gist import Gist
from rankbench_features.hog import Hog
from rankbench_features.lbp import Lbp

DIMENSIONS = {Hog: 9 + 36 + 9 * 36 + 49 * 36, Gist: 512, ColorHistogram: 1050, Lbp: 1239, CellStatistics: 768}
every_feature = pytest.mark.parametrize("kind", DIMENSIONS, ids=lambda kind: kind.__name__)


def drawn(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]


def extract(feature, arrays):
    return feature.extract(rankbench.Images.from_arrays(arrays), SimpleRun())


@every_feature
def test_size_and_type(kind):
    rows = extract(kind(), drawn([(40, 60), (64, 64)]))
    assert rows.shape == (2, DIMENSIONS[kind])
    assert rows.dtype == np.float32


@every_feature
def test_takes_grey_flat_tiny_oblong_and_large_images(kind):
    odd = drawn([(1, 1), (1, 300), (300, 2), (900, 1300)])
    odd += [np.zeros((50, 50, 3), np.uint8), np.full((50, 50, 3), 255, np.uint8)]
    assert np.isfinite(extract(kind(), odd)).all()


@every_feature
def test_a_row_is_the_same_alone_and_in_a_batch(kind):
    arrays = drawn([(48, 48)] * 5)
    together = extract(kind(), arrays)
    for row, array in enumerate(arrays):
        assert extract(kind(), [array])[0] == pytest.approx(together[row], abs=1e-6)


@every_feature
def test_tells_images_apart(kind):
    rows = extract(kind(), drawn([(64, 64)] * 2))
    assert np.abs(rows[0] - rows[1]).max() > 1e-3


@every_feature
def test_conforms(kind):
    check_feature(kind())


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        (Hog, {"grids": ()}, "grids"),
        (Hog, {"grids": (65,)}, "1 to 64 cells"),
        (Hog, {"orientations": 0}, "orientations"),
        (Gist, {"size": 8}, "at least 16"),
        (Gist, {"scales": 0}, "at least 1"),
        (ColorHistogram, {"grids": (0,)}, "1 to 64 cells"),
        (Lbp, {"size": 3}, "at least 6"),
        (CellStatistics, {"grids": (7,)}, "divide size 128"),
        (CellStatistics, {"ranks": 1}, "at least 2"),
    ],
)
def test_bad_parameters_are_named(kind, parameters, message):
    with pytest.raises(rankbench.DataError, match=message):
        kind(**parameters)
