"""The entry point of a stage's processes: `python -m giblet_hpc.stages STAGE RUN-FOLDER`."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
from datetime import timedelta
from pathlib import Path

from giblet_hpc import log
from giblet_hpc.errors import GibletError, StoreError
from giblet_hpc.runs import STAGES, RunPaths, Stage

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run_stage(stage: Stage, paths: RunPaths, *, rebuild: bool) -> bool:
    """Run one stage in this process; return whether it finished (rather than was stopped)."""
    config = paths.load_config()
    if stage == "preprocess":
        from giblet_hpc.stages import preprocess

        preprocess.run(config, paths, rebuild=rebuild)
        return True
    from giblet_hpc.training.parallel import world

    # Rank 0 fits ridge and draws the report while the others wait.
    patience = timedelta(minutes=30) if stage == "train" else timedelta(hours=24)
    with world(patience=patience) as here:
        if stage == "train":
            from giblet_hpc.stages import train

            return train.run(config, paths, here)
        from giblet_hpc.stages import evaluate

        evaluate.run(config, paths, here)
        return True


def main() -> int:
    """Run a stage, keep the run's state, and turn errors into one screen of text."""
    parser = argparse.ArgumentParser(prog="python -m giblet_hpc.stages")
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rebuild", action="store_true")
    arguments = parser.parse_args()
    rank = int(os.environ.get("RANK", "0"))
    log.setup(rank)
    paths = RunPaths(arguments.run)
    if rank == 0:
        paths.update_state(arguments.stage, status="running", pid=os.getpid(), reason="", hint="")
    try:
        finished = run_stage(arguments.stage, paths, rebuild=arguments.rebuild)
    except GibletError as error:
        return _fail(error, paths, arguments.stage, rank)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            _note_bug(error, paths, arguments.stage)
            raise
        full = StoreError(
            f"the disk is full or the quota is used up: {error.filename or error}",
            hint="free some space and give the same command again; finished work is kept",
        )
        return _fail(full, paths, arguments.stage, rank)
    except Exception as error:
        _note_bug(error, paths, arguments.stage)
        raise
    if rank == 0:
        paths.update_state(arguments.stage, status="complete" if finished else "stopped")
    return 0


def _fail(error: GibletError, paths: RunPaths, stage: Stage, rank: int) -> int:
    # A supervisor shows the reason itself, once for all ranks.
    if "GIBLET_SUPERVISED" not in os.environ:
        sys.stderr.write(f"{error.render()}\n")
    try:
        # Any rank may be the one that saw the reason.
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
    return error.exit_code


def _note_bug(error: Exception, paths: RunPaths, stage: Stage) -> None:
    """Record an error that is not the user's; its traceback goes to the log."""
    with contextlib.suppress(OSError):
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        paths.update_state(stage, status="failed", reason=reason, hint="", exit_code=1)


if __name__ == "__main__":
    sys.exit(main())
