"""Downloads what a dataset lists: concurrent, polite, resumable, atomic; what comes is checked before it has a name.

Every file is fetched into `.fetch/` in the dataset's folder and renamed into place once its length, its digest (where
one was published) and its content are right. A part that was cut short is resumed, in the same run or the next.
"""

from __future__ import annotations

import email.utils
import hashlib
import json
import os
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

from rankbench.decoding import DEFAULT_SETTINGS, opened
from rankbench.errors import DataError, RankbenchError, counted
from rankbench.files import storing, write_file
from rankbench.plugin import Dataset, Download
from rankbench.unpack import unpack

TRIES = 4
REDIRECTS = 5
AT_ONCE = 4  # requests to one host
TIMEOUT = (10.0, 30.0)  # seconds to connect, and between two pieces
SLOWEST, PATIENCE = 200, 60.0  # bytes a second that a body must bring on average, once it took so many seconds
LONGEST_WAIT = 60.0  # seconds that a host may ask us to wait
DEAD_AFTER = 5  # failures to connect, one after another, after which a host is left alone
BLOCK = 64 * 2**10

HERE, FETCHED, FAILED = "there already", "fetched", "failed"


class Refused(RankbenchError):
    """This file cannot be had from this place, and trying again would not help."""


class Interim(RankbenchError):
    """Something that may pass: a dropped connection, a busy server."""


@dataclass(frozen=True)
class Outcome:
    """What became of a download: "there already", "fetched" or "failed", with the reason.

    `path` is where it went, below the folder; of an archive its file's name.
    """

    path: str
    status: str
    reason: str = ""
    url: str = ""
    sha256: str = ""
    size: int = 0


@dataclass
class Host:
    """How a host is treated by all threads: so many requests at once, and none while it asks for a pause."""

    slots: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(AT_ONCE))
    resume_at: float = 0.0
    failures: int = 0  # to connect, since the last success

    @property
    def dead(self) -> bool:
        return self.failures >= DEAD_AFTER


