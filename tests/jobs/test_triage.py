"""From what an attempt leaves behind to the sentence that `status` shows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from giblet_hpc.files import write_json
from giblet_hpc.jobs.node import triage
from giblet_hpc.jobs.record.attempts import Attempt, Place, begin
from giblet_hpc.runs.paths import RunPaths

RUNNING = {"status": "running", "step": 40}


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    paths = RunPaths(tmp_path / "run")
    paths.root.mkdir()
    attempt = begin(paths, Place("slurm", "7", 0), "train", {"nodes": 2})
    for node in range(2):
        attempt.note_node(node, host=f"n{node + 1}", ended=time.time(), code=1)
    return attempt


def judged(attempt: Attempt, **more: Any) -> triage.Verdict:
    return triage.judge(attempt, RUNNING, **{"stopped_by_user": False, "asked": False, **more})


def failed(attempt: Attempt, rank: int, reason: str, when: float, kind: str = "error") -> None:
    facts = {"kind": kind, "reason": reason, "hint": "", "exit_code": 1}
    where = {"rank": rank, "host": f"n{rank + 1}", "time": when}
    write_json(attempt.folder / f"rank-{rank}.json", {**facts, **where})


LOGS = [
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "out of GPU memory"),
    ("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0", "out of memory on the node"),
    ("[rank3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=9)", "of NCCL failed"),
    ("RuntimeError: Timed out waiting 1800000ms for recv operation to complete", "(gloo)"),
    ("FATAL: container creation failed: mount source /scratch doesn't exist", "could not be bound"),
    ("RendezvousTimeoutError", "the nodes did not find each other"),
    ("ncclInvalidUsage: Duplicate GPU detected : rank 1 and rank 0", "two ranks use the same GPU"),
    ("rank 2 ended with exit code -11", "rank 2 was killed by signal 11"),
    ("nothing that is known", "the process ended with exit code 1"),
]


@pytest.mark.parametrize(("line", "reason"), LOGS)
def test_a_log_tells_why(attempt: Attempt, line: str, reason: str) -> None:
    attempt.log(1).write_text(f"step 39\n{line}\n")
    verdict = judged(attempt)
    assert verdict.outcome == "crashed"
    assert reason in verdict.reason


def test_the_first_rank_that_failed_is_the_one_that_counts(attempt: Attempt) -> None:
    """Others lose their connection because of it, and may say so earlier."""
    failed(attempt, 0, "RuntimeError: Connection closed by peer [n2]", 10.0)
    failed(attempt, 1, "ZeroDivisionError: division by zero", 11.0)
    assert judged(attempt).reason == "rank 1 on n2: ZeroDivisionError: division by zero"


def test_a_mistake_is_not_tried_again(attempt: Attempt) -> None:
    failed(attempt, 0, "bold: NaN", 10.0, kind="mistake")
    assert judged(attempt).outcome == "failed"


def test_a_request_to_stop_is_no_failure(attempt: Attempt) -> None:
    attempt.stop.write_text("SIGTERM\n")
    assert judged(attempt, asked=True) == triage.Verdict("interrupted", "SIGTERM")
    assert judged(attempt, asked=True, stopped_by_user=True).outcome == "stopped"


def test_the_rank_that_the_others_wait_for_is_named(attempt: Attempt) -> None:
    attempt.hung.write_text("no step for 30 s after step 40\n")
    places = [("backward", "S"), ("begin", "S")]
    for node, (place, state) in enumerate(places):
        rank = {"rank": node, "step": 40, "place": place, "state": state}
        attempt.note_node(node, ranks=[rank])
    verdict = judged(attempt)
    assert verdict.outcome == "hung"
    assert "no step for 30 s" in verdict.reason
    assert "waiting for rank 1 (at begin)" in verdict.reason


def test_a_node_that_went_silent(attempt: Attempt) -> None:
    file = attempt.folder / "node-1.json"
    write_json(file, {"host": "n2", "heartbeat": time.time() - 10000})
    verdict = judged(attempt)
    assert verdict.outcome == "lost"
    assert "n2" in verdict.reason


def test_a_complete_stage_is_complete_whatever_else_is_there(attempt: Attempt) -> None:
    attempt.hung.write_text("late\n")
    verdict = triage.judge(attempt, {"status": "complete"}, stopped_by_user=False, asked=True)
    assert verdict.outcome == "complete"
