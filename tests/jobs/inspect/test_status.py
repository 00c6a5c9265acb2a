from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from giblet_hpc.errors import ConfigError
from giblet_hpc.files import write_json
from giblet_hpc.jobs.inspect import logs, status
from giblet_hpc.jobs.record import excluded, lease
from giblet_hpc.jobs.record.attempts import begin
from giblet_hpc.jobs.schedulers.base import NO_ANSWER, JobInfo, NoAnswer, Place
from giblet_hpc.jobs.schedulers.slurm import Slurm
from giblet_hpc.jobs.submit.plan import remaining
from giblet_hpc.runs.paths import STAGES, RunPaths
from giblet_hpc.trust import owner

Answer = Mapping[str, JobInfo] | NoAnswer


def test_status_names_the_next_command(paths: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    assert status.describe(paths)["next"] == (
        f"giblet-hpc resubmit 'a run' --runs {paths.root.parent}"
    )
    monkeypatch.chdir(paths.root.parent.parent)
    assert paths.command("logs", "-f").endswith(f"--runs {paths.root.parent.name}")
    monkeypatch.setenv("GIBLET_RUNS", str(paths.root.parent))
    facts = status.describe(paths)
    assert facts["next"] == "giblet-hpc resubmit 'a run'"
    paths.update_state(
        "preprocess", status="failed", reason="film not found\nx", hint="x", exit_code=2
    )
    assert "film not found" in status.as_text(status.describe(paths))
    assert "hint: x" in status.as_text(status.describe(paths))
    paths.update_state("preprocess", status="running", host="elsewhere", supervisor=1)
    assert status.describe(paths)["stages"]["preprocess"]["status"] == "interrupted"
    for stage in ("preprocess", "train", "evaluate"):
        paths.update_state(stage, status="complete")
    assert status.describe(paths)["next"] == ""


def test_a_mistake_in_the_config_is_not_tried_again(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIBLET_RUNS", str(paths.root.parent))
    said = {"status": "failed", "reason": "wrong", "exit_code": 2, "of_config": True}
    paths.update_state("preprocess", **said)
    assert status.describe(paths)["next"] == (
        "mend FILE, then: giblet-hpc submit pipeline --config FILE --name 'a run'"
    )
    paths.update_state("preprocess", status="complete")
    paths.update_state("train", **said)
    assert status.describe(paths)["next"] == (
        "giblet-hpc submit pipeline --name 'a run' --fork NEW --set FIELD=VALUE"
    )
    paths.update_state("train", **{**said, "of_config": False})
    assert status.describe(paths)["next"] == "giblet-hpc resubmit 'a run'", "a file was mended"


def test_attempts_are_counted_by_stage(paths: RunPaths) -> None:
    for stage in ("preprocess", "preprocess", "train"):
        begin(paths, Place("local", "7", 0), stage, {"nodes": 1})
    stages = status.describe(paths)["stages"]
    assert [stages[s]["attempts"] for s in ("preprocess", "train", "evaluate")] == [2, 1, 0]


def test_preprocess_runs_while_its_parts_do(paths: RunPaths) -> None:
    lease.take(paths, "local", (str(os.getpid()),))
    paths.update_state("preprocess", status="queued")
    for part, state in (("plan", "complete"), ("s-1", "running"), ("s-2", "queued")):
        paths.update_state("preprocess", part=part, status=state)
    facts = status.describe(paths)
    assert facts["stages"]["preprocess"]["status"] == "running"
    assert "1 of 3 parts complete; seen 0 s ago" in status.as_text(facts)


def test_parts_that_waited_for_a_plan_that_failed_do_not_wait_any_more(paths: RunPaths) -> None:
    paths.update_state("preprocess", status="failed", reason="film not found")
    paths.update_state("preprocess", part="plan", status="failed", reason="film not found")
    for part, state in (("s-1", "queued"), ("s-2", "running"), ("s-3", "complete")):
        paths.update_state("preprocess", part=part, status=state)
    parts = status.describe(paths)["stages"]["preprocess"]["parts"]
    assert [parts[name]["status"] for name in ("plan", "s-1", "s-2", "s-3")] == [
        "failed", "not started", "interrupted", "complete",
    ]  # fmt: skip


def test_results_that_are_gone_are_made_again(paths: RunPaths) -> None:
    for stage in ("preprocess", "train", "evaluate"):
        paths.update_state(stage, status="complete", attempt=1)
    for made in (paths.inputs, paths.split, paths.scores):
        write_json(made, {})
    assert status.describe(paths)["next"] == "", "checkpoints are not needed any more"
    assert remaining(paths, STAGES) == ()
    paths.scores.unlink()
    assert remaining(paths, STAGES) == ("train", "evaluate")
    (paths.checkpoints() / "step-00000005").mkdir(parents=True)
    assert remaining(paths, STAGES) == ("evaluate",)
    state = status.describe(paths)["stages"]["evaluate"]
    assert (state["status"], state["reason"]) == (
        "not started", "its results are gone from the run's folder"
    )  # fmt: skip
    paths.inputs.unlink()
    assert remaining(paths, STAGES) == ("preprocess", "evaluate")


def test_runs_are_chosen_by_name_or_by_age(paths: RunPaths) -> None:
    folder = paths.root.parent
    assert status.choose_run(folder, None).name == "a run"
    with pytest.raises(ConfigError, match="no run b in .*; there are: a run"):
        status.choose_run(folder, "b")
    with pytest.raises(ConfigError, match="no log yet"):
        logs.latest_log(paths)


def waiting(paths: RunPaths, monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
    """Have a run wait as job 7, and Slurm give an answer."""

    def jobs(self: Slurm, ids: Sequence[str], user: str) -> Answer:
        return answer

    monkeypatch.setattr(Slurm, "jobs", jobs)
    held = lease.take(paths, "slurm", ("7",))
    write_json(paths.lease, {**held.__dict__, "since": held.since - 7200})
    paths.update_state("preprocess", status="complete")
    paths.update_state("train", status="queued", job="7")


def test_a_silent_scheduler_is_named_and_nothing_is_called_interrupted(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting(paths, monkeypatch, NO_ANSWER)
    facts = status.describe(paths)
    assert facts["stages"]["train"]["status"] == "queued"
    assert facts["silent"] == "Slurm does not answer"
    text = status.as_text(facts)
    assert "Slurm does not answer" in text
    assert "resubmit" not in text


def test_a_job_that_can_never_start_is_named_with_the_command_to_type(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = JobInfo("PENDING", waits=True, waiting_for="no nodes fit (BadConstraints)",
                    unsatisfiable=True)  # fmt: skip
    waiting(paths, monkeypatch, {"7": stuck})
    excluded.remember(paths, ["n2"], reason="the supervisor on n2 was killed", hours=1)
    facts = status.describe(paths)
    text = status.as_text(facts)
    assert "can never start as it is: no nodes fit (BadConstraints)" in text
    assert "n2 until " in text
    assert facts["next"] == paths.command("resubmit")


def test_a_run_of_another_version_is_listed_and_not_touched(paths: RunPaths) -> None:
    paths.format.unlink()
    facts = status.describe(paths)
    assert "another version of giblet-hpc: make it anew" in status.as_text(facts)
    with pytest.raises(ConfigError, match="another version of giblet-hpc: make it anew"):
        paths.load_config()
    shutil.rmtree(paths.root)


def test_durations() -> None:
    assert [status.duration(s) for s in (42, 600, 90000)] == ["42 s", "10 min", "25.0 h"]


@pytest.mark.parametrize("damage", ["pipe", "broken", "a list", "no access"])
def test_one_bad_run_does_not_hide_the_others(paths: RunPaths, damage: str) -> None:
    bad = RunPaths(paths.root.parent / "bad")
    shutil.copytree(paths.root, bad.root)
    file = bad.root / "state" / "train.json"
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    if damage == "pipe":
        os.mkfifo(file)
    elif damage == "no access":
        file.symlink_to(file)
    else:
        file.write_text("{" if damage == "broken" else "[1]")
    facts = {run.name: status.describe_safely(run) for run in status.find_runs(paths.root.parent)}
    assert "bad" in status.as_text(facts["bad"])
    if damage in ("broken", "a list"):
        assert f"cannot be read ({owner(bad.root)}'s): " in facts["bad"]["error"]
    assert "error" not in facts[paths.name]


@pytest.fixture
def dead(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system whose server never answers."""
    if not os.access("/dev/fuse", os.W_OK) or os.geteuid() != 0:
        pytest.skip("needs /dev/fuse, as root")
    folder = tmp_path / "dead"
    folder.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    server = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"dead", bytes(folder), b"fuse", 0, options):
        pytest.skip(f"cannot mount: {os.strerror(ctypes.get_errno())}")
    yield folder
    # Whoever waits gets an error then.
    os.close(server)
    libc.umount2(bytes(folder), 2)


@pytest.mark.slow
def test_a_run_on_a_dead_file_system_does_not_keep_the_others_waiting(
    paths: RunPaths, dead: Path
) -> None:
    runs = paths.root.parent
    (runs / "lost").symlink_to(dead)
    done = subprocess.run(
        [Path(sys.executable).parent / "giblet-hpc", "status", "--runs", str(runs), "--json"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    facts = {run["run"]: run for run in json.loads(done.stdout)}
    assert facts["lost"]["error"] == "its file system does not answer"
    assert "error" not in facts[paths.name]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_command_without_a_name_takes_up_no_run_of_others(paths: RunPaths) -> None:
    planted = RunPaths(paths.root.parent / "planted")
    shutil.copytree(paths.root, planted.root)
    os.chown(planted.root, 12345, 12345)
    assert status.choose_run(paths.root.parent, None).name == paths.name
    assert status.choose_run(paths.root.parent, "planted").name == "planted"
