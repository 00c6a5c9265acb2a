"""The entry point of a stage's processes: `python -m giblet_hpc.stages STAGE RUN-FOLDER`."""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import os
import signal
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from giblet_hpc import log
from giblet_hpc.errors import GibletError, StoreError
from giblet_hpc.runs import STAGES, RunPaths, Stage

PR_SET_PDEATHSIG = 1
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def reporting(paths: RunPaths, stage: Stage, rank: int) -> Iterator[None]:
    """Record why a stage fails, before the other ranks notice that this one is gone."""
    try:
        yield
    except GibletError as error:
        _note(error, paths, stage, rank)
        raise
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            _note_bug(error, paths, stage)
            raise
        full = StoreError(
            f"the disk is full or the quota is used up: {error.filename or error}",
            hint="free some space and give the same command again; finished work is kept",
        )
        _note(full, paths, stage, rank)
        raise full from None
    except Exception as error:
        _note_bug(error, paths, stage)
        raise


def run_stage(stage: Stage, paths: RunPaths, *, rank: int, rebuild: bool) -> bool:
    """Run one stage in this process; return whether it finished (rather than was stopped)."""
    if stage == "preprocess":
        with reporting(paths, stage, rank):
            from giblet_hpc.stages import preprocess

            preprocess.run(paths.load_config(), paths, rebuild=rebuild)
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
    parser.add_argument("--rebuild", action="store_true")
    arguments = parser.parse_args()
    rank = int(os.environ.get("RANK", "0"))
    if "RANK" in os.environ:
        # torchrun puts ranks into sessions of their own; none may outlive it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    log.setup(rank)
    paths = RunPaths(arguments.run)
    if rank == 0:
        paths.update_state(arguments.stage, status="running", pid=os.getpid(), reason="", hint="")
    try:
        finished = run_stage(arguments.stage, paths, rank=rank, rebuild=arguments.rebuild)
    except GibletError as error:
        # A supervisor shows the reason itself, once for all ranks.
        if "GIBLET_SUPERVISED" not in os.environ:
            sys.stderr.write(f"{error.render()}\n")
        return error.exit_code
    if rank == 0:
        paths.update_state(arguments.stage, status="complete" if finished else "stopped")
    return 0


def _note(error: GibletError, paths: RunPaths, stage: Stage, rank: int) -> None:
    """Record a user's error; any rank may be the one that saw it."""
    try:
        paths.update_state(
            stage,
            status="failed",
            reason=str(error),
            hint=error.hint,
            exit_code=error.exit_code,
            rank=rank,
        )
    except OSError:
        sys.stderr.write("the run's state could not be written either\n")


def _note_bug(error: Exception, paths: RunPaths, stage: Stage) -> None:
    """Record an error that is not the user's; its traceback goes to the log."""
    with contextlib.suppress(OSError):
        if paths.stage_state(stage).get("status") == "failed":
            # A rank that lost its peer says less than the peer did.
            return
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        paths.update_state(stage, status="failed", reason=reason, hint="", exit_code=1)


if __name__ == "__main__":
    sys.exit(main())
