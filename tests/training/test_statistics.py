"""Estimates come from training TRs alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from giblet_hpc.errors import DataError
from giblet_hpc.splits import Block
from giblet_hpc.training import statistics
from giblet_hpc.training.feed import RunArrays, StudyArrays
from giblet_hpc.training.statistics import TrainingStatistics


def study(bold: np.ndarray, valid: np.ndarray) -> StudyArrays:
    run = RunArrays({}, bold.astype(np.float32), valid)
    return StudyArrays({"a": run}, ("x", "y"), np.ones((1, 1, 3), bool), np.eye(4), {})


def test_the_variance_is_of_valid_training_trs() -> None:
    bold = np.random.default_rng(0).standard_normal((2, 40, 3))
    valid = np.ones((2, 40), bool)
    valid[1, 15:] = False
    bold[:, 20:] = 1e6
    found = statistics.fit({}, study(bold, valid), [Block("a", 0, 20)]).bold_variance
    expected = np.mean([bold[0, :20].var(axis=0).mean(), bold[1, :15].var(axis=0).mean()])
    assert found == pytest.approx(expected, rel=1e-5)


def test_scans_that_do_not_vary_are_refused() -> None:
    with pytest.raises(DataError, match="do not vary"):
        statistics.fit({}, study(np.ones((2, 9, 3)), np.ones((2, 9), bool)), [Block("a", 0, 9)])


def test_estimates_survive_a_file(tmp_path: Path) -> None:
    values = {
        "bold.variance": np.array(0.5),
        "video.mean": np.ones((2, 3)),
        "text.mean": np.ones(4),
    }
    TrainingStatistics(values).save(tmp_path / "s.npz")
    found = statistics.load_statistics(tmp_path / "s.npz")
    assert found.bold_variance == 0.5
    assert set(found.of("video")) == {"mean"} and found.of("video")["mean"].shape == (2, 3)
    assert found.of("vid") == {}, "a name is a whole name"
