"""Files whole or not at all, states without pickle, and claims that outlive no process."""

import json
import os
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from rankbench import claims, drafts, files
from rankbench.claims import Claim, once
from rankbench.errors import DataError, StoreError
from rankbench.files import canonical_json, read_arrays, read_json, read_state, write_file, write_folder


def python(code, *arguments, **options):
    """A process of its own that runs this code."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def hidden(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".") and path.name != ".lock"]


# ---------------------------------------------------------------------------------------------------------- writing


def test_there_is_one_spelling_of_a_json_value():
    assert canonical_json({"b": [1, 2.5], "a": "é"}) == '{"a":"\\u00e9","b":[1,2.5]}'
    with pytest.raises(ValueError):
        canonical_json(float("nan"))


def test_a_file_is_replaced_whole_and_only_where_allowed(tmp_path):
    path = tmp_path / "new" / "a.json"
    assert write_file(path, "one")
    assert write_file(path, b"two")
    assert not write_file(path, "three", replace=False)
    assert path.read_text() == "two"
    assert write_file(path.with_name("b"), "three", replace=False)
    assert hidden(path.parent) == []


def test_two_writers_of_one_new_file_one_wins(tmp_path):
    won = []
    start = threading.Barrier(8)

    def write(number):
        start.wait()
        if write_file(tmp_path / "plan", str(number), replace=False):
            won.append(number)

    threads = [threading.Thread(target=write, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [int((tmp_path / "plan").read_text())] == won


def filler(text):
    def fill(draft):
        (draft / "inner").mkdir()
        (draft / "inner" / "text").write_text(text)

    return fill


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    target = tmp_path / "cells" / "key"
    assert write_folder(target, filler("one"))
    assert not write_folder(target, filler("two"))
    assert (target / "inner" / "text").read_text() == "one"
    assert write_folder(target, filler("three"), replace=True)
    assert (target / "inner" / "text").read_text() == "three"

    def fails(draft):
        (draft / "half").write_text("x")
        raise DataError("cannot be stored")

    for replace in (False, True):
        with pytest.raises(DataError, match="cannot be stored"):
            write_folder(target, fails, replace)
        with pytest.raises(DataError):
            write_folder(target.with_name("other"), fails, replace)
    assert os.listdir(target.parent) == ["key"]
    assert (target / "inner" / "text").read_text() == "three"


def test_two_writers_of_one_folder_lose_nothing(tmp_path):
    target = tmp_path / "key"

    def first_does_the_other(draft):
        filler("mine")(draft)
        assert write_folder(target, filler("theirs"))

    assert not write_folder(target, first_does_the_other)
    assert (target / "inner" / "text").read_text() == "theirs"
    assert os.listdir(tmp_path) == ["key"]


FULL = """
    import resource, sys
    from pathlib import Path
    from rankbench.errors import StoreError
    from rankbench.files import write_file, write_folder
    root = Path(sys.argv[1])
    free = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, free[1]))  # no file may grow beyond this
    fill = lambda draft: (draft / "text").write_text("x" * 50_000)
    for work in (
        lambda: write_file(root / "file", "x" * 50_000),
        lambda: write_folder(root / "folder", fill),
        lambda: write_folder(root / "folder", fill, replace=True),
        lambda: write_folder(root / "other", fill),
    ):
        try:
            work()
            print("stored")
        except StoreError as error:
            print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, free)
