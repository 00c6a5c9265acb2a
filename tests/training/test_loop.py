"""Training of a fold in this process: stopped and resumed, it comes out bit for bit the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from giblet_hpc.config import io
from giblet_hpc.errors import ConfigError
from giblet_hpc.files import write_json
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.scans.tables import Columns
from giblet_hpc.splits import Block, Fold
from giblet_hpc.training import checkpoint, statistics
from giblet_hpc.training.checkpoint import Writer
from giblet_hpc.training.data_order import DataOrder
from giblet_hpc.training.feed import RunArrays, StudyArrays
from giblet_hpc.training.loop import Trainer
from giblet_hpc.training.strategy import DataParallel
from giblet_hpc.training.world import World
from tests.conftest import TINY

FOLD = Fold("", (Block("run1", 0, 64),), (Block("run1", 70, 94),), (Block("run1", 100, 120),))


def study() -> StudyArrays:
    random = np.random.default_rng(0)
    video = random.integers(0, 256, (120, 2, 18, 32, 3), dtype=np.uint8)
    bold = random.standard_normal((1, 120, 5)).astype(np.float32)
    run = RunArrays({"video": video}, bold, np.ones((1, 120), bool))
    return StudyArrays({"run1": run}, ("x",), np.ones(5, bool), Columns(5), {})


def train(
    folder: Path, *more: str, should_stop: Callable[[], bool] = lambda: False
) -> tuple[bool, dict[str, Any]]:
    file = Path(__file__).parents[2] / "configs" / "demo.yaml"
    settings = [*TINY, "features.audio=null", "features.text=null", "train.batch_windows=2"]
    config, paths = io.load(file, [*settings, *more]), RunPaths(folder)
    if not paths.config.is_file():
        paths.create(config)
    for name in (paths.inputs, paths.split):
        write_json(name, {})
    alone = World(0, 0, 1, torch.device("cpu"))
    found = statistics.fit(modalities_of(config.features), study(), FOLD.train, alone)
    trainer = Trainer(
        config, paths, FOLD, study=study(), statistics=found,
        strategy=DataParallel(World(0, 0, 1, torch.device("cpu"))), should_stop=should_stop,
    )  # fmt: skip
    finished = trainer.run()
    return finished, {name: value.clone() for name, value in trainer.model.state_dict().items()}


def test_a_stop_costs_nothing(tmp_path: Path) -> None:
    finished, whole = train(tmp_path / "whole")
    assert finished
    asked = iter([False] * 6 + [True])
    finished, _ = train(tmp_path / "stopped", should_stop=lambda: next(asked))
    assert not finished
    assert RunPaths(tmp_path / "stopped").checkpoint_step() == 7
    finished, resumed = train(tmp_path / "stopped")
    assert finished
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_batch_that_the_study_cannot_fill(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the training TRs hold 8 windows of 8 TRs"):
        train(tmp_path, "train.batch_windows=16")


def test_going_back_waits_for_the_checkpoint_that_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the one to go back to, or one to set aside."""
    done: list[str] = []
    monkeypatch.setattr(Writer, "wait", lambda self: done.append("wait"))
    monkeypatch.setattr(DataOrder, "go_back", lambda self, *_, **__: done.append("back"))
    monkeypatch.setattr(Trainer, "run", lambda self: done.clear() or self._go_back())
    train(tmp_path)
    assert done == ["wait", "back"]


def test_a_checkpoint_that_failed_stops_training_at_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_pieces", full)
    with pytest.raises(OSError, match="No space left"):
        train(tmp_path, "train.checkpoint_every=2")
