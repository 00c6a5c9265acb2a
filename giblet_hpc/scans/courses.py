"""Each subject's standardised time courses in the store: what they are made from, and writing."""

from __future__ import annotations

import logging
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.arrays import ArraySpec
from giblet_hpc.config.io import plain
from giblet_hpc.digests import Digests, code_digest
from giblet_hpc.errors import DataError
from giblet_hpc.scans import cleaning, confounds, recordings
from giblet_hpc.scans.files import StudyScans
from giblet_hpc.store import FeatureStore

logger = logging.getLogger(__name__)
SETTINGS = (
    "dataset",
    "detrend",
    "high_pass",
    "confounds",
    "confound_columns",
    "confound_strategy",
    "confound_motion",
    "confound_compcor",
    "scrub_fd",
    "max_missing_trs",
    "resample",
)

MOST_NAMED = 6


class CourseArrays(NamedTuple):
    """The arrays of one subject's run."""

    zscored: ArraySpec
    """(trs, voxels)."""
    valid: ArraySpec
    """(trs,): there is a scan."""
    statistics: ArraySpec
    """(2, voxels): mean and standard deviation before standardising."""


def course_arrays(
    scans: StudyScans, digests: Digests, *, mask: ArraySpec, voxels: int
) -> dict[tuple[str, str], CourseArrays]:
    """Return the arrays of every (subject, run)."""
    config = scans.config
    settings = {name: value for name, value in plain(config.bold).items() if name in SETTINGS}
    found = {}
    for subject in scans.subjects:
        for run, length in scans.lengths.items():
            provenance = {
                "scans": scans.digest(digests, subject=subject, run=run),
                "tr": config.study.tr,
                "run": run,
                "fields": scans.fields(run),
                "rows": scans.rows_in_file(run),
                "mask": mask.fingerprint,
                "bold": settings,
                "code": code_digest(
                    *recordings.CODE, recordings, cleaning, confounds, write_courses, _RunScans
                ),
            }
            found[subject, run] = CourseArrays(
                ArraySpec(f"bold/{subject}/{run}", (length, voxels), "float32", provenance),
                ArraySpec(f"valid/{subject}/{run}", (length,), "uint8", provenance),
                ArraySpec(f"stats/{subject}/{run}", (2, voxels), "float32", provenance),
            )
    return found


def write_courses(
    scans: StudyScans,
    store: FeatureStore,
    arrays: CourseArrays,
    *,
    mask: NDArray[np.bool_],
    subject: str,
    run_name: str,
) -> None:
    """Write a subject's standardised scans of one run, which TRs are valid, and the statistics.

    Where the subject lacks the run, no TR is valid.
    """
    if not any(store.missing(spec) for spec in arrays):
        return
    trs, voxels = arrays.zscored.shape
    zscored = np.zeros((trs, voxels), dtype=np.float32)
    valid = np.zeros(trs, dtype=bool)
    statistics = np.stack([np.zeros(voxels), np.ones(voxels)]).astype(np.float32)
    if scans.files.of(subject, run_name):
        config = scans.config
        own = _RunScans(scans, subject=subject, run=run_name)
        tr, file_tr = config.study.tr, own.file_tr
        count = trs if file_tr == tr else math.ceil(trs * tr / file_tr - 1e-6)
        courses = own.courses(mask)
        there, regressors = own.usable(courses, count)
        filled = np.zeros((count, voxels), dtype=np.float32)
        filled[: len(courses)] = courses[:count]
        cleaned = cleaning.clean(
            filled, bold=config.bold, tr=file_tr, regressors=regressors, valid=there
        )
        standard = np.zeros_like(filled)
        standard[there], statistics = cleaning.standardise(cleaned)
        if file_tr == tr:
            zscored, valid = standard, there
        else:
            zscored, valid = cleaning.at_rate(standard, there, trs, own=file_tr, tr=tr)
    store.write(arrays.statistics, statistics)
    store.write(arrays.valid, valid.astype(np.uint8))
    store.write(arrays.zscored, zscored)


class _RunScans:
    """The scans of one subject's run and what belongs to them."""

    def __init__(self, scans: StudyScans, *, subject: str, run: str) -> None:
        self._study, self._config = scans, scans.config
        self._subject, self._run = subject, run
        self._scans = scans.open(subject, run)
        self._recording = self._scans.recordings[run]
        self.file_tr = self._scans.file_tr(run)
        """Seconds of a row."""

    def courses(self, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Read the targets in the mask: (scanned trs, targets).

        Raises
        ------
        DataError
            When some hold what is no number.
        """
        courses = np.ascontiguousarray(self._scans.rows(self._run)[:, mask])
        bad = int((~np.isfinite(courses)).any(axis=0).sum())
        if bad:
            raise DataError(
                f"{self._recording.path}: {bad} {self._recording.space.unit} inside the mask hold "
                f"NaN or infinity in run {self._run}",
                hint="mask them out (bold.mask), or repair the file",
            )
        return courses

    def usable(
        self, courses: NDArray[np.float32], trs: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32] | None]:
        """Return which TRs are used, and the confounds of all, (trs, columns)."""
        valid = cleaning.valid_rows(courses, trs)
        empty = trs - int(valid.sum())
        if empty > self._config.bold.max_missing_trs or not valid.any():
            raise DataError(
                f"{self._recording.path}: only {trs - empty} of {trs} TRs of run {self._run} hold "
                "data",
                hint="leave the subject out with study.subjects, or raise bold.max_missing_trs",
            )
        if empty:
            places = np.flatnonzero(~valid)
            which = f"the last {empty} TRs" if places[0] == trs - empty else (
                f"{empty} TRs ({', '.join(map(str, places[:MOST_NAMED]))}"
                f"{', ...' if empty > MOST_NAMED else ''})"
            )  # fmt: skip
            logger.info("subject %s run %s: %s hold no data and are left out",
                        self._subject, self._run, which)  # fmt: skip
        if self._config.bold.confounds is None:
            return valid, None
        regressors = self._regressors()
        usable, values = regressors.usable[:trs], regressors.values
        ruled_out = int((valid[: len(usable)] & ~usable).sum())
        if ruled_out:
            logger.info("subject %s run %s: confounds rule out %d of %d TRs",
                        self._subject, self._run, ruled_out, trs)  # fmt: skip
        valid[: len(usable)] &= usable
        if valid.sum() < trs / 2:
            raise DataError(
                f"subject {self._subject} run {self._run}: confounds leave {int(valid.sum())} of "
                f"{trs} TRs",
                hint="raise bold.scrub_fd, or leave the subject out",
            )
        return valid, None if values is None else _padded(values[:trs], trs)

    def _regressors(self) -> confounds.Regressors:
        """Return the confounds of the run's rows.

        Raises
        ------
        DataError
            When the table has not a row for each scan of its file.
        """
        bold = self._config.bold
        assert bold.confounds is not None
        path = self._study.confounds_path(self._subject, self._run)
        found = confounds.read_regressors(path, bold, scans=self._recording.path)
        own = bold.confounds_by_run
        expected = self._scans.scanned(self._run) if own else self._recording.trs
        confounds.require_rows(path, len(found.usable), self._recording.path, expected)
        if own:
            return found
        span = self._scans.spans[self._run]
        values = None if found.values is None else found.values[span]
        return confounds.Regressors(values, found.usable[span])


def _padded(values: NDArray[np.float32], trs: int) -> NDArray[np.float32]:
    """Return rows for all TRs of a run whose scans ended early; they are not used there."""
    return np.pad(values, ((0, trs - len(values)), (0, 0)))
