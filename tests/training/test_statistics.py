"""Estimates come from training TRs alone."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from giblet_hpc.errors import DataError
from giblet_hpc.scans.tables import Columns
from giblet_hpc.splits import Block
from giblet_hpc.training import statistics
from giblet_hpc.training.feed import RunArrays, StudyArrays
from giblet_hpc.training.statistics import TrainingStatistics
from giblet_hpc.training.world import World

ALONE = World(0, 0, 1, torch.device("cpu"))


def study(bold: np.ndarray, valid: np.ndarray) -> StudyArrays:
    run = RunArrays({}, bold.astype(np.float32), valid)
    return StudyArrays({"a": run}, ("x", "y"), np.ones(3, bool), Columns(3), {})


def test_the_variance_is_of_valid_training_trs() -> None:
    bold = np.random.default_rng(0).standard_normal((2, 40, 3))
    valid = np.ones((2, 40), bool)
    valid[1, 15:] = False
    bold[:, 20:] = 1e6
    found = statistics.fit({}, study(bold, valid), [Block("a", 0, 20)], ALONE).bold_variance
    expected = np.mean([bold[0, :20].var(axis=0).mean(), bold[1, :15].var(axis=0).mean()])
    assert found == pytest.approx(expected, rel=1e-5)


def test_scans_that_do_not_vary_are_refused() -> None:
    still = study(np.ones((2, 9, 3)), np.ones((2, 9), bool))
    with pytest.raises(DataError, match="do not vary"):
        statistics.fit({}, still, [Block("a", 0, 9)], ALONE)


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


class Sharing(World):
    """One of several ranks, whose sums are added up afterwards."""

    found: ClassVar[list[torch.Tensor]] = []

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        self.found.append(values.clone())
        return values


@pytest.mark.parametrize("ranks", [2, 3, 16, 20])
def test_any_number_of_ranks_finds_the_same(ranks: int) -> None:
    parts = list(range(41))
    values = np.random.default_rng(0).standard_normal((41, 7))

    def work(part: int) -> dict[str, np.ndarray]:
        return {"a": values[part, :6].reshape(2, 3), "b": values[part, 6]}

    alone = statistics._sums_over_ranks(parts, work, ALONE)
    np.testing.assert_allclose(alone["a"].ravel(), values.sum(0)[:6], rtol=1e-12)
    Sharing.found.clear()
    for rank in range(ranks):
        statistics._sums_over_ranks(parts, work, Sharing(rank, 0, ranks, torch.device("cpu")))
    lanes = torch.stack(Sharing.found)
    assert ((lanes != 0).any(2).sum(0) <= 1).all(), "a lane is one rank's"
    total = np.zeros(7)
    for lane in lanes.sum(0).numpy():
        total += lane
    np.testing.assert_array_equal(total[:6].reshape(2, 3), alone["a"])
    np.testing.assert_array_equal(total[6], alone["b"])
