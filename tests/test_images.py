"""Images: decoding, digests, what a view withholds, and every message for wrong input."""

import errno
import hashlib
import struct
import time
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

import rankbench
from rankbench.errors import PluginError, UnreadableImage
from rankbench.images import array_bytes, digest_order, frozen
from rankbench.worker import checked

NOISE = np.random.default_rng(0).integers(0, 256, (4, 5, 7, 3), dtype=np.uint8)


def write(folder, names, arrays=NOISE):
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in names]
    for path, array in zip(paths, arrays, strict=False):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
    return paths


# ------------------------------------------------------------------------------------------------------- decoding


def test_files_decode_when_indexed_as_read_only_rgb(tmp_path):
    images = rankbench.Images(write(tmp_path, ["a.png", "b.png"]))
    assert (len(images), images.names) == (2, ("a.png", "b.png"))
    assert np.array_equal(images[1], NOISE[1])
    assert np.array_equal(images[-1], NOISE[1])
    assert [image.shape for image in images] == [(5, 7, 3)] * 2
    with pytest.raises(ValueError, match="read-only"):
        images[0][0, 0, 0] = 1
    with pytest.raises(IndexError, match="image 2 of 2"):
        images[2]
    assert len(images[1:]) == 1


def test_nothing_is_opened_before_it_is_asked_for(tmp_path):
    images = rankbench.Images([tmp_path / "absent.png"])
    assert len(images) == 1
    with pytest.raises(rankbench.DataError, match=r"absent\.png: cannot be read \(No such file"):
        images[0]
    with pytest.raises(rankbench.DataError, match=r"absent\.png: No such file.*The dataset lists this image"):
        _ = images.digests