class Fetcher:
    """Fetches into one dataset's folder.

    Args: source, another place than the listed one: a folder, or a URL that stands for what comes before a file's path
        or name. jobs, files at once. offline, whether no connection may be made. say, told of each outcome. moved,
        told of an archive's name, what is counted ("bytes", or "files" as it is unpacked), how many, and of how many
        (0: not known).
    """

    def __init__(
        self,
        folder: Path,
        source: str = "",
        jobs: int = 8,
        offline: bool = False,
        say: Callable[[Outcome, int, int], None] = lambda outcome, done, total: None,
        moved: Callable[[str, str, int, int], None] = lambda name, unit, done, total: None,
    ) -> None:
        self.folder, self.source, self.jobs, self.offline = folder, source, jobs, offline
        self.say, self.moved = say, moved
        self.remote = "://" in source or not source
        self.whole = True  # nothing that the dataset needs is missing, so that an archive unpacked before counts
        if not self.remote and not Path(source).is_dir():
            raise RankbenchError(f"--from {source}: is no folder, and no URL (http://… or https://…).")
        self.stop = threading.Event()
        self._hosts: dict[str, Host] = {}
        self._lock = threading.Lock()
        self._local = threading.local()

    # -- all of them

    def all(self, dataset: Dataset) -> list[Outcome]:
        """Everything the dataset lists, and what it lists once that has come."""
        outcomes: dict[str, Outcome] = {}
        self.whole = all(need.found for need in dataset.needs(self.folder))
        while True:
            todo = {one_key(d): d for d in dataset.downloads(self.folder) if one_key(d) not in outcomes}
            if not todo:
                break
            self._check_offline(list(todo.values()))
            before = len(outcomes)
            outcomes |= dict(zip(todo, self._several(list(todo.values())), strict=True))
            if not any(one.status == FETCHED for one in list(outcomes.values())[before:]):
                break
        if outcomes:
            self._report(list(outcomes.values()))
        return list(outcomes.values())

    def _check_offline(self, downloads: Sequence[Download]) -> None:
        """RankbenchError where a connection would be needed and none may be made."""
        lacking = [one for one in downloads if not self._is_there(one, self._target(one))]
        if lacking and self.remote and self.offline:
            raise RankbenchError(
                f"offline: $RANKBENCH_OFFLINE is set, and {counted(len(lacking), 'file')} would have to be downloaded "
                f"(first: {shown_name(lacking[0])}). Unset it, or give a folder with --from."
            )

    def _several(self, downloads: Sequence[Download]) -> list[Outcome]:
        found: dict[int, Outcome] = {}
        pool = ThreadPoolExecutor(self.jobs)
        try:
            waiting = {pool.submit(self.one, download): at for at, download in enumerate(downloads)}
            for future in as_completed(waiting):
                found[waiting[future]] = future.result()
                self.say(found[waiting[future]], len(found), len(downloads))
        finally:
            self.stop.set()  # for those that still run, if we are here by an exception or Ctrl-C
            pool.shutdown(cancel_futures=True)
            self.stop.clear()
        return [found[at] for at in range(len(downloads))]

    def one(self, download: Download) -> Outcome:
        """One file. Whatever is wrong with it is an outcome; a full disk is an error."""
        target = self._target(download)
        if self._is_there(download, target):
            return Outcome(shown_name(download), HERE)
        places = self._places(download)
        names = " or ".join(names_of(download))
        reasons = [] if places else [f"{self.source} holds no {names}" if self.source else "it has no link"]
        for place in places:
            try:
                return self._from(place, download, target)
            except (Refused, Interim, DataError) as error:
                reasons.append(str(error))
        return Outcome(shown_name(download), FAILED, "; ".join(reasons))

    def _from(self, place: str, download: Download, target: Path) -> Outcome:
        self._drafts.mkdir(parents=True, exist_ok=True)
        draft = self._drafts / hashlib.sha256(f"{download.path} {place}".encode()).hexdigest()[:32]
        part = draft.with_suffix(".part")
        with storing(target):
            if self.remote:
                self._download(place, part, download)
            else:
                copied(Path(place), part, download.most)
            size, digest = part.stat().st_size, file_digest(part)
            try:
                check(part, digest, download, place)
                self._place(part, digest, download, target, place)
            finally:
                for left in (part, part.with_suffix(".json")):
                    left.unlink(missing_ok=True)
        return Outcome(shown_name(download), FETCHED, "", place, digest, size)

    def _place(self, part: Path, digest: str, download: Download, target: Path, place: str) -> None:
        if download.kind != "archive":
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, target)
            return
        archive = part.with_name(name_of(place) or part.name)
        os.replace(part, archive)
        try:
            name = shown_name(download)
            files = unpack(archive, target, download.strip, lambda done, of: self.moved(name, "files", done, of))
        finally:
            archive.unlink(missing_ok=True)
        stamp = {"url": place, "sha256": digest, "files": len(files)}
        write_file(self._stamp(download), json.dumps(stamp, indent=1))

    # -- places

    @property
    def _drafts(self) -> Path:
        return self.folder / ".fetch"

    def _target(self, download: Download) -> Path:
        path = PurePosixPath(download.path)
        if path.is_absolute() or ".." in path.parts:
            raise RankbenchError(f"the dataset lists {download.path!r}, which leads out of its folder.")
        return self.folder / path

    def _stamp(self, download: Download) -> Path:
        return self._drafts / f"{hashlib.sha256(one_key(download).encode()).hexdigest()[:32]}.done.json"

    def _is_there(self, download: Download, target: Path) -> bool:
        if download.kind == "archive":  # what it held may have been deleted since, or not have been what is needed
            return self.whole and self._stamp(download).exists()
        return target.is_file()

    def _places(self, download: Download) -> list[str]:
        """Where to look, one after another."""
        if not self.source:
            return list(download.urls)
        if self.remote:
            base = self.source if self.source.endswith("/") else f"{self.source}/"
            return [urljoin(base, name) for name in names_of(download)]
        return [str(path) for name in names_of(download) if (path := Path(self.source) / name).is_file()]

    # -- over the network

    def _download(self, url: str, part: Path, download: Download) -> None:
        """The body of a URL into `part`, resumed where an earlier try was cut short."""
        for number in range(TRIES):
            try:
                with self._host(url) as host:
                    self._once(url, part, download, host)
                return
            except Interim as error:
                if number == TRIES - 1 or self.stop.is_set() or self._host_of(url).dead:
                    raise Interim(f"{error} (after {number + 1} {'try' if number == 0 else 'tries'})") from error
            self._pause(min(2.0**number, 8.0) * random.uniform(0.5, 1.0))

    def _once(self, url: str, part: Path, download: Download, host: Host) -> None:
        import requests
        import urllib3

        have, headers = resumable(part, url)
        try:
            with self._open(url, headers, download) as answer:
                host.failures = 0
                self._check_status(answer, url, host, part)
                begin = have if answer.status_code == 206 and range_start(answer) == have else 0
                if answer.status_code == 206 and not begin:
                    part.unlink(missing_ok=True)
                    raise Interim(f"{url}: sent another part than asked for")
                remember(part, url, answer)
                self._receive(answer, part, begin, download)
        except Refused:
            part.unlink(missing_ok=True)
            raise
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
            host.failures += unreachable(error)
            raise Interim(f"{url}: {short(error)}") from error

    def _open(self, url: str, headers: dict[str, str], download: Download) -> Any:
        """The answer, after redirects: within the host for an image, never from https to http."""
        first = urlsplit(url)
        if first.scheme not in ("http", "https"):
            raise Refused(f"{url}: is no http or https address")
        for _ in range(REDIRECTS + 1):
            answer = self._session.get(url, headers=headers, stream=True, timeout=TIMEOUT, allow_redirects=False)
            if not answer.is_redirect:
                return answer
            answer.close()
            here, url = urlsplit(url), urljoin(url, answer.headers["location"])
            there = urlsplit(url)
            if there.scheme not in ("http", "https"):
                raise Refused(f"{first.geturl()}: leads to {url}, which is no http or https address")
            if here.scheme == "https" and there.scheme != "https":
                raise Refused(f"{first.geturl()}: leads from https to {there.scheme}, which was not followed")
            if download.kind == "image" and there.hostname != first.hostname:
                raise Refused(f"{first.geturl()}: leads to another host, {there.hostname}, which was not followed")
        raise Refused(f"{first.geturl()}: leads in more than {REDIRECTS} redirects")

    def _check_status(self, answer: Any, url: str, host: Host, part: Path) -> None:
        status = answer.status_code
        if status in (200, 206):
            return
        if status == 416:  # the part is longer than the file has become
            part.unlink(missing_ok=True)
            raise Interim(f"{url}: has changed since an earlier try")
        if status in (429, 503) and (wait := retry_after(answer)) is not None:
            if wait > LONGEST_WAIT:
                raise Refused(f"{url}: HTTP {status}, asks to wait {wait:.0f} s. Run again later")
            with self._lock:
                host.resume_at = max(host.resume_at, time.monotonic() + wait)
            raise Interim(f"{url}: HTTP {status}")
        if status == 429 or status >= 500:
            raise Interim(f"{url}: HTTP {status}")
        gone = {404: "not found", 410: "gone", 403: "forbidden", 401: "needs a login"}.get(status, answer.reason)
        raise Refused(f"{url}: HTTP {status}, {gone}")

    def _receive(self, answer: Any, part: Path, begin: int, download: Download) -> None:
        length, most = answer.headers.get("content-length", ""), download.most
        expected = begin + int(length) if length.isdigit() else None
        if expected is not None and expected > most:
            part.unlink(missing_ok=True)
            raise Refused(f"{answer.url}: has {expected:,} bytes, more than the {most:,} that are accepted")
        size, began = begin, time.monotonic()
        with open(part, "r+b" if begin else "wb") as file:
            file.seek(begin)
            file.truncate()
            answer.raw.enforce_content_length = False  # what came of a body that is cut short is kept
            while piece := answer.raw.read1(BLOCK, decode_content=False):
                size += len(piece)
                if size > most:
                    file.truncate(0)
                    raise Refused(f"{answer.url}: sends more than the {most:,} bytes that are accepted")
                file.write(piece)
                if download.kind == "archive":
                    self.moved(shown_name(download), "bytes", size, expected or 0)
                spent = time.monotonic() - began
                if spent > PATIENCE and (size - begin) / spent < SLOWEST:
                    raise Refused(f"{answer.url}: sends fewer than {SLOWEST} bytes a second")
                if self.stop.is_set():
                    raise Interim(f"{answer.url}: stopped")
            file.flush()
            os.fsync(file.fileno())
        if expected is not None and size != expected:
            raise Interim(f"{answer.url}: sent {size:,} of {expected:,} bytes")

    @property
    def _session(self) -> Any:
        if not hasattr(self._local, "session"):
            import importlib.metadata

            import requests

            session = requests.Session()
            session.headers["User-Agent"] = f"rankbench/{importlib.metadata.version('rankbench')} (dataset download)"
            session.headers["Accept-Encoding"] = "identity"  # so that lengths and ranges count what is stored
            self._local.session = session
        return self._local.session

    def _host_of(self, url: str) -> Host:
        with self._lock:
            return self._hosts.setdefault(urlsplit(url).netloc, Host())

    @contextmanager
    def _host(self, url: str) -> Iterator[Host]:
        """A place at the host, once it wants us back."""
        host = self._host_of(url)
        with host.slots:
            while (wait := host.resume_at - time.monotonic()) > 0 and not self.stop.is_set():
                self._pause(wait)
            if host.dead:
                raise Refused(f"{urlsplit(url).netloc}: cannot be reached")
            yield host

    def _pause(self, seconds: float) -> None:
        self.stop.wait(seconds)

    def _report(self, outcomes: Sequence[Outcome]) -> None:
        """All that was asked for and what became of it, as JSON in `.fetch/report.json`."""
        rows = [{k: v for k, v in vars(one).items() if v not in ("", 0)} for one in outcomes]
        counts = dict(Counter(one.status for one in outcomes))
        write_file(self._drafts / "report.json", json.dumps({"counts": counts, "files": rows}, indent=1))


