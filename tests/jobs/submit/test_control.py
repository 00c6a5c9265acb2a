from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from giblet_hpc.errors import ConfigError, JobError
from giblet_hpc.files import write_json, write_text
from giblet_hpc.jobs.record import excluded, lease
from giblet_hpc.jobs.schedulers.base import NO_ANSWER, JobInfo
from giblet_hpc.jobs.schedulers.slurm import Slurm
from giblet_hpc.jobs.submit import control
from giblet_hpc.runs import checkpoints
from giblet_hpc.runs.paths import RunPaths


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What Slurm was told to do."""
    told: list[tuple[Any, ...]] = []
    monkeypatch.setattr(Slurm, "cancel", lambda _, jobs: told.append(("cancel", *jobs)) or True)
    monkeypatch.setattr(
        Slurm, "exclude", lambda _, job, nodes: told.append(("exclude", job, *nodes)) or True
    )
    return told


def held(paths: RunPaths, monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    def jobs(self: Slurm, ids: Sequence[str], user: str) -> Mapping[str, JobInfo]:
        return answer

    monkeypatch.setattr(Slurm, "jobs", jobs)
    lease.take(paths, "slurm", ("7", "8"))
    for stage, job in (("train", "7"), ("evaluate", "8")):
        paths.update_state(stage, status="queued", job=job)  # type: ignore[arg-type]


WAITS = JobInfo("PENDING", waits=True)


def test_waiting_jobs_just_go(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch, done: list[tuple[Any, ...]]
) -> None:
    held(paths, monkeypatch, {"7": WAITS, "8": WAITS})
    assert control.cancel(paths).endswith("2 waiting jobs cancelled")
    assert done == [("cancel", "7", "8")]
    assert paths.stage_state("train")["status"] == "stopped"
    assert lease.read(paths) is None
    with pytest.raises(ConfigError, match="nothing of run a run is queued or running"):
        control.cancel(paths)


def test_a_silent_scheduler_says_what_to_type(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch, done: list[tuple[Any, ...]]
) -> None:
    held(paths, monkeypatch, NO_ANSWER)
    with pytest.raises(JobError, match="Slurm does not answer") as caught:
        control.cancel(paths)
    assert caught.value.hint == "when it answers: scancel 7 8"
    assert paths.stop.exists(), "what starts after that ends at once"
    assert done == []


def test_a_job_that_can_never_start_gets_its_nodes_back(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch, done: list[tuple[Any, ...]]
) -> None:
    stuck = JobInfo("PENDING", waits=True, unsatisfiable=True)
    held(paths, monkeypatch, {"7": stuck, "8": WAITS})
    assert control.lift_exclusions(paths) == [], "not by our doing"
    excluded.remember(paths, ["n2"], reason="x", hours=1)
    assert control.lift_exclusions(paths) == ["7"]
    assert done == [("exclude", "7")]
    assert excluded.known(paths) == {}


def checkpoint(paths: RunPaths, step: int, best_step: int | None) -> None:
    folder = paths.checkpoints() / checkpoints.name_of(step)
    folder.mkdir(parents=True)
    write_json(folder / checkpoints.MANIFEST, {"step": step, "best_step": best_step, "files": {}})
    checkpoints.set_latest(paths.checkpoints(), folder)


def test_going_back_mends_the_pointer_to_the_best(paths: RunPaths) -> None:
    for step, best in ((10, 10), (20, 10), (30, 30)):
        checkpoint(paths, step, best)
    write_text(paths.checkpoints() / checkpoints.BEST, checkpoints.name_of(30))
    with pytest.raises(ConfigError, match="no checkpoint of step 15; there are: 10, 20, 30"):
        control.go_back(paths, 15)
    control.go_back(paths, 20)
    assert [checkpoints.step_of(p) for p in checkpoints.committed(paths.checkpoints())] == [10, 20]
    assert checkpoints.valid_best(paths.checkpoints()).name == checkpoints.name_of(10)
    assert paths.checkpoint_step() == 20
    assert list(paths.root.glob("set-aside/*/step-00000030"))


def test_going_back_before_the_first_best_leaves_none(paths: RunPaths) -> None:
    for step, best in ((10, None), (20, 20)):
        checkpoint(paths, step, best)
    write_text(paths.checkpoints() / checkpoints.BEST, checkpoints.name_of(20))
    control.go_back(paths, 10)
    assert not (paths.checkpoints() / checkpoints.BEST).exists()
