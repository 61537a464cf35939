"""What is found out about the machine."""

import subprocess

import pytest

from rankbench import machine
from rankbench.errors import BenchmarkError


@pytest.fixture(autouse=True)
def anew():
    """Every question is asked again."""
    asked = (machine.machine_gpus, machine.git_provenance, machine.versions, machine.host)
    for one in asked:
        one.cache_clear()
    yield
    for one in asked:
        one.cache_clear()


@pytest.mark.parametrize(
    ("device", "gpus", "found"),
    [("cpu", ["0"], []), ("auto", ["0", "1"], ["0", "1"]), ("cuda", ["3"], ["3"]), ("auto", [], [])],
)
def test_gpus_are_those_given_unless_the_device_is_the_cpu(device, gpus, found):
    assert machine.visible_gpus(device, gpus) == found


@pytest.mark.parametrize(
    ("listed", "found"), [("", []), ("-1", []), ("0, 2", ["0", "2"]), ("GPU-ab,1", ["GPU-ab", "1"])]
)
def test_cuda_visible_devices_counts(monkeypatch, listed, found):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert machine.visible_gpus("auto", None) == found


def test_a_gpu_asked_for_must_be_there(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(BenchmarkError, match=r"--device cuda: no GPU was found .*Use --device auto or cpu\."):
        machine.visible_gpus("cuda", None)


def test_nvidia_smi_lists_gpus(monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    program.write_text(
        "#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: x)'\necho 'GPU 1: NVIDIA H100 (UUID: y)'\necho more\n"
    )
    program.chmod(0o755)
    assert machine.machine_gpus() == ("0", "1")


def test_without_nvidia_smi_there_is_no_gpu(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.machine_gpus() == ()


def test_a_device_has_a_name_only_where_torch_used_it(monkeypatch):
    assert machine.device_name("cpu") is None
    monkeypatch.setitem(machine.sys.modules, "torch", None)
    assert machine.device_name("cuda") is None

    class Cuda:
        def is_available(self):
            return True

        def get_device_name(self):
            return "NVIDIA H100"

    class Torch:
        cuda = Cuda()

    monkeypatch.setitem(machine.sys.modules, "torch", Torch())
    assert machine.device_name("cuda") == "NVIDIA H100"
    assert machine.device_name("cpu") is None


def test_commit_and_uncommitted_changes(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert machine.git_provenance() == {"git_commit": None, "git_dirty": None}
    machine.git_provenance.cache_clear()
    (tmp_path / "file").write_text("one")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "file"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *words], check=True, cwd=tmp_path)
    clean = machine.git_provenance()
    assert len(clean["git_commit"]) == 40
    assert clean["git_dirty"] is False
    machine.git_provenance.cache_clear()
    (tmp_path / "file").write_text("two")
    assert machine.git_provenance() == {"git_commit": clean["git_commit"], "git_dirty": True}


def test_without_git_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.git_provenance() == {"git_commit": None, "git_dirty": None}


def test_versions_name_what_is_installed_and_nothing_else(monkeypatch):
    monkeypatch.setattr(machine, "RECORDED", ("numpy", "a-package-that-is-not-there"))
    assert machine.versions().keys() == {"python", "numpy"}
    assert machine.host().keys() == {"host", "machine", "processor", "cpus"}
