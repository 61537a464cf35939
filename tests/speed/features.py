"""How fast hand-made features are: against straight ports on one core, and on two cores against one.

    python tests/speed/features.py [--data FOLDER]

Images: elpv at 300 × 300 px (package elpv-dataset) and, with --data, OSR at 64 × 64 px (FOLDER/osr). The ports
(tests/ports.py) are vectorised within one image; what they give must equal ours within 1e-4. The second table fills a
row store of the core with one and with two processes.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # before NumPy is imported: one core each
    os.environ[name] = "1"
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np  # noqa: E402
import ports  # noqa: E402

from rankbench_features import hog31, llc  # noqa: E402
from rankbench_features.gist import PIXELS, gabor_energy, transfers  # noqa: E402

COUNT = {"elpv 300 px": 32, "OSR 64 px": 256}
LIBRARY, OWN = ("lbp", "color-histogram", "hog", "cell-statistics"), ("gist", "hog2x2", "color-patches")


def photographs(data):
    """(n, h, w, 3) uint8 by name."""
    import rankbench
    from rankbench_datasets.elpv import Elpv

    sets = {"elpv 300 px": Elpv().problem(None, {"split": 0}).images}
    if data:
        folder = Path(data) / "osr" / "spatial_envelope_256x256_static_8outdoorcategories"
        sets["OSR 64 px"] = rankbench.Images(sorted(folder.glob("*.jpg")))
    return {name: np.stack([images[row] for row in range(COUNT[name])]) for name, images in sets.items()}


def rate(work, images, batch, repeats=3):
    """Images a second, the best of some runs, and all that `work` gave."""
    best = np.inf
    for _ in range(repeats):
        began = time.perf_counter()
        found = [work(images[at : at + batch]) for at in range(0, len(images), batch)]
        best = min(best, time.perf_counter() - began)
    return len(images) / best, np.concatenate(found)


def line(label, ours, port):
    gap = float(np.abs(ours[1].reshape(len(ours[1]), -1) - port[1].reshape(len(port[1]), -1)).max())
    print(f"{label:34}{ours[0]:10.1f}{port[0]:10.1f}{ours[0] / port[0]:8.1f}×{gap:12.1e}", flush=True)
    assert gap < 1e-4, label


def against_ports(sets):
    print(f"{'images a second, one core':34}{'ours':>10}{'port':>10}{'ratio':>9}{'difference':>12}")
    for name, images in sets.items():
        ours = rate(lambda some: hog31.descriptors(some, (2,))[0], images, 16)
        port = rate(lambda some: ports.hog31(some[0], 2)[None], images[: max(8, len(images) // 8)], 1)
        line(f"31-channel HOG, {name}", (ours[0], ours[1][: len(port[1])]), port)
        described = ours[1]
        words = llc.dictionary(described.reshape(-1, described.shape[-1])[:20_000], 256, 0)
        ours = rate(lambda some, words=words: llc.encoded(some, words), described, 16)
        port = rate(lambda some, words=words: ports.llc(some[0], words)[None], described[: max(8, len(images) // 8)], 1)
        line(f"LLC, {name}", (ours[0], ours[1][: len(port[1])]), port)
        for side in (64, 256) if images.shape[1] > 64 else (64,):
            grey = squares(images.mean(axis=3, dtype=np.float32), side)
            border, filters = side // 8, transfers(side + side // 4, 4, 8)
            few = grey[: max(8, len(grey) // 8)]
            ours = rate(lambda some, b=border: gist_of(some, b), grey, max(1, PIXELS // side**2))
            port = rate(lambda some, b=border, f=filters: ports.gist(some[0], b, f, 4)[None], few, 1)
            line(f"GIST {side} px, {name}", (ours[0], ours[1][: len(port[1])]), port)


def gist_of(grey, border):
    edged = np.pad(grey, [(0, 0), (border, border), (border, border)], mode="symmetric")
    return gabor_energy(edged, border, 4, 8, 4).reshape(len(grey), -1)


def squares(grey, side):
    """(n, side, side) in the range that GIST's prefilter gives."""
    from PIL import Image

    resized = [np.asarray(Image.fromarray(one).resize((side, side), Image.Resampling.BILINEAR)) for one in grey]
    return (np.array(resized, dtype=np.float32) - 128) / 64


def two_cores():
    print(f"\n{'images a second, row store':34}{'1 process':>10}{'2':>10}{'ratio':>9}")
    for name in (*LIBRARY, *OWN):
        rates = {}
        for processes in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, __file__, "--fill", name, folder]
                jobs = [
                    subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                    for _ in range(processes)
                ]
                for job in jobs:
                    assert job.stdout.readline() == "ready\n"
                began = time.perf_counter()
                for job in jobs:
                    job.stdin.write("go\n")
                    job.stdin.flush()
                images = {int(job.stdout.readline()) for job in jobs}
                rates[processes] = images.pop() / (time.perf_counter() - began)
                for job in jobs:
                    job.communicate()
        print(f"{name:34}{rates[1]:10.1f}{rates[2]:10.1f}{rates[2] / rates[1]:8.2f}×", flush=True)


def fill(name, folder):
    from rankbench.features import RowStore
    from rankbench.registry import Registry
    from rankbench.services import extracted, image_ids
    from rankbench.toys import bright_squares
    from rankbench_datasets.elpv import Elpv

    images = Elpv().problem(None, {"split": 0}).images.take(np.arange(1536 if name in (*LIBRARY, "gist") else 256))
    registry = Registry.installed()
    feature = registry.build("features", name, {"samples": 5000} if name in ("hog2x2", "color-patches") else {})
    from rankbench.testing import Bench

    run = Bench(Path(folder), registry).run(bright_squares(), feature)  # decoded pixels are shared, as in a run
    run.scope = images
    if feature.learned():
        feature.fit(images.take(np.arange(8)), run.door)
    image_ids(images)  # digests are read before the clock starts
    print("ready", flush=True)
    sys.stdin.readline()
    store = RowStore(Path(folder) / "store")
    store.fill(image_ids(images), lambda rows: extracted(feature, images, rows, run))
    print(len(images), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder that holds osr/")
    parser.add_argument("--fill", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fill:
        fill(*arguments.fill)
        return
    against_ports(photographs(arguments.data))
    two_cores()
    print(f"\npeak memory of the ports and ours: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
    print(f"largest process that filled a store: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
