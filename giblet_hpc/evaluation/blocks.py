"""Work on large arrays in parts: voxels by blocks, files of arrays row by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from giblet_hpc.files import write_with
from giblet_hpc.splits import Block
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.statistics import rows_of
from giblet_hpc.training.world import World

VOXELS = 4096
"""Of a block: what is computed of it for one subject and a thousand TRs takes some 100 MB."""

FEWEST_TRS = 8
"""Scans of a subject below which neither a model is fitted nor a correlation computed."""


def voxel_blocks(voxels: slice) -> Iterator[slice]:
    """Yield slices that cover some voxels."""
    for start in range(voxels.start, voxels.stop, VOXELS):
        yield slice(start, min(voxels.stop, start + VOXELS))


def voxel_share(voxels: int, world: World) -> slice:
    """Return which of the voxels are a rank's to compute."""
    edges = [rank * voxels // world.size for rank in (world.rank, world.rank + 1)]
    return slice(*edges)


def scans_of(
    study: StudyArrays, subject: int, blocks: Sequence[Block], voxels: slice
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return a subject's scans of some blocks, (trs, voxels), and which of the TRs have one."""
    runs = study.runs
    if voxels.step is None:
        scans = [runs[b.run].bold[subject, b.start : b.stop, voxels] for b in blocks]
    else:
        scans = [runs[b.run].bold[subject, b.start : b.stop][:, voxels] for b in blocks]
    return rows_of(scans), valid_rows(study, subject, blocks)


def valid_rows(study: StudyArrays, subject: int, blocks: Sequence[Block]) -> NDArray[np.bool_]:
    """Return which TRs of some blocks a subject has a scan of, (trs,)."""
    return rows_of([study.runs[b.run].valid[subject, b.start : b.stop] for b in blocks])


def joined_runs(blocks: Sequence[Block]) -> list[slice]:
    """Return the rows of each run, where blocks of one run follow each other."""
    found: list[slice] = []
    row, before = 0, ""
    for block in blocks:
        stop = row + block.trs
        found.append(slice(found.pop().start if block.run == before else row, stop))
        row, before = stop, block.run
    return found


class Joined:
    """Arrays (subjects, trs, voxels) one after the other in time, as one; read as they are used.

    Parameters
    ----------
    parts : sequence of array
    """

    def __init__(self, parts: Sequence[NDArray[np.float32]]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return len(self._parts[0])

    def __getitem__(self, key: tuple[int, slice, slice]) -> NDArray[np.float32]:
        subject, trs, voxels = key
        assert trs == slice(None)
        return np.concatenate([part[subject, :, voxels] for part in self._parts])


def is_made(path: Path, world: World) -> bool:
    """Whether rank 0 finds a file: where others look, an absent one may be remembered."""
    return world.broadcast(world.is_main and path.is_file())


def over_ranks(values: NDArray[np.float64], world: World) -> NDArray[np.float64]:
    """Return the sum over ranks: of an array that is zero but for a rank's share, the whole."""
    total: NDArray[np.float64] = world.sum(torch.from_numpy(values).to(world.device)).cpu().numpy()
    return total


def write_rows(path: Path, shape: Sequence[int], parts: Iterable[NDArray[np.floating]]) -> None:
    """Write a float32 array as a .npy file, whole or not at all, from parts in its order.

    Parameters
    ----------
    path : Path
    shape : sequence of int
        Of the whole.
    parts : iterable of ndarray
        Any shapes; their values one after the other are the array.
    """
    header = {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)}

    def write(handle: BinaryIO) -> None:
        np.lib.format.write_array_header_1_0(handle, header)
        written = 0
        for part in parts:
            values = np.ascontiguousarray(part, dtype="<f4")
            handle.write(values.data)
            written += values.size
        assert written == np.prod(shape, dtype=np.int64), (written, shape)

    write_with(path, write)
