"""Runs a stage as a child process, watches it, and says what became of it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from giblet_hpc.files import write_json
from giblet_hpc.jobs.launch import stage_command, stage_environment
from giblet_hpc.runs import RunPaths, Stage

POLL_SECONDS = 0.2
GRACE_SECONDS = 300.0
TERM_SECONDS = 40.0
PR_SET_PDEATHSIG = 1
LAST_LINES = 15


@dataclass(frozen=True)
class StageJob:
    """What a scheduler runs: a run's stages, one after the other, until one does not finish.

    Holds plain values only, so that it can be pickled without importing anything heavy.

    Parameters
    ----------
    run_folder : str
    stages : tuple of str
    ranks : int
        Processes of train and evaluate.
    rebuild : bool
        For preprocess: replace parts made with other settings.
    """

    run_folder: str
    stages: tuple[Stage, ...]
    ranks: int
    rebuild: bool = False
    cuda_devices: str | None = None
    """The submitter's CUDA_VISIBLE_DEVICES, which submitit's local executor replaces."""

    def __call__(self) -> int:
        """Run the stages; return the exit code of the last one that ran."""
        paths = RunPaths(Path(self.run_folder))
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
        if self.cuda_devices is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.cuda_devices
        code = 0
        asked: list[int] = []
        for stage in self.stages:
            paths.update_state(stage, supervisor=os.getpid())
        for stage in self.stages:
            attempt = next_attempt(paths)
            with (attempt / "node-0.log").open("w") as output:
                code = supervise(
                    stage,
                    paths,
                    ranks=self.ranks,
                    rebuild=self.rebuild,
                    output=output,
                    asked=asked,
                )
            if asked or paths.stage_state(stage).get("status") != "complete":
                for later in self.stages[self.stages.index(stage) + 1 :]:
                    paths.update_state(later, status="not started")
                break
        return code


def next_attempt(paths: RunPaths) -> Path:
    """Make and return the next numbered folder under `attempts`."""
    numbers = [int(p.name) for p in paths.attempts.glob("[0-9]*") if p.name.isdigit()]
    number = max(numbers, default=0)
    while True:
        number += 1
        folder = paths.attempts / str(number)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder


def supervise(
    stage: Stage,
    paths: RunPaths,
    *,
    ranks: int,
    rebuild: bool = False,
    output: IO[str] | None = None,
    asked: list[int] | None = None,
) -> int:
    """Run one stage to its end and settle its state.

    SIGTERM, SIGINT and SIGUSR2 ask the stage to stop at its next step boundary, by the STOP
    file; a stage that does not stop in time is killed. Should this process itself be killed, the
    kernel tells its child.

    Parameters
    ----------
    stage : str
    paths : RunPaths
    ranks : int
    rebuild : bool
    output : file, optional
        Receives the stage's output; this process's stderr by default.
    asked : list of int, optional
        Receives the signals that asked to stop.

    Returns
    -------
    int
        0 when complete or stopped, else the exit code for the user.
    """
    paths.stop.unlink(missing_ok=True)
    command = stage_command(stage, paths.root, ranks=ranks, rebuild=rebuild)
    environment = {
        **stage_environment(stage, ranks=ranks), **os.environ, "GIBLET_SUPERVISED": "1"
    }  # fmt: skip
    paths.update_state(
        stage, status="running", host=socket.gethostname(), supervisor=os.getpid(), ranks=ranks
    )
    write_json(paths.root / "attempts" / "last.json", {"stage": stage, "command": command})
    asked = [] if asked is None else asked
    before = {
        number: signal.signal(number, lambda got, _: asked.append(got))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output or sys.stderr,
            stderr=subprocess.STDOUT if output else None,
            env=environment,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - single-threaded here
        )
        code = _wait(child, paths, asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return _settle(stage, paths, code, asked=bool(asked))


def _die_with_parent() -> None:
    """Ask the kernel to send SIGTERM when the parent dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait(child: subprocess.Popen[bytes], paths: RunPaths, asked: list[int]) -> int:
    deadline = None
    try:
        while child.poll() is None:
            if asked and deadline is None:
                paths.stop.touch()
                deadline = time.monotonic() + GRACE_SECONDS
            if deadline is not None and time.monotonic() > deadline:
                # torchrun passes SIGTERM on to its ranks, which are in groups of their own.
                child.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(TERM_SECONDS)
                _kill_group(child)
            time.sleep(POLL_SECONDS)
    finally:
        _kill_group(child)
        paths.stop.unlink(missing_ok=True)
    return child.returncode


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    """Kill whatever is left of the child's process group."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _settle(stage: Stage, paths: RunPaths, code: int, *, asked: bool) -> int:
    """Give the state a final status where the stage itself could not."""
    state = paths.stage_state(stage)
    status = state.get("status")
    if status in ("complete", "stopped"):
        return 0
    if asked and status != "failed":
        paths.update_state(stage, status="stopped")
        return 0
    if status != "failed":
        reason = (
            f"killed by {signal.Signals(-code).name}"
            if code < 0
            else f"ended with exit code {code}"
        )
        paths.update_state(stage, status="failed", reason=f"{stage} {reason}", hint="", exit_code=1)
    return int(paths.stage_state(stage).get("exit_code", 1))
