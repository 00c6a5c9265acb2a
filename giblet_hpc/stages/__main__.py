"""The entry point of a stage's processes: `python -m giblet_hpc.stages STAGE RUN-FOLDER`."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from giblet_hpc import log, nccl
from giblet_hpc.beacon import end_with_supervisor, give_stacks_when_asked, take_signals
from giblet_hpc.errors import GibletError, StoreError
from giblet_hpc.files import write_json
from giblet_hpc.runs import ATTEMPT, STAGES, RunPaths, Stage
from giblet_hpc.stages import WEIGHTS

PR_SET_PDEATHSIG = 1
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def reporting(paths: RunPaths, stage: Stage, rank: int, part: str = "") -> Iterator[None]:
    """Record why a stage fails, before the other ranks notice that this one is gone."""
    try:
        with nccl.readable():
            yield
    except GibletError as error:
        note(error, paths, stage, rank=rank, part=part)
        raise
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            note(error, paths, stage, rank=rank, part=part)
            raise
        full = StoreError(
            f"the disk is full or the quota is used up: {error.filename or error}",
            hint="free some space and give the same command again; finished work is kept",
        )
        note(full, paths, stage, rank=rank, part=part)
        raise full from None
    except (Exception, KeyboardInterrupt) as error:
        note(error, paths, stage, rank=rank, part=part)
        raise


def note(error: BaseException, paths: RunPaths, stage: Stage, *, rank: int, part: str = "") -> None:
    """Record an error: in the attempt, a file for each rank; without a supervisor, in the state."""
    mistake = isinstance(error, GibletError)
    facts = {
        "kind": "mistake" if mistake else "error",
        "reason": str(error) if mistake else f"{type(error).__name__}: {error}".splitlines()[0],
        "hint": error.hint if isinstance(error, GibletError | nccl.NcclError) else "",
        "exit_code": error.exit_code if isinstance(error, GibletError) else 1,
    }
    where = {"rank": rank, "host": socket.gethostname(), "time": time.time()}
    attempt = os.environ.get(ATTEMPT)
    try:
        if attempt:
            write_json(Path(attempt) / f"rank-{rank}.json", {**facts, **where})
            return
        if mistake or paths.stage_state(stage, part=part).get("status") != "failed":
            paths.update_state(stage, part=part, status="failed", **facts)
    except OSError:
        sys.stderr.write("the run's state could not be written either\n")


def run_stage(stage: Stage, paths: RunPaths, *, rank: int, part: str, rebuild: bool) -> bool:
    """Run one stage in this process; return whether it finished (rather than was stopped)."""
    if stage == "preprocess":
        with reporting(paths, stage, rank, part):
            from giblet_hpc.stages import preprocess

            preprocess.run(paths.load_config(), paths, part=part, rebuild=rebuild)
        return True
    from giblet_hpc.training.parallel import world

    # Rank 0 fits ridge and draws the report while the others wait.
    patience = timedelta(minutes=30) if stage == "train" else timedelta(hours=24)
    with world(patience=patience) as here, reporting(paths, stage, rank):
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
    rank = int(os.environ.get("RANK", "0"))
    if "RANK" in os.environ:
        # torchrun puts ranks into sessions of their own; none may outlive it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        end_with_supervisor()
    give_stacks_when_asked()
    if stage != "train":
        # Training listens later, when it can answer with a checkpoint.
        take_signals()
    log.setup(rank)
    # Concerns speed alone, and comes from every rank.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    if any(WEIGHTS.glob("models--*")) and "HF_HOME" not in os.environ:
        os.environ.setdefault("HF_HUB_CACHE", str(WEIGHTS))
    paths = RunPaths(arguments.run)
    if rank == 0:
        paths.update_state(stage, part=part, status="running", pid=os.getpid(), reason="", hint="")
    try:
        finished = run_stage(stage, paths, rank=rank, part=part, rebuild=arguments.rebuild)
    except GibletError as error:
        # A supervisor shows the reason itself, once for all ranks.
        if ATTEMPT not in os.environ:
            sys.stderr.write(f"{error.render()}\n")
        return error.exit_code
    if rank == 0:
        # What a stop means is for the supervisor to say: the end, or another attempt.
        stopped = "stopping" if ATTEMPT in os.environ else "stopped"
        paths.update_state(stage, part=part, status="complete" if finished else stopped)
    return 0


if __name__ == "__main__":
    sys.exit(main())
