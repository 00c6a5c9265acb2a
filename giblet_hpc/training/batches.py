"""Batches of windows, collected while the step before is computed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from giblet_hpc.models.shapes import Batch
from giblet_hpc.training.feed import Rows, RunArrays, StudyArrays
from giblet_hpc.training.stored_rows import StoredRows, StoredScans
from giblet_hpc.training.windows import Window

RING = 2
"""Batches that are in memory at a time: the one in use, and the next."""
READERS = 8
"""Windows that are read from the store at a time."""
Place = tuple[int, int]
"""Which batch: a step's place in the order of data, and the part of the step."""


class WindowReader:
    """Cuts windows out of the study and stacks them to batches.

    Parameters
    ----------
    study : StudyArrays
    inputs : mapping of str to mapping of str to array
        The rows that the model sees, by run and modality: (trs, ...).
    trs : int
        Target TRs of a window.
    context : int
        TRs before them that the model also sees.
    device : torch.device
    """

    def __init__(
        self,
        study: StudyArrays,
        inputs: Mapping[str, Mapping[str, Rows]],
        *,
        trs: int,
        context: int,
        device: torch.device,
    ) -> None:
        self.trs = trs
        self.device = device
        self._context = context
        self._runs = {
            name: RunArrays(inputs[name], run.bold, run.valid) for name, run in study.runs.items()
        }
        stored = any(isinstance(run.bold, StoredScans) for run in study.runs.values())
        # A file system that is far away answers several questions in the time of one.
        self._readers = ThreadPoolExecutor(READERS) if stored else None

    def __call__(self, windows: Sequence[Window]) -> Batch:
        """Return a batch; TRs outside a window's block are zero and marked."""
        batch = self.place_for(len(windows), pinned=False)
        self.collect(windows, batch)
        return moved(batch, self.device)

    def stimulus(self, run: str, name: str) -> Rows:
        """Return a run's rows of a modality as the model sees them, (trs, ...)."""
        return self._runs[run].stimulus[name]

    def place_for(self, count: int, *, pinned: bool) -> Batch:
        """Return tensors on the host for so many windows; pinned, a GPU copies by itself."""
        run = next(iter(self._runs.values()))
        width = self._context + self.trs

        def place(*shape: int, dtype: Any) -> torch.Tensor:
            kind = torch.from_numpy(np.empty(0, dtype=dtype)).dtype
            return torch.empty(count, *shape, dtype=kind, pin_memory=pinned)

        subjects, _, voxels = run.bold.shape
        return Batch(
            {
                n: place(width, *rows.shape[1:], dtype=rows.dtype)
                for n, rows in run.stimulus.items()
            },
            place(width, dtype=bool),
            place(self.trs, subjects, voxels, dtype=run.bold.dtype),
            place(self.trs, subjects, dtype=bool),
        )

    def collect(self, windows: Sequence[Window], into: Batch) -> None:
        """Put windows into a batch's tensors."""
        stimulus = {name: values.numpy() for name, values in into.stimulus.items()}
        inside, bold, valid = (values.numpy() for values in into[1:])

        def one(number: int) -> None:
            window = windows[number]
            run = self._runs[window.block.run]
            first, stop = window.start - self._context, window.start + self.trs
            a, b = max(first, window.block.start), min(stop, window.block.stop)
            inside[number] = False
            inside[number, a - first : b - first] = True
            for name, place in stimulus.items():
                rows = run.stimulus[name]
                here = _between(place[number], a - first, b - first)
                if isinstance(rows, StoredRows):
                    rows.read(a, here)
                else:
                    here[:] = rows[a:b]
            scans = slice(window.start, b)
            here = _between(bold[number], 0, b - window.start)
            if isinstance(run.bold, StoredScans):
                run.bold.read(window.start, here)
            else:
                here[:] = run.bold[:, scans].swapaxes(0, 1)
            _between(valid[number], 0, b - window.start)[:] = run.valid[:, scans].T

        if self._readers is None:
            for number in range(len(windows)):
                one(number)
        else:
            list(self._readers.map(one, range(len(windows))))


def _between(place: NDArray[Any], start: int, stop: int) -> NDArray[Any]:
    """Return some rows of a place, and make those before and after them zero."""
    place[:start], place[stop:] = 0, 0
    return place[start:stop]


def moved(batch: Batch, device: torch.device) -> Batch:
    """Return a batch on a device; from pinned memory the copy does not hold up this process."""
    return Batch(
        {name: values.to(device, non_blocking=True) for name, values in batch.stimulus.items()},
        *(values.to(device, non_blocking=True) for values in batch[1:]),
    )


class Ahead:
    """Batches in their order, of which the next is collected by a thread meanwhile.

    A batch is valid until the next is taken: its memory is used again.

    Parameters
    ----------
    reader : WindowReader
    windows : callable
        Returns this rank's windows of a place in the order.
    parts : int
        Batches of a step.
    """

    def __init__(
        self, reader: WindowReader, windows: Callable[[Place], list[Window]], parts: int
    ) -> None:
        self._reader, self._windows, self._parts = reader, windows, parts
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._pending: tuple[Place, Future[int]] | None = None
        self._ring: list[Batch] = []
        self._copied: dict[int, torch.cuda.Event] = {}
        self._turn = 0
        self.waited = 0.0
        """Seconds that training has waited for batches, in all."""

    def take(self, place: Place) -> Batch:
        """Return the batch of a place, on the device; begin to collect the next."""
        started = time.perf_counter()
        pending, self._pending = self._pending, None
        if pending is not None:
            slot = pending[1].result()
        if pending is None or pending[0] != place:
            slot = self._thread.submit(self._collect, place).result()
        batch = moved(self._ring[slot], self._reader.device)
        if self._reader.device.type == "cuda":
            self._copied[slot] = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._copied[slot].record(torch.cuda.current_stream())
        step, part = place
        after = (step, part + 1) if part + 1 < self._parts else (step + 1, 0)
        self._pending = after, self._thread.submit(self._collect, after)
        self.waited += time.perf_counter() - started
        return batch

    def close(self) -> None:
        """End the thread."""
        self._pending = None
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _collect(self, place: Place) -> int:
        """Put a place's windows into the memory whose turn it is; return its number."""
        windows = self._windows(place)
        slot, self._turn = self._turn, (self._turn + 1) % RING
        if slot == len(self._ring):
            pinned = self._reader.device.type == "cuda"
            self._ring.append(self._reader.place_for(len(windows), pinned=pinned))
        if slot in self._copied:
            self._copied[slot].synchronize()
        self._reader.collect(windows, self._ring[slot])
        return slot
