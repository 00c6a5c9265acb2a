"""What a node is made of, as far as a run depends on it: GPUs, memory, network."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator, Sequence

from giblet_hpc import nvidia_smi
from giblet_hpc.findings import Finding
from giblet_hpc.jobs.node import fabric

MINIMUM_DRIVER = "580.65"
"""The oldest driver that the image's CUDA works with."""
LOCKED_GIB = 1.0
ASK_SECONDS = 20.0
GIB = 2**30
GPU_FIELDS = (
    "driver_version",
    "name",
    "memory.total",
    "ecc.errors.uncorrected.volatile.total",
    "retired_pages.pending",
)


def gpu_driver(gpus: int) -> Finding:
    """Compare the driver with what CUDA needs, and look for faults in the GPUs' memory."""
    rows = nvidia_smi.query(GPU_FIELDS, seconds=ASK_SECONDS)
    if not rows:
        if gpus:
            return Finding(
                "gpu",
                "fail",
                "nvidia-smi finds no GPU",
                "was the job given one? without GPUs, --ranks N starts processes on the cores",
            )
        return Finding("gpu", "skipped", "no GPU on this machine")
    return _judge_gpus(rows, gpus)


def _judge_gpus(rows: Sequence[Sequence[str]], gpus: int) -> Finding:
    driver, name, memory = rows[0][0], rows[0][1], rows[0][2]
    size = f", {int(memory) / 1024:.0f} GiB" if memory.isdigit() else ""
    seen = f"{len(rows)} x {name}{size}, driver {driver}"
    if _version(driver) < _version(MINIMUM_DRIVER):
        return Finding(
            "gpu",
            "fail",
            f"{seen}: CUDA 13 needs {MINIMUM_DRIVER} or newer",
            "ask the admin for a newer driver, or build the image on an older CUDA",
        )
    if gpus > len(rows):
        return Finding(
            "gpu",
            "fail",
            f"{seen}: {gpus} are asked for",
            "correct gpus_per_node in the profile, or --gpus",
        )
    bad = [
        number
        for number, row in enumerate(rows)
        if (row[3].isdigit() and int(row[3]) > 0) or row[4].strip().lower() == "yes"
    ]
    if bad:
        numbers = ", ".join(map(str, bad))
        return Finding(
            "gpu",
            "warn",
            f"{seen}: memory faults on GPU {numbers}",
            "tell the admin; sbatch's --exclude leaves the node out",
        )
    return Finding("gpu", "ok", seen)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])


def shared_memory(gpus: int) -> Finding:
    """NCCL's ranks of one node exchange data through /dev/shm."""
    if gpus < 2:
        return Finding("shared memory", "skipped", "not two GPUs that exchange data")
    free, size = fabric.free_shared_memory()
    seen = f"{free:.1f} of {size:.1f} GiB are free"
    if free < fabric.SHARED_MEMORY_GIB:
        return Finding(
            "shared memory",
            "fail",
            seen,
            "docker and podman want --ipc=host; on a node, remove what lies there",
        )
    return Finding("shared memory", "ok", seen)


def locked_memory(network: fabric.Fabric) -> Finding:
    """RDMA networks register memory, which has to be locked."""
    if network.network not in ("InfiniBand", "RoCE", "EFA"):
        return Finding("locked memory", "skipped", "no RDMA network on this machine")
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if limit == resource.RLIM_INFINITY or limit > LOCKED_GIB * GIB:
        return Finding("locked memory", "ok", "enough memory may be locked")
    return Finding(
        "locked memory",
        "fail",
        f"only {limit / 2**20:.1f} MiB of memory may be locked",
        "an admin sets `ulimit -l unlimited` for slurmd and PropagateResourceLimitsExcept=MEMLOCK",
    )


def networks(network: fabric.Fabric, *, nodes: int, gpus: int) -> Iterator[Finding]:
    """Say what connects this machine, what is set for it, and what of the user's is odd."""
    links = f", GPUs by {network.gpu_links}" if network.gpu_links else ""
    speed = f" at {network.gigabits:g} Gbit/s" if network.gigabits else ""
    yield Finding("network", "ok", f"{network.network}{speed}{links}")
    if network.odd_numa and gpus:
        yield Finding(
            "numa",
            "warn",
            "; ".join(network.odd_numa),
            "an admin can mend it; until then NCCL_CUMEM_HOST_ENABLE=0 is set for you",
        )
    for line in fabric.explain(fabric.choose(network, nodes=nodes, gpus=gpus), os.environ):
        yield Finding("network", "ok", f"set for jobs here: {line}")
    for remark in fabric.remarks(os.environ):
        yield Finding("network", "warn", remark, "unset it, in ~/.bashrc or the profile")


def gpu_peers(gpus: int) -> Finding:
    """GPUs of one node exchange data fastest when they read each other's memory."""
    if gpus < 2:
        return Finding("gpu peers", "skipped", "not two GPUs that exchange data")
    blocked = fabric.blocked_peers()
    if blocked is None:
        return Finding("gpu peers", "skipped", "nvidia-smi does not say how GPUs are linked")
    if not blocked:
        return Finding("gpu peers", "ok", "every pair of GPUs reads each other's memory")
    return Finding(
        "gpu peers",
        "warn",
        f"pairs of GPUs that cannot read each other's memory: {', '.join(blocked)}",
        "slower, through the host's memory; where ranks hang, an admin turns off ACS and IOMMU, "
        "or NCCL_P2P_DISABLE=1 in the profile's environment",
    )
