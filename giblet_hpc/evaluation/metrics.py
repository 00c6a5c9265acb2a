"""Scores of predicted scans: always over time, voxel by voxel, on all test TRs at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def demeaned(
    values: NDArray[np.floating], valid: NDArray[np.bool_], runs: Sequence[slice]
) -> NDArray[np.float64]:
    """Remove each run's mean over its valid TRs; TRs without a scan become 0.

    Parameters
    ----------
    values : ndarray, shape (trs, voxels)
    valid : ndarray, shape (trs,)
    runs : sequence of slice
        Rows of each run.
    """
    out = np.array(values, dtype=np.float64)
    for rows in runs:
        there = valid[rows]
        if there.any():
            out[rows] -= out[rows][there].mean(axis=0)
    out[~valid] = 0
    return out


def pearson(
    predicted: NDArray[np.floating],
    measured: NDArray[np.floating],
    valid: NDArray[np.bool_],
    runs: Sequence[slice],
) -> NDArray[np.float64]:
    """Correlate over time, after removing each run's mean.

    Parameters
    ----------
    predicted, measured : ndarray, shape (trs, voxels)
    valid : ndarray, shape (trs,)
    runs : sequence of slice

    Returns
    -------
    ndarray, shape (voxels,)
        0 where either course is constant.
    """
    a, b = demeaned(predicted, valid, runs), demeaned(measured, valid, runs)
    spread = np.sqrt((a * a).sum(0) * (b * b).sum(0))
    r: NDArray[np.float64] = np.divide(
        (a * b).sum(0), spread, out=np.zeros(a.shape[1]), where=spread > 1e-12
    )
    return r


def r_squared(
    predicted: NDArray[np.floating],
    measured: NDArray[np.floating],
    valid: NDArray[np.bool_],
    runs: Sequence[slice],
) -> NDArray[np.float64]:
    """Return 1 - sum (y - prediction)^2 / sum (y - run mean)^2 of each voxel.

    0 where the measured course is constant.
    """
    error = ((np.asarray(predicted, np.float64) - measured)[valid] ** 2).sum(0)
    total = (demeaned(measured, valid, runs) ** 2).sum(0)
    share = np.divide(error, total, out=np.ones(len(total)), where=total > 1e-12)
    return np.asarray(1 - share)


def fisher_mean(r: NDArray[np.floating]) -> float:
    """Average correlations as Fisher z; NaN, of subjects that are not scored, does not count."""
    return float(np.tanh(np.nanmean(np.arctanh(np.clip(r, -0.999999, 0.999999)))))
