from __future__ import annotations

import os

import pytest

from giblet_hpc.cli import manage
from giblet_hpc.files import write_json
from giblet_hpc.jobs.record import lease
from giblet_hpc.runs.paths import RunPaths
from tests.cli.conftest import Invoke


def test_nothing_to_cancel_to_drill_or_to_repeat(invoke: Invoke, run_folder: RunPaths) -> None:
    assert "nothing of run movie is queued or running" in invoke("cancel", "movie", code=2).stderr
    assert "is not training on a cluster" in invoke("drill", "preempt", "movie", code=1).stderr
    assert invoke("reproduce", "movie", code=1).stderr.startswith("error: ")
    assert manage.cancel_command.name == "cancel"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_run_of_somebody_else_is_not_taken_up(invoke: Invoke, run_folder: RunPaths) -> None:
    """Its profile would have commands run as whoever takes it up."""
    run_folder.cluster.write_text("scheduler: local\nsetup: [touch mark]\n")
    write_json(run_folder.root / "made-by", "another")
    os.chown(run_folder.root, 12345, 12345)
    assert "no runs of yours in" in invoke("resubmit", code=2).stderr
    done = invoke("resubmit", "movie", code=2)
    assert "belongs to user 12345: it is not worked on as you" in done.stderr
    assert "belongs to user 12345" in invoke("submit", "train", "--name", "movie", code=2).stderr
    assert "movie" in invoke("status").stdout, "looking is free"


def test_only_a_stage_of_what_is_left(
    invoke: Invoke, run_folder: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, ...]] = []
    monkeypatch.setattr(manage, "start", lambda paths, stages, **_: started.append(stages))
    monkeypatch.setattr(manage, "check_place", lambda *_: None)
    monkeypatch.setattr(manage.checks, "require_possible", lambda *_, **__: None)
    invoke("resubmit", "movie")
    invoke("resubmit", "movie", "--only", "evaluate", "--only", "train")
    assert started == [("preprocess", "train", "evaluate"), ("train", "evaluate")]


def test_a_run_is_removed_when_nobody_works_on_it(invoke: Invoke, run_folder: RunPaths) -> None:
    said = invoke("remove", "movie").stderr
    assert "would delete" in said and "giblet-hpc remove movie --yes" in said
    assert run_folder.config.is_file()
    held = lease.take(run_folder, "local", (str(os.getpid()),))
    assert "is in use" in invoke("remove", "movie", "--yes", code=2).stderr
    assert run_folder.config.is_file()
    lease.release(run_folder, held)
    assert "deleted" in invoke("remove", "movie", "--yes").stderr
    assert list(run_folder.root.parent.iterdir()) == []
