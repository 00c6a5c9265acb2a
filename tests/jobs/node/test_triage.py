"""From what an attempt leaves behind to the sentence that `status` shows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from giblet_hpc.files import write_json
from giblet_hpc.jobs.node import evidence, triage
from giblet_hpc.jobs.record.attempts import Attempt, begin
from giblet_hpc.jobs.schedulers.base import Place
from giblet_hpc.runs.paths import RunPaths
from tests.causes.tails import TAILS

RUNNING = {"status": "running", "step": 40}


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    paths = RunPaths(tmp_path / "run")
    paths.root.mkdir()
    attempt = begin(paths, Place("slurm", "7", 0), "train", {"nodes": 2})
    for node in range(2):
        attempt.note_node(node, host=f"n{node + 1}", ended=time.time(), code=1)
    return attempt


def judged(attempt: Attempt, **more: Any) -> triage.Diagnosis:
    return triage.diagnose(attempt, RUNNING, **{"asked": False, **more})


def failed(attempt: Attempt, rank: int, reason: str, when: float, kind: str = "error") -> None:
    facts = {"kind": kind, "reason": reason, "hint": "", "exit_code": 1}
    where = {"rank": rank, "host": f"n{rank + 1}", "time": when}
    write_json(attempt.files.rank(rank), {**facts, **where})


LOGS = [
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", "out of GPU memory"),
    ("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0", "out of memory on the node"),
    ("[rank3] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=9)", "of NCCL failed"),
    ("RuntimeError: Timed out waiting 1800000ms for recv operation to complete", "(gloo)"),
    ("FATAL: container creation failed: mount source /scratch doesn't exist", "could not be bound"),
    ("NodeError: the nodes did not find each other within 900 s", "did not find each other"),
    ("ncclInvalidUsage: Duplicate GPU detected : rank 1 and rank 0", "two ranks use the same GPU"),
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
    assert judged(attempt, asked=True) == triage.Diagnosis("interrupted", "SIGTERM")
    assert judged(attempt, asked=True, by_user=True).outcome == "stopped"


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
    write_json(attempt.files.node(1), {"host": "n2"})
    verdict = judged(attempt)
    assert verdict.outcome == "lost"
    assert "n2" in verdict.reason


def test_a_complete_stage_is_complete_whatever_else_is_there(attempt: Attempt) -> None:
    attempt.hung.write_text("late\n")
    verdict = triage.diagnose(attempt, {"status": "complete"}, asked=True)
    assert verdict.outcome == "complete"


def agent(attempt: Attempt, node: int, when: float, *ended: tuple[int, int]) -> None:
    rows = [{"rank": rank, "exit_code": code} for rank, code in ended]
    write_json(attempt.files.agent(node), {"host": f"n{node + 1}", "time": when, "ended": rows})


def test_a_rank_that_was_killed_is_named_as_killed(attempt: Attempt) -> None:
    """The others only lost their connection to it, and say so first."""
    failed(attempt, 0, "RuntimeError: Connection closed by peer [n2]", 10.0)
    agent(attempt, 0, 10.5, (0, 1))
    agent(attempt, 1, 11.0, (1, -9))
    diagnosis = judged(attempt)
    assert diagnosis.reason == "rank 1 on n2 was killed by signal 9 (SIGKILL)"
    assert "memory" in diagnosis.hint
    assert judged(attempt, asked=False).outcome == "crashed"


def test_a_fault_of_code_is_one_also_beside_a_signal(attempt: Attempt) -> None:
    agent(attempt, 1, 9.0, (1, -11))
    assert judged(attempt).reason == "rank 1 on n2 was killed by signal 11 (SIGSEGV)"
    failed(attempt, 0, "ZeroDivisionError: division by zero", 11.0)
    assert judged(attempt).reason == "rank 0 on n1: ZeroDivisionError: division by zero"


def test_torchrun_that_was_killed_is_named(attempt: Attempt) -> None:
    failed(attempt, 0, "RuntimeError: Connection reset by peer", 10.0)
    attempt.note_node(1, code=-9)
    assert (
        judged(attempt).reason == "the stage's first process on n2 was killed by signal 9 (SIGKILL)"
    )


def test_what_a_supervisor_ended_itself_is_no_cause(attempt: Attempt) -> None:
    """torchrun is killed on n2 while n1 waits for it to join; n1's supervisor ends that."""
    attempt.note_node(0, code=-3, stepped_in="peer", ended=time.time() + 60)
    agent(attempt, 0, 9.0, (0, -15))
    attempt.note_node(1, code=-9)
    assert (
        judged(attempt).reason == "the stage's first process on n2 was killed by signal 9 (SIGKILL)"
    )


