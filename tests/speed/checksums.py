"""What it costs to compare a row store with its checksums before it is used, in shares of reading it once.

    python tests/speed/checksums.py FOLDER [GB]

Writes a store of float32 rows (1 GB, or as many as GB says) to FOLDER for the time. Warm: its pages are in memory; each
chunk is read and compared by one thread, the best of several turns counts, so that others on the machine matter little.
Cold: the pages were dropped; read once by the clock, with and without comparing (several threads) before.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

DIMENSIONS, BLOCK = 512, 4096
GOAL = 10  # per cent of reading the store once
TURNS = 7


def identities(count):
    return np.random.default_rng(1).integers(0, 256, (count, 32), dtype=np.uint8)


def write(folder, count):
    """A store as a worker fills it."""
    from rankbench.features import RowStore

    rng = np.random.default_rng(0)

    def compute(rows):
        yield rng.random((len(rows), DIMENSIONS), dtype=np.float32)

    RowStore(folder).fill(identities(count), compute)


def read(rows):
    for _ in rows.blocks(BLOCK):
        pass


def timed(work, *arguments):
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


def warm(folder):
    """Seconds to read every chunk, and to compare it."""
    from rankbench.features import RowStore
    from rankbench.files import checksum

    store, total = RowStore(folder), np.zeros(2)
    store.refresh()
    for path in sorted(folder.glob("*/rows.npy")):
        rows = store.rows(np.load(path.with_name("ids.npy")))
        total += np.min([[timed(read, rows), timed(checksum, path)] for _ in range(TURNS)], axis=0)
    return total.tolist()


def cold(folder, checked):
    """Seconds to read every row once, in a process of its own and after the pages were dropped."""
    for path in folder.glob("*/*"):
        handle = os.open(path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)
    command = [sys.executable, __file__, "--line", str(folder), str(int(checked))]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def line(folder, checked):
    from rankbench.features import RowStore, distinct

    store = RowStore(folder)
    store.refresh()
    ids = np.concatenate([np.load(path) for path in sorted(folder.glob("*/ids.npy"))])
    wanted = distinct(ids)[0]
    began = time.perf_counter()
    if checked:
        store.check(wanted)
    read(store.rows(ids))
    return time.perf_counter() - began


def main():
    if sys.argv[1] == "--line":
        print(json.dumps(line(Path(sys.argv[2]), sys.argv[3] == "1")))
        return
    size = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    with tempfile.TemporaryDirectory(dir=sys.argv[1]) as name:
        folder = Path(name) / "store"
        write(folder, int(size * 1e9 / (4 * DIMENSIONS)))
        reading, comparing = warm(folder)
        print(f"{size:g} GB; goal: at most {GOAL} % of reading it once")
        print(
            f"warm, one thread: read in {reading:.2f} s, compared in {comparing:.2f} s ({size / comparing:.1f} GB/s): "
            f"{100 * comparing / reading:.0f} %; {4 / size * comparing:.1f} s for 4 GB"
        )
        bare, full = np.min([[cold(folder, False), cold(folder, True)] for _ in range(TURNS // 2)], axis=0)
        print(
            f"cold: read in {bare:.2f} s, compared and read in {full:.2f} s: {100 * (full / bare - 1):+.0f} %; "
            f"{4 / size * (full - bare):+.1f} s for 4 GB"
        )


if __name__ == "__main__":
    main()
