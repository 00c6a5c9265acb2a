"""Queueing stages with submitit."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from giblet_hpc.errors import ConfigError
from giblet_hpc.jobs.launch import stage_command, stage_environment
from giblet_hpc.jobs.supervisor import StageJob
from giblet_hpc.runs import STAGES, RunPaths, Stage

LONGEST_MINUTES = 14 * 24 * 60
START_SECONDS = 60.0


def stages_of(name: str) -> tuple[Stage, ...]:
    """Return the stages that `preprocess`, `train`, `evaluate` or `pipeline` stands for."""
    if name == "pipeline":
        return STAGES
    return tuple(stage for stage in STAGES if stage == name)


def remaining(paths: RunPaths, stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """Return the stages that are not complete, keeping their order."""
    return tuple(s for s in stages if paths.stage_state(s).get("status") != "complete")


def running(paths: RunPaths) -> Stage | None:
    """Return the stage that a live supervisor on this machine works on, or is about to."""
    for stage in STAGES:
        state = paths.stage_state(stage)
        if state.get("status") not in ("queued", "running"):
            continue
        if state.get("host") != socket.gethostname():
            continue
        process = int(state.get("supervisor", 0))
        just_queued = process == 0 and time.time() - state["heartbeat"] < START_SECONDS
        if just_queued or _alive(process):
            return stage
    return None


def _alive(process: int) -> bool:
    if process <= 0:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def check_order(paths: RunPaths, stages: Sequence[Stage]) -> None:
    """Check that what a stage needs is done or about to be done.

    Raises
    ------
    JobError
        When an earlier stage is not complete.
    """
    for earlier in STAGES[: STAGES.index(stages[0])]:
        paths.require_complete(earlier)


def submit_local(job: StageJob) -> str:
    """Start a job in the background on this machine.

    Parameters
    ----------
    job : StageJob

    Returns
    -------
    str
        The job's id: the process id of submitit's controller.
    """
    from submitit import LocalExecutor

    paths = RunPaths(job_folder(job))
    executor = LocalExecutor(folder=paths.jobs)
    executor.update_parameters(timeout_min=LONGEST_MINUTES)
    for stage in job.stages:
        paths.update_state(
            stage, status="queued", host=socket.gethostname(), supervisor=0, reason="", hint=""
        )
    with _detached(paths.jobs / "controller.log"):
        submitted = executor.submit(job)
    return str(submitted.job_id)


@contextlib.contextmanager
def _detached(log: Path) -> Iterator[None]:
    """Start processes that neither hold this one's terminal nor die with it.

    submitit's controller inherits standard streams and signal handling. Left alone it would keep
    a pipe open that somebody reads from, and end with Ctrl-C or the terminal.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in (0, 1, 2)]
    handlers = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGHUP)}
    try:
        with log.open("ab") as output, Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            yield
    finally:
        for number, descriptor in enumerate(kept):
            os.dup2(descriptor, number)
            os.close(descriptor)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def job_folder(job: StageJob) -> Path:
    """Return the run folder of a job as a path."""
    return Path(job.run_folder)


def dry_run(job: StageJob) -> str:
    """Return the commands that a job would run, ready to paste."""
    lines = []
    for stage in job.stages:
        settings = stage_environment(stage, ranks=job.ranks)
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items())
        command = stage_command(stage, job_folder(job), ranks=job.ranks, rebuild=job.rebuild)
        lines.append(f"# {stage}\n{variables} \\\n  {shlex.join(command)}")
    return "\n".join(lines)


def cancel_local(paths: RunPaths) -> None:
    """Ask a run's live supervisor to stop.

    Raises
    ------
    ConfigError
        When nothing of the run is running here.
    """
    while True:
        stage = running(paths)
        if stage is None:
            raise ConfigError(f"nothing of run {paths.name} is running on this machine")
        process = int(paths.stage_state(stage)["supervisor"])
        if process > 0:
            os.kill(process, signal.SIGTERM)
            return
        # Just queued: its process has not said who it is. Zero would mean our own group.
        time.sleep(0.2)
