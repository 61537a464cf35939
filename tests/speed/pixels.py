"""Decoding once: an epoch from the pixel store against decoding every time, and two builders against one.

    python tests/speed/pixels.py [IMAGES]

Writes JPEG photographs of 500 × 375, fills a store of 256 × 256 with one process and with two, then reads a shuffled
epoch in batches of 64 with as many processes as cores: from the store, with its pages in memory and without, and by
Pillow from the files. Goals: 10 times faster than Pillow; 1.6 times faster to build with two processes than with one.
"""

import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIZE, BATCH, WORKERS = 256, 64, os.cpu_count() or 1


def write(folder, count):
    """Photographs: noise over smooth color, about as many bytes as a photograph of that size has."""
    from PIL import Image

    rng = np.random.default_rng(0)
    paths = []
    for k in range(count):
        small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
            (500, 375), Image.Resampling.BICUBIC
        )
        noise = rng.integers(-12, 13, (375, 500, 1))
        pixels = np.clip(np.asarray(small).astype(int) + noise, 0, 255).astype(np.uint8)
        paths.append(folder / f"{k}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=90)
    return paths


def build(paths, folder, begun, ended):
    """One process that fills a store, whatever others do."""
    from rankbench.features import RowStore, decoded
    from rankbench.images import Images

    images = Images(paths)
    ids = images.digests
    decoded(images.take(np.arange(1)), SIZE, "stretch", 1)(np.arange(1))
    begun.wait()
    RowStore(Path(folder)).fill(ids, decoded(images, SIZE, "stretch", 1))
    ended.wait()


def timed(work, arguments, before=lambda: None):
    """Seconds from the moment that processes, one for each of the arguments, are ready until all have done the work."""
    context = multiprocessing.get_context("spawn")
    begun, ended = context.Barrier(len(arguments) + 1), context.Barrier(len(arguments) + 1)
    workers = [context.Process(target=work, args=(*some, begun, ended)) for some in arguments]
    for worker in workers:
        worker.start()
    while begun.n_waiting < len(workers):
        time.sleep(0.01)
    before()
    begun.wait()
    began = time.perf_counter()
    ended.wait()
    seconds = time.perf_counter() - began
    for worker in workers:
        worker.join()
    return seconds


def built(paths, folder, processes):
    """Seconds to fill a store with so many processes."""
    return timed(build, [(paths, folder)] * processes)


def epoch(how, paths, folder, order, begun, ended):
    """One process that reads its share of a shuffled epoch."""
    if how == "store":
        from rankbench.features import RowStore
        from rankbench.images import Images

        store = RowStore(Path(folder))
        store.refresh()
        rows = store.rows(Images(paths).digests)
    else:
        from PIL import Image

        def load(path):
            with Image.open(path) as image:
                return np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))

        load(paths[0])
    begun.wait()
    total = 0
    for begin in range(0, len(order), BATCH):
        batch = order[begin : begin + BATCH]
        pixels = rows[batch] if how == "store" else np.stack([load(paths[row]) for row in batch])
        total += int(pixels[0, 0, 0, 0])
    ended.wait()


def read(how, paths, folder, cold):
    """Seconds for an epoch over all images."""
    order = np.random.default_rng(1).permutation(len(paths))
    files = [*paths, *Path(folder).glob("*/rows.npy")] if cold else []
    return timed(epoch, [(how, paths, folder, order[at::WORKERS]) for at in range(WORKERS)], lambda: forget(files))


def forget(files):
    """Drop the files' pages from the system's cache, so that they come from the disk."""
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write(folder, count)
        size = sum(path.stat().st_size for path in paths) / count / 1000
        print(f"{count} JPEG of 500 × 375, {size:.0f} kB each; {WORKERS} processes")
        one, two = built(paths, folder / "one", 1), built(paths, folder / "two", 2)
        print(f"build: {one:.1f} s with one process, {two:.1f} s with two: {one / two:.2f} × (goal 1.6)")
        for cold in (False, True):
            decode, store = (read(how, paths, folder / "two", cold) for how in ("decode", "store"))
            state = "cold" if cold else "warm"
            print(
                f"shuffled epoch, {state}: Pillow {count / decode:,.0f} images a second, store {count / store:,.0f}: "
                f"{decode / store:.1f} × (goal 10)"
            )


if __name__ == "__main__":
    main()
