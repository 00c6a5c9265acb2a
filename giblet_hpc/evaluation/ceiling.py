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

DRAWS = 50
"""Of each subject's courses, shifted in time, that tell what rho is by chance."""
SHORTEST = 0.1
"""Of a run that a shift is, at least."""
LEVEL = 0.05
"""False discovery rate of voxels that are said to have a ceiling."""


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
    units, varying = _unit_courses(scans, valid, runs)
    return _mean_pairs(units.sum(0, dtype=np.float64), varying)


def shared_and_chance(
    scans: NDArray[np.floating], valid: NDArray[np.bool_], runs: Sequence[slice]
) -> NDArray[np.float64]:
    """Return that correlation, its mean and deviation where subjects share nothing, and N.

    Each subject's courses are shifted around in each run, by a time of its own, which keeps their
    autocorrelation and undoes what subjects share. Shifts are the same for all voxels.

    Parameters
    ----------
    scans, valid, runs
        As of `pairwise_correlation`.

    Returns
    -------
    ndarray, shape (4, voxels)
        N: subjects whose scans of the voxel vary.
    """
    units, varying = _unit_courses(scans, valid, runs)
    rho = _mean_pairs(units.sum(0, dtype=np.float64), varying)
    random = np.random.default_rng(0)
    found = np.zeros((DRAWS, units.shape[2]))
    for draw in range(DRAWS):
        total = np.zeros(units.shape[1:], dtype=np.float32)
        for course in units:
            for rows in runs:
                length = rows.stop - rows.start
                least = max(1, round(SHORTEST * length))
                by = int(random.integers(least, max(least + 1, length - least)))
                total[rows] += np.roll(course[rows], by, axis=0)
        found[draw] = _mean_pairs(total.astype(np.float64), varying)
    return np.stack([rho, found.mean(0), found.std(0, ddof=1), varying])


def over_groups(parts: NDArray[np.float64], trs: Sequence[int]) -> tuple[NDArray[np.float64], ...]:
    """Combine groups of subjects who were scanned in different runs, weighted by TRs.

    Parameters
    ----------
    parts : ndarray, shape (groups, 4, voxels)
        From `shared_and_chance`.
    trs : sequence of int
        Of each group.

    Returns
    -------
    rho, mean, deviation, varying : ndarray, shape (voxels,)
        As of `shared_and_chance`; chance in one group is independent of that in another.
    """
    share = np.array(trs, dtype=np.float64)[:, None] / sum(trs)
    rho, mean, deviation, varying = np.moveaxis(parts, 1, 0)
    spread = np.sqrt(((share * deviation) ** 2).sum(0))
    return (share * rho).sum(0), (share * mean).sum(0), spread, (share * varying).sum(0)


def above_chance(
    rho: NDArray[np.float64], mean: NDArray[np.float64], deviation: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Return where subjects share something, at a false discovery rate of 5 %.

    By Benjamini and Hochberg over all voxels; the null is taken to be normal, as a mean over pairs
    nearly is.
    """
    from scipy.stats import false_discovery_control, norm

    z = np.divide(rho - mean, deviation, out=np.full_like(rho, -np.inf), where=deviation > 0)
    passed: NDArray[np.bool_] = false_discovery_control(norm.sf(z)) <= LEVEL
    return passed


def _unit_courses(
    scans: NDArray[np.floating], valid: NDArray[np.bool_], runs: Sequence[slice]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return courses of length 1, (subjects, trs, voxels), and how many of each voxel vary."""
    assert len(scans) >= 2, len(scans)
    common = np.asarray(valid.all(axis=0))
    units = np.zeros(scans.shape, dtype=np.float32)
    varying = np.zeros(scans.shape[2], dtype=np.int64)
    for number, subject in enumerate(scans):
        course = demeaned(subject, common, runs)
        length = np.sqrt((course**2).sum(0))
        np.divide(course, length, out=course, where=length > 1e-12)
        units[number] = np.where(length > 1e-12, course, 0)
        varying += length > 1e-12
    return units, varying


def _mean_pairs(total: NDArray[np.float64], varying: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean correlation over pairs, from the sum of unit courses, (trs, voxels)."""
    # |sum of unit vectors|^2 = N + 2 * (sum over pairs of their correlation).
    pairs = varying * (varying - 1)
    shared = (total**2).sum(0) - varying
    return np.divide(shared, pairs, out=np.zeros(len(pairs)), where=pairs > 0)


def noise_ceiling(
    rho: NDArray[np.float64],
    *,
    subjects_in_mean: int | NDArray[np.floating],
    known: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Return the best r of a stimulus model.

    Parameters
    ----------
    rho : ndarray, shape (voxels,)
        Mean pairwise correlation.
    subjects_in_mean : int or ndarray, shape (voxels,)
        1 to predict individuals, N to predict the mean over N subjects; those whose scans of a
        voxel vary.
    known : ndarray of bool, shape (voxels,), optional
        Where rho is above chance: its root would make a ceiling of noise elsewhere.

    Returns
    -------
    ndarray, shape (voxels,)
        0 where rho is not positive, or not above chance.
    """
    n = subjects_in_mean
    positive = np.maximum(rho, 0) if known is None else np.where(known, np.maximum(rho, 0), 0)
    return np.sqrt(n * positive / (1 + (n - 1) * positive))
