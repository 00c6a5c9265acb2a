"""The look after each validation: what is said once, and who stops."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from giblet_hpc.config import io
from giblet_hpc.errors import ConfigError
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.runs.progress import Progress
from giblet_hpc.training.health_check import HealthCheck
from giblet_hpc.training.world import World
from tests.test_health import rows_of

ALONE = World(0, 0, 1, torch.device("cpu"))
PACE = {"step_seconds": 0.1, "data_wait": 0.0}


class Other(World):
    """A rank that has no figures, and hears from rank 0."""

    def broadcast(self, value: object) -> object:  # type: ignore[override]
        del value
        return [["component shares", "video is 99.9 %", "weigh it less"]]


def test_what_is_wrong_is_said_once_and_taken_back(
    tmp_path: Path, demo_config: str, caplog: pytest.LogCaptureFixture
) -> None:
    config, paths = io.load(Path(demo_config)), RunPaths(tmp_path / "r")
    paths.create(config)
    check = HealthCheck(config, Progress(paths, "train"), ALONE)
    bad = rows_of(9, **{"loss/video": lambda e: 4000.0})
    with caplog.at_level(logging.WARNING):
        check(bad, total_steps=800, pace=PACE)
        check(bad, total_steps=800, pace=PACE)
    assert caplog.text.count("health: component shares: video is 99.9") == 1
    assert paths.stage_state("train")["health"][0].startswith("component shares: video is 99.9")
    check(rows_of(12), total_steps=800, pace=PACE)
    assert paths.stage_state("train")["health"] == []


def test_what_the_fold_before_has_said_is_taken_back(tmp_path: Path, demo_config: str) -> None:
    config, paths = io.load(Path(demo_config)), RunPaths(tmp_path / "r")
    paths.create(config)
    paths.update_state("train", health=["component shares: video is 99.9 %"])
    HealthCheck(config, Progress(paths, "train"), ALONE)(rows_of(12), total_steps=800, pace=PACE)
    assert paths.stage_state("train")["health"] == []


def test_all_ranks_stop_together(tmp_path: Path, demo_config: str) -> None:
    config, paths = (
        io.load(Path(demo_config), ["train.stop_when_unhealthy=true"]),
        RunPaths(tmp_path),
    )
    other = HealthCheck(config, Progress(paths, "train"), Other(1, 1, 2, ALONE.device, 2))
    with pytest.raises(ConfigError, match="cannot succeed: component shares: video is 99.9 %"):
        other([], total_steps=800, pace=PACE)
