"""The entry point of a stage's processes: `python -m giblet_hpc.stages STAGE RUN-FOLDER`."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from giblet_hpc import files, log, nccl
from giblet_hpc.errors import ConfigError, GibletError, NodeError
from giblet_hpc.files import write_json
from giblet_hpc.runs.attempt_paths import AttemptPaths
from giblet_hpc.runs.beacon import dump_stacks_on_signal, end_with_supervisor, unblock_signals
from giblet_hpc.runs.environment import attempt_folder, global_rank, host, is_rank
from giblet_hpc.runs.paths import STAGES, RunPaths, Stage
from giblet_hpc.runs.progress import Progress
from giblet_hpc.stages import WEIGHTS

PR_SET_PDEATHSIG = 1


@contextlib.contextmanager
def reporting(paths: RunPaths, stage: Stage, rank: int, part: str = "") -> Iterator[None]:
    """Record why a stage fails, before the other ranks notice that this one is gone."""
    try:
        with nccl.readable():
            yield
    except (Exception, KeyboardInterrupt) as error:
        explained = files.explain(error) or hidden_package(error)
        note(explained or error, paths, stage, rank=rank, part=part)
        if explained is not None:
            raise explained from None
        raise


def hidden_package(error: BaseException) -> ConfigError | None:
    """Return which folder of PYTHONPATH hides a package that this one needs; None otherwise."""
    hidden = [
        Path(entry).resolve() for entry in os.environ.get("PYTHONPATH", "").split(":") if entry
    ]
    if not isinstance(error, ImportError) or not hidden:
        return None
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename).resolve()
        folder = next((f for f in hidden if file.is_relative_to(f)), None)
        if folder is not None:
            return ConfigError(
                f"PYTHONPATH hides a package of this environment: {file} ({error})",
                hint=f"unset PYTHONPATH, or take {folder} out of it",
            )
    return None


def note(error: BaseException, paths: RunPaths, stage: Stage, *, rank: int, part: str = "") -> None:
    """Record an error: in the attempt, a file for each rank; without a supervisor, in the state.

    What is not a mistake of the user's is tried again: another node may do.
    """
    ours = isinstance(error, GibletError)
    mistake = ours and not isinstance(error, NodeError)
    facts = {
        "kind": "mistake" if mistake else "error",
        "reason": str(error) if ours else f"{type(error).__name__}: {error}".splitlines()[0],
        "hint": error.hint if isinstance(error, GibletError | nccl.NcclError) else "",
        "exit_code": error.exit_code if isinstance(error, GibletError) else 1,
        "of_config": isinstance(error, ConfigError),
    }
    where = {"rank": rank, "host": host(), "time": time.time()}
    attempt = attempt_folder()
    try:
        if attempt is not None:
            write_json(AttemptPaths(attempt).rank(rank), {**facts, **where})
        elif mistake or paths.stage_state(stage, part=part).get("status") != "failed":
            paths.update_state(stage, part=part, status="failed", **facts)
    except OSError:
        sys.stderr.write("the run's state could not be written either\n")


def run_stage(stage: Stage, paths: RunPaths, *, rank: int, part: str, rebuild: bool) -> bool:
    """Run one stage in this process; return whether it finished (rather than was stopped)."""
    with reporting(paths, stage, rank, part):
        if stage == "preprocess":
            from giblet_hpc.stages import preprocess

            preprocess.run(paths.load_config(), paths, part=part, rebuild=rebuild)
            return True
        from giblet_hpc.training import flight_recorder
        from giblet_hpc.training.world import world

        # Rank 0 fits ridge and draws the report while the others wait.
        timeout = timedelta(minutes=30) if stage == "train" else timedelta(hours=24)
        # The inner report comes before the group is left, which takes a while when a rank is gone.
        with world(timeout=timeout) as here, reporting(paths, stage, rank):
            flight_recorder.answer(rank)
            if stage == "train":
                from giblet_hpc.stages import train

                return train.run(paths.load_config(), paths, here)
            from giblet_hpc.stages import evaluate

            evaluate.run(paths.load_config(), paths, here)
            return True


def main() -> int:
    """Run a stage, keep the run's state, and turn errors into one screen of text."""
    parser = argparse.ArgumentParser(prog="python -m giblet_hpc.stages")
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("run", type=Path)
    parser.add_argument("--part", default="")
    parser.add_argument("--rebuild", action="store_true")
    arguments = parser.parse_args()
    stage, part = arguments.stage, arguments.part
    rank = global_rank()
    if is_rank():
        # torchrun puts ranks into sessions of their own; none may outlive it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        end_with_supervisor()
    dump_stacks_on_signal()
    if stage != "train":
        # Training listens later, when it can answer with a checkpoint.
        unblock_signals()
    log.setup(rank)
    # Concerns speed alone, and comes from every rank.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    if any(WEIGHTS.glob("models--*")) and "HF_HOME" not in os.environ:
        os.environ.setdefault("HF_HUB_CACHE", str(WEIGHTS))
    paths = RunPaths(arguments.run)
    if rank == 0:
        Progress(paths, stage, part=part).write(status="running", pid=os.getpid())
    try:
        finished = run_stage(stage, paths, rank=rank, part=part, rebuild=arguments.rebuild)
    except GibletError as error:
        # A supervisor shows the reason itself, once for all ranks.
        if attempt_folder() is None:
            sys.stderr.write(f"{error.render()}\n")
        return error.exit_code
    if rank == 0:
        # What a stop means is for the supervisor to say: the end, or another attempt.
        stopped = "stopping" if attempt_folder() is not None else "stopped"
        Progress(paths, stage, part=part).write(status="complete" if finished else stopped)
    return 0


if __name__ == "__main__":
    sys.exit(main())
