"""A run waits in the queue, and squeue times out: nobody says that it is gone, nothing is queued."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from giblet_hpc.cli.main import main
from giblet_hpc.config import io
from giblet_hpc.files import read_json, write_json
from giblet_hpc.jobs import profiles
from giblet_hpc.jobs.record import lease
from giblet_hpc.jobs.schedulers import slurm_commands
from giblet_hpc.runs.paths import RunPaths

PLAIN = str(Path(__file__).parents[2] / "slurm" / "clusters" / "plain.yaml")
HANGS = '#!/bin/sh\necho "$(basename "$0") $*" >>{folder}/asked\nexec sleep 60\n'
TAKES = '#!/bin/sh\necho "sbatch $*" >>{folder}/asked\necho Submitted batch job 99\n'


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_config: str) -> RunPaths:
    """A run that was submitted two hours ago, on a cluster whose controller is silent."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIBLET_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(slurm_commands, "SECONDS", 0.2)
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("squeue", "scontrol", "sinfo", "scancel", "sacct", "srun", "sbatch"):
        text = TAKES if name == "sbatch" else HANGS
        (folder / name).write_text(text.format(folder=folder))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    paths = RunPaths(tmp_path / "runs" / "waits")
    paths.create(io.load(Path(demo_config)))
    profiles.save(profiles.choose(PLAIN), paths.cluster)
    paths.update_state("preprocess", status="complete")
    paths.update_state("train", status="queued", job="7", ranks=2, nodes=1, gpus=2)
    lease.take(paths, "slurm", ("7",))
    facts = read_json(paths.lease)
    write_json(paths.lease, {**facts, "since": time.time() - 7200})
    return paths


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def queued(tmp_path: Path) -> list[str]:
    asked = (tmp_path / "bin" / "asked").read_text().splitlines()
    return [line for line in asked if line.startswith("sbatch")]


def test_status_says_that_slurm_does_not_answer(waiting: RunPaths) -> None:
    said = call("status", "waits").output
    assert "Slurm does not answer" in said
    assert "queued" in said
    assert "resubmit" not in said and "interrupted" not in said


@pytest.mark.parametrize(
    "command",
    [
        ("submit", "train", "--name", "waits", "--no-checks"),
        ("submit", "pipeline", "--name", "waits", "--no-checks"),
        ("resubmit", "waits", "--no-checks"),
        ("run", "train", "waits"),
    ],
)
def test_nothing_is_queued_twice(
    waiting: RunPaths, tmp_path: Path, command: tuple[str, ...]
) -> None:
    held = waiting.lease.read_text()
    done = call(*command)
    assert done.exit_code in (1, 2), done.output
    assert isinstance(done.exception, SystemExit)
    assert "Slurm does not answer" in done.output
    assert "ask again when it does" in done.output
    assert not queued(tmp_path)
    assert waiting.lease.read_text() == held


def test_cancel_says_what_to_do(waiting: RunPaths, tmp_path: Path) -> None:
    held = waiting.lease.read_text()
    done = call("cancel", "waits")
    assert "does not answer" in done.output
    assert "scancel 7" in done.output
    assert waiting.lease.read_text() == held, "the run stays taken"


@pytest.fixture
def answering(waiting: RunPaths, tmp_path: Path) -> Callable[[str], None]:
    """Have squeue answer after all."""

    def answer(text: str) -> None:
        (tmp_path / "bin" / "squeue").write_text(f"#!/bin/sh\nprintf '%s' '{text}'\n")

    return answer


def test_when_it_answers_the_run_is_taken_or_free(
    waiting: RunPaths, answering: Callable[[str], None]
) -> None:
    answering("7|PENDING|Priority|N/A\n")
    assert "other jobs come first" in call("status", "waits").output
    assert lease.standing(waiting).alive is True
    answering("")
    assert lease.standing(waiting).alive is False
