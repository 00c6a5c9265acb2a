"""Moments of 8 bits: a quarter of the memory, kept through checkpoints, refused where they fail."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from torch import nn

from giblet_hpc.config.io import load
from giblet_hpc.config.train import Train
from giblet_hpc.errors import ConfigError
from giblet_hpc.runs import checkpoints
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.training import checkpoint, optimizer
from tests.training.test_loop import train

WIDE = ("model.bottleneck=256", "model.temporal.width=64")
"""Moments of fewer than 4,096 numbers stay as they are."""
EIGHT = "train.optimizer=adamw8bit"
CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_training_in_8_bits_resumes_bitwise(tmp_path: Path) -> None:
    finished, whole = train(tmp_path / "whole", EIGHT, *WIDE)
    assert finished
    asked = iter([False] * 4 + [True])
    train(tmp_path / "stopped", EIGHT, *WIDE, should_stop=lambda: next(asked))
    newest = checkpoints.newest(RunPaths(tmp_path / "stopped").checkpoints())
    assert newest is not None
    stored = checkpoint.tensors_of(newest)
    codes = {name: values for name, values in stored.items() if name.endswith(".codes")}
    assert codes
    assert all(values.dtype == torch.uint8 for values in codes.values())
    finished, resumed = train(tmp_path / "stopped", EIGHT, *WIDE)
    assert finished
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    _, plain = train(tmp_path / "plain", *WIDE)
    size = sum(v.numel() * v.element_size() for n, v in stored.items() if n[0] == "o")
    large = sum(8 * values.numel() for values in plain.values())
    assert size < 0.5 * large
    for name, values in plain.items():
        torch.testing.assert_close(whole[name], values, rtol=0.2, atol=0.02)


def test_plain_moments_pass_through() -> None:
    layer = nn.Linear(3, 2)
    made = optimizer.make_optimizer(Train(), layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.set_rate(made, 0.5)
    made.step()
    found = optimizer.moments(made)
    assert set(found[0]) == {"step", "exp_avg", "exp_avg_sq"}
    assert optimizer.whole_moments(found[0]) == found[0]
    assert made.param_groups[0]["lr"] == 0.5


def test_without_torchao_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match="adamw8bit needs torchao") as found:
        optimizer.make_optimizer(Train(optimizer="adamw8bit"), nn.Linear(2, 2).parameters())
    assert "train.optimizer=adamw" in str(found.value.hint)


def test_it_is_for_ddp() -> None:
    with pytest.raises(ConfigError, match="adamw8bit is for model.parallel: ddp"):
        load(CONFIGS / "demo.yaml", [EIGHT, "model.parallel=fsdp"])
