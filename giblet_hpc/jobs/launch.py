"""The command lines of a stage, as pure functions."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from giblet_hpc.runs import Stage

PARALLEL_STAGES: tuple[Stage, ...] = ("train", "evaluate")


def stage_command(
    stage: Stage, run_folder: Path, *, ranks: int, rebuild: bool = False, python: str = ""
) -> list[str]:
    """Return the command that runs a stage on this machine.

    Parameters
    ----------
    stage : str
    run_folder : Path
    ranks : int
        Processes; preprocess always takes one.
    rebuild : bool
        For preprocess: replace parts made with other settings.
    python : str
        Interpreter; this one by default.

    Returns
    -------
    list of str
        torchrun where there are several ranks, else the stage itself.
    """
    interpreter = python or sys.executable
    arguments = ["giblet_hpc.stages", stage, str(run_folder)]
    if rebuild and stage == "preprocess":
        arguments.append("--rebuild")
    if stage not in PARALLEL_STAGES or ranks == 1:
        return [interpreter, "-m", *arguments]
    torchrun = [
        "--nnodes=1",
        f"--nproc-per-node={ranks}",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=localhost:0",
        "--max-restarts=0",
        "--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR2",
    ]
    return [interpreter, "-m", "giblet_hpc.stages.torchrun", *torchrun, "-m", *arguments]


def stage_environment(stage: Stage, *, ranks: int) -> dict[str, str]:
    """Return the variables that a stage's processes get unless the user has set them."""
    processes = ranks if stage in PARALLEL_STAGES else 1
    threads = max(1, (os.cpu_count() or 1) // processes)
    return {
        "OMP_NUM_THREADS": str(threads),
        # Needed for bitwise repeatable matrix products on GPUs.
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
        # glibc gives large blocks back at once and takes them again, page by page: on CPUs that
        # costs several times the arithmetic of the codec's convolutions.
        "MALLOC_MMAP_THRESHOLD_": str(2**32),
        "MALLOC_TRIM_THRESHOLD_": str(2**34),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def default_ranks() -> int:
    """Return one process per visible GPU, or one where there is none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return max(1, len([part for part in visible.split(",") if part.strip()]))
    return max(1, len(list(Path("/dev").glob("nvidia[0-9]*"))))