def one_key(download: Download) -> str:
    """What tells one download from another: several archives may be unpacked in one place."""
    return f"{download.path} {download.urls[0] if download.kind == 'archive' and download.urls else ''}"


def name_of(url: str) -> str:
    """The file name at the end of a URL or path."""
    name = unquote(urlsplit(url).path).rsplit("/", 1)[-1] if "://" in url else PurePosixPath(url).name
    return "" if name in (".", "..") or "\\" in name or "\0" in name else name


def names_of(download: Download) -> list[str]:
    """What the file may be called in another place."""
    names = [download.path] if download.kind != "archive" else []
    names += filter(None, (*map(name_of, download.urls), name_of(download.path)))
    return list(dict.fromkeys(names))


def shown_name(download: Download) -> str:
    """What a message calls it: where it goes, and an archive, which goes to many places, by its file's name."""
    return next(iter(names_of(download)), download.path) if download.kind == "archive" else download.path


def file_digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copied(source: Path, part: Path, most: int) -> None:
    if source.stat().st_size > most:
        raise Refused(f"{source}: has more than the {most:,} bytes that are accepted")
    shutil.copyfile(source, part)


def check(part: Path, digest: str, download: Download, place: str) -> None:
    """Refused where the content is not what was asked for."""
    if not digest.startswith(download.sha256):
        more = "…" * (len(download.sha256) < len(digest))
        raise Refused(f"{place}: its sha-256 is {digest}, not {download.sha256}{more}: it is another file")
    if not part.stat().st_size:
        raise Refused(f"{place}: is empty")
    if download.kind == "image":
        try:
            with DEFAULT_SETTINGS, opened(part) as image:
                image.convert("RGB")
        except MemoryError:
            raise
        except Exception as error:  # a broken file makes Pillow raise nearly anything
            with open(part, "rb") as file:
                start = file.read(20)
            raise Refused(f"{place}: is no image that can be decoded; it begins with {start!r}") from error


