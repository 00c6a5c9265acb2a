"""When a run is taken for hung, and how long a stop may take."""

from __future__ import annotations

from pathlib import Path

import pytest

from giblet_hpc.config.cluster import Cluster
from giblet_hpc.jobs.node import watch
from giblet_hpc.jobs.node.watch import Progress, Watch
from giblet_hpc.jobs.record import attempts
from giblet_hpc.jobs.record.attempts import begin
from giblet_hpc.jobs.schedulers.base import Place
from giblet_hpc.runs import beacon
from giblet_hpc.runs.paths import RunPaths

PROFILE = Cluster(name="c", hang_seconds=30, hang_factor=20, lead_seconds=60)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that a test sets."""
    now = [1000.0]
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    return now


def pass_steps(progress: Progress, clock: list[float], steps: range) -> None:
    for step in steps:
        clock[0] += 1.0
        progress.see({0: (1, step, "begin")})
        assert progress.overdue() == ""


def test_a_step_that_takes_too_long(clock: list[float]) -> None:
    progress = Progress(PROFILE)
    pass_steps(progress, clock, range(100))
    clock[0] += 31.0
    progress.see({0: (1, 99, "backward")})
    assert progress.overdue().startswith("no step for 31 s after step 99; the median is 1.00 s")


def test_the_next_fold_begins_from_step_0(clock: list[float]) -> None:
    progress = Progress(PROFILE)
    pass_steps(progress, clock, range(100))
    pass_steps(progress, clock, range(90))


def test_a_stop_is_over_before_the_walltime_is(tmp_path: Path, clock: list[float]) -> None:
    paths = RunPaths(tmp_path / "run")
    paths.root.mkdir()
    local = tmp_path / "local"
    local.mkdir()
    (local / "rank-0").write_text("1 40 begin\n")
    place = Place("local", "7")
    for why, seconds in (("SIGTERM", 299.0), ("walltime", 29.0)):
        attempt = begin(paths, place, "train", {"nodes": 1})
        attempt.note_node(0, host="localhost")
        looked = Watch(paths, "train", attempt, place=place, profile=PROFILE, local=local)
        looked.ask(why)
        clock[0] += seconds
        assert looked.look() == "fine"
        clock[0] += 2.0
        assert looked.look() == "late"


def test_a_stall_of_the_file_system_is_no_lost_node(
    tmp_path: Path, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All signs of life are old after a stall, until the other nodes have given new ones."""
    paths = RunPaths(tmp_path / "run")
    paths.root.mkdir()
    place = Place("slurm", "7", nodes=2, host="n1")
    attempt = begin(paths, place, "preprocess", {"nodes": 2})
    looked = Watch(paths, "preprocess", attempt, place=place, profile=PROFILE, local=tmp_path)
    for node in range(2):
        attempt.note_node(node, host=f"n{node + 1}")

    def at(wall: float) -> None:
        monkeypatch.setattr(attempts.time, "time", lambda: wall)

    def look(after: float, wall: float) -> str:
        clock[0] += after
        at(wall)
        return looked.look()

    at(10_000.0)
    attempt.beat(1)
    assert look(21.0, 10_021.0) == "fine"
    assert look(500.0, 10_521.0) == "fine", "n2's sign is old, seen for the first time"
    attempt.beat(1)
    assert look(21.0, 10_542.0) == "fine"
    assert look(200.0, 10_742.0) == "fine"
    assert look(29.0, 10_771.0) == "fine"
    assert look(22.0, 10_793.0) == "peer", "nothing from n2 for half a minute more"


def test_a_request_to_stop_reaches_the_ranks_on_the_nodes_own_disk(
    tmp_path: Path, clock: list[float]
) -> None:
    paths = RunPaths(tmp_path / "run")
    paths.root.mkdir()
    local = tmp_path / "local"
    local.mkdir()
    place = Place("local", "7")
    attempt = begin(paths, place, "train", {"nodes": 1})
    attempt.note_node(0, host="localhost")
    looked = Watch(paths, "train", attempt, place=place, profile=PROFILE, local=local)
    clock[0] += 10
    looked.look()
    assert not looked.asked
    paths.stop.touch()
    clock[0] += 10
    looked.look()
    assert looked.asked and looked.user_stop
    assert (local / beacon.STOP).exists()
    assert attempt.stop.read_text() == "asked to stop\n"


def test_a_later_attempt_of_the_same_job_is_noticed(tmp_path: Path, clock: list[float]) -> None:
    paths = RunPaths(tmp_path / "run")
    paths.root.mkdir()
    place = Place("slurm", "7")
    attempt = begin(paths, place, "train", {"nodes": 1})
    attempt.note_node(0, host="n1")
    looked = Watch(paths, "train", attempt, place=place, profile=PROFILE, local=tmp_path)
    clock[0] += 21
    assert looked.look() == "fine"
    begin(paths, Place("slurm", "7", restart=1), "train", {"nodes": 1})
    clock[0] += 21
    assert looked.look() == "superseded"
