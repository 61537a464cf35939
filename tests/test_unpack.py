"""Archives of strangers: what is unpacked, and what never is."""

import io
import os
import stat
import tarfile
import zipfile

import pytest

from rankbench import unpack as unpacking
from rankbench.errors import DataError
from rankbench.unpack import unpack


def make(path, kind, files, links=()):
    """An archive with these files (name, content) in this order, and links (name, target)."""
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files:
                archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
            for name, target in links:
                info = zipfile.ZipInfo(name)
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
                archive.writestr(info, target)
        return path
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return path


def everything(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(params=["zip", "tar"])
def kind(request):
    return request.param


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "mine.txt").write_bytes(b"mine")
    return folder


def test_files_go_into_the_folder(tmp_path, out, kind):
    archive = make(tmp_path / f"a.{kind}", kind, [("x/1.txt", b"one"), ("x/y/2.txt", b"two")])
    assert unpack(archive, out) == ["x/1.txt", "x/y/2.txt"]
    assert everything(out) == {"mine.txt": b"mine", "x/1.txt": b"one", "x/y/2.txt": b"two"}
    assert unpack(archive, out, strip=True) == ["1.txt", "y/2.txt"]
    assert sorted(os.listdir(tmp_path)) == [f"a.{kind}", "out"], "no draft is left"


def test_nothing_is_stripped_where_there_are_several_tops(tmp_path, out, kind):
    archive = make(tmp_path / "a", kind, [("x/1.txt", b"one"), ("2.txt", b"two")])
    assert unpack(archive, out, strip=True) == ["x/1.txt", "2.txt"]


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "x/../../evil", "C:\\evil", "..\\evil", "c:evil"])
def test_no_path_leaves_the_folder(tmp_path, out, kind, name):
    archive = make(tmp_path / "a", kind, [("good.txt", b"1"), (name, b"evil")])
    with pytest.raises(DataError, match=r"leads out of the folder. It was not unpacked"):
        unpack(archive, out)
    assert everything(tmp_path) == {"out/mine.txt": b"mine", "a": archive.read_bytes()}


def test_links_are_refused(tmp_path, out, kind):
    archive = make(tmp_path / "a", kind, [("good.txt", b"1")], [("link", "/etc")])
    with pytest.raises(DataError, match="'link' is a link or a device"):
        unpack(archive, out)
    assert everything(out) == {"mine.txt": b"mine"}


def test_bombs_are_refused(tmp_path, out, kind, monkeypatch):
    monkeypatch.setattr(unpacking, "SMALL", 2**20)
    archive = make(tmp_path / "a", kind, [(f"{k}.txt", bytes(2**20)) for k in range(30)])
    with pytest.raises(DataError, match=r"unpacks to more than [\d,]+ bytes. It was not unpacked"):
        unpack(archive, out)
    assert everything(out) == {"mine.txt": b"mine"}
    monkeypatch.setattr(unpacking, "MOST_FILES", 3)
    few = make(tmp_path / "b", kind, [(f"{k}.txt", b"1") for k in range(4)])
    with pytest.raises(DataError, match="unpacks to more"):
        unpack(few, out)


def test_a_zip_that_lies_about_its_sizes_is_refused(tmp_path, out, monkeypatch):
    monkeypatch.setattr(unpacking, "SMALL", 2**18)
    archive = make(tmp_path / "a", "zip", [("big", bytes(2**22))])
    honest = (2**22).to_bytes(4, "little")
    archive.write_bytes(archive.read_bytes().replace(honest, (1000).to_bytes(4, "little")))
    with pytest.raises(DataError, match=r"unpacks to more|cannot be unpacked"):
        unpack(archive, out)
    assert everything(out) == {"mine.txt": b"mine"}


def test_one_name_twice_is_refused(tmp_path, out, kind):
    archive = make(tmp_path / "a", kind, [("Read.txt", b"1"), ("read.TXT", b"2")])
    with pytest.raises(DataError, match="is there twice"):
        unpack(archive, out)


def test_a_damaged_archive_is_refused(tmp_path, out, kind):
    archive = make(tmp_path / "a", kind, [(f"{k}.txt", os.urandom(5000)) for k in range(20)])
    whole = archive.read_bytes()
    damaged = bytearray(whole)
    damaged[30_000:30_100] = bytes(100)
    archive.write_bytes(bytes(damaged))
    with pytest.raises(DataError, match="a: cannot be unpacked"):
        unpack(archive, out)
    archive.write_bytes(whole[:40_000])
    with pytest.raises(DataError, match=r"a: (cannot be unpacked|is neither a zip nor a tar file)"):
        unpack(archive, out)
    assert everything(out) == {"mine.txt": b"mine"}


def test_an_encrypted_zip_is_refused(tmp_path, out):
    archive = make(tmp_path / "a", "zip", [("x.txt", b"secret")])
    body = bytearray(archive.read_bytes())
    at = body.index(b"PK\x01\x02")
    body[6] |= 1
    body[at + 8] |= 1
    archive.write_bytes(bytes(body))
    with pytest.raises(DataError, match=r"cannot be unpacked.*encrypted"):
        unpack(archive, out)


def test_what_is_no_archive_is_named(tmp_path, out):
    (tmp_path / "page.zip").write_text("<!DOCTYPE html>")
    with pytest.raises(DataError, match=r"page.zip: is neither a zip nor a tar file; it begins with b'<!DOCTYPE"):
        unpack(tmp_path / "page.zip", out)


def test_a_file_in_the_way_is_said(tmp_path, out, kind):
    archive = make(tmp_path / "a", kind, [("mine.txt/inside", b"1")])
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(archive, out)
