"""Exact validation scores from sums that ranks add up: no averages of averages."""

from __future__ import annotations

import torch

from giblet_hpc.models.shapes import Batch
from giblet_hpc.training.global_sums import GlobalSums


class VoxelSums:
    """Collects what r and the squared error of every voxel are made of, run by run.

    Parameters
    ----------
    runs : sequence of str
        Names; r is computed after removing each run's mean.
    subjects, voxels : int
    device : torch.device
    """

    def __init__(
        self, runs: list[str], *, subjects: int, voxels: int, device: torch.device
    ) -> None:
        self._index = {run: number for number, run in enumerate(runs)}
        # n, sum x, sum y, sum xx, sum yy, sum xy.
        self._sums = torch.zeros(len(runs), 6, subjects, voxels, dtype=torch.float64, device=device)

    def add(self, run: str, predicted: torch.Tensor, batch: Batch, window: int) -> None:
        """Add one window of a batch: ``predicted`` (B, L, S, V)."""
        sums = self._sums[self._index[run]]
        for subject in range(sums.shape[1]):
            # One subject at a time: in double precision all of them are large.
            y = batch.bold[window, :, subject].double()
            x = predicted[window, :, min(subject, predicted.shape[2] - 1)].double()
            w = batch.valid[window, :, subject, None].double()
            terms = (w.expand_as(y), x * w, y * w, x * x * w, y * y * w, x * y * w)
            sums[:, subject] += torch.stack([term.sum(0) for term in terms])

    def reduce(self, sums: GlobalSums) -> None:
        """Add up over ranks; all ranks hold the same sums then."""
        sums.reduce(self._sums)

    def mean_squared_error(self) -> float:
        """Return the mean over all valid scans of (predicted - measured)^2."""
        n, _, _, xx, yy, xy = self._sums.sum(0)
        return float(((xx - 2 * xy + yy).sum() / n.sum().clamp(min=1)).item())

    def correlation(self) -> torch.Tensor:
        """Return r of every voxel over time, (S, V); 0 where a course is constant."""
        n, x, y, xx, yy, xy = self._sums.unbind(1)
        n = n.clamp(min=1)
        covariance = (xy - x * y / n).sum(0)
        spread = (xx - x * x / n).sum(0) * (yy - y * y / n).sum(0)
        return torch.where(spread > 0, covariance / spread.clamp(min=1e-30).sqrt(), 0.0)
