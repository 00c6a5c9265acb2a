from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from giblet_hpc.config import io
from giblet_hpc.config.train import Train
from giblet_hpc.errors import ConfigError
from giblet_hpc.splits import Block
from giblet_hpc.training.schedule import learning_rate, steps_per_epoch


def test_schedules() -> None:
    cosine = Train(epochs=10, lr=1e-2, min_lr=1e-4, warmup_epochs=2)
    rates = [learning_rate(s, options=cosine, steps_per_epoch=5) for s in range(50)]
    assert rates[0] == pytest.approx(1e-3)
    assert max(rates) == pytest.approx(1e-2)
    assert rates[9] == pytest.approx(1e-2)
    assert rates[-1] == pytest.approx(1e-4, rel=0.2)
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))
    stepped = cosine.model_copy(update={"schedule": "step"})
    rates = [learning_rate(s, options=stepped, steps_per_epoch=5) for s in range(50)]
    assert sorted(set(np.round(rates[10:], 9))) == pytest.approx([1e-4, 1e-3, 1e-2])
    constant = cosine.model_copy(update={"schedule": "none", "warmup_epochs": 0})
    assert {learning_rate(s, options=constant, steps_per_epoch=5) for s in range(50)} == {1e-2}


@pytest.mark.parametrize(("epochs", "said"), [(4, True), (60, False)])
def test_a_short_training_is_said_to_be(
    demo_config: str, caplog: pytest.LogCaptureFixture, epochs: int, said: bool
) -> None:
    settings = ["train.window_trs=10", "train.batch_windows=2", f"train.epochs={epochs}"]
    config, blocks = io.load(Path(demo_config), settings), [Block("a", 0, 50), Block("b", 5, 40)]
    assert steps_per_epoch(config, blocks, ranks=1) == 4
    assert ("this training has 16 steps in all (4 epochs of 4)" in caplog.text) == said
    with pytest.raises(ConfigError, match="hold 8 windows of 10 TRs; a batch needs 16"):
        large = io.load(Path(demo_config), [*settings, "train.batch_windows=16"])
        steps_per_epoch(large, blocks, ranks=1)
