"""The process group that torchrun sets up, and what ranks tell each other."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from giblet_hpc.errors import NodeError
from giblet_hpc.runs.environment import GPUS, host

Value = TypeVar("Value")


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
    """

    rank: int
    local_rank: int
    size: int
    device: torch.device
    local_size: int = 1

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
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set on any rank; the same on all."""
        votes = torch.tensor([float(flag)], device=self.device)
        return bool(self.sum(votes).item() > 0)

    def broadcast(self, value: Value) -> Value:
        """Return rank 0's value on all ranks."""
        if self.size == 1:
            return value
        holder: list[Any] = [value]
        dist.broadcast_object_list(holder, src=0, device=self.device)
        result: Value = holder[0]
        return result

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all ranks, on all ranks, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Wait until all ranks are here."""
        if self.size > 1:
            dist.barrier(device_ids=[self.local_rank] if self.device.type == "cuda" else None)


@contextlib.contextmanager
def world(*, timeout: timedelta) -> Iterator[World]:
    """Join the process group that torchrun describes in the environment; leave it at the end.

    NCCL where there is a GPU for each local rank, gloo otherwise. Without torchrun this process
    is alone.

    Parameters
    ----------
    timeout : timedelta
        How long ranks wait for each other before they take one for lost.

    Raises
    ------
    NodeError
        When the job was given GPUs that its ranks do not see: nothing falls back to CPUs.
    """
    rank = int(os.environ.get("RANK", "0"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    gpu = torch.cuda.is_available() and torch.cuda.device_count() >= local_size
    if int(os.environ.get(GPUS, "0")) and not gpu:
        raise NodeError(
            f"this job has GPUs, but its {local_size} ranks on {host()} see "
            f"{torch.cuda.device_count() if torch.cuda.is_available() else 0}",
            hint="`giblet-hpc doctor --job` looks at the nodes: drivers, the image, dead GPUs",
        )
    device = torch.device("cuda", local_rank) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    # torchrun sets RANK also for a single process; a group of one still tests the backend.
    if "RANK" in os.environ:
        dist.init_process_group(
            "nccl" if gpu else "gloo", timeout=timeout, device_id=device if gpu else None
        )
    try:
        yield World(rank, local_rank, size, device, local_size)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
