"""What plans are made of: GPUs and links by name, and a place with so many of them.

Figures are makers' (dense bf16, memory bandwidth), and of links what collectives reach in practice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from giblet_hpc.errors import ConfigError

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU.

    Parameters
    ----------
    name : str
    memory : float
        GiB.
    bandwidth : float
        Of its memory, GB/s.
    tflops : float
        Dense bf16.
    """

    name: str
    memory: float
    bandwidth: float
    tflops: float


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("a6000", 48, 768, 155),
        Gpu("a40", 48, 696, 150),
        Gpu("l40s", 48, 864, 362),
        Gpu("rtx-6000-ada", 48, 960, 364),
        Gpu("a100-40", 40, 1555, 312),
        Gpu("a100", 80, 2039, 312),
        Gpu("h100", 80, 3350, 989),
        Gpu("h100-nvl", 94, 3900, 835),
        Gpu("h200", 141, 4800, 989),
        Gpu("b200", 180, 8000, 2250),
    )
}
LINKS = {
    "nvlink": 250.0,
    "pcie": 15.0,
    "shm": 7.0,
    "infiniband": 22.0,
    "ethernet": 2.5,
}
"""GB/s that each GPU sends in an all-reduce: NVLink, PCIe between GPUs, the host's memory; and
between nodes InfiniBand at 200 Gbit/s a GPU, and Ethernet at 25."""
UNKNOWN = "a6000"
"""Whose speed is assumed of a GPU of which only the memory is known: a plan errs to the slow."""


@dataclass(frozen=True)
class Place:
    """GPUs of some nodes.

    Parameters
    ----------
    gpu : Gpu
    gpus : int
        Of each node.
    nodes : int
    link, network : float
        GB/s between the GPUs of a node, and between nodes for each GPU.
    node_memory : float, optional
        GiB that a job gets of a node.
    """

    gpu: Gpu
    gpus: int
    nodes: int
    link: float
    network: float
    node_memory: float | None = None

    @property
    def ranks(self) -> int:
        """All GPUs, each with a process of its own."""
        return self.gpus * self.nodes

    @property
    def between_all(self) -> float:
        """GB/s of what all ranks tell each other."""
        return self.link if self.nodes == 1 else min(self.link, self.network)


def gpu_of(name: str | None, memory: float | None) -> Gpu:
    """Return a kind of GPU by its name, its memory, or both.

    Parameters
    ----------
    name : str, optional
        As in `GPUS`; one that has such a name's words among its own will do, such as
        `nvidia_a100-sxm4-40gb`. Not of a part of a GPU (MIG).
    memory : float, optional
        GiB, instead of what the name says.

    Raises
    ------
    ConfigError
        When neither tells how much memory there is.
    """
    words = [word.removesuffix("gb") for word in re.split(r"[^a-z0-9]+", (name or "").lower())]
    part = any(re.fullmatch(r"\d+g", word) for word in words)
    fitting = [key for key in GPUS if set(key.split("-")) <= set(words)]
    if fitting and not part:
        found = GPUS[max(fitting, key=len)]
        return Gpu(name or found.name, memory or found.memory, found.bandwidth, found.tflops)
    if memory is None:
        raise ConfigError(
            f"the memory of GPU {name} is not known" if name else "no GPU is named",
            hint=f"--gpu (one of {', '.join(GPUS)}) or --gpu-memory GIB; in the cluster profile "
            "gpu_type or gpu_memory_gb",
        )
    slow = GPUS[UNKNOWN]
    return Gpu(name or "GPU", memory, slow.bandwidth, slow.tflops)


def link_of(name: str) -> float:
    """Return the GB/s of a link, by name or as a number.

    Raises
    ------
    ConfigError
        When it is neither.
    """
    if name in LINKS:
        return LINKS[name]
    try:
        rate = float(name)
    except ValueError:
        rate = 0.0
    if rate <= 0:
        raise ConfigError(
            f"{name!r} is no link", hint=f"one of {', '.join(LINKS)}, or a number of GB/s"
        )
    return rate
