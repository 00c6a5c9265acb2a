from __future__ import annotations

import importlib.util
import os
import pickle
import sys
from pathlib import Path

import pytest

from giblet_hpc.config import io as config_io
from giblet_hpc.errors import ConfigError, JobError
from giblet_hpc.jobs.record import attempts, lease, excluded as suspects
from giblet_hpc.jobs import profiles
from giblet_hpc.jobs.node import launch, supervisor
from giblet_hpc.jobs.inspect import logs, status, tensorboard
from giblet_hpc.jobs.schedulers import slurm
from giblet_hpc.jobs.submit import submission as submit
from giblet_hpc.jobs.record.attempts import Place, begin, local_place
from giblet_hpc.config.cluster import Cluster, minutes_of
from giblet_hpc.jobs.profiles import local_cluster
from giblet_hpc.jobs.node.launch import Geometry
from giblet_hpc.jobs.record.resources import Size, size_of, walltime
from giblet_hpc.jobs.record.task import StageJob
from giblet_hpc.runs.paths import STAGES, RunPaths

GOLDEN = Path(__file__).with_name("dry_run.txt")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def paths(tmp_path: Path, demo_config: str) -> RunPaths:
    paths = RunPaths(tmp_path / "a run")
    paths.create(config_io.load(Path(demo_config)))
    return paths


def plain(text: str) -> str:
    """Replace what differs between machines."""
    return text.replace(sys.executable, "/opt/python")


def test_the_dry_run_is_on_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.os, "sched_getaffinity", lambda _: range(16))
    text = submit.dry_run(
        RunPaths(Path("/runs/a run")), STAGES, profile=local_cluster(), size=Size(8)
    )
    assert plain(text) + "\n" == GOLDEN.read_text()


