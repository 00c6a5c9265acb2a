"""The command lines of a stage, as pure functions."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from giblet_hpc.runs.paths import Stage

PARALLEL_STAGES: tuple[Stage, ...] = ("train", "evaluate")
JOIN_SECONDS = 900
SHUTDOWN_SECONDS = 15
END_SIGNAL = "SIGQUIT"
"""What ends torchrun. Others reach it on some clusters while ranks still write a checkpoint."""


@dataclass(frozen=True)
class Geometry:
    """How the processes of a stage are spread, and how they find each other.

    Parameters
    ----------
    ranks : int
        Processes on each node.
    nodes, node : int
        How many nodes, and which of them this is.
    head : str
        Name of node 0; of no account with one node.
    port : int
        Free port of node 0.
    rdzv_id : str
        Name of the rendezvous: processes of an earlier execution must not walk in.
    host : str
        This node's name, that the others know it by.
    """

    ranks: int
    nodes: int = 1
    node: int = 0
    head: str = "localhost"
    port: int = 0
    rdzv_id: str = ""
    host: str = ""

    @property
    def world(self) -> int:
        """Processes on all nodes."""
        return self.ranks * self.nodes


def stage_command(
    stage: Stage,
    run_folder: Path,
    geometry: Geometry,
    *,
    python: str = sys.executable,
    part: str = "",
    rebuild: bool = False,
) -> list[str]:
    """Return the command that runs a stage on a node.

    Parameters
    ----------
    stage : str
    run_folder : Path
    geometry : Geometry
        Of train and evaluate; preprocess is one process.
    python : str
        Python that has the heavy half of this package.
    part : str
        For preprocess: the one part to make.
    rebuild : bool
        For preprocess: replace parts made with other settings.

    Returns
    -------
    list of str
        torchrun where there are several ranks, else the stage itself.
    """
    arguments = ["giblet_hpc.stages", stage, str(run_folder)]
    if part:
        arguments += ["--part", part]
    if rebuild and stage == "preprocess":
        arguments.append("--rebuild")
    if stage not in PARALLEL_STAGES or geometry.world == 1:
        return [python, "-m", *arguments]
    return torchrun_command(arguments, geometry, python=python)


def torchrun_command(
    arguments: Sequence[str], geometry: Geometry, *, python: str = sys.executable
) -> list[str]:
    """Return the command that runs a module, with its arguments, as all ranks of a node."""
    options = torchrun_options(geometry)
    return [python, "-m", "giblet_hpc.stages.torchrun", *options, "-m", *arguments]


def torchrun_options(geometry: Geometry) -> list[str]:
    """Return torchrun's options.

    c10d finds out by host names which agent hosts the store, and is wrong where a node has several
    names; so each is told. Agents wait no longer than `join_timeout` for each other.
    """
    options = [
        f"--nnodes={geometry.nodes}",
        f"--nproc-per-node={geometry.ranks}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={geometry.head}:{geometry.port}",
        "--max-restarts=0",
        f"--signals-to-handle={END_SIGNAL}",
        f"--shutdown-timeout={SHUTDOWN_SECONDS}",
    ]
    if geometry.nodes == 1:
        return options
    is_head = "true" if geometry.node == 0 else "false"
    return [
        *options,
        f"--rdzv-id={geometry.rdzv_id}",
        f"--rdzv-conf=is_host={is_head},join_timeout={JOIN_SECONDS}",
        f"--local-addr={geometry.host}",
    ]


def stage_environment(stage: Stage, *, ranks: int, cores: int | None = None) -> dict[str, str]:
    """Return the variables that a stage's processes get unless the user has set them.

    Parameters
    ----------
    stage : str
    ranks : int
        Processes on a node.
    cores : int, optional
        Cores of the node that the job may use; by default all that this process may use.
    """
    processes = ranks if stage in PARALLEL_STAGES else 1
    threads = max(1, (cores or len(os.sched_getaffinity(0))) // processes)
    return {
        "OMP_NUM_THREADS": str(threads),
        # Needed for bitwise repeatable matrix products on GPUs.
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        # glibc gives large blocks back at once and takes them again, page by page: on CPUs that
        # costs several times the arithmetic of the codec's convolutions.
        "MALLOC_MMAP_THRESHOLD_": str(2**32),
        "MALLOC_TRIM_THRESHOLD_": str(2**34),
        "PYTHONUNBUFFERED": "1",
        # DDP remarks on every rank that all parameters are in use.
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def free_port() -> int:
    """Return a port that is free on this node now, outside the range that systems hand out."""
    start = int(hashlib.sha256(f"{time.time()}{os.getpid()}".encode()).hexdigest()[:6], 16)
    for offset in range(1000):
        port = 10000 + (start + offset) % 20000
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    raise AssertionError("a thousand ports in a row are taken")
