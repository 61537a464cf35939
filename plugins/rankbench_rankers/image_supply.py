"""Batches of decoded images on the device: a GPU has the whole store if it fits, else they are fetched ahead of use.

A network never waits for a decoder: pixels are decoded once into the core's store (`Run.pixels`). What this module
hides is where they lie between that store and a training step.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

import rankbench

GPU_SHARE = 0.5  # of a GPU's free memory, up to which a store is copied there
AHEAD = 3  # batches fetched before they are needed
BLOCK = 1024  # images copied at once


class RowSupply:
    """Rows of a store (images, or vectors), on the device.

    Args: rows, (n, …); device; resident, whether all of them are kept on a GPU (None: if they fit). On a CPU they are
        read from the store, which lies in the system's memory as far as there is any to spare.
    """

    def __init__(self, rows: rankbench.Rows, device: torch.device, resident: bool | None = None) -> None:
        self.rows, self.device = rows, device
        size = int(np.prod(rows.shape)) * rows.dtype.itemsize
        self._all: Tensor | None = None
        if device.type == "cuda" and (size <= room(device) if resident is None else resident):
            kind = torch.from_numpy(np.empty(0, rows.dtype)).dtype
            self._all = torch.empty(rows.shape, dtype=kind, device=device)
            for begin in range(0, len(rows), BLOCK):
                block = np.ascontiguousarray(rows[begin : begin + BLOCK])
                self._all[begin : begin + len(block)] = torch.from_numpy(block)

    def leave(self) -> None:
        """Free the device's memory."""
        self._all = None

    def take(self, wanted: np.ndarray) -> Tensor:
        """(k, …) these rows, on the device."""
        if self._all is not None:
            return self._all.index_select(0, moved(wanted, self.device))  # whole rows: much faster than indexing
        return moved(self.rows[wanted], self.device)

    def stream(self, wanted: Iterable[np.ndarray]) -> Iterator[Tensor]:
        """`take` of one list of rows after the other, fetched ahead where they do not lie on the device."""
        if self._all is not None or self.device.type == "cpu":
            yield from map(self.take, wanted)
            return
        copies = torch.cuda.Stream(self.device)

        def copied(rows: np.ndarray) -> tuple[Tensor, torch.cuda.Event]:
            with torch.cuda.stream(copies):
                batch = moved(self.rows[rows], self.device)
                done = torch.cuda.Event()
                done.record(copies)
            done.synchronize()  # this thread may wait; pinned memory may then go
            return batch, done

        for batch, done in ahead(map(copied, wanted), AHEAD):
            torch.cuda.current_stream(self.device).wait_event(done)
            batch.record_stream(torch.cuda.current_stream(self.device))
            yield batch


def moved(array: np.ndarray, device: torch.device) -> Tensor:
    """An array on the device; to a GPU from pinned memory, so that nothing waits for what the GPU is at."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def ahead(items: Iterator[Any], count: int) -> Iterator[Any]:
    """The same items, the next `count` of them made by a thread before they are asked for. Leaving early ends it."""
    ready: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(count)
    left = threading.Event()

    def put(item: Any, error: BaseException | None) -> bool:
        while not left.is_set():
            with contextlib.suppress(queue.Full):
                ready.put((item, error), timeout=0.1)
                return True
        return False

    def work() -> None:
        error: BaseException = StopIteration()
        try:
            for item in items:
                if not put(item, None):
                    return
        except BaseException as raised:
            error = raised
        put(None, error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item
    finally:
        left.set()
        thread.join()


def room(device: torch.device) -> float:
    """Bytes that images may take on a GPU."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's own, free again
    return GPU_SHARE * (torch.cuda.mem_get_info(device)[0] + unused)
