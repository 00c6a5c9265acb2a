"""Nodes that lost a job: excluded for a while, each in a file of its own."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from giblet_hpc.files import write_json
from giblet_hpc.jobs.record import excluded
from giblet_hpc.jobs.schedulers.base import NO_ANSWER, Scheduler
from giblet_hpc.jobs.schedulers.slurm import Slurm
from giblet_hpc.runs.paths import RunPaths


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path / "runs" / "a")


@pytest.fixture
def scheduler(monkeypatch: pytest.MonkeyPatch) -> Scheduler:
    monkeypatch.setattr(Slurm, "usable_nodes", lambda self, partition: 3)
    return Slurm()


def test_runs_of_a_folder_share_what_each_has_found(paths: RunPaths, scheduler: Scheduler) -> None:
    other = RunPaths(paths.root.parent / "b")
    excluded.remember(paths, ["n1"], reason="lost", hours=1)
    excluded.remember(other, ["n2"], reason="lost too", hours=1)
    assert set(excluded.known(paths)) == {"n1", "n2"}
    assert excluded.to_exclude(paths, scheduler, partition=None, needed=1) == ["n1", "n2"]
    assert excluded.to_exclude(paths, scheduler, partition=None, needed=2) == []
    excluded.forget(other)
    assert excluded.known(paths) == {}


def test_no_answer_excludes_nothing(
    paths: RunPaths, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    excluded.remember(paths, ["n1"], reason="lost", hours=1)
    monkeypatch.setattr(Slurm, "usable_nodes", lambda self, partition: NO_ANSWER)
    assert excluded.to_exclude(paths, scheduler, partition=None, needed=1) == []


def test_nodes_are_forgiven(paths: RunPaths) -> None:
    excluded.remember(paths, ["n1"], reason="lost", hours=-1)
    assert excluded.known(paths) == {}


def test_records_that_are_no_records_exclude_nothing(paths: RunPaths) -> None:
    """The folder may be one that a whole lab writes to."""
    folder = paths.excluded_nodes
    excluded.remember(paths, ["n1"], reason="lost", hours=1)
    (folder / "n2.json").write_text("no JSON")
    write_json(folder / "n3.json", {"until": "tomorrow"})
    write_json(folder / "n4 --uid=0.json", {"until": time.time() + 60})
    (folder / "n5.json").symlink_to("/nowhere")
    assert set(excluded.known(paths)) == {"n1"}
    assert len(excluded.in_words(paths)) == 1
