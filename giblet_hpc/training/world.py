"""The process group of all ranks, and what ranks tell each other."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist

from giblet_hpc.errors import NodeError
from giblet_hpc.files import read_json
from giblet_hpc.runs import environment as env
from giblet_hpc.runs.attempt_paths import AttemptPaths
from giblet_hpc.training import keyed_store

JOIN = timedelta(minutes=15)
Json = TypeVar("Json")


@dataclass(frozen=True)
class World:
    """This process among the others.

    Parameters
    ----------
    rank, local_rank, size : int
        Global rank, rank on this node, number of processes.
    device : torch.device
    local_size : int
        Processes on this node.
    group : dist.ProcessGroup, optional
        What they tell each other by; the group of all ranks by default.
    """

    rank: int
    local_rank: int
    size: int
    device: torch.device
    local_size: int = 1
    group: dist.ProcessGroup | None = None

    def beside(self) -> World:
        """Return the same ranks with a group of their own, for what goes on at the same time.

        On the CPU; all ranks have to call.
        """
        group = dist.new_group(backend="gloo") if self.size > 1 else None
        return replace(self, device=torch.device("cpu"), group=group)

    @property
    def node(self) -> int:
        """Number of this node: ranks count through the nodes."""
        return self.rank // self.local_size

    @property
    def is_main(self) -> bool:
        """Whether this is global rank 0, which writes files."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all ranks."""
        if self.size > 1:
            dist.all_reduce(values, group=self.group)
        return values

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set on any rank; the same on all."""
        votes = torch.tensor([float(flag)], device=self.device)
        return bool(self.sum(votes).item() > 0)

    def broadcast(self, value: Json) -> Json:
        """Return rank 0's value on all ranks; a value that JSON can hold."""
        return self.gather(value)[0]

    def gather(self, value: Json) -> list[Json]:
        """Return the values of all ranks, on all ranks, by rank; values that JSON can hold.

        What others may be able to send to a rank is never unpickled.
        """
        if self.size == 1:
            return [value]
        content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        mine = torch.tensor([len(content)], device=self.device)
        sizes = [torch.zeros_like(mine) for _ in range(self.size)]
        dist.all_gather(sizes, mine, group=self.group)
        longest = int(torch.cat(sizes).max())
        padded = torch.zeros(longest, dtype=torch.uint8, device=self.device)
        padded[: len(content)] = content
        parts = [torch.zeros_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded, group=self.group)
        return [
            json.loads(bytes(part[: int(size)].tolist()))
            for part, size in zip(parts, sizes, strict=True)
        ]

    def wait(self) -> None:
        """Wait until all ranks are here."""
        if self.size > 1:
            gpu = [self.local_rank] if self.device.type == "cuda" else None
            dist.barrier(group=self.group, device_ids=gpu)


@contextlib.contextmanager
def world(*, timeout: timedelta) -> Iterator[World]:
    """Join the process group of all ranks that torchrun has started; leave it at the end.

    NCCL where there is a GPU for each local rank, gloo otherwise. Without torchrun this process
    is alone.

    Parameters
    ----------
    timeout : timedelta
        How long ranks wait for each other before they take one for lost.

    Raises
    ------
    NodeError
        When the job was given GPUs that its ranks do not see: nothing falls back to CPUs. When the
        nodes do not find each other.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    local_size, size = env.local_world_size(), env.world_size()
    gpu = torch.cuda.is_available() and torch.cuda.device_count() >= local_size
    if int(os.environ.get(env.GPUS, "0")) and not gpu:
        raise NodeError(
            f"this job has GPUs, but its {local_size} ranks on {env.host()} see "
            f"{torch.cuda.device_count() if torch.cuda.is_available() else 0}",
            hint="`giblet-hpc doctor --job` looks at the nodes: drivers, the image, dead GPUs",
        )
    device = torch.device("cuda", local_rank) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    here = World(env.global_rank(), local_rank, size, device, local_size)
    store = None
    # torchrun also starts a single process; a group of one still tests the backend.
    if env.is_rank():
        # Held here, as torch holds only what of a store is not Python.
        store = _store(here, timeout)
        dist.init_process_group(
            "nccl" if gpu else "gloo", timeout=timeout, device_id=device if gpu else None,
            store=store, rank=here.rank, world_size=size,
        )  # fmt: skip
    try:
        yield here
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        if isinstance(store, keyed_store.KeyedStore):
            store.close()


def _store(here: World, timeout: timedelta) -> dist.Store:  # type: ignore[name-defined]
    """Return where ranks leave their addresses for each other: strangers can reach neither kind.

    On one node a file in a private folder; on several nodes rank 0's, with a key.
    """
    if here.size == here.local_size:
        file = str(Path(os.environ[env.MEETING]) / "ranks")
        return dist.FileStore(file, here.size)  # type: ignore[attr-defined]
    shared = Path(os.environ[env.RENDEZVOUS])
    if here.is_main:
        return keyed_store.open_store(shared, here.size - 1, timeout=timeout)
    return keyed_store.join_store(
        shared, here.rank, patience=JOIN, timeout=timeout, gone=_node_0_has_ended
    )


def _node_0_has_ended() -> bool:
    """Return whether node 0's supervisor, or its torchrun, has written down its end."""
    folder = env.attempt_folder()
    if folder is None:
        return False
    files = AttemptPaths(folder)
    record = files.node(0)
    return files.agent(0).is_file() or (record.is_file() and "ended" in read_json(record))
