from __future__ import annotations

import numpy as np
import pytest

from giblet_hpc.config.train import Train
from giblet_hpc.training.schedule import learning_rate


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
