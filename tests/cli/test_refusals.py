"""What the command line refuses, with a way out, and what it leaves behind: nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from giblet_hpc.cli.main import main
from giblet_hpc.runs.paths import RunPaths

ROOT = Path(__file__).parents[2]
DEMO = str(ROOT / "configs" / "demo.yaml")
PLAIN = ["--cluster", str(ROOT / "slurm" / "clusters" / "plain.yaml")]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, in which `runs` will be, on a machine without a GPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIBLET_CLUSTER", "local")
    monkeypatch.delenv("GIBLET_RUNS", raising=False)
    return tmp_path / "runs"


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["submit", "pipeline", "--config", DEMO, "--time", "8h", *PLAIN], "such as 8:00:00"),
        (["submit", "pipeline", "--config", DEMO, "--time", "8:00:00"], "--time needs a cluster"),
        (["submit", "pipeline", "--config", DEMO, "--after", "7"], "--after needs a cluster"),
        (["submit", "train", "--config", DEMO], "giblet-hpc submit pipeline --config"),
        (["submit", "pipeline", "--config", DEMO, "--name", "a/b"], "cannot be a run's name"),
        (["run", "preprocess", "a/b", "--config", DEMO], "cannot be a run's name"),
        (["submit", "train", "--config", DEMO, "--force"], "--force starts anew"),
        (["submit", "pipeline", "--config", DEMO, "--fork", "b", "--force"], "give one of them"),
        (["submit", "train", "--cluster", "my.yaml"], "no cluster profile my.yaml"),
        (
            ["submit", "evaluate", "--sweep", "train.lr=1,2", *PLAIN],
            "--sweep is for `submit train`",
        ),
        (["submit", "train", "--sweep", "train.lr=1,2", "--dry-run", *PLAIN], "leave --sweep out"),
        (["submit", "train", "--sweep", "train.lr=1,2"], "--sweep needs a cluster"),
        (["status", "nosuch"], "no run nosuch in runs"),
        (["tensorboard"], "--runs DIR or $GIBLET_RUNS looks elsewhere"),
        (["synthesize", "/proc/x"], "error: /proc/x: No such file or directory"),
    ],
)
def test_refused_without_a_trace(runs: Path, arguments: list[str], said: str) -> None:
    done = call(*arguments)
    assert done.exit_code in (1, 2)
    assert said in done.output
    assert isinstance(done.exception, SystemExit), "no traceback"
    assert not runs.exists()


@pytest.mark.skipif(any(Path("/dev").glob("nvidia[0-9]*")), reason="this machine has a GPU")
def test_gpus_that_are_not_there_are_no_cpus(runs: Path) -> None:
    done = call("submit", "pipeline", "--config", DEMO, "--gpus", "2")
    assert done.exit_code == 1
    assert "nvidia-smi finds no GPU" in done.output
    assert "--ranks N" in done.output
    assert call("doctor", "--gpus", "8").exit_code == 1


def test_a_time_that_yaml_reads_as_a_number(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("partition: gpu\ntime: 8:00:00\n")
    done = call("cluster", "show", "site.yaml")
    assert done.exit_code == 2
    assert 'put the time in quotes, such as "8:00:00"' in done.output


def test_a_dry_run_shows_what_is_left(runs: Path) -> None:
    paths = RunPaths(runs / "first")
    made = call("submit", "pipeline", "--config", DEMO, "--name", "first", "--dry-run")
    assert made.output.count("python") and not runs.exists()
    from giblet_hpc.config import io as config_io

    paths.create(config_io.load(Path(DEMO)))
    paths.update_state("preprocess", status="complete")
    left = call("submit", "pipeline", "--name", "first", "--dry-run").output
    assert "# preprocess" not in left
    assert "# train" in left
    refused = call("submit", "train", "--name", "first", "--set", "train.lr=1", "--dry-run")
    assert "--fork NEW makes a new run" in refused.output
    fork = ["--name", "first", "--fork", "second", "--dry-run"]
    shared = call("submit", "pipeline", *fork, "--set", "train.lr=1").output
    assert "runs/second" in shared
    assert "# preprocess" not in shared
    anew = call("submit", "pipeline", *fork, "--set", "bold.vote_trs=7").output
    assert "# preprocess" in anew
    assert not (runs / "second").exists()
    for stage in ("train", "evaluate"):
        paths.update_state(stage, status="complete")
    assert (
        "nothing is left to do" in call("submit", "pipeline", "--name", "first", "--dry-run").output
    )


def test_training_that_is_complete_is_not_begun_again(runs: Path) -> None:
    from giblet_hpc.config import io as config_io

    paths = RunPaths(runs / "first")
    paths.create(config_io.load(Path(DEMO)))
    for stage in ("preprocess", "train"):
        paths.update_state(stage, status="complete", ranks=4)
    done = call("run", "train", "first")
    assert done.exit_code == 0
    assert "train is complete already" in done.output
    assert paths.stage_state("train")["ranks"] == 4
    assert not paths.cluster.exists()


def test_what_is_refused_moves_nothing_aside(runs: Path) -> None:
    from giblet_hpc.config import io as config_io

    paths = RunPaths(runs / "demo")
    paths.create(config_io.load(Path(DEMO)))
    before = paths.config.read_bytes()
    for refused in (
        ["submit", "train", "--config", DEMO, "--force"],
        ["submit", "pipeline", "--config", DEMO, "--force", "--set", "train.lr=abc"],
        ["submit", "train", "--config", DEMO, "--set", "train.lr=1"],
        ["run", "train", "demo", "--config", DEMO, "--set", "train.lr=1"],
    ):
        assert call(*refused).exit_code in (1, 2), refused
        assert paths.config.read_bytes() == before
        assert [path.name for path in runs.iterdir()] == ["demo"]


def test_a_dry_run_of_a_run_begun_anew(runs: Path) -> None:
    from giblet_hpc.config import io as config_io

    paths = RunPaths(runs / "demo")
    paths.create(config_io.load(Path(DEMO)))
    for stage in ("preprocess", "train", "evaluate"):
        paths.update_state(stage, status="complete")
    again = ["submit", "pipeline", "--config", DEMO, "--dry-run"]
    assert "nothing is left to do" in call(*again).output
    assert "# preprocess" in call(*again, "--force").output
    other = call(*again, "--set", "train.lr=1")
    assert "exists with another config" in other.output
    assert "--force" in other.output
    assert paths.stage_state("train")["status"] == "complete"


def test_a_run_of_a_cluster_is_not_spread_so_here(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from giblet_hpc.cli import submit
    from giblet_hpc.config import io as config_io
    from giblet_hpc.config.cluster import Cluster
    from giblet_hpc.jobs import profiles

    paths = RunPaths(runs / "demo")
    paths.create(config_io.load(Path(DEMO)))
    for stage in ("preprocess", "train"):
        paths.update_state(stage, status="complete", ranks=8, nodes=4, gpus=8)
    profiles.save(Cluster(name="far", gpus_per_node=8), paths.cluster)
    tasks = []
    monkeypatch.setattr(submit, "run_stages", lambda task, *_, **__: tasks.append(task) or 0)
    monkeypatch.setattr(submit, "default_ranks", lambda _: 1)
    monkeypatch.setattr("giblet_hpc.jobs.record.resources.default_ranks", lambda _: 1)
    assert call("run", "evaluate", "demo").exit_code == 0
    resources = tasks[0].resources
    assert (resources.ranks, resources.nodes, resources.gpus) == (1, 1, 0)