def test_every_mode_becomes_rgb(tmp_path):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "grey.png")
    Image.fromarray(ramp.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(ramp > 127).save(tmp_path / "bits.png")
    Image.fromarray(ramp).convert("P").save(tmp_path / "palette.gif")
    clear = np.zeros((16, 16, 4), np.uint8)
    clear[8:, :, 3] = 255  # the lower half is black, the upper one transparent
    Image.fromarray(clear).save(tmp_path / "clear.png")
    images = rankbench.Images([tmp_path / n for n in ("grey.png", "deep.png", "bits.png", "palette.gif", "clear.png")])
    expected = [ramp, ramp, np.where(ramp > 127, 255, 0), ramp, np.repeat([255, 0], 128).reshape(16, 16)]
    for image, values in zip(images, expected, strict=True):
        assert image.dtype == np.uint8
        assert np.array_equal(image, np.repeat(values[:, :, None], 3, axis=2))


def test_exif_rotation_is_a_policy_and_part_of_the_fingerprint(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored a quarter turn to the left
    Image.fromarray(NOISE[0]).save(tmp_path / "turned.png", exif=exif)
    as_stored = rankbench.Images([tmp_path / "turned.png"])
    upright = rankbench.Images([tmp_path / "turned.png"], exif=True)
    assert np.array_equal(as_stored[0], NOISE[0])
    assert np.array_equal(upright[0], np.rot90(NOISE[0], -1))
    assert as_stored.fingerprint != upright.fingerprint


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("ending", ["png", "jpg", "gif", "bmp", "tif", "webp", "ppm"])
def test_whatever_is_broken_in_a_file_it_is_an_unreadable_image(tmp_path, ending):
    path = tmp_path / f"broken.{ending}"
    Image.fromarray(NOISE[0]).resize((40, 30)).save(path)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refused, said = 0, set()
    for _ in range(60):
        broken = bytearray(whole[: rng.integers(1, len(whole))] if rng.random() < 0.5 else whole)
        for at in rng.integers(0, min(len(broken), 120), 4):
            broken[at] = rng.integers(256)
        path.write_bytes(bytes(broken))
        try:
            assert rankbench.Images([path])[0].ndim == 3
        except UnreadableImage as error:
            refused += 1
            said.add((str(error).startswith(f"{path}: cannot be decoded ("), str(error)[-21:]))
    assert refused > 10
    assert said == {(True, "Replace or remove it.")}


def test_drawn_images_are_checked_and_broken_packaged_ones_unreadable():
    digests = [hashlib.sha256(bytes([k])).digest() for k in range(3)]

    def draw(row):
        if row == 2:
            raise OSError("image file is truncated")
        return NOISE[0] if row == 0 else NOISE[0].astype(float)

    images = rankbench.Images.from_decoder(digests, draw)
    assert np.array_equal(images[0], NOISE[0])
    assert images.digests.tobytes() == b"".join(digests)
    with pytest.raises(rankbench.DataError, match=r"image 1 must be \(H, W, 3\) uint8 RGB, not \(5, 7, 3\) float64"):
        images[1]
    with pytest.raises(UnreadableImage, match=r"image 2: cannot be decoded .*truncated"):
        images[2]
    assert images.describe(1) == "image 1"


def test_names_alone_have_digests_but_no_pixels():
    images = rankbench.Images.from_names(["b", "a"], columns={"score": [1.0, 2.0]})
    same = rankbench.Images.from_names(["a", "b"])
    assert not images.has_content
    assert np.array_equal(images.digests, same.digests[::-1])
    assert images.describe(0) == "b"
    with pytest.raises(
        rankbench.NotApplicable, match=r"^this image has a name but no pixels here$"
    ):  # its name may tell the answer
        images[0]


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_arrays_must_be_rgb(array):
    with pytest.raises(rankbench.DataError, match=r"image 0 must be \(H, W, 3\) uint8 RGB"):
        rankbench.Images.from_arrays([array])


def test_what_was_given_as_an_array_cannot_be_written_through():
    images = rankbench.Images.from_arrays(list(NOISE), columns={"score": np.arange(4.0)})
    for array in (images[0], images.columns["score"], images.digests, images.take([0]).digests):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    with pytest.raises(TypeError):
        images.columns["score"] = None
    assert (images.describe(2), images.names, images.has_content) == ("array 2", None, True)


# ------------------------------------------------------------------------------------------------ names and views


def test_names_default_to_file_names_or_to_what_tells_the_paths_apart(tmp_path):
    apart = rankbench.Images(write(tmp_path, ["x/1.png", "y/1.png", "y/2.png"]))
    assert apart.names == ("x/1.png", "y/1.png", "y/2.png")
    given = rankbench.Images([tmp_path / "x" / "1.png"], names=["cat"])
    assert given.names == ("cat",)
    assert given.describe(0) == str(tmp_path / "x" / "1.png")


def test_names_must_be_unique_and_complete():
    with pytest.raises(rankbench.DataError, match=r"2 images need 2 unique names; got 1\. 'a' stands there twice"):
        rankbench.Images(["p", "q"], names=["a", "a"])
    with pytest.raises(rankbench.DataError, match=r"2 images need 2 unique names; got 1\.$"):
        rankbench.Images(["p", "q"], names=["a"])


def test_a_view_keeps_rows_and_withholds_the_rest(tmp_path):
    images = rankbench.Images(
        write(tmp_path, ["a.png", "b.png", "c.png"]),
        columns={"score": [1, 2, 3], "kind": ["x", "y", "z"]},
        inputs={"votes": np.arange(6).reshape(3, 2)},
        exif=True,
    )
    view = images.take([2, 0], names=False, columns=("score",), inputs=())
    assert (view.names, dict(view.inputs), view.exif) == (None, {}, True)
    assert view.columns["score"].tolist() == [3, 1]
    assert np.array_equal(view[0], NOISE[2])
    assert np.array_equal(view.digests, images.digests[[2, 0]])
    whole = images.take(np.array([True, False, True]))
    assert (whole.names, whole.columns["kind"].tolist()) == (("a.png", "c.png"), ["x", "z"])
    assert whole.inputs["votes"].tolist() == [[0, 1], [4, 5]]


def test_a_view_without_names_does_not_say_where_an_image_came_from(tmp_path):
    images = rankbench.Images(write(tmp_path, ["open-country.png", "street.png"]))
    view = images.take([1, 0], names=False)
    assert [view.describe(0), view.take([1]).describe(0)] == ["image 0", "image 0"]
    arrays = rankbench.Images.from_arrays(list(NOISE)).take([3, 1], names=False)
    assert arrays.describe(0) == "image 0"  # not row 3 of the dataset's own listing


def test_a_column_that_is_not_there_or_withheld_is_explained():
    images = rankbench.Images.from_arrays(
        list(NOISE), columns={"score": np.arange(4.0)}, inputs={"votes": np.arange(4)}
    )
    with pytest.raises(KeyError, match=r"there is no 'scores'\. Did you mean 'score'. There are: score"):
        images.columns["scores"]
    with pytest.raises(KeyError, match=r"there is no 'x'\. There are: none"):
        rankbench.Images.from_arrays(list(NOISE)).inputs["x"]
    bare = images.take([0, 1], columns=(), inputs=()).take([0])
    with pytest.raises(KeyError, match="'score' is not given here: columns go to the `fit` of a ranker"):
        bare.columns["score"]
    with pytest.raises(KeyError, match="'votes' is not given here: a plugin is given the inputs it names"):
        bare.inputs["votes"]
    assert bare.columns.get("score") is None
    assert "score" not in bare.columns
    assert bare.fingerprint == rankbench.Images.from_arrays(list(NOISE)[:1]).fingerprint


# ------------------------------------------------------------------------------------------------ digests, columns


def test_digests_are_those_of_file_contents_unless_given(tmp_path):
    paths = write(tmp_path, ["a.png", "b.png"])
    read = rankbench.Images(paths).digests
    assert read.tobytes() == b"".join(hashlib.sha256(path.read_bytes()).digest() for path in paths)
    given = np.arange(64, dtype=np.uint8).reshape(2, 32)
    assert np.array_equal(rankbench.Images(["no", "file"], digests=given).digests, given)


@pytest.mark.parametrize(
    ("digests", "got"),
    [
        (np.zeros((1, 32), np.uint8), r"\(1, 32\) uint8"),
        (np.zeros((2, 32)), r"\(2, 32\) float64"),
        ([b"x" * 32, b"x" * 31], "2 byte strings of length 31, 32"),
        ([b"x" * 32], "1 byte strings of length 32"),
    ],
)
def test_digests_of_the_wrong_shape(digests, got):
    with pytest.raises(rankbench.DataError, match=rf"digests must be \(2, 32\) uint8.*got {got}"):
        rankbench.Images(["a", "b"], digests=digests)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([1, 2], r"images.columns 'c' has shape \(2,\); its first dimension must be 3"),
        (5, r"images.columns 'c' has shape \(\); its first dimension must be 3"),
        ([1j, 2j, 3j], "images.columns 'c': values of type complex128 cannot be stored"),
        ([[1], [1, 2], [3]], "images.columns 'c': rows of unequal length make no array"),
        (np.array(["2020", "2021", "2022"], "M8[Y]"), "cannot be stored; use numbers, booleans or strings"),
    ],
)
def test_columns_that_cannot_be_kept(column, message):
    with pytest.raises(rankbench.DataError, match=message):
        rankbench.Images(["a", "b", "d"], columns={"c": column})


