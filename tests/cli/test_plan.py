from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from giblet_hpc.cli import plan, submit
from giblet_hpc.cli.main import main
from giblet_hpc.cli.target import Target
from giblet_hpc.config import io
from giblet_hpc.jobs.submit import checks
from giblet_hpc.plans.hardware import GPUS, Place
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.training import planner
from giblet_hpc.training.expected_size import expected_size

CONFIG = Path(__file__).parents[2] / "configs" / "sherlock_dense.yaml"
PROFILE = """\
scheduler: slurm
partition: gpu
gpus_per_node: 8
gpu_type: a6000
memory_gb_per_node: 500
"""


def call(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, list(arguments))
    return done.exit_code, done.stdout, done.stderr


def test_a_plan_for_any_place() -> None:
    code, said, _ = call("plan", "--config", str(CONFIG), "--gpus", "8", "--gpu", "a6000",
                         "--voxels", "83138", "--fps", "25")  # fmt: skip
    assert code == 0
    lines = said.splitlines()
    assert lines[0].startswith(
        "dense network of 3,500,188,290 parameters, 64 TRs a step, 8 x a6000"
    )
    assert "assumed" not in said
    marked = [line for line in lines if line.startswith("*")]
    assert len(marked) == 1 and marked[0].split()[1] == "tensor"
    assert "more than 48" in next(line for line in lines if line.startswith("  ddp"))
    assert "model.parallel auto: tensor is used (*)" in said
    assert "checkpoint: 42.0 GB" in said


def test_all_figures_as_json() -> None:
    code, said, _ = call("plan", "--config", str(CONFIG), "--gpus", "16", "--nodes", "2",
                         "--gpu-memory", "80", "--fabric", "nvlink", "--network", "10",
                         "--json")  # fmt: skip
    assert code == 0
    found = json.loads(said)
    assert found["chosen"] in found["modes"]
    assert (found["place"]["link"], found["place"]["network"]) == (250.0, 10.0)
    assert (found["place"]["gpus"], found["place"]["nodes"]) == (8, 2)
    assert found["study"]["assumed"] == {"frames a second": 25.0, "voxels": 85000}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpus", "3", "--nodes", "2", "--gpu", "h100"], "do not spread evenly"),
        (["--gpu", "k20"], "the memory of GPU k20 is not known"),
        (["--gpu", "h100", "--fabric", "wire"], "'wire' is no link"),
        (["--cluster", "local"], "no GPU is named"),
    ],
)
def test_places_that_are_none(arguments: list[str], said: str) -> None:
    code, _, error = call("plan", "--config", str(CONFIG), *arguments)
    assert code != 0
    assert said in error


def test_a_run_has_its_own_settings() -> None:
    code, _, error = call("plan", "--set", "model.width=0.5", "--gpu", "h100")
    assert code != 0
    assert "--set needs --config" in error


@pytest.fixture
def profile(tmp_path: Path) -> str:
    file = tmp_path / "gpus.yaml"
    file.write_text(PROFILE)
    return str(file)


def test_submit_shows_the_plan_and_refuses_what_does_not_fit(tmp_path: Path, profile: str) -> None:
    where = ["--config", str(CONFIG), "--gpus", "8", "--cluster", profile, "--runs", str(tmp_path)]
    code, said, error = call("submit", "train", *where, "--dry-run")
    assert code == 0, error
    assert "# * tensor" in said
    for dry in (["--dry-run"], []):
        code, _, error = call("submit", "pipeline", *where, "--set", "model.parallel=ddp", *dry)
        assert code != 0
        assert "training does not fit 8 x a6000, ddp: 6" in error
        assert "--set model.parallel=tensor fits: 1" in error
        assert "assumed, as preprocess has not run: frames a second 25.0" in error
    assert not (tmp_path / "sherlock_dense").exists()


def test_what_fits_on_more_gpus_is_said(tmp_path: Path, profile: str) -> None:
    where = ["--config", str(CONFIG), "--cluster", profile, "--runs", str(tmp_path)]
    all_frames = ["--set", "features.video.frame_skip=1", "--set", "train.batch_windows=64"]
    code, _, error = call("submit", "pipeline", *where, *all_frames, "--gpus", "1")
    assert code != 0
    assert "--gpus 4 --set model.parallel=tensor fits: 3" in error


def test_a_plan_of_what_fits_nowhere() -> None:
    config = io.load(CONFIG, [])
    study, place = expected_size(config), Place(GPUS["a6000"], 1, 1, 1.0, 1.0)
    found = planner.estimates(config, study, place)
    text = plan.as_text(config, found, study=study, place=place)
    assert "*" not in text
    assert text.endswith(
        "nothing fits: more GPUs, more memory, or a narrower network (model.width)"
    )
    assert plan.as_json(found, study, place)["chosen"] is None


def test_on_a_login_node_without_torch(
    tmp_path: Path, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "can_plan", lambda: False)
    code, _, error = call("plan", "--config", str(CONFIG), "--gpu", "h100")
    assert code != 0
    assert "giblet-hpc plan needs torch" in error
    where = ["--config", str(CONFIG), "--gpus", "8", "--cluster", profile, "--runs", str(tmp_path)]
    code, said, error = call("submit", "train", *where, "--dry-run")
    assert code == 0, error
    assert "parameters" not in said


def test_assumptions_do_not_stop_who_knows_better(tmp_path: Path, profile: str) -> None:
    where = ["--config", str(CONFIG), "--gpus", "8", "--cluster", profile, "--runs", str(tmp_path)]
    code, said, error = call("submit", "train", *where, "--set", "model.parallel=ddp",
                             "--dry-run", "--no-checks")  # fmt: skip
    assert code == 0, error
    assert "more than 48" in said


def test_one_gpu_trains_what_several_would_share(tmp_path: Path, profile: str) -> None:
    """As `strategy_of` does: a rank that is alone has nothing to share."""
    where = ["--config", str(CONFIG), "--gpus", "1", "--cluster", profile, "--runs", str(tmp_path)]
    small = ["--set", "model.width=0.1", "--dry-run"]
    for mode in ("fsdp", "tensor"):
        code, _, error = call("submit", "train", *where, *small, "--set", f"model.parallel={mode}")
        assert code == 0, error


def test_sizes_of_a_store_count_for_who_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fork with other features has a store of its own to be made."""
    config, base, own = io.load(CONFIG, []), RunPaths(tmp_path / "base"), RunPaths(tmp_path / "own")
    for shares in (True, False):
        monkeypatch.setattr(submit.forks, "shares_preprocess", lambda *_: shares)  # noqa: B023
        fork = Target(own, config, base)
        assert submit._stored(fork, ("train",)) == (base if shares else None)
        assert submit._stored(Target(own, config), ("train",)) is None
        assert submit._stored(Target(own), ("train",)) == own
        assert submit._stored(Target(own), ("preprocess", "train")) is None
