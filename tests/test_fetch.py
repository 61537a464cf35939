"""Downloads from a server on localhost that misbehaves, and from folders."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile

import pytest
from hostile import Site, picture

import rankbench
from rankbench import Download, fetch
from rankbench.errors import RankbenchError, StoreError
from rankbench.fetch import Fetcher, retry_after


@pytest.fixture
def site():
    site = Site()
    yield site
    site.close()


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch):
    waits = []

    def pause(self, seconds):
        waits.append(seconds)
        self.stop.wait(min(seconds, 1.0) / 20)

    monkeypatch.setattr(Fetcher, "_pause", pause)
    return waits


class Listed(rankbench.Dataset):
    def __init__(self, *downloads):
        self.listed = downloads

    def downloads(self, root):
        return list(self.listed)


def image(site, name, **about):
    site.files.setdefault(name, picture())
    return Download((site.url + name,), f"images/{name}.jpg", "image", **about)


def one(tmp_path, download, **options):
    return Fetcher(tmp_path, **options).one(download)


def parts(tmp_path):
    return sorted(path.name for path in (tmp_path / ".fetch").glob("*.part"))


def test_a_file_is_fetched_whole_and_once(site, tmp_path):
    download = image(site, "a")
    outcome = one(tmp_path, download)
    assert (outcome.status, outcome.size) == ("fetched", len(picture()))
    assert (tmp_path / "images" / "a.jpg").read_bytes() == picture()
    assert outcome.sha256 == hashlib.sha256(picture()).hexdigest()
    assert one(tmp_path, download).status == "there already"
    assert site.asked == {"a": 1}
    assert next(iter(site.agents)).startswith("rankbench/")
    assert parts(tmp_path) == []


def test_a_dropped_connection_is_resumed(site, tmp_path):
    site.behaviours["a"] = Site.drops
    assert one(tmp_path, image(site, "a")).status == "fetched"
    assert (tmp_path / "images" / "a.jpg").read_bytes() == picture()
    asked = [asked for name, asked in site.ranges]
    assert asked[0] is None
    assert asked[1] == f"bytes={len(picture()) // 2}-"


def test_the_next_run_resumes(site, tmp_path):
    site.behaviours["a"] = lambda site, handler, name: Site.drops(site, handler, name, times=4)
    first = one(tmp_path, image(site, "a"))
    assert first.status == "failed"
    assert "after 4 tries" in first.reason
    assert not (tmp_path / "images" / "a.jpg").exists()
    assert len(parts(tmp_path)) == 1
    assert one(tmp_path, image(site, "a")).status == "fetched"
    assert site.ranges[-1][1] == f"bytes={len(picture()) // 2}-"
    assert (tmp_path / "images" / "a.jpg").read_bytes() == picture()


@pytest.mark.parametrize("behaviour", [Site.changed, Site.other_part])
def test_a_part_that_no_longer_fits_is_dropped(site, tmp_path, behaviour):
    site.behaviours["a"] = behaviour
    assert one(tmp_path, image(site, "a")).status == "fetched"
    assert (tmp_path / "images" / "a.jpg").read_bytes() == picture()


@pytest.mark.parametrize(
    ("behaviour", "asked", "reason"),
    [
        (Site.short, 4, "sent 100 of 5,000 bytes|IncompleteRead|100 bytes read"),
        (Site.silent, 4, "without response"),
        (Site.html, 1, "is no image that can be decoded; it begins with b'<html>"),
        (Site.gone, 1, "HTTP 410, gone"),
        (Site.closed, 1, "HTTP 429, asks to wait 86400 s. Run again later"),
        (Site.broken, 4, "HTTP 500"),
        (Site.elsewhere, 1, "leads to another host, localhost, which was not followed"),
        (Site.circle, 6, "leads in more than 5 redirects"),
        (Site.scheme, 1, "leads to file:///etc/passwd, which is no http or https address"),
        (Site.endless, 1, "sends more than the 300,000 bytes that are accepted"),
    ],
)
def test_what_cannot_be_had_is_said_and_leaves_nothing(site, tmp_path, behaviour, asked, reason):
    import re

    site.behaviours["a"] = behaviour
    outcome = one(tmp_path, image(site, "a", most=300_000))
    assert outcome.status == "failed"
    assert re.search(reason, outcome.reason), outcome.reason
    assert site.asked["a"] == asked
    assert not (tmp_path / "images").exists()


@pytest.mark.parametrize("behaviour", [Site.busy, Site.shaky])
def test_what_passes_is_waited_for(site, tmp_path, behaviour, no_long_waits):
    site.behaviours["a"] = behaviour
    assert one(tmp_path, image(site, "a")).status == "fetched"
    if behaviour is Site.busy:
        assert any(0.5 < wait <= 1.0 for wait in no_long_waits), "as long as Retry-After says"


def test_a_redirect_on_the_same_host_is_followed(site, tmp_path):
    site.files["target"] = picture(1)
    site.behaviours["a"] = Site.moved
    assert one(tmp_path, image(site, "a")).status == "fetched"
    assert (tmp_path / "images" / "a.jpg").read_bytes() == picture(1)


def test_a_file_that_is_no_image_may_come_from_another_host(site, tmp_path):
    site.files["target"] = b"labels"
    site.behaviours["a"] = Site.elsewhere
    assert one(tmp_path, Download((site.url + "a",), "labels.txt")).status == "fetched"
    assert (tmp_path / "labels.txt").read_bytes() == b"labels"


def test_a_body_without_speed_is_given_up(site, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "PATIENCE", 0.3)
    site.behaviours["a"] = Site.slow
    outcome = one(tmp_path, image(site, "a"))
    assert "sends fewer than 200 bytes a second" in outcome.reason


def test_announced_size_and_digest_are_checked(site, tmp_path):
    assert "more than the 1,000 that are accepted" in one(tmp_path, image(site, "a", most=1000)).reason
    wrong = one(tmp_path, image(site, "a", sha256="0" * 64))
    assert "it is another file" in wrong.reason
    right = hashlib.sha256(picture()).hexdigest()
    assert one(tmp_path, image(site, "a", sha256=right)).status == "fetched"


def test_an_empty_file_is_refused(site, tmp_path):
    site.files["a"] = b""
    assert "is empty" in one(tmp_path, Download((site.url + "a",), "a.txt")).reason


def test_urls_are_tried_in_turn(site, tmp_path):
    site.files["b"] = picture(2)
    download = Download((site.url + "nothing", site.url + "b"), "images/b.jpg", "image")
    assert one(tmp_path, download).url == site.url + "b"
    lost = one(tmp_path, Download((site.url + "no", site.url + "none"), "images/c.jpg", "image"))
    assert lost.reason.count("HTTP 404, not found") == 2
    assert one(tmp_path, Download((), "images/d.jpg")).reason == "it has no link"


def test_a_host_that_cannot_be_reached_is_left_alone(tmp_path):
    downloads = [Download((f"http://127.0.0.1:9/{k}.jpg",), f"images/{k}.jpg", "image") for k in range(200)]
    began = time.time()
    outcomes = Fetcher(tmp_path, jobs=8).all(Listed(*downloads))
    assert {one.status for one in outcomes} == {"failed"}
    assert sum("127.0.0.1:9: cannot be reached" in one.reason for one in outcomes) > 150
    assert time.time() - began < 10


def test_many_files_at_once_but_few_to_one_host(site, tmp_path):
    def slowly(site, handler, name):
        time.sleep(0.05)
        site.plain(handler, name)

    downloads = [image(site, f"f{k}") for k in range(24)]
    for k in range(24):
        site.behaviours[f"f{k}"] = slowly
    site.behaviours["f3"] = Site.gone
    said = []
    outcomes = Fetcher(tmp_path, jobs=12, say=lambda *what: said.append(what)).all(Listed(*downloads))
    assert [one.path for one in outcomes] == [one.path for one in downloads], "in the order of the list"
    assert [one.path for one in outcomes if one.status == "failed"] == ["images/f3.jpg"]
    assert site.most_at_once == fetch.AT_ONCE
    assert [done for _, done, of in said] == list(range(1, 25))
    report = json.loads((tmp_path / ".fetch" / "report.json").read_text())
    assert report["counts"] == {"fetched": 23, "failed": 1}
    assert [one["reason"] for one in report["files"] if one["status"] == "failed"] == [f"{site.url}f3: HTTP 410, gone"]


def test_what_lies_in_files_that_came_is_fetched_too(site, tmp_path):
    class Chained(rankbench.Dataset):
        def downloads(self, root):
            found = [Download((site.url + "list",), "list.txt")]
            if (root / "list.txt").is_file():
                found += [image(site, name) for name in (root / "list.txt").read_text().split()]
            return found

    site.files["list"] = b"x y"
    outcomes = Fetcher(tmp_path).all(Chained())
    assert [(one.path, one.status) for one in outcomes] == [
        ("list.txt", "fetched"), ("images/x.jpg", "fetched"), ("images/y.jpg", "fetched"),
    ]  # fmt: skip


def zipped(**files):
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/"), content)
    return body.getvalue()


def test_an_archive_is_unpacked_and_not_fetched_again(site, tmp_path):
    site.files["data.zip"] = zipped(top__a_txt="1", top__b__c_txt="2")
    download = Download((site.url + "data.zip",), ".", "archive", strip=True)
    outcome = one(tmp_path, download)
    assert outcome.status == "fetched"
    assert (tmp_path / "a_txt").read_text() == "1"
    assert (tmp_path / "b" / "c_txt").read_text() == "2"
    assert one(tmp_path, download).status == "there already"
    assert not list((tmp_path / ".fetch").glob("*.zip"))
    two = Download((site.url + "other.zip",), ".", "archive")
    site.files["other.zip"] = b"<html>"
    assert "is neither a zip nor a tar file; it begins with b'<html>'" in one(tmp_path, two).reason


def test_offline_is_fine_where_all_is_there(tmp_path):
    (tmp_path / "b").write_text("x")
    (outcome,) = Fetcher(tmp_path, offline=True).all(Listed(Download(("http://x/b",), "b")))
    assert outcome.status == "there already"


def test_an_archive_is_fetched_again_while_something_is_missing(site, tmp_path):
    class Needy(Listed):
        def needs(self, root):
            return [rankbench.Need(root / "labels.txt", (root / "labels.txt").is_file())]

    site.files["data.zip"] = zipped(other="1")
    dataset = Needy(Download((site.url + "data.zip",), ".", "archive"))
    assert [Fetcher(tmp_path).all(dataset)[0].status for _ in range(2)] == ["fetched", "fetched"], "it lacks the labels"
    site.files["data.zip"] = zipped(labels__txt="1").replace(b"labels/txt", b"labels.txt")
    assert [Fetcher(tmp_path).all(dataset)[0].status for _ in range(2)] == ["fetched", "there already"]
    (tmp_path / "labels.txt").unlink()
    assert Fetcher(tmp_path).all(dataset)[0].status == "fetched"
    assert site.asked == {"data.zip": 4}


def test_an_archive_goes_by_its_own_name(site, tmp_path):
    (tmp_path / "disk").mkdir()
    listed = Listed(Download((site.url + "data.zip",), ".", "archive"))
    (outcome,) = Fetcher(tmp_path / "to", str(tmp_path / "disk")).all(listed)
    assert outcome.reason == f"{tmp_path / 'disk'} holds no data.zip"
    report = json.loads((tmp_path / "to" / ".fetch" / "report.json").read_text())
    assert report["files"][0]["path"] == "data.zip"


def test_nothing_listed_leaves_no_report(tmp_path):
    assert Fetcher(tmp_path / "to").all(Listed()) == []
    assert not (tmp_path / "to").exists()


def test_how_far_an_archive_has_come_is_told(site, tmp_path):
    body = site.files["data.zip"] = zipped(a="1" * 300_000, b="2")
    told = []
    Fetcher(tmp_path, moved=lambda *what: told.append(what)).all(
        Listed(Download((site.url + "data.zip",), ".", "archive"))
    )
    came = [(done, of) for name, unit, done, of in told if unit == "bytes"]
    assert came == sorted(came)
    assert came[-1] == (len(body), len(body))
    assert [what for what in told if what[1] == "files"] == [("data.zip", "files", k, 2) for k in (1, 2)]


@pytest.mark.parametrize("nested", [True, False])
def test_from_a_folder(tmp_path, nested):
    source, target = tmp_path / "disk", tmp_path / "data"
    place = source / "images" if nested else source
    place.mkdir(parents=True)
    (place / "7.jpg").write_bytes(picture(7, "PNG"))
    (place / "8.jpg").write_bytes(b"no image")
    listed = [Download((f"http://gone.example/some/{k}.jpg",), f"images/{k}.jpg", "image") for k in (7, 8, 9)]
    outcomes = Fetcher(target, str(source), offline=True).all(Listed(*listed))
    assert [one.status for one in outcomes] == ["fetched", "failed", "failed"]
    assert (target / "images" / "7.jpg").read_bytes() == picture(7, "PNG")
    assert (place / "7.jpg").exists(), "copied, not moved"
    assert "no image that can be decoded" in outcomes[1].reason
    assert "holds no images/9.jpg" in outcomes[2].reason


def test_from_another_address(site, tmp_path):
    site.files["mirror/images/7.jpg"] = picture(7)
    site.files["mirror/old.zip"] = zipped(x="1")
    listed = [
        Download(("http://gone.example/7.jpg",), "images/7.jpg", "image"),
        Download(("http://gone.example/old.zip",), ".", "archive"),
    ]
    outcomes = Fetcher(tmp_path, site.url + "mirror").all(Listed(*listed))
    assert [one.status for one in outcomes] == ["fetched", "fetched"]


def test_offline_and_wrong_places_are_refused(tmp_path):
    listed = Listed(Download(("http://gone.example/a.zip",), ".", "archive"), Download(("http://x/b",), "b"))
    message = r"offline: \$RANKBENCH_OFFLINE is set, and 2 files would .*\(first: a.zip\). Unset it, or give a folder"
    with pytest.raises(RankbenchError, match=message):
        Fetcher(tmp_path, offline=True).all(listed)
    with pytest.raises(RankbenchError, match="is no folder, and no URL"):
        Fetcher(tmp_path, "nowhere")
    with pytest.raises(RankbenchError, match="leads out of its folder"):
        one(tmp_path, Download(("http://x/y",), "../y"))


def test_a_folder_that_cannot_be_written_is_an_error(site, tmp_path):
    (tmp_path / ".fetch").write_text("a file where the folder should be")
    with pytest.raises((StoreError, OSError)):
        one(tmp_path, image(site, "a"))


def test_retry_after_as_a_date():
    import email.utils
    from types import SimpleNamespace

    def answer(text):
        return SimpleNamespace(headers={"retry-after": text})

    assert 8 < retry_after(answer(email.utils.formatdate(time.time() + 10, usegmt=True))) <= 10
    assert retry_after(answer(email.utils.formatdate(time.time() - 10, usegmt=True))) == 0
    assert retry_after(answer("soon")) is None
    assert retry_after(answer("12")) == 12


def test_an_interrupted_fetch_goes_on_from_there(site, tmp_path):
    """A real process, killed by Ctrl-C in the middle."""

    def slowly(site, handler, name):
        time.sleep(0.1)
        site.plain(handler, name)

    for k in range(60):
        site.files[f"{k}.jpg"] = picture(k)
        site.behaviours[f"{k}.jpg"] = slowly
    code = f"""
import rankbench
from pathlib import Path
from rankbench.fetch import Fetcher
class Listed(rankbench.Dataset):
    def downloads(self, root):
        return [rankbench.Download((f"{site.url}{{k}}.jpg",), f"images/{{k}}.jpg", "image") for k in range(60)]
Fetcher(Path({str(tmp_path)!r})).all(Listed())
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    deadline = time.time() + 30
    while len(list(tmp_path.glob("images/*.jpg"))) < 5 and time.time() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode != 0
    assert b"KeyboardInterrupt" in said
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("images/*.jpg")}
    assert 5 <= len(before) < 60
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    for k in range(60):
        assert (tmp_path / "images" / f"{k}.jpg").read_bytes() == picture(k)
    assert {name: (tmp_path / "images" / name).stat().st_mtime_ns for name in before} == before
