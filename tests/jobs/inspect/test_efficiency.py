"""What runs have used, from the records of their attempts."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from giblet_hpc.jobs.inspect import efficiency
from giblet_hpc.jobs.record.attempts import begin
from giblet_hpc.jobs.schedulers.base import Place
from giblet_hpc.runs.paths import RunPaths, Stage

GIB = 2**30


def attempt(paths: RunPaths, stage: Stage, started: float, ended: float, **facts: Any) -> None:
    """Write an attempt as supervisors and epilogue leave it."""
    held = facts.pop("held", 0)
    made = begin(paths, Place("slurm", "7"), stage, {"part": "", "nodes": 1, **facts})
    made.note_node(0, host="n1", peak_memory=held)
    made.note(started=started, ended=ended, outcome=facts.get("outcome", "complete"), reason="")


@pytest.fixture
def used(paths: RunPaths) -> RunPaths:
    attempt(paths, "preprocess", 100, 1900, cpus=8, queued=40, memory_gb=16, held=2 * GIB)
    train = {"gpus": 4, "nodes": 2, "memory_gb": 256, "minutes": 2880}
    attempt(paths, "train", 2500, 6100, queued=1, outcome="interrupted", step_from=0, step_to=90,
            held=40 * GIB, **train)  # fmt: skip
    attempt(paths, "train", 7000, 10600, queued=6400, step_from=80, step_to=200, **train)
    rows = [
        {"kind": "train", "gpu/0/percent_busy": 20},
        {"kind": "train", "gpu/1/percent_busy": 30},
    ]
    paths.metrics().write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return paths


def test_hours_waiting_and_lost_steps(used: RunPaths) -> None:
    stages = efficiency.of_run(used)["stages"]
    assert stages["preprocess"]["core_hours"] == pytest.approx(4)
    assert stages["preprocess"]["waited_seconds"] == 60
    train = stages["train"]
    assert train["gpu_hours"] == pytest.approx(16)
    assert train["gpu_hours_busy"] == pytest.approx(4)
    assert train["waited_seconds"] == 600 + 600, "the wait for preprocess is none"
    assert (train["lost_steps"], train["attempts"]) == (10, 2)


def test_what_would_have_been_enough(used: RunPaths) -> None:
    found = {one["field"]: one["value"] for one in efficiency.of_run(used)["suggestions"]}
    assert found == {
        "stages.preprocess.memory_gb_per_node": 3,
        "stages.train.memory_gb_per_node": 52,
        "stages.train.time": "1:30:00",
        "--gpus": 4,
    }


def test_nothing_to_say_of_what_was_used(paths: RunPaths) -> None:
    attempt(paths, "train", 0, 3600, minutes=90, memory_gb=8, held=7 * GIB)
    assert efficiency.of_run(paths)["suggestions"] == []


def test_lines_and_a_table(used: RunPaths) -> None:
    facts = efficiency.of_run(used)
    text = efficiency.as_text(facts)
    assert (
        "16.0 GPU hours, 4.0 of them busy; 20 min in the queue; 2 attempts; 10 steps lost" in text
    )
    assert "40.0 of 256 GiB of memory" in text
    assert "stages.train.time: 1:30:00 (cluster profile)" in text
    assert json.loads(json.dumps(facts)) == facts
    head, line = efficiency.table([facts]).splitlines()
    assert line.split()[-1] == "4"
    assert head.split()[:3] == ["run", "hours", "GPU"]


def test_a_run_that_has_not_begun(paths: RunPaths) -> None:
    facts = efficiency.of_run(paths)
    assert (facts["stages"], facts["suggestions"]) == ({}, [])
    assert efficiency.as_text(facts) == ""
    assert efficiency.table([facts]).splitlines()[1].startswith("a run")


def test_an_attempt_that_was_killed_with_its_script_ends_when_it_was_last_seen(
    paths: RunPaths,
) -> None:
    """It is closed when the next one begins; what lies between was spent in the queue."""
    train = {"gpus": 8, "minutes": 2880}
    attempt(paths, "train", 3600, 43_200, queued=1, outcome="interrupted", **train)
    os.utime(paths.attempt(1).node(0), (7200, 7200))
    attempt(paths, "train", 43_200, 46_800, queued=1, step_to=9, **train)
    found = efficiency.of_run(paths)["stages"]["train"]
    assert found["gpu_hours"] == pytest.approx(16)
    assert found["waited_seconds"] == pytest.approx(3599 + 36_000)


def test_a_run_that_cannot_be_read_says_nothing_of_others(used: RunPaths) -> None:
    assert efficiency.of_run_safely(used) is not None
    used.attempt(2).job.write_text("{")
    assert efficiency.of_run_safely(used) is None
