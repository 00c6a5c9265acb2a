from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from giblet_hpc import config_io
from giblet_hpc.errors import ConfigError, JobError
from giblet_hpc.jobs import launch, logs, status, submit, tensorboard
from giblet_hpc.jobs.supervisor import StageJob, next_attempt
from giblet_hpc.runs import RunPaths

GOLDEN = Path(__file__).with_name("dry_run.txt")


@pytest.fixture
def paths(tmp_path: Path, demo_config: str) -> RunPaths:
    paths = RunPaths(tmp_path / "a run")
    paths.create(config_io.load(Path(demo_config)))
    return paths


def test_the_dry_run_is_on_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.sys, "executable", "/opt/python")
    monkeypatch.setattr(launch.os, "cpu_count", lambda: 16)
    text = submit.dry_run(StageJob("/runs/a run", ("preprocess", "train", "evaluate"), 8))
    assert text + "\n" == GOLDEN.read_text()


def test_jobs_pickle_without_heavy_parts() -> None:
    job = StageJob("/runs/a", ("train",), 2)
    assert pickle.loads(pickle.dumps(job)) == job


def test_visible_gpus_give_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3,5")
    assert launch.default_ranks() == 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert launch.default_ranks() == 1


def test_a_changed_config_needs_another_name(paths: RunPaths, demo_config: str) -> None:
    paths.create(config_io.load(Path(demo_config)))
    with pytest.raises(ConfigError, match=r"train.lr: .* -> 0.5") as caught:
        paths.create(config_io.load(Path(demo_config), ["train.lr=0.5"]))
    assert "--name" in caught.value.hint


def test_attempts_are_numbered(paths: RunPaths) -> None:
    assert [next_attempt(paths).name for _ in range(3)] == ["1", "2", "3"]


def test_order_of_stages(paths: RunPaths) -> None:
    submit.check_order(paths, ("preprocess", "train"))
    with pytest.raises(JobError, match="preprocess is not started"):
        submit.check_order(paths, ("train",))
    paths.update_state("preprocess", status="complete")
    submit.check_order(paths, ("train",))
    assert submit.remaining(paths, ("preprocess", "train")) == ("train",)


def test_status_names_the_next_command(paths: RunPaths) -> None:
    facts = status.describe(paths)
    assert facts["next"] == "giblet-hpc resubmit a run"
    paths.update_state("preprocess", status="failed", reason="film not found\nx", exit_code=2)
    assert "film not found" in status.as_text(status.describe(paths))
    paths.update_state("preprocess", status="running", host="elsewhere", supervisor=1)
    assert status.describe(paths)["stages"]["preprocess"]["status"] == "interrupted"
    for stage in ("preprocess", "train", "evaluate"):
        paths.update_state(stage, status="complete")
    assert status.describe(paths)["next"] == ""


def test_runs_are_chosen_by_name_or_by_age(paths: RunPaths) -> None:
    folder = paths.root.parent
    assert status.choose_run(folder, None).name == "a run"
    with pytest.raises(ConfigError, match="no run b in .*; there are: a run"):
        status.choose_run(folder, "b")
    with pytest.raises(ConfigError, match="no log yet"):
        logs.latest_log(paths)


def test_tensorboard_listens_on_loopback_only(paths: RunPaths) -> None:
    port = tensorboard.free_port()
    assert "--host=127.0.0.1" in tensorboard.command([paths], port)
    assert f"-L {port}:127.0.0.1:{port}" in tensorboard.tunnel(port)
