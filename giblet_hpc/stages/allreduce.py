"""How fast ranks add up tensors: run by torchrun, `python -m giblet_hpc.stages.allreduce FILE`.

Bus bandwidth as NVIDIA's nccl-tests define it: bytes / seconds x 2 (n - 1) / n, which for a good
ring equals the speed of its slowest link, whatever the number of ranks.
"""

from __future__ import annotations

import argparse
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from giblet_hpc import nccl
from giblet_hpc.errors import GibletError
from giblet_hpc.files import write_json
from giblet_hpc.runs.environment import host
from giblet_hpc.training.world import World, world

MIB = 2**20
SIZES = {"cuda": (MIB, 1024 * MIB), "cpu": (MIB, 32 * MIB)}
REPEATS = 5


def bus_bandwidth(size: int, seconds: float, ranks: int) -> float:
    """Return gigabytes per second on the bus.

    Parameters
    ----------
    size : int
        Bytes of the tensor.
    seconds : float
        Of one all-reduce.
    ranks : int
    """
    return size / seconds * 2 * (ranks - 1) / ranks / 1e9


def measure(here: World, size: int, group: Any, ranks: int) -> float:
    """Return the seconds of one all-reduce of ``size`` bytes, and check its sum.

    Raises
    ------
    RuntimeError
        When the sum is wrong.
    """
    values = torch.ones(size // 4, device=here.device)
    dist.all_reduce(values, group=group)
    if values[0].item() != ranks or values[-1].item() != ranks:
        raise RuntimeError(f"the sum over {ranks} ranks is wrong: {values[0].item()}")
    values.zero_()
    dist.barrier(group=group)
    begin = time.perf_counter()
    for _ in range(REPEATS):
        dist.all_reduce(values, group=group)
    if here.device.type == "cuda":
        torch.cuda.synchronize(here.device)
    return (time.perf_counter() - begin) / REPEATS


def run(here: World) -> list[dict[str, Any]]:
    """Measure inside each node first, then over all; return one row each for rank 0's node."""
    local = here.local_size
    nodes = here.size // local
    groups = [dist.new_group(list(range(n * local, (n + 1) * local))) for n in range(nodes)]
    scopes = [("node", groups[here.rank // local], local)] if local > 1 else []
    if nodes > 1:
        scopes.append(("all", dist.group.WORLD, here.size))
    rows = []
    for scope, group, ranks in scopes:
        for size in SIZES[here.device.type]:
            seconds = measure(here, size, group, ranks)
            rows.append(
                {
                    "scope": scope,
                    "ranks": ranks,
                    "bytes": size,
                    "seconds": seconds,
                    "gigabytes_per_second": bus_bandwidth(size, seconds, ranks),
                }
            )
    return rows


def clocks(here: World) -> dict[str, float]:
    """Return what the clock of each node says at the same moment, in seconds since the epoch."""
    node = f"node {here.node} ({host()})"
    here.wait()
    answers = here.gather({node: time.time()})
    return {name: when for answer in answers for name, when in answer.items()}


def main() -> int:
    """Measure; rank 0 writes the file."""
    parser = argparse.ArgumentParser(prog="python -m giblet_hpc.stages.allreduce")
    parser.add_argument("file", type=Path)
    file = parser.parse_args().file
    try:
        with nccl.readable(), world(timeout=timedelta(minutes=3)) as here:
            facts = {"backend": dist.get_backend(), "rows": run(here), "clocks": clocks(here)}
            if here.is_main:
                write_json(file, facts)
    except GibletError as error:
        # The job's log is read by people: what a node lacks needs no traceback.
        sys.stderr.write(f"{error.render()}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
