"""What follows from how an attempt ended, decided from records and from what a scheduler says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from giblet_hpc.config.cluster import Cluster
from giblet_hpc.jobs import profiles
from giblet_hpc.jobs.node import epilogue
from giblet_hpc.jobs.record import attempts, excluded, lease
from giblet_hpc.jobs.schedulers.base import NO_ANSWER, JobInfo, Place
from giblet_hpc.jobs.schedulers.slurm import Slurm
from giblet_hpc.runs.paths import RunPaths

PLACE = Place("slurm", "7")


class Controller(Slurm):
    """Slurm with recorded answers; what it was told to do is in `done`."""

    def __init__(self, **answers: Any) -> None:
        self.answers = {"disposition": "runs", "usable_nodes": 2, "jobs": {}, **answers}
        self.done: list[tuple[Any, ...]] = []

    def disposition(self, job: str, restart: int) -> Any:
        return self.answers["disposition"]

    def requeue(self, job: str) -> bool:
        self.done.append(("requeue", job))
        return True

    def exclude(self, job: str, nodes: Sequence[str]) -> bool:
        self.done.append(("exclude", *nodes))
        return True

    def usable_nodes(self, partition: str | None) -> Any:
        return self.answers["usable_nodes"]

    def jobs(self, ids: Sequence[str], user: str) -> Mapping[str, JobInfo]:
        return self.answers["jobs"]


@pytest.fixture
def run(paths: RunPaths, monkeypatch: pytest.MonkeyPatch) -> RunPaths:
    """A run whose training holds the lease as job 7."""
    monkeypatch.setattr(epilogue.time, "sleep", lambda _: None)
    profiles.save(Cluster(name="c"), paths.cluster)
    held = lease.take(paths, "slurm")
    lease.assign(paths, held, ("7",))
    paths.update_state("preprocess", status="complete")
    paths.update_state("train", status="running", job="7")
    paths.update_state("evaluate", status="queued", job="8")
    return paths


def attempt(paths: RunPaths, outcome: str, *, nodes: int = 1, progress: bool = True,
            **facts: Any) -> attempts.Attempt:  # fmt: skip
    begun = attempts.begin(
        paths, PLACE, "train", {"part": "", "nodes": nodes, "checkpoint_from": 0}
    )
    for node in range(nodes):
        begun.note_node(node, host=f"n{node + 1}", ended=1.0)
    begun.note(checkpoint_to=5 if progress else 0, **facts)
    begun.close(outcome, reason="because", step=5)  # type: ignore[arg-type]
    return begun


def test_a_complete_stage_lets_go(run: RunPaths) -> None:
    attempt(run, "complete")
    controller = Controller()
    assert epilogue.conclude(run, PLACE, controller) == 0
    assert lease.read(run) is None
    assert controller.done == []


@pytest.mark.parametrize("outcome", ["interrupted", "crashed", "lost", "hung"])
def test_what_did_not_end_well_is_queued_again(run: RunPaths, outcome: str) -> None:
    attempt(run, outcome)
    controller = Controller()
    assert epilogue.conclude(run, PLACE, controller) == 1
    assert controller.done == [("requeue", "7")]
    assert run.stage_state("train")["status"] == "queued"
    assert run.stage_state("train")["reason"] == "queued again: because"
    assert lease.read(run) is not None


def test_what_slurm_queues_again_itself_is_left_to_it(run: RunPaths) -> None:
    attempt(run, "lost")
    controller = Controller(disposition="requeued")
    epilogue.conclude(run, PLACE, controller)
    assert controller.done == []
    assert run.stage_state("train")["status"] == "queued"


@pytest.mark.parametrize("answer", [NO_ANSWER, "out of time"])
def test_silence_and_walltime_are_no_cancellation(run: RunPaths, answer: Any) -> None:
    attempt(run, "interrupted")
    controller = Controller(disposition=answer)
    epilogue.conclude(run, PLACE, controller)
    assert controller.done == [("requeue", "7")]


def test_a_cancelled_job_stays_cancelled(run: RunPaths) -> None:
    attempt(run, "interrupted")
    controller = Controller(disposition="cancelled")
    epilogue.conclude(run, PLACE, controller)
    assert controller.done == []
    assert run.stage_state("train")["status"] == "stopped"
    assert run.stage_state("evaluate")["status"] == "not started"
    assert lease.read(run) is None


def test_two_attempts_without_progress_are_enough(run: RunPaths) -> None:
    attempt(run, "crashed", progress=False)
    attempt(run, "hung", progress=False)
    controller = Controller()
    epilogue.conclude(run, PLACE, controller)
    assert controller.done == []
    state = run.stage_state("train")
    assert (state["status"], state["reason"]) == (
        "failed", "because (2 attempts without progress)"
    )  # fmt: skip


def conclusions(run: RunPaths, causes: Sequence[str], **facts: Any) -> list[str]:
    """End attempts by these causes, none with progress; return the status after each."""
    found = []
    for cause in causes:
        begun = attempt(run, "crashed", progress=False, **facts)
        begun.note(root=cause)
        epilogue.conclude(run, PLACE, Controller())
        found.append(run.stage_state("train")["status"])
        if found[-1] == "failed":
            break
    return found


def test_failures_that_take_turns_come_to_an_end(run: RunPaths) -> None:
    turns = ["gpu-out-of-memory", "rendezvous"] * 10
    assert conclusions(run, turns) == ["queued", "queued", "failed"]


def test_ever_new_failures_come_to_an_end(run: RunPaths) -> None:
    assert conclusions(run, [f"new {letter}" for letter in "abcdefgh"]) == [
        "queued", "queued", "queued", "failed",
    ]  # fmt: skip
    assert "of several causes: new d, new c" in run.stage_state("train")["reason"]


def test_what_another_attempt_cannot_mend_is_not_tried_again(run: RunPaths) -> None:
    assert conclusions(run, ["quota"], hopeless=True) == ["failed"]
    assert "another attempt would end in the same way" in run.stage_state("train")["reason"]


def test_a_node_at_fault_is_left_out_and_others_are_tried(run: RunPaths) -> None:
    begun = attempt(run, "crashed", nodes=2, progress=False, suspects=["n2"])
    begun.note(root="gpu-lost")
    controller = Controller(usable_nodes=5)
    epilogue.conclude(run, PLACE, controller)
    assert controller.done == [("requeue", "7"), ("exclude", "n2")]
    assert conclusions(run, ["gpu-lost"] * 5) == ["queued", "failed"]


def test_supervisors_that_were_killed_are_named(run: RunPaths) -> None:
    begun = attempts.begin(run, PLACE, "train", {"part": "", "nodes": 2, "checkpoint_from": 0})
    begun.note_node(0, host="n1", ended=1.0)
    begun.note_node(1, host="n2")
    controller = Controller(usable_nodes=5)
    epilogue.conclude(run, PLACE, controller)
    assert begun.facts()["outcome"] == "lost"
    assert begun.facts()["reason"] == "the supervisor on n2 was killed"
    assert list(excluded.known(run)) == ["n2"]
    assert controller.done == [("requeue", "7"), ("exclude", "n2")]


@pytest.mark.parametrize("usable", [NO_ANSWER, 2])
def test_no_node_is_excluded_unless_enough_are_known_to_be_left(run: RunPaths, usable: Any) -> None:
    attempt(run, "lost", nodes=2, lost_hosts=["n2"])
    controller = Controller(usable_nodes=usable)
    epilogue.conclude(run, PLACE, controller)
    assert controller.done == [("requeue", "7")]


def test_an_exclusion_that_leaves_nothing_is_lifted_at_once(run: RunPaths) -> None:
    attempt(run, "lost", nodes=2, lost_hosts=["n2"])
    stuck = {"7": JobInfo("PENDING", waits=True, unsatisfiable=True)}
    controller = Controller(usable_nodes=3, jobs=stuck)
    epilogue.conclude(run, PLACE, controller)
    assert controller.done == [("requeue", "7"), ("exclude", "n2"), ("exclude",)]


def test_a_job_that_never_began_says_where_its_own_log_is(run: RunPaths) -> None:
    run.update_state("train", status="queued")
    assert epilogue.conclude(run, PLACE, Controller()) == 1
    state = run.stage_state("train")
    assert state["status"] == "failed"
    assert "7_0_log.out" in state["hint"]


def test_a_job_that_cannot_be_queued_again_names_the_command(run: RunPaths) -> None:
    attempt(run, "interrupted")
    profiles.save(Cluster(name="c", requeue="none"), run.cluster)
    epilogue.conclude(run, PLACE, Controller())
    state = run.stage_state("train")
    assert state["status"] == "interrupted"
    assert state["hint"] == run.command("resubmit")


def test_the_budget_is_that_of_the_cause_that_is_counted(run: RunPaths) -> None:
    """A preempted attempt after two of a node's faults, which have three tries."""
    for _ in range(2):
        attempt(run, "crashed", progress=False).note(root="gpu-lost")
    attempt(run, "interrupted", progress=False)
    controller = Controller()
    epilogue.conclude(run, PLACE, controller)
    assert run.stage_state("train")["status"] == "queued"


def test_a_bad_node_is_left_out_of_a_job_of_one_node(run: RunPaths) -> None:
    attempt(run, "crashed", suspects=["n1"])
    controller = Controller(usable_nodes=5)
    epilogue.conclude(run, PLACE, controller)
    assert controller.done == [("requeue", "7"), ("exclude", "n1")]
