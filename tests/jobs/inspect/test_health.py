"""A run's health on one page: figures, statistics, checkpoints, disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from giblet_hpc.config.health import Health
from giblet_hpc.errors import ConfigError
from giblet_hpc.files import write_json
from giblet_hpc.jobs.inspect import health
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.training import checkpoint
from giblet_hpc.training.pieces import whole
from giblet_hpc.training.world import World
from tests.test_health import rows_of


def trained(paths: RunPaths, fold: str = "") -> RunPaths:
    rows = rows_of(30)
    paths.metrics(fold).write_text("".join(f"{json.dumps(row)}\n" for row in rows) + '{"kind": "tr')
    write_json(paths.inputs, {"arrays": {}})
    write_json(paths.split, [])
    file = paths.statistics(fold, paths.data_digest())
    file.parent.mkdir(exist_ok=True)
    file.touch()
    writer = checkpoint.Writer(
        paths.checkpoints(fold), World(0, 0, 1, torch.device("cpu")), keep_last=3
    )
    for step in (100, 200):
        writer.save(whole({"model/a": torch.ones(50)}), {"step": step}, best=False)
    writer.wait()
    return paths


def test_a_healthy_run_on_a_page(paths: RunPaths) -> None:
    (fold,) = health.examine(trained(paths))
    assert fold["verdict"] == "ok"
    page = health.text("a run", [fold])
    assert page.startswith("run a run: healthy\n")
    assert "2, the last of step 200" in page
    lines = page.splitlines()
    assert lines[-1].split() == ["30", "300", "0.9097", "0.7097", "0.387", "-"]
    assert sum(line.startswith("fail") for line in lines) == 0


def test_other_thresholds_are_tried(paths: RunPaths) -> None:
    assert Health().smallest_r == 0.01
    (fold,) = health.examine(trained(paths), ["health.smallest_r=0.6"])
    assert fold["verdict"] == "fail"
    assert "this cannot succeed" in health.text("a run", [fold])


def test_each_fold_has_a_verdict_of_its_own(paths: RunPaths) -> None:
    for fold in ("test-run1", "test-run2"):
        trained(paths, fold)
    assert [one["fold"] for one in health.examine(paths)] == ["test-run1", "test-run2"]


def test_statistics_of_other_data(paths: RunPaths) -> None:
    trained(paths)
    write_json(paths.split, [["other"]])
    found = health.statistics(paths, "")
    assert (found.level, "made of other data" in found.seen) == ("fail", True)
    for file in (paths.root / "statistics").iterdir():
        file.unlink()
    assert health.statistics(paths, "").seen == "not saved"
    paths.split.unlink()
    assert health.statistics(paths, "").level == "skipped"


def test_a_checkpoint_that_is_cut_off(paths: RunPaths) -> None:
    trained(paths)
    (file,) = (paths.checkpoints() / "step-00000200").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-9])
    (fold,) = health.examine(paths)
    (found,) = (one for one in fold["findings"] if one.check == "checkpoints")
    assert (found.level, "cut off: step-00000200" in found.seen) == ("fail", True)


def test_before_training_there_is_nothing_to_judge(paths: RunPaths, tmp_path: Path) -> None:
    del tmp_path
    with pytest.raises(ConfigError, match="has no figures of training yet"):
        health.examine(paths)
