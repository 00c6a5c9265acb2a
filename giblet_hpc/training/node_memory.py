"""Arrays in memory: of one process, or one copy for all ranks of a node."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.training.world import World

Fill = Callable[[NDArray[Any]], object]


class PrivateMemory:
    """Arrays of this process alone."""

    def array(self, name: str, shape: Sequence[int], dtype: str, fill: Fill) -> NDArray[Any]:
        """Return an array that ``fill`` has filled.

        Parameters
        ----------
        name : str
            Tells arrays apart.
        shape : sequence of int
        dtype : str
        fill : callable
            Receives the array and writes its values.
        """
        del name
        values = np.empty(tuple(shape), dtype=dtype)
        fill(values)
        return values


class NodeMemory(PrivateMemory):
    """Arrays that all ranks of a node map, filled by the first of them.

    They are memory without a name in any file system, which the other ranks reach through the first
    one's open files: it ends with the last of these processes, however they end.

    Parameters
    ----------
    world : World
        With more than one rank on this node.
    """

    def __init__(self, world: World) -> None:
        self._world = world

    def array(self, name: str, shape: Sequence[int], dtype: str, fill: Fill) -> NDArray[Any]:
        """Return an array that the node's first rank has filled."""
        world, size = self._world, int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        first = world.local_rank == 0
        descriptor = os.memfd_create(f"giblet-{name.replace('/', '-')}") if first else -1
        if first:
            os.ftruncate(descriptor, size)
            fill(_mapped(Path(f"/proc/self/fd/{descriptor}"), shape, dtype))
        places = world.gather([world.node, os.getpid(), descriptor])
        _, process, number = next(p for p in places if p[0] == world.node and p[2] >= 0)
        values = _mapped(Path(f"/proc/{process}/fd/{number}"), shape, dtype)
        world.wait()
        if first:
            os.close(descriptor)
        return values


def _mapped(file: Path, shape: Sequence[int], dtype: str) -> NDArray[Any]:
    if 0 in shape:
        return np.empty(tuple(shape), dtype=dtype)
    return np.asarray(np.memmap(file, dtype=dtype, mode="r+", shape=tuple(shape)))


def memory_for(world: World) -> PrivateMemory:
    """Return memory that is shared where several ranks are on a node."""
    return NodeMemory(world) if world.local_size > 1 else PrivateMemory()