@pytest.mark.parametrize(
    ("values", "kind"),
    [(["b", "aa"], "U"), ([1, np.int8(2)], "i"), ([1, 2.5], "f"), ([True, np.False_], "b"), ([b"x"], "S"), ([], "U")],
)
def test_objects_of_one_kind_as_pandas_gives_them_become_an_array_of_it(values, kind):
    found = frozen(np.array(values, dtype=object), "x")
    assert (found.dtype.kind, found.tolist()) == (kind, values)
    assert frozen(np.array([["a"], ["b"]], dtype=object), "x").tolist() == [["a"], ["b"]]


@pytest.mark.parametrize(
    ("values", "types"),
    [(["b", None], "NoneType, str"), (["b", 3], "int, str"), ([1, True], "bool, int"), (["b", np.nan], "float, str")],
)
def test_objects_of_several_kinds_or_missing_ones_are_refused(values, types):
    with pytest.raises(rankbench.DataError, match=f"^images.columns 'c': values of type {types} in one array; use num"):
        rankbench.Images(["a", "b"], columns={"c": np.array(values, dtype=object)})


def test_bytes_depend_on_values_alone():
    values = np.arange(6).reshape(2, 3)
    for same in (values.astype(np.int16), values.astype(">i4"), values.astype(np.uint8), np.asfortranarray(values)):
        assert array_bytes(same) == array_bytes(values)
    assert array_bytes(np.float32([0.5])) == array_bytes(np.array([0.5]))
    different = [
        values,
        values.reshape(3, 2),
        values + 1,
        values.astype(float),
        values.astype(bool),
        values.astype(str),
    ]
    assert len({array_bytes(array) for array in different}) == len(different)
    assert array_bytes(np.array([2**64 - 1], np.uint64)) != array_bytes(np.array([-1]))
    assert array_bytes(np.array(["a", "bc"])) != array_bytes(np.array(["ab", "c"]))