def test_the_first_process_that_was_killed_is_named(attempt: Attempt) -> None:
    attempt.note_node(0, code=-9, ended=time.time() + 60)
    attempt.note_node(1, code=-11)
    assert "first process on n2 was killed by signal 11" in judged(attempt).reason


def test_a_script_that_was_killed_is_no_cancellation(attempt: Attempt) -> None:
    attempt.stop.write_text("SIGTERM\n")
    found = judged(attempt, asked=True, disposition="script killed")
    assert found.outcome == "lost"
    assert "script was killed" in found.reason
    assert judged(attempt, asked=True, disposition="cancelled").outcome == "stopped"
    assert judged(attempt, asked=True, disposition="runs").outcome == "interrupted"
    attempt.stop.write_text("walltime\n")
    assert judged(attempt, asked=True, disposition="out of time").outcome == "interrupted"


def test_the_evidence_is_quoted_with_file_and_line(attempt: Attempt) -> None:
    lines = [f"step {number}" for number in range(30_000)]
    attempt.log(0).write_text("RuntimeError: Connection closed by peer [n2]\n")
    attempt.log(1).write_text("\n".join([*lines, TAILS["gpu-lost"], "last", ""]))
    verdict = judged(attempt)
    assert verdict.root == "gpu-lost"
    assert verdict.suspects == ("n2",)
    assert verdict.evidence == (f"attempts/1/node-1.log:30001: {TAILS['gpu-lost']}",)


def test_logs_that_are_gone_say_nothing(attempt: Attempt) -> None:
    assert evidence.gather(attempt) == []
    assert evidence.job_logs(RunPaths(attempt.folder), "") == []


def test_a_log_that_names_the_node_comes_before_the_exception_it_caused(attempt: Attempt) -> None:
    failed(attempt, 1, "RuntimeError: CUDA error: an illegal memory access was encountered", 10.0)
    assert judged(attempt).root == "gpu-wrong-address"
    attempt.log(1).write_text(TAILS["gpu-memory-error"])
    assert judged(attempt).root == "gpu-memory-error"


def test_an_exception_that_no_table_knows_is_the_cause(attempt: Attempt) -> None:
    failed(attempt, 1, "ZeroDivisionError: division by zero", 10.0)
    attempt.log(1).write_text("ImportError: in a warning of a library\n")
    verdict = judged(attempt)
    assert verdict.reason == "rank 1 on n2: ZeroDivisionError: division by zero"
    assert not verdict.hopeless


def test_only_a_ranks_own_exception_ends_all_attempts(attempt: Attempt) -> None:
    attempt.log(1).write_text("ModuleNotFoundError: No module named 'x'\n")
    assert not judged(attempt).hopeless
    failed(attempt, 1, "ModuleNotFoundError: No module named 'x'", 10.0)
    assert judged(attempt).hopeless


def test_a_killed_rank_is_explained_by_the_jobs_own_log(attempt: Attempt) -> None:
    agent(attempt, 1, 11.0, (1, -9))
    jobs = RunPaths(attempt.folder.parent.parent).jobs
    jobs.mkdir()
    (jobs / "7_0_log.err").write_text(f"{TAILS['preempted']}\n")
    attempt.note(job_logs={"7_0_log.err": len(TAILS["preempted"]) + 1})
    assert judged(attempt).root == "signal-9"
    with (jobs / "7_0_log.err").open("a") as log:
        log.write(f"{TAILS['memory-limit-of-job']}\n")
    verdict = judged(attempt)
    assert verdict.root == "memory-limit-of-job"
    assert "rank 1 on n2 was killed by signal 9 (SIGKILL)" in verdict.reason
    assert verdict.evidence[0].startswith(
        "attempts/submitit/7_0_log.err:2: slurmstepd: error: Detected"
    )


def test_nccl_that_only_saw_another_rank_go_is_no_cause(attempt: Attempt) -> None:
    failed(attempt, 0, "DistBackendError: NCCL error: unhandled system error", 10.0)
    agent(attempt, 1, 11.0, (1, -9))
    verdict = judged(attempt)
    assert verdict.reason == "rank 1 on n2 was killed by signal 9 (SIGKILL)"
    assert "memory" in verdict.hint


@pytest.mark.parametrize(
    "line",
    [
        "steps 40 to 44 had gradients that are not finite: back to step 30, with the data after",
        "NCCL INFO NET/Plugin: No plugin found (libnccl-net.so), using internal implementation",
    ],
)
def test_what_was_overcome_is_no_cause(attempt: Attempt, line: str) -> None:
    attempt.log(0).write_text(f"{line}\n")
    agent(attempt, 0, 11.0, (0, -9))
    assert judged(attempt).root == "signal-9"
