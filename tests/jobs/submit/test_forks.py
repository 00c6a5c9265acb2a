"""Runs made from runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from giblet_hpc.config import io as config_io
from giblet_hpc.config.cluster import Cluster
from giblet_hpc.errors import ConfigError
from giblet_hpc.files import write_json, write_text
from giblet_hpc.jobs.record import lease
from giblet_hpc.jobs.record.resources import Resources
from giblet_hpc.jobs.submit import forks
from giblet_hpc.jobs.submit.plan import plan, remaining
from giblet_hpc.jobs.submit.submission import Submission
from giblet_hpc.runs.paths import RunPaths


@pytest.fixture
def base(tmp_path: Path, demo_config: str) -> RunPaths:
    """A run whose preprocess is complete."""
    paths = RunPaths(tmp_path / "base")
    paths.create(config_io.load(Path(demo_config)))
    write_text(paths.split, "[]\n")
    write_json(paths.inputs, {"arrays": {}})
    paths.update_state("preprocess", status="complete")
    return paths


def test_a_fork_shares_what_preprocess_made(base: RunPaths) -> None:
    new = forks.fork(base, "faster", forks.changed(base, ["train.lr=0.5"]))
    assert new.load_config().train.lr == 0.5
    assert new.stage_state("preprocess") == {
        **new.stage_state("preprocess"), "status": "complete", "shared_with": "base",
    }  # fmt: skip
    assert new.inputs.read_text() == base.inputs.read_text()
    assert remaining(new, ("preprocess", "train")) == ("train",)


def test_a_fork_with_other_features_preprocesses_itself(base: RunPaths) -> None:
    new = forks.fork(base, "smaller", forks.changed(base, ["features.video.width=8"]))
    assert remaining(new, ("preprocess", "train")) == ("preprocess", "train")


def test_a_fork_may_be_named_again_but_not_changed(base: RunPaths) -> None:
    forks.fork(base, "other", forks.changed(base, ["train.lr=0.5"]))
    forks.fork(base, "other", forks.changed(base, ["train.lr=0.5"]))
    with pytest.raises(ConfigError, match="other"):
        forks.fork(base, "other", forks.changed(base, ["train.lr=0.25"]))


def test_a_replaced_run_is_kept_aside(base: RunPaths) -> None:
    aside = forks.replace(base)
    assert aside is not None
    assert aside.parent.name == ".replaced"
    assert (aside / "run.yaml").is_file()
    assert not base.root.exists()
    assert forks.replace(base) is None


def test_a_run_in_use_is_not_replaced(base: RunPaths) -> None:
    lease.take(base, "local")
    with pytest.raises(ConfigError, match="is in use") as caught:
        forks.replace(base)
    assert caught.value.hint == f"giblet-hpc cancel base --runs {base.root.parent}"
    assert base.config.is_file()


def test_a_run_that_finished_nothing_is_replaceable(base: RunPaths) -> None:
    other = forks.changed(base, ["train.lr=0.5"])
    assert not forks.is_replaceable(base, base.load_config()), "the same config goes on"
    base.update_state("preprocess", status="complete")
    assert not forks.is_replaceable(base, other), "finished work is not touched unasked"
    base.update_state("preprocess", status="failed")
    held = lease.take(base, "local")
    assert not forks.is_replaceable(base, other)
    lease.release(base, held)
    assert forks.is_replaceable(base, other)


def test_two_replacements_in_a_second(base: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks.time, "strftime", lambda _: "20260101-000000")
    config = base.load_config()
    gone = []
    for _ in range(3):
        gone.append(forks.replace(base))
        base.create(config)
    assert [path.name for path in gone if path] == [
        "base-20260101-000000", "base-20260101-000000-2", "base-20260101-000000-3",
    ]  # fmt: skip


def test_a_sweep_is_every_combination(base: RunPaths) -> None:
    runs = forks.sweep(base, ["train.epochs=2"], ["train.lr=1e-4,3e-4", "model.bottleneck=8,16"])
    assert [run.name for run in runs] == [
        "base-lr-1e-4-bottleneck-8", "base-lr-1e-4-bottleneck-16",
        "base-lr-3e-4-bottleneck-8", "base-lr-3e-4-bottleneck-16",
    ]  # fmt: skip
    assert {run.load_config().train.epochs for run in runs} == {2}
    assert runs[2].load_config().train.lr == 3e-4


@pytest.mark.parametrize("axis", ["train.lr", "train.lr=", "=1,2", "train.lr=[1"])
def test_an_axis_that_is_none(base: RunPaths, axis: str) -> None:
    with pytest.raises(ConfigError):
        forks.sweep(base, [], [axis])


def test_a_sweep_cannot_change_what_preprocess_made(base: RunPaths) -> None:
    with pytest.raises(ConfigError, match=r"what preprocess made: bold\.") as caught:
        forks.sweep(base, [], ["bold.detrend=true,false"])
    assert "config of its own" in caught.value.hint


def test_partition_and_dependency_reach_the_script(base: RunPaths) -> None:
    profile = Cluster(name="c", partition="short", requeue="successor", successors=2)
    jobs = plan(base, ("train",), profile=profile, size=Resources(2, 2))
    text = Submission(base, profile, jobs, "4711").text()
    assert text.count("#SBATCH --partition=short") == 3, "the job and its two successors"
    assert "#SBATCH --dependency=afterok:4711" in text
    assert "#SBATCH --dependency=afterany:JOB-1" in text


def test_a_bad_value_of_a_sweep_leaves_no_run_behind(base: RunPaths) -> None:
    before = sorted(base.root.parent.iterdir())
    with pytest.raises(ConfigError, match="greater than 0"):
        forks.sweep(base, [], ["train.lr=1e-3,-1"])
    assert sorted(base.root.parent.iterdir()) == before


@pytest.mark.parametrize(
    "axis",
    ["features.text.dimensions=5,6", "bold.mode=per_subject,cross_subject", "bold.shifted_trs=0,3"],
)
def test_what_preprocess_ignores_may_be_swept(base: RunPaths, axis: str) -> None:
    runs = forks.sweep(base, [], [axis])
    assert [remaining(run, ("preprocess", "train")) for run in runs] == [("train",)] * 2


def test_a_trained_run_is_scored_with_other_settings(base: RunPaths) -> None:
    other = forks.changed(base, ["evaluate.min_ceiling=0.3"])
    assert forks.is_rescored(base, other), "nothing of it is used yet"
    base.update_state("train", status="running")
    assert not forks.is_rescored(base, other), "what trains keeps its config"
    for stage in ("train", "evaluate"):
        base.update_state(stage, status="complete")
    assert forks.is_rescored(base, other)
    assert not forks.is_rescored(base, base.load_config())
    both = forks.changed(base, ["evaluate.min_ceiling=0.3", "train.lr=0.5"])
    assert not forks.is_rescored(base, both)
    held = lease.take(base, "local", ())
    with pytest.raises(ConfigError, match="is in use"):
        forks.rescore(base, other)
    lease.release(base, held)
    forks.rescore(base, other)
    assert base.load_config().evaluate.min_ceiling == 0.3
    assert remaining(base, ("preprocess", "train", "evaluate")) == ("evaluate",)
