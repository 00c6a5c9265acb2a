"""Cleaning of time courses of any kind of scan: which TRs hold data, filters, z-scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from giblet_hpc.config.bold import Bold
from giblet_hpc.errors import DataError
from giblet_hpc.files import require_file


def valid_trs(courses: NDArray[np.float32], trs: int) -> int:
    """Return how many leading TRs hold data: less than all where the end is cut or constant.

    Parameters
    ----------
    courses : ndarray, shape (scanned trs, voxels)
    trs : int
        TRs that the run should have.
    """
    length = min(len(courses), trs)
    if length < 2:
        return 0
    same = (courses[:length] == courses[length - 1]).all(axis=1)
    changing = np.flatnonzero(~same)
    if changing.size == 0:
        return 0
    if (courses[length - 1] == courses[length - 1, 0]).all() and courses.shape[1] > 1:
        # One value everywhere is no scan, even in a single volume.
        return int(changing[-1]) + 1
    # The last distinct volume is followed by its constant fill; a run that does not end in a
    # fill is valid to its end.
    return length if changing[-1] == length - 2 else int(changing[-1]) + 1


def clean(
    courses: NDArray[np.float32], *, bold: Bold, tr: float, confounds: NDArray[np.float32] | None
) -> NDArray[np.float32]:
    """Detrend, filter and regress out confounds, as the config says; means are kept.

    Parameters
    ----------
    courses : ndarray, shape (trs, voxels)
    bold : Bold
    tr : float
        Seconds.
    confounds : ndarray, shape (trs, columns), or None
    """
    if not (bold.detrend or bold.high_pass or confounds is not None):
        return courses
    from nilearn.signal import clean as nilearn_clean

    mean = courses.mean(axis=0)
    cleaned = nilearn_clean(
        courses - mean,
        detrend=bold.detrend,
        standardize=None,
        filter="cosine" if bold.high_pass else False,
        high_pass=bold.high_pass,
        t_r=tr,
        confounds=confounds,
        ensure_finite=False,
    )
    return np.asarray(cleaned + mean, dtype=np.float32)


def read_confounds(path: Path, columns: Sequence[str]) -> NDArray[np.float32]:
    """Read columns of an fMRIPrep confound table; a leading n/a becomes the first value.

    Raises
    ------
    DataError
        When the file or a column is missing.
    """
    require_file(path, what="confound table")
    table = pd.read_csv(path, sep="\t")
    absent = [column for column in columns if column not in table.columns]
    if absent:
        raise DataError(
            f"{path} lacks the columns {absent}", hint="set bold.confound_columns to columns it has"
        )
    return table[list(columns)].bfill().to_numpy(dtype=np.float32)


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


def restore(zscored: NDArray[np.float32], statistics: NDArray[np.float32]) -> NDArray[np.float32]:
    """Undo :func:`standardise` with its saved statistics."""
    return np.asarray(zscored * statistics[1] + statistics[0], dtype=np.float32)
