"""What a drill costs, and whom it hits."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from giblet_hpc.errors import JobError
from giblet_hpc.jobs.inspect import drill
from giblet_hpc.jobs.record.attempts import begin
from giblet_hpc.jobs.schedulers.base import Place
from giblet_hpc.runs.environment import TOKEN
from giblet_hpc.runs.paths import RunPaths


def test_only_what_is_made_twice_is_lost() -> None:
    assert drill.Cost("kill-node", "lost", 40, 25, 9.0).steps_lost == 15
    cost = drill.Cost("preempt", "interrupted", 40, 40, 9.0)
    assert drill.as_facts(cost)["steps_lost"] == 0


def test_a_run_that_does_not_train_cannot_be_hit(paths: RunPaths) -> None:
    with pytest.raises(JobError, match="is not training on a cluster now"):
        drill.inject_fault(paths, "preempt")


def test_the_limit_leaves_the_lead(paths: RunPaths) -> None:
    attempt = begin(paths, Place("slurm", "7", 0), "train", {"nodes": 1})
    attempt.note(started=time.time() - 600)
    assert drill._short_limit(attempt, 120) == 13
    assert drill._short_limit(attempt, 160) == 13 and drill._short_limit(attempt, 170) == 14


def test_only_processes_of_this_very_run_are_killed(tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "run-2"
    wait = [sys.executable, "-c", "import time; time.sleep(60)"]
    marked = {**os.environ, TOKEN: "x"}
    ours = subprocess.Popen([*wait, str(run / "file")], env=marked)
    alike = subprocess.Popen([*wait, str(other)], env=marked)
    unmarked = subprocess.Popen([*wait, str(run)])
    try:
        time.sleep(0.5)
        drill.kill_here(str(run))
        assert ours.wait(10) == -9
        assert alike.poll() is None and unmarked.poll() is None
    finally:
        for process in (ours, alike, unmarked):
            process.kill()
            process.wait()


@pytest.mark.parametrize("status", ["complete", "failed", "stopped"])
def test_a_run_that_is_over_is_not_waited_for(paths: RunPaths, status: str) -> None:
    attempt = begin(paths, Place("slurm", "7"), "train", {"nodes": 1})
    attempt.close("complete", reason="", step=9)
    paths.update_state("train", status=status)
    with pytest.raises(JobError, match=f"run a run is {status}: it ended before"):
        drill.observe(paths, attempt, "preempt", timeout=900, tell=lambda _: None)
