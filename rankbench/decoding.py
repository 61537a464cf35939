"""Files to pixels: which formats are decoded, with which of Pillow's settings, and what is said of a file that is not.

Pixels depend on the file alone: Pillow's global settings, which any code may change, are put at their defaults while an
image is decoded, and put back afterwards.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import sys
import threading
import warnings
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankbench.errors import DataError, UnreadableImage

# Formats are named, so that a file is never handed to a program: Pillow decodes PostScript by starting Ghostscript.
COMMON = ("JPEG", "PNG", "GIF", "BMP", "PPM")  # loaded by Pillow.preinit; PPM is all of PBM, PGM, PPM, PAM and PFM
FURTHER = ("WEBP", "TIFF", "MPO", "JPEG2000", "DIB", "AVIF", "HEIF")  # where Pillow, or pillow-heif, can decode them
KNOWN = "JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, JPEG 2000, AVIF or HEIC"

# What decoding depends on beside the file: (module, name) to Pillow's own default.
SETTINGS: dict[tuple[str, str], Any] = {
    ("PIL.Image", "MAX_IMAGE_PIXELS"): 1024 * 1024 * 1024 // 4 // 3,  # more is warned of, twice as much refused
    ("PIL.Image", "WARN_POSSIBLE_FORMATS"): False,
    ("PIL.ImageFile", "LOAD_TRUNCATED_IMAGES"): False,
    ("PIL.PngImagePlugin", "MAX_TEXT_CHUNK"): 2**20,
    ("PIL.PngImagePlugin", "MAX_TEXT_MEMORY"): 2**26,
    ("PIL.GifImagePlugin", "LOADING_STRATEGY"): 0,  # RGB_AFTER_FIRST
    ("PIL.BmpImagePlugin", "USE_RAW_ALPHA"): False,
    ("PIL.TiffImagePlugin", "READ_LIBTIFF"): False,
    ("PIL.AvifImagePlugin", "DECODE_CODEC_CHOICE"): "auto",
}

# what Pillow and the standard library raise for a packaged file that is broken
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, zipfile.BadZipFile)


class Settings:
    """Pillow's settings at their defaults, for as long as any thread decodes."""

    def __init__(self) -> None:
        self._forget()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._restore_in_child)

    def _forget(self) -> None:
        self._lock, self._inside = threading.Lock(), 0
        self.one_at_a_time = threading.Lock()  # for what threads cannot share
        self._before: dict[tuple[str, str], Any] = {}

    def _restore_in_child(self) -> None:
        """In a process forked while another thread decoded, nobody else is left to put the settings back."""
        before = self._before
        self._forget()
        restore(before)

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            for place, default in SETTINGS.items():
                module = sys.modules.get(place[0])  # one that nobody has imported has its defaults
                value = getattr(module, place[1], default)
                if value != default:  # also where somebody has changed it since the first thread came in
                    self._before[place] = value
                    setattr(module, place[1], default)

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._before:
                restore(self._before)
                self._before = {}


def restore(before: dict[tuple[str, str], Any]) -> None:
    for (module, name), value in before.items():
        setattr(sys.modules[module], name, value)


DEFAULT_SETTINGS = Settings()


