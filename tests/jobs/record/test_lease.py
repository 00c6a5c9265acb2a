from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from giblet_hpc import files
from giblet_hpc.errors import JobError
from giblet_hpc.jobs.record import lease
from giblet_hpc.jobs.schedulers.base import NO_ANSWER, JobInfo, NoAnswer
from giblet_hpc.jobs.schedulers.slurm import Slurm
from giblet_hpc.runs.paths import RunPaths

Answer = Mapping[str, JobInfo] | NoAnswer


def test_one_lease_at_a_time(paths: RunPaths) -> None:
    held = lease.take(paths, "local", (str(os.getpid()),))
    with pytest.raises(JobError, match="run a run is in use: local job"):
        lease.take(paths, "local")
    lease.release(paths, held)
    dead = lease.take(paths, "local", ("999999999",))
    assert lease.holder(paths) is None
    taken = lease.take(paths, "local", (str(os.getpid()),))
    lease.release(paths, dead)
    assert lease.read(paths) == taken, "only its own lease is removed"


def answers(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
    def jobs(self: Slurm, ids: Sequence[str], user: str) -> Answer:
        return answer

    monkeypatch.setattr(Slurm, "jobs", jobs)


def age(paths: RunPaths, seconds: float) -> None:
    facts = json.loads(paths.lease.read_text())
    paths.lease.write_text(json.dumps({**facts, "since": facts["since"] - seconds}))


WAITS = {"7": JobInfo("PENDING", waits=True)}


@pytest.mark.parametrize(
    ("answer", "old", "alive"),
    [
        (WAITS, True, True), ({}, True, False), ({}, False, False),
        (NO_ANSWER, False, True), (NO_ANSWER, True, None),
    ],
)  # fmt: skip
def test_no_answer_is_neither_yes_nor_no(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch, answer: Answer, old: bool, alive: bool | None
) -> None:
    lease.take(paths, "slurm", ("7",))
    if old:
        age(paths, 3600)
    answers(monkeypatch, answer)
    found = lease.standing(paths)
    assert found.alive is alive
    assert found.taken is (alive is not False)
    assert (lease.holder(paths) is None) is (alive is False)


def test_a_silent_scheduler_lets_nobody_take_a_run_over(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = lease.take(paths, "slurm", ("7",))
    age(paths, 3600)
    answers(monkeypatch, NO_ANSWER)
    with pytest.raises(JobError, match="Slurm does not answer") as caught:
        lease.take(paths, "slurm")
    assert "nothing was queued" in caught.value.hint
    found = lease.read(paths)
    assert found is not None and found.token == held.token
    answers(monkeypatch, {})
    assert lease.take(paths, "slurm").token != held.token


def test_one_of_many_takes_it_also_without_hard_links(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted", "a", None, "b")

    monkeypatch.setattr(files.os, "link", refuse)
    taken, refused = [], []

    def take() -> None:
        try:
            taken.append(lease.take(paths, "local", (str(os.getpid()),)))
        except JobError as error:
            refused.append(error)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1
    assert len(refused) == 7
    assert lease.read(paths) == taken[0]
    assert [path.name for path in paths.root.iterdir() if path.name.startswith(".tmp")] == []


def test_a_share_that_is_returned_leaves_the_others(paths: RunPaths) -> None:
    held = lease.take(paths, "slurm")
    lease.assign(paths, held, ("7", "8"))
    lease.return_share(paths, "7", all_jobs=False)
    left = lease.read(paths)
    assert left is not None and left.jobs == ("8",)
    lease.return_share(paths, "8", all_jobs=False)
    assert lease.read(paths) is None


def test_a_lease_from_the_future_is_named_and_holds_nobody_off(paths: RunPaths) -> None:
    """Whoever can write to the folder could keep a run for ever with one."""
    lease.take(paths, "local")
    age(paths, -100_000)
    held = lease.read(paths)
    assert held is not None and "in the future" in str(held)
    assert not lease.standing(paths).taken
    lease.take(paths, "local")
    age(paths, -60)
    assert lease.standing(paths).taken, "clocks may differ a little"


def test_a_lease_is_named_in_words(paths: RunPaths, tmp_path: Path) -> None:
    held = lease.take(paths, "slurm")
    assert str(held).startswith("submitting of ")
    lease.assign(paths, held, ("7",))
    assert "slurm job 7 of " in str(lease.read(paths))


def test_jobs_of_an_array_that_end_at_once_free_the_run(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = tuple(f"7_{number}" for number in range(8))
    lease.take(paths, "slurm", jobs)
    answers(monkeypatch, {job: JobInfo("RUNNING") for job in jobs})
    threads = [
        threading.Thread(target=lease.return_share, args=(paths, job), kwargs={"all_jobs": False})
        for job in jobs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not paths.lease.exists()
    assert not list(paths.ended_jobs.iterdir())


def test_a_share_that_was_returned_counts_no_more(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def jobs(self: Slurm, ids: Sequence[str], user: str) -> Answer:
        asked.append(tuple(ids))
        return {}

    monkeypatch.setattr(Slurm, "jobs", jobs)
    lease.take(paths, "slurm", ("7_0", "7_1"))
    lease.return_share(paths, "7_0", all_jobs=False)
    assert lease.standing(paths).alive is False
    assert asked == [("7_1",)]


def test_jobs_of_others_may_be_hidden(paths: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    lease.take(paths, "slurm", ("7",))
    facts = json.loads(paths.lease.read_text())
    paths.lease.write_text(json.dumps({**facts, "user": "ann", "since": 0}))
    answers(monkeypatch, NO_ANSWER)
    with pytest.raises(JobError, match="does not show you jobs of ann"):
        lease.take(paths, "slurm")
