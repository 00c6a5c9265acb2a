"""Scores of predicted scans: always over time, voxel by voxel, on all test TRs at once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.splits import Block

Floating = TypeVar("Floating", np.float32, np.float64)
LARGEST_R = 0.999999


def run_rows(blocks: Sequence[Block]) -> list[slice]:
    """Return the rows of each block among the test TRs, one after the other."""
    edges = np.cumsum([0, *(block.trs for block in blocks)])
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(edges)]


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


def product_measure(
    part: NDArray[np.floating],
    predicted: NDArray[np.floating],
    measured: NDArray[np.floating],
    valid: NDArray[np.bool_],
    runs: Sequence[slice],
) -> NDArray[np.float64]:
    """Return what a part of a prediction adds to its R2: sum part (2 y - prediction) / sum y^2.

    Over parts that add up to the prediction, it adds up to R2, after removing each run's mean
    (Pratt 1987, Proceedings of the Second International Tampere Conference in Statistics, 245; for
    banded ridge, Dupré la Tour et al. 2022, NeuroImage 264:119728). 0 where the measured course is
    constant.
    """
    p, made, y = (demeaned(values, valid, runs) for values in (part, predicted, measured))
    total = (y * y).sum(0)
    added = (p * (2 * y - made)).sum(0)
    return np.asarray(np.divide(added, total, out=np.zeros(len(total)), where=total > 1e-12))


def fisher_z(r: NDArray[Floating]) -> NDArray[Floating]:
    """Return Fisher z of correlations, in their place; finite for a correlation of 1 too."""
    return np.arctanh(np.clip(r, -LARGEST_R, LARGEST_R, out=r), out=r)


def fisher_mean(r: NDArray[np.floating]) -> float:
    """Average correlations as Fisher z; NaN, of subjects that are not scored, does not count."""
    return float(np.tanh(np.nanmean(fisher_z(np.array(r, np.float64)))))
