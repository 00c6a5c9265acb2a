from __future__ import annotations

import json

import pytest

from giblet_hpc.cli import inspect as commands
from giblet_hpc.jobs.record.attempts import begin
from giblet_hpc.jobs.schedulers.base import Place
from giblet_hpc.runs.paths import RunPaths
from tests.cli.conftest import Invoke


def test_runs_and_where_they_stand(invoke: Invoke, run_folder: RunPaths) -> None:
    assert json.loads(invoke("runs", "--json").stdout) == [
        {"run": "movie", "preprocess": "not started", "train": "not started",
         "evaluate": "not started"},
    ]  # fmt: skip
    assert "movie" in invoke("runs").stdout
    assert json.loads(invoke("status", "movie", "--json").stdout)["run"] == "movie"
    assert "has no log yet" in invoke("logs", code=2).stderr
    assert "has no scores yet" in invoke("scores", code=2).stderr
    assert commands.status_command.name == "status"


def test_records_and_logs_do_not_control_a_terminal(invoke: Invoke, run_folder: RunPaths) -> None:
    run_folder.update_state("train", status="failed", reason="\x1b[2Jgone | \x07", hint="\x9b1m")
    attempt = begin(run_folder, Place("local", "7", 0), "train", {"nodes": 1})
    attempt.log(0).write_bytes(b"\x1b]0;title\x07" + b"\xff")
    for words in (("status",), ("runs",), ("logs", "movie")):
        said = invoke(*words).stdout
        assert not [c for c in said if (ord(c) < 32 and c not in "\t\n") or 0x7F <= ord(c) < 0xA0]
    assert "\\x1b[2Jgone | \\x07" in invoke("status").stdout


def test_curves_have_a_path_that_is_only_printed(invoke: Invoke, run_folder: RunPaths) -> None:
    said = invoke("tensorboard", "--dry-run").stdout.splitlines()
    prefix = said[1].rpartition("/")[0].rpartition("/")[2]
    assert len(prefix) == 22
    assert prefix not in said[2]


@pytest.mark.parametrize("command", ["compare"])
def test_one_run_compared_with_none(invoke: Invoke, run_folder: RunPaths, command: str) -> None:
    (row,) = json.loads(invoke(command, "movie", "--json").stdout)
    assert row["run"] == "movie" and row["model_r"] is None


def test_logs_of_any_attempt(invoke: Invoke, run_folder: RunPaths) -> None:
    for number, (stage, part) in enumerate(
        [("preprocess", "run1/video"), ("preprocess", "scans-1"), ("train", ""), ("evaluate", "")],
        1,
    ):
        attempt = begin(run_folder, Place("local", str(number), 0), stage, {"nodes": 1})
        attempt.note(part=part)
        attempt.log(0).write_text(f"log {number}\n")
    assert invoke("logs").stdout == "log 4\n"
    assert invoke("logs", "--stage", "train").stdout == "log 3\n"
    assert invoke("logs", "--part", "run1/video").stdout == "log 1\n"
    assert invoke("logs", "--attempt", "2").stdout == "log 2\n"
    assert invoke("logs", "-f", "--stage", "train").stdout == "log 3\n", "nobody works on it"
    said = invoke("logs", "--part", "run9/video", code=2).stderr
    assert "no log of run9/video; there are 4 attempts, of preprocess run1/video," in said
