"""Slurm's commands, and what its environment says first of all."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping

SECONDS = 20.0
NOT_THERE = "Invalid job id"
"""What squeue and scontrol say of a job that has left the queue: an answer, though they fail."""


def ask(*command: str) -> str | None:
    """Run a Slurm command; None when it is missing, fails or does not answer in time.

    That a job is not there any more is an answer: an empty one.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (FileNotFoundError, PermissionError, subprocess.TimeoutExpired):
        return None
    if done.returncode == 0:
        return done.stdout
    return "" if NOT_THERE in done.stderr else None


def own_job_id(environment: Mapping[str, str]) -> str:
    """Return this job's id; empty outside of one."""
    array = environment.get("SLURM_ARRAY_JOB_ID")
    if array:
        return f"{array}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment.get("SLURM_JOB_ID", "")
