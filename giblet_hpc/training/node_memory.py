"""Arrays that training and evaluation read: in memory, or on a node's disk when that is too small.

One copy for all ranks of a node.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.training.world import World

logger = logging.getLogger(__name__)
GIB = 2**30
CGROUPS = Path("/sys/fs/cgroup")
DISK, STORE = "disk", "store"
CHOSEN = {"memory": "", "disk": DISK, "store": STORE}
"""For each place of ``train.place``, what a node would say that has room there alone."""
SHARE = 0.5
"""Of the memory that a node has free, what a study may take before it goes to disk."""
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

    They are memory, or a file, without a name in any file system, which the other ranks reach
    through the first one's open files: it ends with the last of these processes, however they end.

    Parameters
    ----------
    world : World
    disk : Path, optional
        Folder on this node's disk to keep them on; by default they are in memory.
    """

    def __init__(self, world: World, disk: Path | None = None) -> None:
        self._world, self._disk = world, disk

    def array(self, name: str, shape: Sequence[int], dtype: str, fill: Fill) -> NDArray[Any]:
        """Return an array that the node's first rank has filled."""
        world, size = self._world, int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        first = world.local_rank == 0
        descriptor = self._nameless(name) if first else -1
        if first:
            if self._disk is None:
                os.ftruncate(descriptor, size)
            else:
                # Taken now: a disk that is full later would end the process without a word.
                os.posix_fallocate(descriptor, 0, max(1, size))
            fill(_mapped(Path(f"/proc/self/fd/{descriptor}"), shape, dtype))
        places = world.gather([world.node, os.getpid(), descriptor])
        _, process, number = next(p for p in places if p[0] == world.node and p[2] >= 0)
        values = _mapped(Path(f"/proc/{process}/fd/{number}"), shape, dtype)
        world.wait()
        if first:
            os.close(descriptor)
        return values

    def _nameless(self, name: str) -> int:
        """Return the descriptor of a new file that no file system shows."""
        if self._disk is None:
            return os.memfd_create(f"giblet-{name.replace('/', '-')}")
        try:
            return os.open(self._disk, os.O_TMPFILE | os.O_RDWR, 0o600)
        except OSError:
            # Not every file system has such files.
            descriptor, path = tempfile.mkstemp(dir=self._disk)
            Path(path).unlink()
            return descriptor


def _mapped(file: Path, shape: Sequence[int], dtype: str) -> NDArray[Any]:
    if 0 in shape:
        return np.empty(tuple(shape), dtype=dtype)
    return np.asarray(np.memmap(file, dtype=dtype, mode="r+", shape=tuple(shape)))


def memory_for(world: World, needed: int, place: str = "auto") -> PrivateMemory | None:
    """Return where arrays are kept that are needed together.

    Parameters
    ----------
    world : World
    needed : int
        Their bytes.
    place : str
        As ``train.place`` names it.

    Returns
    -------
    PrivateMemory or None
        None where a node has no place for them: they have to stay in the store.
    """
    verdict = ""
    if world.local_rank == 0:
        verdict = _verdict(needed) if place == "auto" else CHOSEN[place]
    # Nodes may differ; all ranks have to take the same steps.
    everyone = world.gather(verdict)
    if STORE in everyone:
        return None
    here = everyone[world.rank - world.local_rank] == DISK
    if DISK in everyone or world.local_size > 1:
        return NodeMemory(world, Path(tempfile.gettempdir()) if here else None)
    return PrivateMemory()


def _verdict(needed: int) -> str:
    """Return where a node keeps so many bytes: empty for memory, `DISK`, or `STORE`."""
    free, folder = free_memory(), Path(tempfile.gettempdir())
    if needed <= SHARE * free:
        return ""
    room = 0 if _is_memory(folder) else shutil.disk_usage(folder).free
    if room > needed:
        logger.info(
            "the study (%.1f GiB) is kept in %s: %.1f GiB of memory are free",
            needed / GIB, folder, free / GIB,
        )  # fmt: skip
        return DISK
    if needed <= free:
        return ""
    logger.warning(
        "the study takes %.1f GiB on each node; %s has %.1f GiB of memory free, and %.1f GiB on a "
        "disk at %s: it is read from the store at every step. More memory_gb_per_node in the "
        "cluster profile, or a TMPDIR on a larger local disk, is faster",
        needed / GIB, os.uname().nodename, free / GIB, room / GIB, folder,
    )  # fmt: skip
    return STORE


def _is_memory(folder: Path) -> bool:
    """Whether a folder is on a file system that is memory itself."""
    mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    over = [(len(point), kind) for point, kind in mounts if folder.resolve().is_relative_to(point)]
    return max(over, default=(0, ""))[1] in ("tmpfs", "ramfs")


def free_memory() -> float:
    """Return the bytes that this process may still take: of the machine, and of its cgroups."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    for entry in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = entry.split(":", 2)
        if number != "0" and "memory" not in controllers.split(","):
            continue
        names = ("memory.max", "memory.current", "inactive_file")
        base = CGROUPS if number == "0" else CGROUPS / "memory"
        if number != "0":
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        folder = base / path.lstrip("/")
        while folder.is_relative_to(base):
            free = min(free, _room(folder, *names))
            folder = folder.parent
    return free


def _room(group: Path, limit: str, used: str, cached: str) -> float:
    """Return the bytes that a cgroup still has; infinite where it has no limit."""
    try:
        most = float((group / limit).read_text())
        now = float((group / used).read_text())
        counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        # `max`, or the root, which has none.
        return float("inf")
    return most - now + float(counts.get(cached, 0))
