"""Starts a training in one process, or in several that share each batch, and brings home what it ends with.

Devices, precision and data parallelism are Lightning Fabric's. What several processes end with passes through files:
Fabric would send it through a pipe that nobody reads before they have ended.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import pickle
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

import rankbench
from rankbench_rankers.training import Job, Log, MemoryRanOut, Recipe, Trained, Trainer

GROUP = ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "LOCAL_RANK", "STANDALONE_PORT")
TRAINED, ERROR = "trained", "error"  # files


def train(job: Job, device: str, processes: int, log: Log) -> list[str]:
    """Train the job's network in place, in one process or several. Returns remarks.

    Args: device, "cpu" or "cuda"; processes, each with a device of its own; log, gets a step and its numbers.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # no word on what was asked for
    chosen = torch.device(device)
    most = torch.cuda.device_count() if chosen.type == "cuda" else processes
    remarks = [f"{most} processes instead of {processes}, as there were no more GPUs"] if most < processes else []
    with no_group():
        if min(most, processes) == 1:
            trained = Trainer(job, fabric(chosen, job.recipe), log).run()
        else:
            trained = several(job, chosen, min(most, processes))
            for step, numbers in trained.curves:
                log(step, **numbers)
    job.network.load_state_dict({name: torch.from_numpy(value) for name, value in trained.state.items()})
    return [*remarks, *trained.remarks]


def fabric(device: torch.device, recipe: Recipe, processes: int = 1) -> Any:
    """Lightning's part, whatever cluster it believes to be on."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import LightningEnvironment

    one = [device.index or 0] if device.type == "cuda" else 1
    return Fabric(
        accelerator=device.type,
        devices=one if processes == 1 else processes,
        strategy="auto" if processes == 1 else "ddp_spawn",
        precision="bf16-mixed" if recipe.precision == "bfloat16" else "32-true",
        plugins=[LightningEnvironment()],
    )


def several(job: Job, device: torch.device, processes: int) -> Trained:
    """In several processes; where one's memory runs out, all over again from the last checkpoint, in halves."""
    with tempfile.TemporaryDirectory(prefix="rankbench-") as name:
        folder = Path(name)
        try:
            fabric(device, job.recipe, processes).launch(OneOfSeveral(job, folder))
        except (ProcessRaisedException, ProcessExitedException) as ended:
            error = first_error(folder) or rankbench.RankbenchError(
                f"{job.who}: one of {processes} processes ended ({ended}). The system may have run out of memory."
            )
            if not isinstance(error, MemoryRanOut) or job.parts > 1:
                raise error from ended
        else:
            found: Trained = pickle.loads((folder / TRAINED).read_bytes())
            return found
    return several(replace(job, parts=2), device, processes)


class OneOfSeveral:
    """What each of several processes does. An object, as Fabric would take a mere argument apart."""

    def __init__(self, job: Job, folder: Path) -> None:
        self.job, self.folder = job, folder

    def __call__(self, fabric: Any) -> None:
        torch.set_num_threads(max(1, self.job.threads // fabric.world_size))
        job = replace(self.job, network=copy.deepcopy(self.job.network))  # tensors come shared between the processes
        try:
            trained = Trainer(job, fabric, lambda step, **numbers: None).run()
        except Exception as error:
            ours = isinstance(error, rankbench.RankbenchError)
            said = f"{job.who}: one of {fabric.world_size} processes failed: {type(error).__name__}: {error}"
            write(self.folder / f"{ERROR}-{fabric.global_rank}", error if ours else rankbench.RankbenchError(said))
            raise  # which ends the others, whether they met it too or wait for this one
        if fabric.global_rank == 0:
            write(self.folder / TRAINED, trained)


def write(path: Path, what: Trained | Exception) -> None:
    """Whole or not at all."""
    draft = path.with_suffix(".draft")
    draft.write_bytes(pickle.dumps(what))
    os.replace(draft, path)


def first_error(folder: Path) -> Exception | None:
    """The first error of all: the others' may be that this process left them."""
    found = sorted(folder.glob(f"{ERROR}-*[0-9]"), key=lambda path: path.stat().st_mtime_ns)
    return pickle.loads(found[0].read_bytes()) if found else None


@contextlib.contextmanager
def no_group() -> Iterator[None]:
    """Without the variables by which a cluster's scheduler, or a training before, names a group of processes."""
    kept = {name: os.environ.pop(name) for name in GROUP if name in os.environ}
    try:
        yield
    finally:
        for name in GROUP:
            os.environ.pop(name, None)
        os.environ.update(kept)
