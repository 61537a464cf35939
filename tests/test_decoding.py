"""Decoding: pixels depend on the file alone, whatever was set in Pillow; formats are named; other files are told."""

import hashlib
import os
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps
from tiny_runs import TinyRuns, grey_files
from tiny_runs import only as tiny_cell

import rankbench
from rankbench.decoding import SETTINGS
from rankbench.errors import UnreadableImage
from rankbench.fetch import Refused, check
from rankbench.images import file_digests

RAMP = np.arange(3 * 24 * 32, dtype=np.uint32).reshape(24, 32, 3).astype(np.uint8)
EPS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n0 0 moveto 9 9 lineto stroke\nshowpage\n%%EOF\n"
)
HEIC = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(40)


def digest(pixels):
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()[:16]


def decode(path, exif=False):
    return rankbench.Images([path], exif=exif)[0]


def saved(folder, name, array=RAMP, **options):
    Image.fromarray(array).save(folder / name, **options)
    return folder / name


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.ppm", "a.gif", "a.webp", "a.jp2"])
def test_lossless_files_give_the_pixels_they_always_gave(tmp_path, name):
    lossless = {"a.webp": {"lossless": True}, "a.jp2": {"irreversible": False}}
    array = np.repeat(RAMP[:, :, :1], 3, axis=2) if name == "a.gif" else RAMP
    grey = Image.fromarray(array[:, :, 0]) if name == "a.gif" else Image.fromarray(array)
    grey.save(tmp_path / name, **lossless.get(name, {}))
    expected = {"a.gif": "247afd21b59fdac6"}.get(name, "f4cc2ab85aca0da3")
    assert digest(decode(tmp_path / name)) == expected == digest(array)


@pytest.mark.parametrize("name", ["a.jpg", "a.webp", "a.mpo", "a.avif", "a.gif", "a.tiff", "a.jp2", "named.eps"])
def test_lossy_files_give_what_pillow_gives_whatever_they_are_called(tmp_path, name):
    kind = {"format": "JPEG"} if name == "named.eps" else {}
    path = saved(tmp_path, name, **({"format": "MPO"} if name == "a.mpo" else kind))
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    assert np.array_equal(decode(path), expected)


@pytest.fixture
def settings():
    """What Pillow has been set to, put back afterwards."""
    before = {place: getattr(sys.modules[place[0]], place[1]) for place in SETTINGS if place[0] in sys.modules}
    yield before
    for (module, name), value in before.items():
        setattr(sys.modules[module], name, value)


def test_the_settings_are_pillows_own_defaults():
    code = (
        "import importlib; from rankbench.decoding import SETTINGS\n"
        "for (module, name), value in SETTINGS.items():\n"
        "    assert getattr(importlib.import_module(module), name, value) == value, name"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_truncated_photograph_is_unreadable_whatever_a_plugin_allows(tmp_path, settings):
    path = saved(tmp_path, "a.jpg")
    path.write_bytes(path.read_bytes()[:-200])
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    with pytest.raises(UnreadableImage, match="truncated"):
        decode(path)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True  # put back: the plugin's own reading is its own affair


def test_no_setting_of_pillow_changes_pixels_or_what_can_be_read(tmp_path, settings):
    from PIL import GifImagePlugin, PngImagePlugin, TiffImagePlugin

    clear = np.dstack([RAMP, RAMP[:, :, 0]])
    paths = [saved(tmp_path, name) for name in ("a.jpg", "a.png", "a.gif", "a.tif")]
    paths.append(saved(tmp_path, "clear.png", clear))
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 3000, zip=True)
    paths.append(saved(tmp_path, "told.png", pnginfo=info))
    expected = [decode(path) for path in paths]
    Image.MAX_IMAGE_PIXELS = 10
    GifImagePlugin.LOADING_STRATEGY = GifImagePlugin.LoadingStrategy.RGB_ALWAYS
    PngImagePlugin.MAX_TEXT_CHUNK = 100
    TiffImagePlugin.READ_LIBTIFF = True
    for path, pixels in zip(paths, expected, strict=True):
        assert np.array_equal(decode(path), pixels)
    assert (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK) == (10, 100)


