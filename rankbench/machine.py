"""The machine a run finds itself on: its GPUs, the versions installed, the commit it was started in."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from rankbench.errors import BenchmarkError

RECORDED = ("rankbench", "numpy", "scipy", "scikit-learn", "scikit-image", "pillow", "torch", "torchvision")


def visible_gpus(device: str, gpus: Sequence[str] | None) -> list[str]:
    """Ids of the GPUs to use. BenchmarkError if one is asked for and there is none."""
    if device == "cpu":
        return []
    found = list(gpus) if gpus is not None else list(machine_gpus())
    if device == "cuda" and not found:
        raise BenchmarkError("--device cuda: no GPU was found (nvidia-smi lists none). Use --device auto or cpu.")
    return found


@cache
def machine_gpus() -> tuple[str, ...]:
    """Ids of this machine's NVIDIA GPUs; CUDA_VISIBLE_DEVICES counts."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return tuple(name.strip() for name in listed.split(",") if name.strip() not in ("", "-1"))
    if not shutil.which("nvidia-smi"):
        return ()
    answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    lines = [line for line in answer.stdout.splitlines() if line.startswith("GPU ")]
    return tuple(str(number) for number in range(len(lines)))


def device_name(device: str) -> str | None:
    """The GPU's product name, where a cell used one through torch."""
    torch = sys.modules.get("torch")
    if device != "cuda" or torch is None or not torch.cuda.is_available():
        return None
    return str(torch.cuda.get_device_name())


@cache
def git_provenance() -> dict[str, Any]:
    """Commit of the repository the run was started in, and whether it had uncommitted changes; None outside one."""
    commit = asked_git("rev-parse", "HEAD")
    changed = asked_git("status", "--porcelain", "-uno") if commit else None
    return {"git_commit": commit, "git_dirty": None if changed is None else bool(changed)}


def asked_git(*words: str) -> str | None:
    try:
        answer = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of what decides numbers."""
    found = {"python": platform.python_version()}
    for name in RECORDED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def host() -> dict[str, Any]:
    """Host, kind of machine and processor: two kinds of processor round otherwise."""
    system = f"{platform.system()} {platform.machine()}"
    return {"host": platform.node(), "machine": system, "processor": processor(), "cpus": os.cpu_count()}


def processor() -> str:
    """The processor's name as the system gives it; empty where it does not."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