def test_one_changed_pixel_column_or_order_changes_the_fingerprint():
    def of(arrays=NOISE, **more):
        return rankbench.Images.from_arrays(list(arrays), **more).fingerprint

    changed = NOISE.copy()
    changed[3, 4, 6, 2] ^= 1
    score, other = np.arange(4), np.array([0, 1, 2, 4])
    kinds = [of(), of(changed), of(NOISE[::-1]), of(columns={"score": score}), of(columns={"score": other})]
    kinds += [of(columns={"s": score}), of(inputs={"score": score})]
    assert len(set(kinds)) == len(kinds)
    assert of() == of(names=list("abcd"))
    assert of(columns={"a": score, "b": other}) == of(columns={"b": other, "a": score})


def test_digest_order_is_the_order_of_bytes_and_finds_equal_ones():
    rng = np.random.default_rng(0)
    digests = rng.integers(0, 256, (50, 32), dtype=np.uint8)
    digests[10:13] = digests[40]
    digests[7] = digests[3]
    order, equal = digest_order(digests)
    assert [digests[row].tobytes() for row in order] == sorted(row.tobytes() for row in digests)
    assert sorted(sorted(order[span].tolist()) for span in equal) == [[3, 7], [10, 11, 12, 40]]
    assert digest_order(digests[:3])[1] == []


def test_a_png_of_sixteen_bits_is_scaled_whatever_pillow_calls_it(tmp_path):
    values = np.array([[0, 256, 32768, 65535]], ">u2")
    header = struct.pack(">IIBBBBB", 4, 1, 16, 0, 0, 0, 0)

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" + values.tobytes())) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert rankbench.Images([tmp_path / "deep.png"])[0][0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("exif", [False, True])
def test_greys_of_more_bits_are_scaled_or_refused(tmp_path, exif):
    values = np.array([[0, 256, 32768, 65535]], np.uint16)
    (tmp_path / "deep.pgm").write_bytes(b"P5 4 1 65535\n" + values.astype(">u2").tobytes())
    Image.fromarray(values).save(tmp_path / "deep.tif")
    Image.fromarray(values).save(tmp_path / "deep.png")
    for name in ("deep.pgm", "deep.tif", "deep.png"):
        assert rankbench.Images([tmp_path / name], exif=exif)[0][0, :, 0].tolist() == [0, 1, 128, 255]
    Image.fromarray(values.astype(np.float32) / 65535).save(tmp_path / "float.tif")
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "whole.tif")
    for name in ("float.tif", "whole.tif"):
        with pytest.raises(UnreadableImage, match=rf"{name}: cannot be decoded \(.*convert to 8 bits\)"):
            rankbench.Images([tmp_path / name], exif=exif)[0]


