"""A stage ends with its supervisor, whoever its parent is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from giblet_hpc.runs import beacon

STAGE = """
import sys, time
from giblet_hpc.runs import beacon
beacon.end_with_supervisor()
print("on", flush=True)
time.sleep(60)
"""


def stage(supervisor: str) -> subprocess.Popen[str]:
    made = subprocess.Popen(
        [sys.executable, "-c", STAGE], stdout=subprocess.PIPE, text=True,
        env={**os.environ, beacon.SUPERVISOR: supervisor},
    )  # fmt: skip
    assert made.stdout is not None
    assert made.stdout.readline() == "on\n"
    return made


def test_a_stage_does_not_outlive_its_supervisor() -> None:
    """The supervisor here is no relative of the stage, as it is none of a container."""
    supervisor = subprocess.Popen(["sleep", "60"])
    with stage(str(supervisor.pid)) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2 * beacon.WATCH_SECONDS)
        supervisor.kill()
        assert process.wait(10) == -signal.SIGKILL
    supervisor.wait()


@pytest.mark.parametrize("supervisor", ["none", "999999999"])
def test_a_supervisor_that_cannot_be_seen_ends_nothing(supervisor: str) -> None:
    with stage(supervisor) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2 * beacon.WATCH_SECONDS)
        process.kill()
