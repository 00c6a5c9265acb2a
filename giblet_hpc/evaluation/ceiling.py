"""How well a stimulus model can do at best, from what subjects share.

Model: each subject's course is a shared signal plus noise of its own. rho, the mean pairwise
correlation between subjects, is then the share of variance that the stimulus can explain in one
subject: sqrt(rho) bounds r for individuals, sqrt(N rho / (1 + (N - 1) rho)) for the mean over N
(Spearman-Brown). Cf. Schoppe et al. 2016, Frontiers in Computational Neuroscience 10:10; Nastase
et al. 2019, SCAN 14:667. A model of one subject's own signal may exceed the bound.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.evaluation.metrics import demeaned


def pairwise_correlation(
    scans: NDArray[np.floating], valid: NDArray[np.bool_], runs: Sequence[slice]
) -> NDArray[np.float64]:
    """Return the mean correlation over all pairs of subjects, for each voxel.

    Parameters
    ----------
    scans : ndarray, shape (subjects, trs, voxels)
        At least two subjects.
    valid : ndarray, shape (subjects, trs)
        Only TRs that all subjects have are used.
    runs : sequence of slice

    Returns
    -------
    ndarray, shape (voxels,)
    """
    count = len(scans)
    assert count >= 2, count
    common = np.asarray(valid.all(axis=0))
    total = np.zeros(scans.shape[1:], dtype=np.float64)
    varying = np.zeros(scans.shape[2], dtype=np.int64)
    for subject in scans:
        course = demeaned(subject, common, runs)
        length = np.sqrt((course**2).sum(0))
        total += np.divide(course, length, out=np.zeros_like(course), where=length > 1e-12)
        varying += length > 1e-12
    # |sum of unit vectors|^2 = N + 2 * (sum over pairs of their correlation).
    pairs = varying * (varying - 1)
    shared = (total**2).sum(0) - varying
    return np.divide(shared, pairs, out=np.zeros(len(pairs)), where=pairs > 0)


def noise_ceiling(rho: NDArray[np.float64], *, subjects_in_mean: int) -> NDArray[np.float64]:
    """Return the best r of a stimulus model.

    Parameters
    ----------
    rho : ndarray, shape (voxels,)
        Mean pairwise correlation.
    subjects_in_mean : int
        1 to predict individuals, N to predict the mean over N subjects.

    Returns
    -------
    ndarray, shape (voxels,)
        0 where rho is not positive.
    """
    n = subjects_in_mean
    positive = np.maximum(rho, 0)
    return np.sqrt(n * positive / (1 + (n - 1) * positive))
