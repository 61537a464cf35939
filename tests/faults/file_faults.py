"""Damage to one file of a finished run: of results and cache, of every kind."""

import os
import random
import re
import shutil

import pytest

from rankbench.errors import StoreError
from rankbench.store import ResultStore

DAMAGES = (
    "flip",
    "flip",
    "flip",
    "cut",
    "empty",
    "delete",
    "append",
    "exchange",
    "fifo",
    "folder",
    "dangling",
    "endless",
)
MEMOS = ("cache/metrics", "cache/problems", "cache/tests")
UNNOTICED = ("claims", ".lock", "scratch")  # of no lasting meaning


def kinds(scene):
    """Files by kind: their place with digests and numbers left out."""
    found = {}
    for top in (scene.results, scene.cache):
        for path in sorted(top.rglob("*")):
            place = str(path.relative_to(scene.root))
            if path.is_file() and not any(word in place for word in UNNOTICED):
                found.setdefault(re.sub(r"[0-9a-f]{32,64}|\d{6}", "#", place), []).append(path)
    return found


def experiment(number, root, template, undisturbed):
    """One file damaged; the next run names it, mends it and gives the undisturbed table. Gives what was damaged."""
    rng = random.Random(number)
    scene = template.copy(root)
    there = kinds(scene)
    kind = sorted(there)[number % len(there)]
    remembered = kind.startswith(MEMOS)
    if kind.startswith("cache/problems"):  # speaks of places: those of the template are not read here
        known = {path for paths in there.values() for path in paths}
        assert scene.run()[0] == 0
        there = {kind: [path for path in kinds(scene)[kind] if path not in known]}
    path = rng.choice(there[kind])
    how = rng.choice(DAMAGES)
    content = path.read_bytes()
    damage(path, how, there[kind], rng)
    what = f"{how} of {kind}"
    cached = kind.startswith("cache") and not remembered
    if cached:  # it is only read where something is computed
        shutil.rmtree(scene.results / "cells")
    before = {} if cached else scene.stored()
    code, table, error = scene.run()
    assert code == 0, f"{what}: exit code {code}\n{error}"
    assert table == undisturbed["table"], f"{what}: another table\n{table}\n{error}"
    assert scene.scores() == undisturbed["scores"], f"{what}: other scores"
    assert "Traceback" not in error, f"{what}: {error}"
    own = str(path.relative_to(scene.root)).split("/")[2]
    lost = [name for name, old in before.items() if not name.startswith(own) and scene.stored().get(name) != old]
    assert not lost, f"{what}: others changed: {lost}"
    if "/model/" in kind:  # read by nobody but who loads the model
        loading(scene, path, what)
    elif must_be_named(kind, how, content, path):
        assert named(path, error), f"{what}: {path} is not named:\n{error}"
    if "/model/" in kind:
        return what
    again, table, error = scene.run()
    assert (again, table) == (0, undisturbed["table"]), f"{what}: not mended for good\n{error}"
    assert "0 fitted in this run" in error, f"{what}: fitted again\n{error}"
    assert "damaged" not in error, f"{what}: still damaged\n{error}"
    return what


def loading(scene, path, what):
    """AssertionError where a damaged model is loaded, or is not named."""
    with pytest.raises(StoreError) as caught:
        ResultStore(scene.results).state(path.parents[1].name)
    assert named(path, str(caught.value)), f"{what}: {path} is not named:\n{caught.value}"


def damage(path, how, alike, rng):
    """Do it."""
    content = bytearray(path.read_bytes())
    if how == "flip" and content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
    elif how == "cut":
        path.write_bytes(content[: rng.randrange(max(1, len(content)))])
    elif how == "append":
        path.write_bytes(content + b"\0garbage")
    elif how == "exchange" and len(alike) > 1:
        path.write_bytes(rng.choice([other for other in alike if other != path]).read_bytes())
    elif how in ("empty", "exchange", "flip"):
        path.write_bytes(b"")
    else:
        path.unlink()
    if how == "fifo":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()
    elif how == "dangling":
        path.symlink_to(path.parent / "nowhere")
    elif how == "endless":
        path.symlink_to("/dev/zero")


def must_be_named(kind, how, content, path):
    """Whether the damage can be seen at all: not where all went at once, or nothing changed."""
    if how == "exchange" and path.is_file() and path.read_bytes() == content:
        return False
    single = (
        kind.count("#") and path.name.endswith(".json") and path.parent.name in ("problems", "metrics", "unreadable")
    )
    plan = "/plans/" in f"/{kind}"
    record = path.name == "record.json"
    return not (how in ("delete", "dangling") and (single or plan or record))


def named(path, error):
    """Whether a message names the file, or the folder that it is part of."""
    return (
        any(str(place) in error for place in (path, path.parent, path.parent.parent)) or path.parent.name[:12] in error
    )