def decoded(path: Path, exif: bool) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of a file; upright by its EXIF rotation with `exif`.

    Raises: UnreadableImage for content that is broken or of another kind; DataError where disk or system failed.
    """
    try:
        with DEFAULT_SETTINGS:
            try:
                return pixels_of(path, exif)
            except Warning:  # made an error by somebody's filter: no reason to lose an image
                with DEFAULT_SETTINGS.one_at_a_time, warnings.catch_warnings():
                    warnings.simplefilter("default")
                    return pixels_of(path, exif)
    except MemoryError:
        raise
    except Exception as error:  # a broken file makes Pillow raise nearly anything
        raise undecodable(str(path), error, path) from error


def pixels_of(path: Path, exif: bool) -> NDArray[np.uint8]:
    from PIL import ImageOps

    if stat.S_IFMT(os.stat(path).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):  # of a folder the system says so
        raise ValueError("it is no file, but a pipe or a device")
    with opened(path) as image:
        upright = ImageOps.exif_transpose(image) if exif else image
        return rgb(upright, image.format)


def opened(path: Path) -> Any:
    """A file as a PIL image whose pixels are not read yet; PIL.UnidentifiedImageError if it has none of the formats."""
    from PIL import Image, UnidentifiedImageError

    Image.preinit()
    try:
        return Image.open(path, formats=COMMON)
    except UnidentifiedImageError:
        return Image.open(path, formats=further())


@lru_cache(maxsize=1)
def further() -> tuple[str, ...]:
    """The further formats that are decoded here."""
    from PIL import Image

    Image.init()
    try:
        import pillow_heif

        pillow_heif.register_heif_opener()
    except ImportError:
        pass
    return tuple(name for name in FURTHER if name in Image.OPEN)


def rgb(image: Any, kind: str | None) -> NDArray[np.uint8]:
    """A PIL image of a file of this format as (H, W, 3) uint8.

    Transparency is laid on white, 16-bit greys are scaled down. ValueError for pixels without a known range.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and kind in ("PNG", "PPM")):
        return np.repeat((np.asarray(image, dtype=np.uint16) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ValueError("pixels of 32 bits have no known white; convert to 8 bits")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        from PIL import Image

        ground = Image.new("RGBA", image.size, "white")
        ground.alpha_composite(image.convert("RGBA"))
        image = ground
    return np.asarray(image.convert("RGB"))


# -------------------------------------------------------------------------------------------------------- messages


def undecodable(what: str, error: Exception, path: Path | None = None) -> DataError:
    """UnreadableImage for broken content; a plain DataError where the disk or the system failed, which may pass."""
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: broken content led astray
        return DataError(f"{what}: cannot be read ({error.strerror}). Mend that and run again.")
    kind, remedy = other_kind(path) if path is not None and unidentified(error) else ("", "")
    return UnreadableImage(f"{what}: cannot be decoded ({kind or error}). {remedy or 'Replace or remove it.'}")


def unidentified(error: Exception) -> bool:
    from PIL import UnidentifiedImageError

    return isinstance(error, UnidentifiedImageError)


def other_kind(path: Path) -> tuple[str, str]:
    """What a file is that none of the decoders knows, and what to do about it."""
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError:
        return "", ""
    convert = "Save it as PNG or JPEG."
    text = head.lstrip().lower()
    if not head:
        return "the file is empty", ""
    if head.startswith((b"%!PS", b"\xc5\xd0\xd3\xc6")):
        return "it is PostScript, a program that is not run", convert
    if head[4:8] == b"ftyp":
        return of_brand(head[8:12], convert)
    if head.startswith(b"%PDF"):
        return "it is a PDF document", convert
    if text.startswith((b"<!doctype html", b"<html")):
        return "it is a web page", "Download the image itself, or remove it."
    if text.startswith((b"<svg", b"<?xml")):
        return "it is SVG or other XML", convert
    if head.startswith(b"version https://git-lfs"):
        return "it only stands for a file that Git LFS keeps", "Run `git lfs pull`."
    return f"it is no {KNOWN} image, or its beginning is damaged", ""


def of_brand(brand: bytes, convert: str) -> tuple[str, str]:
    """Of a file of the family of HEIF, whose first brand says which codec it needs."""
    if brand in (b"avif", b"avis"):
        if "AVIF" in further():
            return "it is AVIF, and damaged", ""
        return "it is AVIF", "Pillow from 11.3 on decodes it: pip install --upgrade pillow. Or save it as PNG or JPEG."
    if brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"):
        if "HEIF" in further():
            return "it is HEIC, and damaged", ""
        return "it is HEIC", "pip install 'rankbench[heic]' brings a decoder. Or save it as PNG or JPEG."
    return "it is a film", convert