def test_an_image_too_large_is_refused_also_where_a_plugin_lifted_the_limit(tmp_path, settings):
    path = tmp_path / "bomb.ppm"
    path.write_bytes(b"P6 20000 20000 255\n")
    Image.MAX_IMAGE_PIXELS = None
    with pytest.raises(UnreadableImage, match="decompression bomb"):
        decode(path)


def test_settings_are_put_back_after_threads_and_what_they_changed_meanwhile_stays(tmp_path, settings):
    broken = saved(tmp_path, "a.jpg")
    broken.write_bytes(broken.read_bytes()[:-200])
    images, outcomes = rankbench.Images([broken]), []

    def work(changes):
        for _ in range(60):
            if changes:
                ImageFile.LOAD_TRUNCATED_IMAGES = True
            try:
                images[0]
                outcomes.append("decoded")
            except UnreadableImage:
                outcomes.append("refused")

    threads = [threading.Thread(target=work, args=(k == 0,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    with pytest.raises(UnreadableImage):
        images[0]
    assert outcomes.count("refused") > 200  # a thread that sets it in another's midst may win once in a while


def test_packaged_images_are_decoded_by_the_same_settings(tmp_path, settings):
    seen = []

    def draw(row):
        seen.append(ImageFile.LOAD_TRUNCATED_IMAGES)
        return RAMP

    ImageFile.LOAD_TRUNCATED_IMAGES = True
    _ = rankbench.Images.from_decoder([b"x" * 32], draw)[0]
    assert (seen, ImageFile.LOAD_TRUNCATED_IMAGES) == ([False], True)


def test_a_process_forked_while_another_thread_decodes_can_decode(tmp_path, settings):
    path = saved(tmp_path, "a.png")
    code = (
        "import os, sys, threading, rankbench\n"
        "from PIL import ImageFile\n"
        "ImageFile.LOAD_TRUNCATED_IMAGES = True\n"
        "inside, go = threading.Event(), threading.Event()\n"
        "def draw(row):\n"
        "    inside.set(); go.wait(); raise OSError('drawn')\n"
        "def look():\n"
        "    try: rankbench.Images.from_decoder([b'x' * 32], draw)[0]\n"
        "    except rankbench.DataError: pass\n"
        "slow = threading.Thread(target=look); slow.start(); inside.wait()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    shape = rankbench.Images([sys.argv[1]])[0].shape\n"
        "    os._exit(0 if shape == (24, 32, 3) and ImageFile.LOAD_TRUNCATED_IMAGES else 1)\n"
        "code = os.waitpid(child, 0)[1]; go.set(); slow.join()\n"
        "assert ImageFile.LOAD_TRUNCATED_IMAGES\n"
        "sys.exit(code)"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code, path], check=True, timeout=60)


@pytest.mark.filterwarnings("default")
def test_a_warning_that_a_filter_makes_an_error_loses_no_image(tmp_path):
    path = saved(tmp_path, "a.jpg", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\0\x12\x01")  # ends within its first entry
    with pytest.warns(UserWarning, match="Corrupt EXIF"):
        expected = decode(path, exif=True)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("error")
        found = decode(path, exif=True)
    assert np.array_equal(found, expected)


# ---------------------------------------------------------------------------------------------------- other kinds


@pytest.mark.parametrize("name", ["a.eps", "a.jpg", "a.png", "a"])
def test_postscript_is_never_run_whatever_it_is_called(tmp_path, monkeypatch, name):
    (tmp_path / "bin").mkdir()
    program, ran = tmp_path / "bin" / "gs", tmp_path / "ran"
    program.write_text(f"#!/bin/sh\ntouch {ran}\necho 10.0\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / name).write_bytes(EPS)
    with pytest.raises(UnreadableImage) as raised:
        decode(tmp_path / name)
    assert str(raised.value) == (
        f"{tmp_path / name}: cannot be decoded (it is PostScript, a program that is not run). Save it as PNG or JPEG."
    )
    download = rankbench.Download(("http://127.0.0.1/a.jpg",), "a.jpg", "image")
    with pytest.raises(Refused, match="is no image that can be decoded"):
        check(tmp_path / name, "", download, "http://127.0.0.1/a.jpg")
    assert not ran.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "(the file is empty). Replace or remove it."),
        (b"%PDF-1.7\n", "(it is a PDF document). Save it as PNG or JPEG."),
        (b"\n<!DOCTYPE html><p>404", "(it is a web page). Download the image itself, or remove it."),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "(it is SVG or other XML). Save it as PNG or JPEG."),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS keeps). Run `git lfs pull`."),
        (b"\0\0\0\x1cftypisom", "(it is a film). Save it as PNG or JPEG."),
        (b"8BPS" + bytes(60), "(it is no JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, JPEG 2000, AVIF or HEIC image, or its "),
    ],
)
def test_what_is_no_image_is_told(tmp_path, content, said):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UnreadableImage) as raised:
        decode(tmp_path / "a.jpg")
    assert said in str(raised.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_in_the_place_of_an_image_is_told_and_waits_for_nobody(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(UnreadableImage, match=r"a\.jpg: cannot be decoded \(it is no file, but a pipe or a device\)"):
        decode(tmp_path / "a.jpg")
    with pytest.raises(rankbench.DataError, match=r"a\.jpg: is no regular file\. The dataset lists this image"):
        file_digests([tmp_path / "a.jpg"])


def test_heic_is_read_where_a_decoder_is_installed(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    Image.fromarray(RAMP).save(tmp_path / "a.heic", format="HEIF", quality=-1)
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.heic").read_bytes())  # as some telephones name them
    with Image.open(tmp_path / "a.heic") as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    for name in ("a.heic", "a.jpg"):
        assert np.array_equal(decode(tmp_path / name, exif=True), expected)
    (tmp_path / "broken.heic").write_bytes(HEIC)
    with pytest.raises(UnreadableImage, match=r"\(it is HEIC, and damaged\)\. Replace or remove it"):
        decode(tmp_path / "broken.heic")


def test_heic_without_a_decoder_says_what_to_install(tmp_path):
    (tmp_path / "a.jpg").write_bytes(HEIC)
    code = (
        "import sys; sys.modules['pillow_heif'] = None  # as if it were not installed\n"
        "import rankbench\n"
        "try: rankbench.Images([sys.argv[1]])[0]\n"
        "except rankbench.DataError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code, tmp_path / "a.jpg"], check=True, capture_output=True, text=True)
    assert said.stdout == (
        f"{tmp_path / 'a.jpg'}: cannot be decoded (it is HEIC). pip install 'rankbench[heic]' brings a decoder. Or "
        "save it as PNG or JPEG.\n"
    )


@pytest.mark.parametrize("pixels", [False, True])
def test_a_row_that_allows_truncated_images_changes_no_other_and_no_cache(tmp_path, monkeypatch, settings, pixels):
    """The share of research code that sets this flag is large; the pixel cache kept what came of it."""
    tiny = TinyRuns(tmp_path, monkeypatch)
    grey_files(tiny.data / "tiny-files")
    bad = sorted((tiny.data / "tiny-files").glob("*.png"))[3]
    Image.open(bad).resize((60, 60)).save(bad, "JPEG")
    bad.write_bytes(bad.read_bytes()[:-100])
    ranker, dataset = {"decoder": {"name": "decoder", "pixels": pixels}}, {"name": "tiny-files"}
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    cell = tiny_cell(tiny.run(ranker, dataset=dataset, in_process=True))
    assert tiny.store.record(cell.key)["lost"] == [str(bad)]
    first = tiny.store.outcome(cell.key, "test").scores
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    cell = tiny_cell(tiny.run(ranker, dataset=dataset, in_process=True, rerun="all"))  # what the cache holds now
    assert tiny.store.record(cell.key)["lost"] == [str(bad)]
    assert np.array_equal(tiny.store.outcome(cell.key, "test").scores, first)