"""


def test_a_disk_that_is_full_leaves_the_old_state(tmp_path):
    write_file(tmp_path / "file", "old")
    write_folder(tmp_path / "folder", lambda draft: (draft / "text").write_text("old"))
    said = python(FULL, tmp_path).communicate(timeout=60)[0].splitlines()
    end = "cannot be stored (File too large). Nothing stored was harmed; free some space and run again."
    assert said == [f"{tmp_path / name}: {end}" for name in ("file", "folder", "folder", "other")]
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "text").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"file/x: cannot be stored \("):
        write_file(tmp_path / "file" / "x", "1")
    with pytest.raises(StoreError, match=r"file/y: cannot be stored \("):
        write_folder(tmp_path / "file" / "y", lambda draft: None)
    (tmp_path / "taken").mkdir()
    with pytest.raises(StoreError, match=r"taken: cannot be stored \(Is a directory"):
        write_file(tmp_path / "taken", "1")


def test_a_file_that_appears_where_a_folder_should_be_is_kept(tmp_path):
    def in_the_way(draft):
        (tmp_path / "folder").write_text("precious")

    assert not write_folder(tmp_path / "folder", in_the_way)
    (tmp_path / "draft").mkdir()
    with pytest.raises(NotADirectoryError):
        files.rename_folder(tmp_path / "draft", tmp_path / "folder")
    assert (tmp_path / "folder").read_text() == "precious"


def test_json_that_is_broken_or_absent_is_named(tmp_path):
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(StoreError, match=r"a\.json: is no JSON \(.*Delete it"):
        read_json(tmp_path / "a.json")
    with pytest.raises(StoreError, match=r"b\.json: cannot be read \(No such file"):
        read_json(tmp_path / "b.json")


# ----------------------------------------------------------------------------------------------------------- states


def test_a_state_comes_back_as_it_was(tmp_path):
    state = {
        "weights_": np.arange(6, dtype=np.float32).reshape(2, 3),
        "bias_": np.float64(0.25),
        "names_": np.array(["é", "b"]),
        "file": np.arange(3),
        "layers.0/weight": np.ones((2, 0)),
        "classes_": ["x", None, 3, 0.5, True],
        "nested_": {"loss": float("inf")},
    }
    size = files.write_state(tmp_path, state, "ranker 'x'")
    assert size == sum(path.stat().st_size for path in tmp_path.iterdir())
    back = read_state(tmp_path)
    assert sorted(back) == sorted(state)
    for name, value in state.items():
        assert np.array_equal(back[name], value) if isinstance(value, np.ndarray) else back[name] == value
        if isinstance(value, np.ndarray):
            assert back[name].dtype == value.dtype
    (tmp_path / "state.npz").unlink()
    with pytest.raises(StoreError, match=r"state\.npz: cannot be read"):
        read_state(tmp_path)
    (tmp_path / "empty").mkdir()
    files.write_state(tmp_path / "empty", {}, "ranker 'x'")
    assert read_state(tmp_path / "empty") == {}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([object()]), "ranker 'x': state 'a_' is an array of Python objects, which would have to be pickled"),
        (object(), r"ranker 'x': state may hold arrays and JSON values only \("),
    ],
)
def test_nothing_is_pickled(tmp_path, value, message):
    with pytest.raises(DataError, match=message):
        files.write_state(tmp_path, {"a_": value}, "ranker 'x'")


def test_a_strangers_pickle_is_not_opened(tmp_path):
    np.savez(tmp_path / "evil.npz", x=np.array([{"a": 1}], dtype=object))
    (tmp_path / "torn.npz").write_bytes((tmp_path / "evil.npz").read_bytes()[:60])
    (tmp_path / "text.npz").write_text("no archive")
    for name in ("evil", "torn", "text", "absent"):
        with pytest.raises(StoreError, match=rf"{name}\.npz: cannot be read \("):
            read_arrays(tmp_path / f"{name}.npz")


# ----------------------------------------------------------------------------------------------------------- claims

HOLD = """
    import sys, time
    from pathlib import Path
    from rankbench.claims import Claim
    claim = Claim(Path(sys.argv[1]))
    print(claim.take(), flush=True)
    time.sleep(60)
"""


def test_a_claim_is_exclusive_and_given_back(tmp_path):
    path = tmp_path / "claims" / "key"
    first, second = Claim(path), Claim(path)
    assert first.take()
    assert not second.take()
    second.release()  # not its own: changes nothing
    assert path.exists()
    first.release()
    assert not path.exists()
    assert second.take()
    second.release()


def test_a_dead_owners_claim_is_taken_over_and_a_living_ones_is_not(tmp_path):
    owner = python(HOLD, tmp_path / "key")
    assert owner.stdout.readline() == "True\n"
    claim = Claim(tmp_path / "key")
    assert not claim.take()
    owner.kill()  # not waited for yet: a zombie is dead too
    until(claim.take, 5)
    owner.wait()
    owner.stdout.close()
    assert not Claim(tmp_path / "key").take()
    claim.release()


def test_a_number_used_again_is_not_mistaken_for_the_owner(tmp_path):
    claim = Claim(tmp_path / "key")
    assert claim.take()
    owner = json.loads((tmp_path / "key").read_text())
    claim.release()
    (tmp_path / "key").write_text(json.dumps({**owner, "born": "12"}))  # this process, born at another time
    assert claim.take()
    claim.release()


def test_of_another_host_only_silence_tells(tmp_path):
    path = tmp_path / "key"
    for content in (json.dumps({"host": "elsewhere", "pid": 1, "born": "1"}), "", "[1]", '{"pid": 3}', "null"):
        path.write_text(content)
        assert not Claim(path).take()
        long_ago = time.time() - claims.SILENCE - 1
        os.utime(path, (long_ago, long_ago))
        claim = Claim(path)
        assert claim.take()
        claim.release()


def test_a_claim_is_kept_alive_and_left_alone_once_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "HEARTBEAT", 0.02)
    path = tmp_path / "key"
    first, second = Claim(path), Claim(path)
    assert first.take()
    os.utime(path, (1, 1))
    until(lambda: path.stat().st_mtime > 1)
    claims.HEART.drop(first)  # it sleeps, as a suspended machine does
    os.utime(path, (1, 1))
    assert second.take()
    first.release()
    assert path.exists()
    second.release()
    assert not path.exists()


def test_without_a_list_of_processes_a_signal_tells_who_lives(tmp_path):
    ended = python("pass")
    ended.communicate(timeout=60)
    assert drafts.birth(ended.pid) == drafts.birth(ended.pid, tmp_path) == ""
    assert drafts.birth(os.getpid(), tmp_path) == drafts.birth(1, tmp_path) == "alive"
    assert drafts.birth(os.getpid()) not in ("", "alive")


def test_where_the_system_knows_no_locks_and_no_links_it_works_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "fcntl", None)

    def no_links(*paths):
        raise PermissionError("not supported")

    monkeypatch.setattr(os, "link", no_links)
    claim = Claim(tmp_path / "key")
    assert claim.take()
    assert not Claim(tmp_path / "key").take()
    claim.release()
    assert write_file(tmp_path / "plan", "1", replace=False)
    assert (tmp_path / "plan").read_text() == "1"


RACE = """
    import os, sys, time
    from pathlib import Path
    from rankbench.claims import Claim
    folder = Path(sys.argv[1])
    while not (folder / "go").exists():
        time.sleep(0.001)
    for round in range(25):
        claim = Claim(folder / f"{round}")
        while not (taken := claim.take()) and not (folder / f"{round}.done").exists():
            pass
        if taken:
            with open(folder / "log", "a") as log:
                log.write(f"{round} in\\n"); log.flush()
                (folder / f"{round}.done").touch()
                log.write(f"{round} out\\n")
            claim.release()