def resumable(part: Path, url: str) -> tuple[int, dict[str, str]]:
    """How much of an earlier try can be kept, and the headers that ask for the rest."""
    try:
        about = json.loads(part.with_suffix(".json").read_text())
        have = part.stat().st_size
    except (OSError, ValueError):
        return 0, {}
    if not have or about.get("url") != url or not about.get("validator"):
        return 0, {}  # without a validator nobody knows whether the rest belongs to what is there
    return have, {"Range": f"bytes={have}-", "If-Range": about["validator"]}


def remember(part: Path, url: str, answer: Any) -> None:
    etag = answer.headers.get("etag", "")
    validator = etag if etag and not etag.startswith("W/") else answer.headers.get("last-modified", "")
    write_file(part.with_suffix(".json"), json.dumps({"url": url, "validator": validator}))


def range_start(answer: Any) -> int:
    """Where the part begins that a server sent, −1 where it does not say."""
    kind, _, rest = answer.headers.get("content-range", "").partition(" ")
    start = rest.partition("-")[0]
    return int(start) if kind == "bytes" and start.isdigit() else -1


def retry_after(answer: Any) -> float | None:
    """Seconds that a server asks us to wait; None where it does not say."""
    text = answer.headers.get("retry-after", "")
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


def behind(error: BaseException) -> list[BaseException]:
    """An error and those it wraps, the innermost last."""
    found: list[BaseException] = [error]
    while (inner := found[-1].__cause__ or found[-1].__context__) is not None and inner not in found:
        found.append(inner)
    return found


def short(error: BaseException) -> str:
    """The innermost reason of an error that wraps others."""
    inner = behind(error)[-1]
    return str(inner) or type(inner).__name__


def unreachable(error: BaseException) -> bool:
    """Whether no connection was made at all."""
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

    return any(isinstance(one, NewConnectionError | ConnectTimeoutError) for one in behind(error))
