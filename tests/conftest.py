"""What every test may ask for."""

import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from dots import Lab

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # under nohup: what tests start would not hear Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _no_scratch_at_home():
    """Private folders of plugins lie in a temporary place, never in the home of whoever runs the tests."""
    with tempfile.TemporaryDirectory(prefix="rankbench-tests-") as name:
        os.environ["RANKBENCH_SCRATCH"] = name
        yield
        del os.environ["RANKBENCH_SCRATCH"]


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A folder of its own with a small plugin package, installed, and data for it."""
    lab = Lab(tmp_path)
    monkeypatch.syspath_prepend(str(lab.site))
    yield lab
    sys.modules.pop("dots_plugins", None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real datasets beside the checkout, for tests marked `realdata`; skips where they are absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs the real datasets in ../shared/data")
    return folder
