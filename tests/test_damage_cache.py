"""Whatever becomes of a file of the cache: the next run gives the undisturbed numbers, names it, and ends."""

import contextlib
import itertools
import os
import shutil
import signal
import time

import numpy as np
import pytest
from PIL import Image
from tiny_runs import TinyRuns

import rankbench
from rankbench.benchmark import Benchmark
from rankbench.claims import Claim
from rankbench.render import render
from rankbench.store import ResultStore
from rankbench.table import Drawer
from rankbench.worker import load_registry

ROWS = {"cached": {"name": "cached"}}
FILES = [
    *(f"pixels/*/*/{name}" for name in ("rows.npy", "ids.npy", "seconds.npy", "checksums.json")),
    *(f"features/*/*/{name}" for name in ("rows.npy", "ids.npy", "seconds.npy", "checksums.json")),
    *(f"{kind}/*/{name}" for kind in ("fitted", "shared") for name in ("state.json", "state.npz", "checksums.json")),
    *(f"digests/*/{name}" for name in ("keys.npy", "digests.npy", "checksums.json")),
    *(f"{kind}/*.json" for kind in ("problems", "metrics", "unreadable")),
    "pixels/*/.lock",
]
LIMIT = 20  # seconds, far above what a run takes


class Lab(TinyRuns):
    """One undisturbed run, and others from copies of its cache."""

    def __init__(self, root):
        super().__init__(root)
        folder = self.data / "halves"
        folder.mkdir()
        rng = np.random.default_rng(0)
        for at, level in enumerate(rng.permutation(200)[:50]):
            pixels = (level + rng.integers(0, 50, (8, 8, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{at:02d}-{level}.png")
        for path in sorted(folder.iterdir())[:2]:  # one of each problem cannot be read
            path.write_bytes(path.read_bytes()[:60])
        for path in folder.iterdir():
            os.utime(path, ns=(1, time.time_ns() - 10**11))
        self.file = self.write(ROWS, dataset={"name": "halves"})
        self.first = self.again(self.cache, self.results)

    def again(self, cache, results, **options):
        """Table and scores of a run with this cache, into other results."""
        places = {"cache": cache, "results": results, "plugins": ["cached_work"], "in_process": True}
        result = rankbench.run(self.file, **self.options(**{**places, **options}))
        store, scores = ResultStore(results), {}
        for key, record in store.records():
            scores[record["facets"]["half"]] = store.outcome(key, "test").scores.tobytes()
        assert {cell.status for cell in result.cells} == {"done"}, [cell.reason for cell in result.cells]
        return render(result.drawn(), "text"), scores, sorted(cell.key for cell in result.cells)

    def drawn(self, cache):
        """The table of the undisturbed results, with the metrics that this cache remembers."""
        registry = load_registry(["cached_work"])
        return render(Drawer(registry, ResultStore(self.results), cache).draw(Benchmark.read(self.file)), "text")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rankbench.loading.SETTLED", 0, raising=False)  # its files need not be two seconds old
        patch.setattr(os, "fsync", lambda handle: None)  # nobody pulls the plug
        yield Lab(tmp_path_factory.mktemp("lab"))


def flip(path, rng, other):
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    path.write_bytes(content)


def flip_and_put_the_time_back(path, rng, other):
    stat = path.stat()
    flip(path, rng, other)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def truncate(path, rng, other):
    path.write_bytes(path.read_bytes()[: rng.integers(1, path.stat().st_size)])


def empty(path, rng, other):
    path.write_bytes(b"")


def delete(path, rng, other):
    path.unlink()


def exchange(path, rng, other):
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


def replaced(make):
    def replace(path, rng, other):
        path.unlink()
        make(path)

    return replace


DAMAGES = {
    "flip": flip,
    "flip, time put back": flip_and_put_the_time_back,
    "truncate": truncate,
    "empty": empty,
    "delete": delete,
    "exchange": exchange,
    "pipe": replaced(os.mkfifo),
    "folder": replaced(os.mkdir),
    "endless device": replaced(lambda path: path.symlink_to("/dev/zero")),
    "link to nothing": replaced(lambda path: path.symlink_to(path.with_name("absent"))),
}


@contextlib.contextmanager
def bounded(seconds):
    """Fails what takes longer: a read of a pipe, say."""

    def late(number, frame):
        pytest.fail(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def cases():
    """Every kind of file with every kind of damage; a share by default: each file four times, each damage often."""
    for at, (pattern, damage) in enumerate(itertools.product(FILES, DAMAGES)):
        if pattern.endswith(".lock") and damage in ("flip", "flip, time put back", "truncate", "exchange"):
            continue  # it is empty
        default = (at // len(DAMAGES) + at) % 3 == 0
        yield pytest.param(pattern, damage, 0, marks=() if default else pytest.mark.slow, id=f"{pattern} {damage}")
    for pattern, seed in itertools.product(FILES[:-1], range(1, 8)):
        yield pytest.param(pattern, "flip", seed, marks=pytest.mark.slow, id=f"{pattern} flip {seed}")


@pytest.mark.parametrize(("pattern", "damage", "seed"), list(cases()))
def test_a_damaged_file_is_named_and_changes_no_number(lab, tmp_path, capfd, pattern, damage, seed):
    rng = np.random.default_rng([seed, FILES.index(pattern), list(DAMAGES).index(damage)])
    cache = tmp_path / "cache"
    shutil.copytree(lab.cache, cache)
    paths = sorted(cache.glob(pattern))
    at = int(rng.integers(len(paths)))
    path, other = paths[at], paths[at - 1]
    before = path.read_bytes()
    DAMAGES[damage](path, rng, other)
    same = path.is_file() and path.read_bytes() == before  # an exchange of equals, say
    memo = path.parent.parent == cache  # a file by itself: deleted, it is as if it had never been
    capfd.readouterr()
    with bounded(LIMIT):
        table = lab.drawn(cache)
        found = lab.again(cache, tmp_path / "results")
    said = capfd.readouterr().err
    assert table == lab.first[0]
    assert found == lab.first
    if same or path.name == ".lock" or (memo and damage == "delete"):
        return
    assert str(path if memo else path.parent) in said
    assert len(said.splitlines()) <= 2, "each damaged file is said once"


def test_a_worker_process_has_its_runner_say_what_it_mended(lab, tmp_path, capfd):
    cache = tmp_path / "cache"
    shutil.copytree(lab.cache, cache)
    path = sorted(cache.glob("pixels/*/*/rows.npy"))[0]
    flip(path, np.random.default_rng(0), None)
    found = lab.again(cache, tmp_path / "results", in_process=False)
    assert found == lab.first
    assert f"{path}: is damaged: its checksum is not that of what was stored. It is built again." in (
        capfd.readouterr().err.splitlines()
    )


@pytest.mark.parametrize("damage", ["pipe", "folder", "endless device", "link to nothing", "empty"])
def test_a_claim_that_is_none_keeps_nobody_waiting(tmp_path, monkeypatch, damage):
    monkeypatch.setattr("rankbench.claims.SILENCE", 0.2)
    path = tmp_path / "claim"
    path.write_text("")
    DAMAGES[damage](path, None, None)
    with bounded(LIMIT):
        claim = Claim(path)
        while not claim.take():
            time.sleep(0.02)
        assert path.is_file()
        claim.release()
    assert not os.path.lexists(path)
