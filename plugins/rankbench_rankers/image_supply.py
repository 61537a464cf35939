"""Batches of decoded images on the device: the whole store there if it fits, else fetched ahead of their use.

A network never waits for a decoder: pixels are decoded once into the core's store (`Run.pixels`). What this module
hides is where they lie between that store and a training step.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

import rankbench

CPU_BYTES = 4 * 2**30  # up to which a store is copied into memory
GPU_SHARE = 0.5  # of the device's free memory, likewise
AHEAD = 3  # batches fetched before they are needed
BLOCK = 1024  # images copied at once


class RowSupply:
    """Rows of a store (images, or vectors), on the device.

    Args: rows, (n, …); device; resident, whether all of them are kept on the device (None: if they fit).
    """

    def __init__(self, rows: rankbench.Rows, device: torch.device, resident: bool | None = None) -> None:
        self.rows, self.device = rows, device
        size = int(np.prod(rows.shape)) * rows.dtype.itemsize
        self.resident = size <= room(device) if resident is None else resident
        self._all: Tensor | None = None
        if self.resident:
            kind = torch.from_numpy(np.empty(0, rows.dtype)).dtype
            self._all = torch.empty(rows.shape, dtype=kind, device=device)
            for begin in range(0, len(rows), BLOCK):
                block = np.ascontiguousarray(rows[begin : begin + BLOCK])
                self._all[begin : begin + len(block)] = torch.from_numpy(block)

    def take(self, wanted: np.ndarray) -> Tensor:
        """(k, …) these rows, on the device."""
        if self._all is not None:
            return self._all[torch.from_numpy(wanted).to(self.device)]
        return torch.from_numpy(np.ascontiguousarray(self.rows[wanted])).to(self.device)

    def stream(self, wanted: Iterable[np.ndarray]) -> Iterator[Tensor]:
        """`take` of one list of rows after the other, fetched ahead where they do not lie on the device."""
        if self._all is not None or self.device.type == "cpu":
            yield from map(self.take, wanted)
        else:
            yield from self._fetched(wanted)

    def _fetched(self, wanted: Iterable[np.ndarray]) -> Iterator[Tensor]:
        """A thread reads rows into pinned memory and copies them on a stream of its own."""
        ready: queue.Queue[tuple[Tensor, torch.cuda.Event] | BaseException | None] = queue.Queue(AHEAD)
        stopped = threading.Event()

        def fetch() -> None:
            stream = torch.cuda.Stream(self.device)
            try:
                for rows in wanted:
                    pinned = torch.from_numpy(np.ascontiguousarray(self.rows[rows])).pin_memory()
                    with torch.cuda.stream(stream):
                        batch = pinned.to(self.device, non_blocking=True)
                        done = torch.cuda.Event()
                        done.record(stream)
                    done.synchronize()  # this thread may wait; `pinned` may then go
                    put((batch, done))
                put(None)
            except BaseException as error:
                put(error)

        def put(item: object) -> None:
            while not stopped.is_set():
                with contextlib.suppress(queue.Full):
                    ready.put(item, timeout=0.1)  # type: ignore[arg-type]
                    break

        thread = threading.Thread(target=fetch, daemon=True)
        thread.start()
        try:
            while (item := ready.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                batch, done = item
                torch.cuda.current_stream(self.device).wait_event(done)
                batch.record_stream(torch.cuda.current_stream(self.device))
                yield batch
        finally:
            stopped.set()
            thread.join()


def room(device: torch.device) -> float:
    """Bytes that images may take on the device."""
    if device.type != "cuda":
        return CPU_BYTES
    return GPU_SHARE * torch.cuda.mem_get_info(device)[0]