"""


def test_of_several_takers_of_an_abandoned_claim_one_gets_it(tmp_path):
    for k in range(25):
        (tmp_path / f"{k}").write_text("")
        os.utime(tmp_path / f"{k}", (1, 1))
    takers = [python(RACE, tmp_path) for _ in range(3)]
    (tmp_path / "go").touch()
    for taker in takers:
        taker.communicate(timeout=60)
        assert taker.returncode == 0
    inside = set()
    for line in (tmp_path / "log").read_text().splitlines():
        name, way = line.split()
        assert (name in inside) == (way == "out")
        inside ^= {name}
    assert not inside


def test_looking_at_a_claim_and_taking_it_over_is_one_step(tmp_path):
    class Slow(Claim):
        def _abandoned(self):
            found = super()._abandoned()
            time.sleep(0.05)
            return found

    (tmp_path / "key").write_text("")
    os.utime(tmp_path / "key", (1, 1))
    start, taken = threading.Barrier(3), []
    claims = [Slow(tmp_path / "key") for _ in range(3)]

    def take(claim):
        start.wait()
        taken.append(claim.take())

    threads = [threading.Thread(target=take, args=(claim,)) for claim in claims]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for claim in claims:
        claim.release()
    assert sorted(taken) == [False, False, True]
    assert not (tmp_path / "key").exists()


def test_a_full_disk_leaves_no_empty_claim(tmp_path):
    code = """
        import resource, sys
        from pathlib import Path
        from rankbench.claims import Claim
        free = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, free[1]))
        try:
            Claim(Path(sys.argv[1])).take()
        except Exception as error:
            resource.setrlimit(resource.RLIMIT_FSIZE, free)
            print(error)
    """
    assert "cannot be stored (File too large)" in python(code, tmp_path / "key").communicate(timeout=60)[0]
    assert not (tmp_path / "key").exists()


WORK = """
    import sys, time
    from pathlib import Path
    from rankbench.claims import once
    folder = Path(sys.argv[1])
    def work():
        with open(folder / "log", "a") as log:
            log.write("worked\\n")
        time.sleep(0.2)
        (folder / "done").touch()
    once(folder / "claim", (folder / "done").exists, work)
    print((folder / "done").exists())
"""


def test_of_several_processes_one_works_and_all_see_it_done(tmp_path):
    workers = [python(WORK, tmp_path) for _ in range(3)]
    assert [worker.communicate(timeout=60)[0] for worker in workers] == ["True\n"] * 3
    assert (tmp_path / "log").read_text() == "worked\n"
    assert not (tmp_path / "claim").exists()


def test_work_that_fails_gives_its_claim_back(tmp_path):
    def fails():
        raise DataError("no")

    with pytest.raises(DataError):
        once(tmp_path / "claim", lambda: False, fails)
    assert not (tmp_path / "claim").exists()
    once(tmp_path / "claim", lambda: True, fails)


def test_a_claim_from_a_clock_ahead_is_taken_over_once_it_has_been_watched_in_vain(tmp_path, monkeypatch):
    claim = tmp_path / "claims" / "k"
    claim.parent.mkdir()
    claim.write_text(json.dumps({"host": "elsewhere", "pid": 1, "born": "1", "token": "x"}))
    os.utime(claim, (time.time() + 3600, time.time() + 3600))
    ours = claims.Claim(claim)
    assert not ours.take()
    later = time.monotonic() + claims.SILENCE + 1
    monkeypatch.setattr(claims.time, "monotonic", lambda: later)
    assert ours.take()
    ours.release()


def test_the_remedy_fits_what_is_wrong(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"File exists.*move the file that is in the folder's place and run again"):
        files.write_file(tmp_path / "file" / "record.json", "{}")
