from __future__ import annotations

import pytest
import torch
from scipy.stats import pearsonr

from giblet_hpc.models.shapes import Batch
from giblet_hpc.training.voxel_sums import VoxelSums

CPU = torch.device("cpu")


def test_validation_sums_equal_scipy_however_they_are_cut() -> None:
    predicted, measured = torch.randn(24, 2, 3), torch.randn(24, 2, 3)
    valid = torch.rand(24, 2) > 0.2
    totals = []
    for size in (24, 5):
        sums = VoxelSums(["a"], subjects=2, voxels=3, device=CPU)
        for start in range(0, 24, size):
            rows = slice(start, start + size)
            batch = Batch({}, torch.ones(1), measured[None, rows], valid[None, rows])
            sums.add("a", predicted[None, rows], batch, 0)
        totals.append((sums.correlation(), sums.mean_squared_error()))
    torch.testing.assert_close(totals[0][0], totals[1][0])
    there = valid[:, 1]
    expected = pearsonr(predicted[there, 1, 2].numpy(), measured[there, 1, 2].numpy()).statistic
    assert float(totals[0][0][1, 2]) == pytest.approx(expected, abs=1e-6)
    error = ((predicted - measured)[valid] ** 2).mean()
    assert totals[0][1] == pytest.approx(float(error), rel=1e-6)


def test_each_runs_mean_is_removed() -> None:
    course = torch.randn(20, 1, 1)
    sums = VoxelSums(["a", "b"], subjects=1, voxels=1, device=CPU)
    for run, offset in (("a", 5.0), ("b", -5.0)):
        valid = torch.ones(1, 20, 1, dtype=torch.bool)
        batch = Batch({}, torch.ones(1), (course + offset)[None], valid)
        sums.add(run, torch.randn(1, 20, 1, 1) + offset, batch, 0)
    assert abs(float(sums.correlation())) < 0.6
