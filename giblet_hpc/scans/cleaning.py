"""Cleaning of time courses of any kind of scan: which TRs hold data, filters, z-scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.config.bold import Bold


def valid_rows(courses: NDArray[np.float32], trs: int) -> NDArray[np.bool_]:
    """Return which TRs hold a scan.

    None is where the file has ended, where all targets have one value, and in a stretch at the
    end that repeats one scan.

    Parameters
    ----------
    courses : ndarray, shape (scanned trs, targets)
    trs : int
        TRs that the run should have.

    Returns
    -------
    ndarray of bool, shape (trs,)
    """
    valid = np.zeros(trs, dtype=bool)
    length = min(len(courses), trs)
    if length < 2:
        return valid
    valid[:length] = True
    if courses.shape[1] > 1:
        valid[:length] = (courses[:length] != courses[:length, :1]).any(axis=1)
    changing = np.flatnonzero((courses[:length] != courses[length - 1]).any(axis=1))
    if changing.size == 0:
        return np.zeros(trs, dtype=bool)
    # The last distinct scan is followed by its constant fill; a run that does not end in a fill
    # is valid to its end.
    if changing[-1] < length - 2:
        valid[changing[-1] + 1 :] = False
    return valid


def clean(
    courses: NDArray[np.float32],
    *,
    bold: Bold,
    tr: float,
    regressors: NDArray[np.float32] | None,
    valid: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """Detrend, filter and regress out confounds, as the config says; means are kept.

    Parameters
    ----------
    courses : ndarray, shape (trs, targets)
    bold : Bold
    tr : float
        Seconds.
    regressors : ndarray, shape (trs, columns), or None
    valid : ndarray of bool, shape (trs,)
        Scans that count; the others leave gaps in time.

    Returns
    -------
    ndarray, shape (valid trs, targets)
    """
    kept = courses[valid]
    if not (bold.detrend or bold.high_pass or regressors is not None):
        return kept
    from nilearn.signal import clean as nilearn_clean

    mean = kept.mean(axis=0)
    centred = np.where(valid[:, None], courses - mean, 0).astype(np.float32)
    cleaned = nilearn_clean(
        centred,
        detrend=bold.detrend,
        standardize=None,
        filter="cosine" if bold.high_pass else False,
        high_pass=bold.high_pass,
        t_r=tr,
        confounds=regressors,
        sample_mask=None if valid.all() else np.flatnonzero(valid),
        ensure_finite=False,
    )
    return np.asarray(cleaned + mean, dtype=np.float32)


def standardise(
    courses: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """z-score every voxel over time; a constant voxel becomes 0.

    Parameters
    ----------
    courses : ndarray, shape (trs, voxels)

    Returns
    -------
    zscored : ndarray, shape (trs, voxels), float32
    statistics : ndarray, shape (2, voxels), float32
        Mean and standard deviation (1 where it was 0).
    """
    mean = courses.mean(axis=0, dtype=np.float64)
    deviation = courses.std(axis=0, dtype=np.float64)
    constant = deviation <= 1e-6 * np.maximum(1.0, np.abs(mean))
    deviation[constant] = 1.0
    zscored = ((courses - mean) / deviation).astype(np.float32)
    zscored[:, constant] = 0
    return zscored, np.stack([mean, deviation]).astype(np.float32)


def at_rate(
    zscored: NDArray[np.float32], valid: NDArray[np.bool_], trs: int, *, own: float, tr: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Bring scans to another TR, by linear interpolation between the middles of scans.

    Parameters
    ----------
    zscored : ndarray, shape (scans, targets)
    valid : ndarray of bool, shape (scans,)
    trs : int
        TRs that are wanted.
    own, tr : float
        Seconds of a scan, and of a TR.

    Returns
    -------
    zscored : ndarray, shape (trs, targets), float32
        0 where there is no scan.
    valid : ndarray of bool, shape (trs,)
        Both neighbours hold a scan.
    """
    place = np.clip((np.arange(trs) + 0.5) * tr / own - 0.5, 0, len(zscored) - 1)
    before = np.floor(place).astype(int)
    after = np.minimum(before + 1, len(zscored) - 1)
    share = (place - before)[:, None].astype(np.float32)
    there = valid[before] & (valid[after] | (share[:, 0] == 0))
    # Past the last scan there is none.
    there &= (np.arange(trs) + 0.5) * tr <= len(zscored) * own
    mixed = (1 - share) * zscored[before] + share * zscored[after]
    return np.where(there[:, None], mixed, 0).astype(np.float32), there


def restore(zscored: NDArray[np.float32], statistics: NDArray[np.float32]) -> NDArray[np.float32]:
    """Undo :func:`standardise` with its saved statistics."""
    return np.asarray(zscored * statistics[1] + statistics[0], dtype=np.float32)
