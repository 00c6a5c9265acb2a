"""A lab's own features: arrays that some other program has made, at any rate."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.arrays import ArraySpec
from giblet_hpc.config.features import OwnFeatures
from giblet_hpc.config.io import own_fields
from giblet_hpc.config.study import ScanRun
from giblet_hpc.digests import Digests, code_digest
from giblet_hpc.errors import DataError
from giblet_hpc.modalities.base import Note
from giblet_hpc.modalities.vectors import Vectors
from giblet_hpc.scans import tables
from giblet_hpc.scans.tables import TableFile
from giblet_hpc.store import FeatureStore
from giblet_hpc.survey import Survey

USUAL_COLUMNS = 1024


class Own(Vectors):
    """Rows of a lab's own columns, float32."""

    options: OwnFeatures

    def expected_shape(self, *, tr: float, fps: float) -> tuple[int, ...]:
        """Return (columns,): so many as features usually have."""
        del tr, fps
        return (USUAL_COLUMNS,)

    def _path(self, survey: Survey, run: ScanRun) -> Path:
        (path,) = self.options.paths(survey.config.study, run)
        return path

    def array(self, survey: Survey, run: ScanRun, digests: Digests) -> ArraySpec:
        """Return a run's array of columns."""
        path = self._path(survey, run)
        table = TableFile([path])
        self._require_length(survey, run, table)
        columns = table.space.count
        return ArraySpec(
            self.array_name(run.name),
            (survey.lengths[run.name], columns),
            "float32",
            {
                "file": digests.of(path),
                "tr": survey.config.study.tr,
                f"features.{self.name}": own_fields(self.options),
                "code": code_digest(tables, rows_by_tr, Own.write),
            },
        )

    def _require_length(self, survey: Survey, run: ScanRun, table: TableFile) -> None:
        """Check that a file is as long as its run.

        Raises
        ------
        DataError
            When it is shorter; and, where a row is a TR, when it is longer.
        """
        study, trs = survey.config.study, survey.lengths[run.name]
        rate = self.options.rate or 1 / study.tr
        found = table.trs / rate / study.tr
        longer = self.options.rate is None and found > trs + study.max_trim_trs
        if longer or found < trs - study.max_trim_trs:
            raise DataError(
                f"{table.path} has {table.trs} rows of {1 / rate:g} s; run {run.name} has {trs} "
                f"TRs of {study.tr:g} s",
                hint=f"say with features.{self.name}.rate how many rows a second it has",
            )

    def write(
        self, survey: Survey, run: ScanRun, *, spec: ArraySpec, store: FeatureStore, note: Note
    ) -> None:
        """Write a run's columns."""
        if not store.missing(spec):
            return
        path, study = self._path(survey, run), survey.config.study
        values = TableFile([path]).rows(slice(None))
        if not np.isfinite(values).all():
            raise DataError(f"{path} holds values that are no numbers", hint="repair the file")
        rate = self.options.rate or 1 / study.tr
        rows = rows_by_tr(values, spec.shape[0], rate=rate, tr=study.tr)
        store.write(spec, rows)
        note()

    def remarks(self) -> list[str]:
        """Say where they come from."""
        return [f"{self.name}: features of the lab's own files ({self.options.files})."]


def rows_by_tr(
    values: NDArray[np.float32], trs: int, *, rate: float, tr: float
) -> NDArray[np.float32]:
    """Average rows at a rate over the TRs that they begin in; the last one is held to the end.

    Parameters
    ----------
    values : ndarray, shape (rows, columns)
    trs : int
    rate : float
        Rows a second.
    tr : float
        Seconds.

    Returns
    -------
    ndarray, shape (trs, columns)
    """
    edges = np.ceil(np.arange(trs + 1) * tr * rate - 1e-6).astype(int)
    out = np.empty((trs, values.shape[1]), dtype=np.float32)
    last = len(values) - 1
    for row, (begin, end) in enumerate(itertools.pairwise(edges)):
        # Slower than TRs, a row counts until the next one begins.
        begins = begin if end > begin else begin - 1
        first = min(max(0, begins), last)
        out[row] = values[first : max(first + 1, end)].mean(axis=0)
    return out
