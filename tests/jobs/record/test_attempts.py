from __future__ import annotations

import pytest

from giblet_hpc.jobs.record import attempts
from giblet_hpc.jobs.record.attempts import begin
from giblet_hpc.jobs.schedulers.base import Place
from giblet_hpc.jobs.schedulers.local import Local
from giblet_hpc.runs.paths import RunPaths


def test_attempts_are_numbered(paths: RunPaths) -> None:
    numbers = [begin(paths, Local().own_job(), "train", {}).number for _ in range(3)]
    assert numbers == [1, 2, 3]


def test_an_attempt_that_never_ended_is_closed(paths: RunPaths) -> None:
    first = begin(paths, Place("slurm", "7"), "train", {"part": ""})
    begin(paths, Place("slurm", "7", restart=1), "train", {"part": ""})
    assert first.facts()["outcome"] == "interrupted"


def test_attempts_without_progress_are_counted(paths: RunPaths) -> None:
    made = []
    for before, after, outcome in [(0, 5, "crashed"), (5, 5, "hung"), (5, 5, "lost")]:
        attempt = begin(paths, Local().own_job(), "train", {"checkpoint_from": before})
        attempt.note(checkpoint_to=after)
        attempt.close(outcome, reason="", step=None)
        made.append(attempt)
    assert attempts.without_progress(made[:1]).every == 0
    assert attempts.without_progress(made).every == 2


def ended(paths: RunPaths, outcome: str, root: str, *, progress: bool = False,
          why: str = "") -> attempts.Attempt:  # fmt: skip
    attempt = begin(paths, Local().own_job(), "train", {"checkpoint_from": 0})
    attempt.note(checkpoint_to=5 if progress else 0, why_asked=why)
    attempt.close(outcome, reason="", step=None, root=root)  # type: ignore[arg-type]
    return attempt


def test_each_cause_has_its_budget_since_the_last_progress(paths: RunPaths) -> None:
    made = [
        ended(paths, "crashed", "a"),
        ended(paths, "crashed", "b", progress=True),
        ended(paths, "crashed", "a"),
        ended(paths, "interrupted", "", why="SIGTERM"),
        ended(paths, "hung", "hang"),
        ended(paths, "crashed", "a"),
    ]
    assert attempts.without_progress(made) == attempts.Spent(2, 3, ("a", "hang"), False)
    assert attempts.without_progress(made[:5]) == attempts.Spent(1, 2, ("hang", "a"), False)


def test_what_a_person_stopped_begins_anew(paths: RunPaths) -> None:
    made = [ended(paths, "crashed", "a"), ended(paths, "failed", "a"), ended(paths, "crashed", "a")]
    assert attempts.without_progress(made).every == 1


def test_an_unknown_cause_is_known_by_its_words() -> None:
    first, second = (f"rank {rank}: at 0x{rank}f after {rank} s" for rank in (3, 12))
    assert attempts.root_of_text(first) == attempts.root_of_text(second)


def test_a_sign_of_life_is_a_time_and_no_more(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = begin(paths, Place("slurm", "7"), "train", {})
    attempt.note_node(0, host="n1")
    before = attempt.files.node(0).stat().st_ino
    monkeypatch.setattr(attempts.time, "time", lambda: 5000.0)
    attempt.beat(0)
    assert attempt.nodes()[0]["heartbeat"] == 5000.0
    assert attempt.files.node(0).stat().st_ino == before
    assert attempt.silent_hosts(5100.0) == []
    assert attempt.silent_hosts(5200.0) == ["n1"]
    attempt.note_node(0, ended=5200.0)
    assert attempt.silent_hosts(9999.0) == []
