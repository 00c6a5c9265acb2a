from __future__ import annotations

import importlib.util
import pickle
import sys
from pathlib import Path

import pytest

from giblet_hpc.config.cluster import Cluster
from giblet_hpc.errors import JobError
from giblet_hpc.jobs import profiles
from giblet_hpc.jobs.node import launch
from giblet_hpc.jobs.node.entry import RunStages
from giblet_hpc.jobs.profiles import local_cluster
from giblet_hpc.jobs.record.resources import Resources
from giblet_hpc.jobs.record.task import StageTask
from giblet_hpc.jobs.submit.plan import plan, remaining, require_order, size_again
from giblet_hpc.jobs.submit.submission import Submission
from giblet_hpc.runs.paths import STAGES, RunPaths

GOLDEN = Path(__file__).with_name("dry_run.txt")
ROOT = Path(__file__).parents[3]


def plain(text: str) -> str:
    """Replace what differs between machines."""
    return text.replace(sys.executable, "/opt/python")


def test_the_dry_run_is_on_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.os, "sched_getaffinity", lambda _: range(16))
    paths, profile = RunPaths(Path("/runs/a run")), local_cluster()
    jobs = plan(paths, STAGES, profile=profile, size=Resources(8))
    text = Submission(paths, profile, jobs).text()
    assert plain(text) + "\n" == GOLDEN.read_text()


def test_the_sbatch_scripts_are_on_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples under slurm/ are what the launcher writes."""
    monkeypatch.setattr(launch.os, "sched_getaffinity", lambda _: range(32))
    spec = importlib.util.spec_from_file_location("write", ROOT / "slurm" / "examples" / "write.py")
    assert spec is not None and spec.loader is not None
    write = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(write)
    found = dict(write.scripts())
    assert len(found) == 6
    for name, script in found.items():
        assert script == (ROOT / "slurm" / "examples" / name).read_text(), name


@pytest.mark.parametrize(
    "file", sorted((ROOT / "slurm" / "clusters").glob("*.yaml")), ids=lambda f: f.stem
)
def test_example_profiles_are_valid(file: Path) -> None:
    assert profiles.load(file).scheduler == "slurm"


def test_a_run_is_spread_as_before_or_as_another_cluster_can(paths: RunPaths) -> None:
    large = Cluster(name="large", gpus_per_node=8)
    small = Cluster(name="small", gpus_per_node=4)
    assert size_again(paths, large, moved=False) == Resources(8, 1, 8)
    paths.update_state("train", ranks=8, nodes=1, gpus=8)
    assert size_again(paths, large, moved=False) == Resources(8, 1, 8)
    assert size_again(paths, small, moved=True) == Resources(4, 2, 4)
    assert size_again(paths, local_cluster(), moved=True) == Resources(8)


def test_jobs_pickle_without_heavy_parts() -> None:
    job = RunStages(StageTask("/runs/a", ("train",), Resources(2)))
    assert pickle.loads(pickle.dumps(job)) == job


def test_order_of_stages(paths: RunPaths) -> None:
    require_order(paths, ("preprocess", "train"))
    with pytest.raises(JobError, match="preprocess is not started"):
        require_order(paths, ("train",))
    paths.update_state("preprocess", status="complete")
    require_order(paths, ("train",))
    assert remaining(paths, ("preprocess", "train")) == ("train",)
