"""Misbehaving plugins between rows that behave: those give what they give alone, and the run ends."""

from rogues import WAYS
from scene import Scene

SLOW = ("hangs", "hangs-with-signals-blocked", "stops-itself")  # end by their time limit
BENCHMARK = """
title = "Rogues"
dataset = "busy-files"
metric = "pairwise-accuracy"
seeds = [0]
[[column]]
label = "Accuracy"
[[row]]
label = "Before"
ranker = {{ name = "busy-steady", noise = 0.5 }}
[[row]]
label = "Rogue"
ranker = {{ name = "rogue", how = "{how}" }}
timeout = {timeout}
[[row]]
label = "After"
ranker = {{ name = "busy", seconds = 0.0 }}
[[row]]
label = "Last"
ranker = {{ name = "busy-steady", noise = 0.7 }}
"""


def experiment(number, root, alone):
    """Gives how it misbehaved. Args: alone, scores of the rows that behave, by key, from a run without a rogue."""
    how = sorted(WAYS)[number % len(WAYS)]
    scene = Scene(root)
    scene.file.write_text(BENCHMARK.format(how=how, timeout=3 if how in SLOW else 45))
    code, table, error = scene.wait(scene.start("run", scene.file, "--jobs", "1", "--format", "csv"))
    assert code in (0, 1), f"{how}: exit code {code}\n{error}"
    assert "Traceback" not in error, f"{how}: {error}"
    assert "\x1b" not in table + error, f"{how}: control characters reach the terminal"
    assert len(error) < 20_000, f"{how}: {len(error)} characters of messages"
    found = scene.scores()
    for key, scores in alone.items():
        assert key in found, f"{how}: a row that behaves is lost\n{error}"
        assert found[key] == scores, f"{how}: a row that behaves has other scores"
    assert (len(found) > len(alone)) == (code == 0), f"{how}: exit code {code} with {len(found)} cells stored\n{error}"
    scene.left_alone()
    return how


def rows_alone(root):
    """Scores of the rows that behave."""
    scene = Scene(root)
    text = BENCHMARK.format(how="", timeout=45)
    begin, end = text.index('[[row]]\nlabel = "Rogue"'), text.index('[[row]]\nlabel = "After"')
    scene.file.write_text(text[:begin] + text[end:])
    code, _, error = scene.run()
    assert code == 0, error
    return scene.scores()
