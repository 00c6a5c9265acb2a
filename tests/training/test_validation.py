"""Validation: the figures are those of all validation TRs at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from giblet_hpc.training import validation
from tests.training.test_loop import train


def test_the_figures_do_not_depend_on_the_batches(tmp_path: Path) -> None:
    assert validation.validate is not None
    found = []
    for windows in (1, 2, 4):
        # A learning rate of nothing: the weights stay as they were drawn.
        train(tmp_path / str(windows), f"train.batch_windows={windows}", "train.lr=1e-12",
              "train.min_lr=0", "train.epochs=1", "loss.correlation_weight=0")  # fmt: skip
        rows = (tmp_path / str(windows) / "metrics.jsonl").read_text().splitlines()
        (row,) = (r for r in map(json.loads, rows) if r["kind"] == "validation")
        found.append({name: row[name] for name in ("fmri_error", "r", "loss/fmri", "loss/video")})
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert found[2] == pytest.approx(found[0], rel=1e-4)
