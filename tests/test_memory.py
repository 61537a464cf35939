"""Peak memory: the cell's own, and the same for equal work in any order."""

import os
import sys
import threading
import time

import numpy as np
import pytest
from tiny_runs import TinyRuns

from rankbench import memory
from rankbench.table import costs

WAYS = ("array", "blocks", "keeps", "library", "artefact", "slow")
MB = 1e6
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the system does not tell")


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    (tmp_path / "heavy_library.py").write_text("import numpy\ntable = numpy.ones(60_000_000, numpy.uint8)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return TinyRuns(tmp_path, monkeypatch)


def figures(tiny, rows, **options):
    """Own memory of each row in MB, and the number of processes."""
    tiny.run(rows, plugins=["misbehaving", "hungry"], top={"keep": "scores"}.items(), **options)
    found = {record["row"]: costs(record)["peak_memory"] / MB for _, record in tiny.store.records()}
    return found, len({note["pid"] for note in tiny.notes()})


def close(one, other):
    return abs(one - other) <= max(5, 0.1 * max(one, other))


def test_equal_work_gives_equal_figures_in_any_order(tmp_path, monkeypatch, tiny):
    rows = {"nothing": {"name": "hungry", "how": "array", "mega": 0}}
    for how in WAYS:
        rows[how] = {"name": "hungry", "how": how}
        rows[f"{how} again"] = {"name": "hungry", "how": how, "tag": "again"}
    rows["small"] = {"name": "hungry", "mega": 15}
    found, processes = figures(tiny, rows)
    assert processes == 1
    (tmp_path / "other").mkdir()
    other, processes = figures(TinyRuns(tmp_path / "other", monkeypatch), dict(reversed(rows.items())))
    assert processes == 1
    expected = {row: {"nothing": 0, "small": 15}.get(row, 40) for row in rows}
    for row, size in expected.items():
        assert close(found[row], size), (row, found)
        assert close(other[row], size), (row, other)


def test_children_count(tiny):
    found, _ = figures(tiny, {"child": {"name": "hungry", "how": "child", "mega": 60}})
    assert 60 <= found["child"] < 85, "an interpreter's own beside it"


def test_a_forked_child_counts_with_what_it_writes():
    held = np.ones(30_000_000, np.uint8)
    child = os.fork()
    if child == 0:
        held[:10_000_000] = 2
        time.sleep(0.5)
        os._exit(0)
    time.sleep(0.2)
    assert memory.has_children()
    assert 9 * MB < memory.children_memory() < 20 * MB
    os.waitpid(child, 0)


def test_looking_at_children_that_hold_nothing_takes_its_share_of_the_time_too(monkeypatch):
    looked = []

    def none_held():
        looked.append(time.sleep(0.01))
        return 0

    monkeypatch.setattr(memory, "has_children", lambda: True)  # ended ones that nobody has waited for
    monkeypatch.setattr(memory, "children_memory", none_held)
    monkeypatch.setattr(memory.PROCESS, "measure", lambda peak: setattr(memory.PROCESS, "measured", peak))
    peak = memory.PeakMemory()
    peak.begin()
    for _ in range(5):
        peak.look()
    peak.end()
    assert len(looked) == 1


def test_an_import_in_the_midst_of_a_look_does_not_hang(monkeypatch):
    monkeypatch.setattr(memory.PROCESS, "measure", lambda peak: setattr(memory.PROCESS, "measured", peak))
    peak, children = memory.PeakMemory(), memory.PeakMemory._of_children
    peak.begin()

    def collected(self):
        """Garbage whose `__del__` imports."""
        monkeypatch.setattr(memory.PeakMemory, "_of_children", children)
        peak.importing("late")
        peak.imported("late")
        return 0

    monkeypatch.setattr(memory.PeakMemory, "_of_children", collected)
    thread = threading.Thread(target=peak.look, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    peak.end()


def test_where_the_system_does_not_tell_nothing_is_known(monkeypatch):
    monkeypatch.setattr(memory, "reset", lambda: False)
    peak = memory.PeakMemory()
    peak.begin()
    with memory.apart():
        np.ones(10**6)
    peak.end()
    assert (peak.before, peak.own, peak.peak) == (None, None, None)
    record = {"phases": {}, "peak_memory_bytes": None, "memory_bytes_before": None, "peak_memory_of": "cell"}
    assert costs(record)["peak_memory"] is None


def test_no_figure_is_negative():
    record = {"phases": {}, "peak_memory_bytes": 10, "memory_bytes_before": 20, "peak_memory_of": "cell"}
    assert costs(record)["peak_memory"] is None, "stored by an earlier version, from a warm process"


def test_a_failure_has_a_peak_where_it_came_to_a_fit(tiny):
    result = tiny.run({"bad": {"name": "trouble", "how": "raises"}})
    failure = tiny.store.failure(result.cells[0].key)
    assert failure["peak_memory_bytes"] >= failure["memory_bytes_before"] > 0