def test_a_failing_disk_makes_no_image_unreadable(tmp_path):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(rankbench.DataError, match=r"folder\.png: cannot be read \(Is a directory\)") as raised:
        rankbench.Images([tmp_path / "folder.png"])[0]
    assert not isinstance(raised.value, UnreadableImage)

    def of(error):
        def draw(row):
            raise error

        return rankbench.Images.from_decoder([b"x" * 32], draw)

    for error in (OSError(errno.EIO, "Input/output error"), OSError(errno.EMFILE, "Too many open files")):
        with pytest.raises(rankbench.DataError, match=rf"image 0: cannot be read \({error.strerror}\)") as raised:
            of(error)[0]
        assert not isinstance(raised.value, UnreadableImage)


@pytest.mark.parametrize(
    "error", [ValueError("bad"), zlib.error("bad"), zipfile.BadZipFile("bad"), EOFError("bad"), struct.error("bad")]
)
def test_packaged_images_that_do_not_decode_are_unreadable_and_errors_of_the_code_are_not(error):
    def draw(row):
        raise error if row else KeyError("code")

    images = rankbench.Images.from_decoder([b"x" * 32, b"y" * 32], draw)
    with pytest.raises(UnreadableImage, match=r"image 1: cannot be decoded \(bad\)"):
        images[1]
    with pytest.raises(KeyError):
        images[0]


def test_images_are_taken_as_numpy_takes_rows():
    images = rankbench.Images.from_arrays(list(NOISE), columns={"n": np.arange(4)})
    mask = np.array([True, False, False, True])
    for rows in ([2, -1], [-4, 3, 3], np.array([1], np.uint8), [], mask, mask.tolist(), np.arange(0)):
        expected = np.arange(4)[np.asarray(rows, dtype=None if len(rows) else int)]
        assert images.take(rows).columns["n"].tolist() == expected.tolist()
    assert images[::-2].columns["n"].tolist() == [3, 1]
    for rows in ([4], [-5], [0.5], [True], [[0]]):
        with pytest.raises(IndexError):
            images.take(rows)


def test_taking_one_image_costs_nothing_for_the_others():
    images = rankbench.Images.from_decoder(np.zeros((1_000_000, 32), np.uint8), lambda row: NOISE[0])
    tracemalloc.start()
    try:
        images.take([5])
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_handing_millions_of_images_to_a_plugin_takes_no_time():
    count = 2_300_000
    images, seconds = rankbench.Images.from_decoder(np.zeros((count, 32), np.uint8), lambda row: NOISE[0]), []
    for _ in range(3):
        began = time.perf_counter()
        view = images.take(np.arange(count), names=False, columns=())
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.6
    assert (view.take([7, 3, 7])[2] == NOISE[0]).all()


def test_a_masked_value_is_a_missing_one_and_a_mask_that_hides_nothing_is_fine():
    scores = np.ma.masked_invalid([0.1, np.nan, 0.3, np.nan])
    with pytest.raises(rankbench.DataError) as raised:
        rankbench.Images.from_arrays(list(NOISE), columns={"score": scores})
    assert str(raised.value) == (
        "images.columns 'score': 2 of 4 values are masked (first: row 1); a masked value is a missing one. Leave it "
        "out, or fill it in."
    )
    votes = np.ma.array(np.arange(8).reshape(4, 2), mask=np.arange(8).reshape(4, 2) == 6)
    with pytest.raises(rankbench.DataError, match=r"images.inputs 'votes': 1 of 8 values is masked \(first: row 3\)"):
        rankbench.Images.from_arrays(list(NOISE), inputs={"votes": votes})
    whole = np.ma.array([1.0, 2.0, 3.0, 4.0], mask=[False] * 4)
    kept = rankbench.Images.from_arrays(list(NOISE), columns={"score": whole}).columns["score"]
    assert (type(kept), kept.tolist()) == (np.ndarray, [1, 2, 3, 4])
    with pytest.raises(PluginError, match=r"^ranker x: score: 1 of 3 values is masked \(first: row 0\); a mas"):
        checked(np.ma.array([1.0, 2.0, 3.0], mask=[True, False, False]), 3, "ranker x: score", None)
    assert checked(whole, 4, "ranker x: score", None).tolist() == [1, 2, 3, 4]
