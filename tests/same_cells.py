"""Twenty stored cells computed again: whether the present code gives the scores of another version of it, bit for bit.

    python tests/same_cells.py compute OUT.json --data DIR [--cache DIR]     by the code that is installed
    python tests/same_cells.py compare ONE.json OTHER.json                   two versions, in one environment
    python tests/same_cells.py compare ONE.json                              with what is stored under results/

DIR holds osr/ ; the solar cells come with the package elpv-dataset. The cells are drawn from results/ by SEED, every
ranker among them. Run `compute` in a checkout of each version with one environment on one machine: other versions of
NumPy or torch, and other processors, round otherwise.
"""

import argparse
import hashlib
import json
import random
import sys
import tempfile
from pathlib import Path

import rankbench
from rankbench.store import ResultStore

SEED, COUNT = 11, 20
ROOT = Path(__file__).parents[1]
BENCHMARKS = ("classical", "networks-small")


def drawn(store, count=COUNT, seed=SEED):
    """Records of `count` cells by key: one of each ranker first, then any."""
    records = {key: record for key, record in store.records() if record["benchmark"] in BENCHMARKS}
    rng = random.Random(seed)
    chosen = {}
    for name in sorted({record["ranker"]["name"] for record in records.values()}):
        key = rng.choice(sorted(key for key, record in records.items() if record["ranker"]["name"] == name))
        chosen[key] = records[key]
    rest = sorted(records.keys() - chosen.keys())
    return chosen | {key: records[key] for key in rng.sample(rest, count - len(chosen))}


def alone(record):
    """The record's benchmark with that cell as its only one."""
    benchmark = rankbench.Benchmark.read(ROOT / "benchmarks" / f"{record['benchmark']}.toml")
    benchmark.row = [row for row in benchmark.row if row.label == record["row"]]
    dataset = {key: value for key, value in record["dataset"].items() if key != "folder"}
    columns = [column for column in benchmark.column if column.choice.description == dataset]
    benchmark.column = columns[:1]
    benchmark.column[0].where = dict(record["facets"])
    benchmark.seeds = [benchmark.seeds[0] if record["seed"] is None else record["seed"]]
    return benchmark


def digests(store, key):
    """sha-256 of the scores or margins of each test, the versions that computed them, and the processor."""
    record = store.record(key)
    found = {}
    for name in record["tests"]:
        outcome = store.outcome(key, name)
        values = outcome.margins if outcome.scores is None else outcome.scores
        found[name] = hashlib.sha256(values.tobytes()).hexdigest()
    return {"row": record["row"], "facets": record["facets"], "seed": record["seed"], "scores": found,
            "versions": record["versions"], "processor": record.get("processor", "not recorded"),
            "seconds": round(record["wall_seconds"], 1)}  # fmt: skip


def compute(out, data, cache):
    """Every drawn cell by the installed code, into a store of its own."""
    found = {}
    for key, record in drawn(ResultStore(ROOT / "results")).items():
        with tempfile.TemporaryDirectory() as folder:
            result = rankbench.run(alone(record), data=data, results=folder, cache=cache, device="cpu", quiet=True)
            (cell,) = result.cells
            if cell.status != "done":
                sys.exit(f"{cell.title}: {cell.status}: {cell.reason}")
            assert cell.key == key, f"{cell.title} has another key now: {cell.key}, stored as {key}"
            found[key] = digests(ResultStore(folder), key)
        print(f"{found[key]['seconds']:7.1f} s  {cell.title}", flush=True)
        Path(out).write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


def compare(one, other):
    """Exit code 1 where scores differ that the same versions computed."""
    first = json.loads(Path(one).read_text())
    store = ResultStore(ROOT / "results")
    second = json.loads(Path(other).read_text()) if other else {key: digests(store, key) for key in first}
    differing = other_scores = 0
    for key, cell in first.items():
        same = second[key]["scores"] == cell["scores"]
        versions = {name for name in cell["versions"] if cell["versions"][name] != second[key]["versions"].get(name)}
        if cell.get("processor") != second[key].get("processor"):
            versions.add(f"the processor ({second[key].get('processor')})")
        about = "the same" if same else f"OTHER SCORES, by other versions of {', '.join(sorted(versions)) or 'nothing'}"
        print(f"{key[:12]}  {cell['row']}, {cell['facets']}, seed {cell['seed']}: {about}")
        other_scores += not same
        differing += not same and (other is not None or not versions)
    print(f"{len(first)} cells, {other_scores} with other scores, {differing} of them for no reason known")
    return 1 if differing or first.keys() != second.keys() else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    computing = commands.add_parser("compute")
    computing.add_argument("out")
    computing.add_argument("--data", required=True)
    computing.add_argument("--cache", default="cache")
    comparing = commands.add_parser("compare")
    comparing.add_argument("one")
    comparing.add_argument("other", nargs="?")
    words = parser.parse_args()
    if words.command == "compute":
        compute(words.out, words.data, words.cache)
    else:
        sys.exit(compare(words.one, words.other))


if __name__ == "__main__":
    main()
