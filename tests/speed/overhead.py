"""What the core costs a cell that does nothing: milliseconds a cell in process, and seconds to check a stored plan.

    python tests/speed/overhead.py [CELLS] [--profile]

The goals are 3 ms a cell, 0.15 s for a plan of 1,000 stored cells whose checksums are compared, and 50 ms a problem for
a hundred users of `popularity`, each a problem of its own, by the real command with its worker processes.
"""

import cProfile
import pstats
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import rankbench
from rankbench.runner import Options, Runner

GOAL_MILLISECONDS, GOAL_SECONDS = 3.0, 0.15
PROBLEMS = 10
BENCHMARK = """
title = "Nothing to do"
dataset = {{ name = "tiny", count = {problems} }}
metric = "pairwise-accuracy"
seeds = {seeds}
[[column]]
label = "All"
[[row]]
label = "Chance"
ranker = "chance"
"""


def timed(title, work, profile):
    """Seconds it took, and what came out."""
    watch = cProfile.Profile()
    began = time.perf_counter()
    found = watch.runcall(work) if profile else work()
    seconds = time.perf_counter() - began
    if profile:
        print(title)
        pstats.Stats(watch).sort_stats("cumulative").print_stats(45)
    return seconds, found


USERS = """
title = "A hundred users"
metric = "pairwise-accuracy"
[[column]]
label = "Each"
dataset = { name = "popularity", setting = "user-specific", splits = 1 }
[[row]]
label = "Chance"
ranker = "chance"
"""


def users(folder, count=100, each=24):
    """Milliseconds a problem for a whole run, start of the command and of its workers included."""
    root = folder / "data" / "popularity"
    root.mkdir(parents=True)
    lines = [f"{user}/{k}.jpg,{user},{(7 * k + user) % 97}" for user in range(count) for k in range(each)]
    (root / "popularity.csv").write_text("image,user,score\n" + "\n".join(lines) + "\n")
    (folder / "users.toml").write_text(USERS)
    places = [word for name in ("data", "results", "cache") for word in (f"--{name}", str(folder / name))]
    time.sleep(2.1)  # a file written just now is not remembered
    began = time.perf_counter()
    command = [str(Path(sys.executable).with_name("rankbench")), "run", str(folder / "users.toml"), *places]
    done = subprocess.run(command, capture_output=True, text=True)
    assert f"{count} fitted in this run" in done.stderr, done.stderr
    return 1000 * (time.perf_counter() - began) / count


def main():
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    cells, profile = int(words[0]) if words else 1000, "--profile" in sys.argv
    sys.path.insert(0, str(Path(__file__).parents[1]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "nothing.toml"
        file.write_text(BENCHMARK.format(problems=PROBLEMS, seeds=list(range(cells // PROBLEMS))))
        places = {"data": folder / "data", "results": folder / "results", "cache": folder / "cache"}
        options = {"in_process": True, "plugins": ["misbehaving"], "quiet": True, "device": "cpu", **places}
        seconds, result = timed("run", lambda: rankbench.run(file, **options), profile)
        assert result.exit_code == 0
        assert result.plan.fitted == cells
        each = 1000 * seconds / cells
        print(f"{each:.2f} ms a cell ({cells} cells in {seconds:.2f} s; goal {GOAL_MILLISECONDS:g} ms)")
        benchmark = rankbench.Benchmark.read(file)
        seconds, plan = timed("plan", lambda: Runner(Options(**options)).plan(benchmark), profile)
        assert {cell.status for cell in plan.cells} == {"done"}
        print(f"{seconds:.2f} s to check a plan of {cells} stored cells (goal {GOAL_SECONDS:g} s)")
        seconds, result = timed("again", lambda: rankbench.run(file, **options), profile)
        print(f"{seconds:.2f} s to run it again, with nothing to do")
        assert result.plan.fitted == 0
    with tempfile.TemporaryDirectory() as name:
        print(f"{users(Path(name)):.0f} ms a problem for 100 users (goal 50 ms)")


if __name__ == "__main__":
    main()
