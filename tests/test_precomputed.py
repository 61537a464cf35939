"""precomputed: every format gives the same rows, and what does not match is an error."""

import numpy as np
import pytest
from scipy.io import savemat
from simple_run import SimpleRun

import rankbench
from rankbench_features.precomputed import Precomputed

NAMES = ["b.png", "a.png", "c.png"]
VECTORS = np.array([[1, 2], [3, 4], [5, 6.5]])


def write(folder, kind):
    path = folder / f"vectors.{kind}"
    if kind == "npy":
        np.save(path, VECTORS)
    elif kind == "npz":
        np.savez(path, features=VECTORS, names=NAMES)
    elif kind == "mat":
        savemat(path, {"features": VECTORS, "names": np.array(NAMES, dtype=object)})
    else:
        lines = [f"{name},{x},{y}" for name, (x, y) in zip(NAMES, VECTORS, strict=True)]
        path.write_text("names,x,y\n" + "\n".join(lines) + "\n")
    (folder / "names.txt").write_text("\n".join(NAMES) + "\n")
    return path


def feature(path, **parameters):
    """As the core builds it: files know where they are."""
    files = {name: rankbench.File(value.name) for name, value in parameters.items() if name == "names_file"}
    built = Precomputed(rankbench.File(path.name), **{**parameters, **files})
    for file in (built.file, built.names_file):
        if file is not None:
            file.path = path.parent / file
    return built


def extract(built, names=("a.png", "b.png")):
    return built.extract(rankbench.Images.from_names(list(names)), SimpleRun())


@pytest.mark.parametrize("kind", ["npy", "npz", "mat", "csv"])
def test_every_format_gives_the_rows_by_name(tmp_path, kind):
    path = write(tmp_path, kind)
    extra = {"names_file": tmp_path / "names.txt"} if kind == "npy" else {}
    found = extract(feature(path, **extra))
    assert found.dtype == np.float32
    assert found.tolist() == [[3, 4], [1, 2]]


def test_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    import pandas as pd

    path = tmp_path / "vectors.parquet"
    pd.DataFrame({"id": NAMES, "x": VECTORS[:, 0], "y": VECTORS[:, 1]}).to_parquet(path)
    assert extract(feature(path, names="id")).tolist() == [[3, 4], [1, 2]]


def test_stems_match_across_folders_and_endings(tmp_path):
    path = write(tmp_path, "npz")
    assert extract(feature(path, match="stem"), ["photos/a.jpg"]).tolist() == [[3, 4]]
    with pytest.raises(rankbench.DataError, match="has no vector for 1 of 1 images"):
        extract(feature(path), ["photos/a.jpg"])


def test_names_that_do_not_match_are_named_with_the_nearest(tmp_path):
    with pytest.raises(rankbench.DataError) as raised:
        extract(feature(write(tmp_path, "npz")), ["a.png", "aa.png", "d.png"])
    said = str(raised.value)
    assert "has no vector for 2 of 3 images looked up, such as 'aa.png', 'd.png'; it names 3." in said
    assert "The nearest name there is 'a.png'." in said


def saved(folder, **arrays):
    np.savez(folder / "bad.npz", **arrays)
    return folder / "bad.npz"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"features": VECTORS}, "has no array 'names', only features"),
        ({"features": VECTORS, "names": ["a.png", "a.png", "b.png"]}, "names 'a.png' more than once"),
        ({"features": VECTORS[:2], "names": NAMES}, "holds 2 vectors and 3 names"),
        ({"features": VECTORS[:, 0], "names": NAMES}, r"must hold \(n, d\) numbers, not \(3,\)"),
        ({"features": np.full((3, 2), "x"), "names": NAMES}, "must hold .* numbers"),
        ({"features": VECTORS * np.nan, "names": NAMES}, "the vector of 'a.png' is not finite"),
        ({"features": VECTORS * 1e300, "names": NAMES}, "too large for float32"),
        ({"features": np.array([{}, {}, {}]), "names": NAMES}, "cannot be read"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_what_is_wrong_in_a_file_is_said(tmp_path, arrays, message):
    with pytest.raises(rankbench.DataError, match=message):
        extract(feature(saved(tmp_path, **arrays)))


def test_what_is_wrong_with_a_file_is_said(tmp_path):
    with pytest.raises(rankbench.MissingData, match="not found"):
        extract(feature(tmp_path / "none.npz"))
    (tmp_path / "vectors.txt").write_text("1 2")
    with pytest.raises(rankbench.DataError, match=r"features are read from \.npy, \.npz"):
        extract(feature(tmp_path / "vectors.txt"))
    (tmp_path / "broken.npz").write_text("no zip")
    with pytest.raises(rankbench.DataError, match="cannot be read"):
        extract(feature(tmp_path / "broken.npz"))
    with pytest.raises(rankbench.DataError, match="give names_file"):
        extract(feature(write(tmp_path, "npy")))
    with pytest.raises(rankbench.MissingData, match=r"other\.txt: not found"):
        extract(feature(write(tmp_path, "npy"), names_file=tmp_path / "other.txt"))
    (tmp_path / "new.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n")
    with pytest.raises(rankbench.DataError, match=r"version 7\.3; save it with -v7"):
        extract(feature(tmp_path / "new.mat"))
    (tmp_path / "table.csv").write_text("id,x\na.png,1\n")
    with pytest.raises(rankbench.DataError, match="has no column 'names', only id, x"):
        extract(feature(tmp_path / "table.csv"))


def test_a_table_with_words_among_the_numbers(tmp_path):
    (tmp_path / "table.csv").write_text("names,x\na.png,one\nb.png,2\n")
    with pytest.raises(rankbench.DataError, match="must hold"):
        extract(feature(tmp_path / "table.csv"))


def test_a_benchmark_reads_them(tmp_path):
    """Through the core: names reach the feature, images are never decoded, the file's content is in the key."""
    folder = tmp_path / "data" / "shoes"
    folder.mkdir(parents=True)
    scores, rng = np.arange(12), np.random.default_rng(0)
    names = [f"shoe-{score}.png" for score in scores]
    (folder / "images.csv").write_text(
        "path,score,split\n"
        + "".join(f"{n},{s},{'train' if s % 3 else 'test'}\n" for n, s in zip(names, scores, strict=True))
    )
    order = rng.permutation(12)
    np.savez(
        tmp_path / "data" / "v.npz", features=np.c_[scores, np.ones(12)][order] * 1.0, names=np.array(names)[order]
    )
    from PIL import Image

    for at, name in enumerate(names):
        Image.new("RGB", (2, 2), (at, 0, 0)).save(folder / name)
    text = """
        title = "Shoes"
        dataset = { name = "manifest", folder = "shoes" }
        metric = "pairwise-accuracy"
        [[column]]
        label = "All"
        [[row]]
        label = "Released"
        ranker = { name = "ranksvm", features = [{ name = "precomputed", file = "v.npz", normalize = "none" }] }
    """
    (tmp_path / "b.toml").write_text(text)
    places = {name: tmp_path / name for name in ("data", "results", "cache")}
    result = rankbench.run(tmp_path / "b.toml", in_process=True, quiet=True, device="cpu", **places)
    assert result.drawn().entries[0][0].value == 100.0
    (tmp_path / "data" / "v.npz").unlink()
    places["results"] = tmp_path / "other"
    assert rankbench.run(tmp_path / "b.toml", in_process=True, quiet=True, **places).cells[0].status == "missing data"
