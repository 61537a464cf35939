"""Faults of processes, of single files and of plugins, by seed: every run ends with the undisturbed table.

    python tests/faults/campaign.py [--processes 200] [--files 300] [--plugins 60] [--jobs 3] [--first 0]

Prints what failed, with the number that repeats it (`--first 17 --files 1`), and exits 1 if anything did. The default
suite runs a share of it (tests/faults/test_faults.py).
"""

import argparse
import concurrent.futures
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import file_faults  # noqa: E402
import plugin_faults  # noqa: E402
import process_faults  # noqa: E402
from scene import Scene  # noqa: E402


def undisturbed(root):
    """A finished run that nobody disturbs: its scene, table and scores."""
    scene = Scene(root)
    for _ in range(2):  # the second one reads what the first has stored, memos of metrics among it
        code, table, error = scene.run()
        assert code == 0, error
    scene.log.unlink()
    return scene, {"table": table, "scores": scene.scores()}


def experiments(root, processes, files, plugins, first):
    """What to do, by name: (kind, number, function without arguments)."""
    scene, expected = undisturbed(root / "undisturbed")
    each = process_faults.EACH
    for number in range(first, first + -(-processes // each)):
        place = root / f"processes-{number}"
        yield "processes", number, lambda n=number, p=place: process_faults.experiment(n, p, expected)
    for number in range(first, first + files):
        place = root / f"files-{number}"
        yield "files", number, lambda n=number, p=place: [file_faults.experiment(n, p, scene, expected)]
    if plugins:
        alone = plugin_faults.rows_alone(root / "alone")
        for number in range(first, first + plugins):
            place = root / f"plugins-{number}"
            yield "plugins", number, lambda n=number, p=place: [plugin_faults.experiment(n, p, alone)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, count in (("processes", 200), ("files", 300), ("plugins", 60), ("jobs", 3), ("first", 0)):
        parser.add_argument(f"--{name}", type=int, default=count)
    words = parser.parse_args()
    began, failed, done = time.time(), [], Counter()
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        concurrent.futures.ThreadPoolExecutor(words.jobs) as pool,
    ):
        asked = experiments(Path(folder), words.processes, words.files, words.plugins, words.first)
        futures = {pool.submit(work): (kind, number) for kind, number, work in asked}
        for future in concurrent.futures.as_completed(futures):
            kind, number = futures[future]
            try:
                done[kind] += len(future.result())
            except Exception as error:
                failed.append((kind, number))
                print(f"--- {kind} {number}: {type(error).__name__}: {error}", flush=True)
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(done.items()))
    print(f"Faults survived: {told or 'none'}; {len(failed)} experiments failed; {time.time() - began:.0f} s")
    for kind, number in sorted(failed):
        print(
            f"  again: python tests/faults/campaign.py --processes 0 --files 0 --plugins 0 --first {number} --{kind} 1"
        )
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
