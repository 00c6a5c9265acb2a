"""The command lines of a stage, as pure functions."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from giblet_hpc.runs.environment import SAFE_PATH
from giblet_hpc.runs.paths import Stage

PARALLEL_STAGES: tuple[Stage, ...] = ("train", "evaluate")
SHUTDOWN_SECONDS = 15
END_SIGNAL = "SIGQUIT"
"""What ends torchrun. Others reach it on some clusters while ranks still write a checkpoint."""


def stage_command(
    stage: Stage,
    run_folder: Path,
    *,
    ranks: int = 1,
    nodes: int = 1,
    python: str = sys.executable,
    part: str = "",
    rebuild: bool = False,
) -> list[str]:
    """Return the command that runs a stage on a node, the same on each.

    Parameters
    ----------
    stage : str
    run_folder : Path
    ranks, nodes : int
        Processes on each node, and nodes, of train and evaluate; preprocess is one process.
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
    if stage not in PARALLEL_STAGES or ranks * nodes == 1:
        return [python, "-P", "-m", *arguments]
    return torchrun_command(arguments, ranks, python=python)


def torchrun_command(
    arguments: Sequence[str], ranks: int, *, python: str = sys.executable
) -> list[str]:
    """Return the command that runs a module, with its arguments, as all ranks of a node."""
    options = [
        f"--nproc-per-node={ranks}",
        "--max-restarts=0",
        f"--signals-to-handle={END_SIGNAL}",
        f"--shutdown-timeout={SHUTDOWN_SECONDS}",
    ]
    return [python, "-P", "-m", "giblet_hpc.stages.torchrun", *options, "-m", *arguments]


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
        SAFE_PATH: "1",
        # DDP remarks on every rank that all parameters are in use.
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        # Collectives that torch remembers, for when ranks hang.
        "TORCH_FR_BUFFER_SIZE": "2000",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