def test_the_sbatch_scripts_are_on_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples under slurm/ are what the launcher writes."""
    monkeypatch.setattr(launch.os, "sched_getaffinity", lambda _: range(32))
    monkeypatch.setattr(suspects.slurm, "node_count", lambda _: None)
    spec = importlib.util.spec_from_file_location("write", ROOT / "slurm" / "examples" / "write.py")
    assert spec is not None and spec.loader is not None
    write = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(write)
    found = dict(write.scripts())
    assert len(found) == 5
    for name, script in found.items():
        assert script == (ROOT / "slurm" / "examples" / name).read_text(), name


@pytest.mark.parametrize(
    "file", sorted((ROOT / "slurm" / "clusters").glob("*.yaml")), ids=lambda f: f.stem
)
def test_example_profiles_are_valid(file: Path) -> None:
    assert cluster.load(file).scheduler == "slurm"


def test_gpus_are_spread_over_nodes() -> None:
    profile = Cluster(name="c", gpus_per_node=4)

    def size(gpus: int | None = None, nodes: int | None = None) -> Size:
        return size_of(profile, gpus=gpus, ranks=None, nodes=nodes, default=1)

    assert size(gpus=8) == Size(4, 2, 4)
    assert size(gpus=2) == Size(2, 1, 2)
    assert size(gpus=6, nodes=3) == Size(2, 3, 2)
    assert size() == Size(4, 1, 4)
    with pytest.raises(ConfigError, match="6 processes do not spread evenly over 4 nodes"):
        size(gpus=6, nodes=4)
    with pytest.raises(ConfigError, match="have 4"):
        size(gpus=8, nodes=1)
    with pytest.raises(ConfigError, match="has no GPUs"):
        size_of(Cluster(name="c"), gpus=8, ranks=None, nodes=None, default=1)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("1:30:00", 90), ("2-00", 2880), ("1-12:30", 2190), ("1:30", 2), ("0:45", 1)],
)
def test_walltimes(text: str, minutes: int) -> None:
    assert minutes_of(text) == minutes


def test_one_machine_is_asked_for_its_gpus() -> None:
    local = cluster.local_cluster()
    assert size_of(local, gpus=2, ranks=None, nodes=None, default=1) == Size(2, 1, 2)
    assert size_of(local, gpus=None, ranks=None, nodes=None, default=3) == Size(3)
    own = Cluster(name="own", scheduler="local", gpus_per_node=2, runtime="docker", image="x")
    assert size_of(own, gpus=None, ranks=None, nodes=None, default=1) == Size(2, 1, 2)
    assert size_of(own, gpus=None, ranks=3, nodes=None, default=1) == Size(3)


def test_a_walltime_within_the_lead_is_refused() -> None:
    profile = Cluster(name="c", time="1:00:00", lead_seconds=180)
    assert walltime(profile, None) == 60
    assert walltime(profile, "4") == 4
    with pytest.raises(ConfigError, match="a walltime of 180 s leaves nothing to work in"):
        walltime(profile, "0:03:00")


def test_a_run_is_spread_as_before_or_as_another_cluster_can(paths: RunPaths) -> None:
    large = Cluster(name="large", gpus_per_node=8)
    small = Cluster(name="small", gpus_per_node=4)
    assert submit.size_again(paths, large, moved=False) == Size(8, 1, 8)
    paths.update_state("train", ranks=8, nodes=1, gpus=8)
    assert submit.size_again(paths, large, moved=False) == Size(8, 1, 8)
    assert submit.size_again(paths, small, moved=True) == Size(4, 2, 4)
    assert submit.size_again(paths, cluster.local_cluster(), moved=True) == Size(8)


def test_stages_stop_before_the_walltime(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = Cluster(name="c", lead_seconds=100)
    job = StageJob("/runs/a", ("train",), 2, minutes=10)
    monkeypatch.setattr(supervisor.time, "time", lambda: 5000.0)
    assert supervisor.deadline_of(job, profile, {}) == 5500.0
    assert supervisor.deadline_of(job, profile, {"SLURM_JOB_END_TIME": "5300"}) == 5200.0
    assert supervisor.deadline_of(StageJob("/runs/a", ("train",), 2), profile, {}) is None


def test_several_nodes_are_told_who_hosts_the_rendezvous() -> None:
    head = Geometry(4, nodes=2, node=0, head="n1", port=12345, meeting="slurm-7.0", host="n1")
    other = Geometry(4, nodes=2, node=1, head="n1", port=12345, meeting="slurm-7.0", host="n2")
    for geometry, is_host in ((head, "true"), (other, "false")):
        options = launch.torchrun_options(geometry)
        assert f"--rdzv-conf=is_host={is_host},join_timeout=900" in options
        assert {"--nnodes=2", "--nproc-per-node=4", "--rdzv-endpoint=n1:12345"} <= set(options)
        assert {"--rdzv-id=slurm-7.0", f"--local-addr={geometry.host}"} <= set(options)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu[007-012,020]", "gpu007"),
        ("a,b", "a"),
        ("rack[1-2]-n[03,05]", "rack1-n03"),
        ("n7", "n7"),
    ],
)
def test_first_host(nodes: str, first: str) -> None:
    assert slurm.first_host(nodes) == first


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
    numbers = [begin(paths, local_place(), "train", {}).number for _ in range(3)]
    assert numbers == [1, 2, 3]


def test_an_attempt_that_never_ended_is_closed(paths: RunPaths) -> None:
    first = begin(paths, Place("slurm", "7"), "train", {"part": ""})
    begin(paths, Place("slurm", "7", restart=1), "train", {"part": ""})
    assert first.facts()["outcome"] == "interrupted"


def test_attempts_without_progress_are_counted(paths: RunPaths) -> None:
    made = []
    for before, after, outcome in [(0, 5, "crashed"), (5, 5, "hung"), (5, 5, "lost")]:
        attempt = begin(paths, local_place(), "train", {"checkpoint_from": before})
        attempt.note(checkpoint_to=after)
        attempt.close(outcome, reason="", step=None)
        made.append(attempt)
    assert attempts.without_progress(made[:1]) == 0
    assert attempts.without_progress(made) == 2


def test_one_lease_at_a_time(paths: RunPaths) -> None:
    held = lease.take(paths, "local", (str(os.getpid()),))
    with pytest.raises(JobError, match="run a run is taken: local job"):
        lease.take(paths, "local")
    lease.release(paths, held)
    dead = lease.take(paths, "local", ("999999999",))
    assert lease.holder(paths) is None
    taken = lease.take(paths, "local", (str(os.getpid()),))
    lease.release(paths, dead)
    assert lease.read(paths) == taken, "only its own lease is removed"


def test_order_of_stages(paths: RunPaths) -> None:
    submit.check_order(paths, ("preprocess", "train"))
    with pytest.raises(JobError, match="preprocess is not started"):
        submit.check_order(paths, ("train",))
    paths.update_state("preprocess", status="complete")
    submit.check_order(paths, ("train",))
    assert submit.remaining(paths, ("preprocess", "train")) == ("train",)


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


def test_preprocess_runs_while_its_parts_do(paths: RunPaths) -> None:
    lease.take(paths, "local", (str(os.getpid()),))
    paths.update_state("preprocess", status="queued")
    for part, state in (("plan", "complete"), ("s-1", "running"), ("s-2", "queued")):
        paths.update_state("preprocess", part=part, status=state)
    facts = status.describe(paths)
    assert facts["stages"]["preprocess"]["status"] == "running"
    assert "1 of 3 parts complete; seen 0 s ago" in status.as_text(facts)


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
