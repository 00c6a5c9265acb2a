"""Each subject's standardised time courses in the store: what they are made from, and writing."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.arrays import ArraySpec
from giblet_hpc.config.io import plain
from giblet_hpc.config.run import RunConfig
from giblet_hpc.digests import Digests, code_digest
from giblet_hpc.errors import DataError
from giblet_hpc.scans import cleaning, volumes
from giblet_hpc.scans.files import confounds_path, rows_in_file, subject_digests
from giblet_hpc.store import FeatureStore

logger = logging.getLogger(__name__)
SETTINGS = ("detrend", "high_pass", "confounds", "confound_columns", "max_missing_trs")


class CourseArrays(NamedTuple):
    """The arrays of one subject's run."""

    zscored: ArraySpec
    """(trs, voxels)."""
    valid: ArraySpec
    """(trs,): there is a scan."""
    statistics: ArraySpec
    """(2, voxels): mean and standard deviation before standardising."""


def course_arrays(
    config: RunConfig,
    subjects: Sequence[str],
    lengths: Mapping[str, int],
    digests: Digests,
    *,
    mask: ArraySpec,
    voxels: int,
) -> dict[tuple[str, str], CourseArrays]:
    """Return the arrays of every (subject, run)."""
    settings = {name: value for name, value in plain(config.bold).items() if name in SETTINGS}
    found = {}
    for subject in subjects:
        inputs = subject_digests(config, subject, digests)
        for run, length in lengths.items():
            provenance = {
                "scans": inputs,
                "tr": config.study.tr,
                "run": run,
                "rows": rows_in_file(config, run),
                "mask": mask.fingerprint,
                "bold": settings,
                "code": code_digest(volumes, cleaning, write_courses),
            }
            found[subject, run] = CourseArrays(
                ArraySpec(f"bold/{subject}/{run}", (length, voxels), "float32", provenance),
                ArraySpec(f"valid/{subject}/{run}", (length,), "uint8", provenance),
                ArraySpec(f"stats/{subject}/{run}", (2, voxels), "float32", provenance),
            )
    return found


def write_courses(
    config: RunConfig,
    store: FeatureStore,
    arrays: CourseArrays,
    *,
    mask: NDArray[np.bool_],
    subject: str,
    run_name: str,
) -> None:
    """Write a subject's standardised scans of one run, which TRs are valid, and the statistics."""
    if not any(store.missing(spec) for spec in arrays):
        return
    path = volumes.scan_files(subject, config.study, config.bold)[run_name]
    scans = volumes.open_scans(subject, config.study, config.bold)
    courses = np.ascontiguousarray(scans.volumes(run_name)[mask].T)
    bad = int((~np.isfinite(courses)).any(axis=0).sum())
    if bad:
        raise DataError(
            f"{path}: {bad} voxels inside the mask hold NaN or infinity in run {run_name}",
            hint="mask them out (bold.mask), or repair the file",
        )
    trs = arrays.zscored.shape[0]
    valid = cleaning.valid_trs(courses, trs)
    if trs - valid > config.bold.max_missing_trs:
        raise DataError(
            f"{path}: only {valid} of {trs} TRs of run {run_name} hold data",
            hint="leave the subject out with study.subjects, or raise bold.max_missing_trs",
        )
    if valid < trs:
        logger.info("subject %s run %s: the last %d TRs hold no data and are left out",
                    subject, run_name, trs - valid)  # fmt: skip
    confounds = _confounds(config, subject, run_name, valid)
    cleaned = cleaning.clean(
        courses[:valid], bold=config.bold, tr=config.study.tr, confounds=confounds
    )
    zscored = np.zeros(arrays.zscored.shape, dtype=np.float32)
    zscored[:valid], statistics = cleaning.standardise(cleaned)
    store.write(arrays.statistics, statistics)
    store.write(arrays.valid, (np.arange(trs) < valid).astype(np.uint8))
    store.write(arrays.zscored, zscored)


def _confounds(
    config: RunConfig, subject: str, run_name: str, valid: int
) -> NDArray[np.float32] | None:
    """Return the confounds of a run's valid TRs; None where none are asked for."""
    if not config.bold.confounds:
        return None
    table: Path = confounds_path(config, subject, run_name)
    rows = cleaning.read_confounds(table, config.bold.confound_columns)
    if "{run}" not in config.bold.confounds:
        rows = rows[slice(*rows_in_file(config, run_name))]
    if len(rows) < valid:
        raise DataError(f"{table} has {len(rows)} rows for the {valid} TRs of run {run_name}")
    return rows[:valid]
