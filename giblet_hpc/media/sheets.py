"""Annotation sheets: which words belong to which TRs of which run."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from giblet_hpc.config.study import Annotations, Study
from giblet_hpc.errors import DataError
from giblet_hpc.files import require_file
from giblet_hpc.limits import require_workbook
from giblet_hpc.timing import Segment


def read_segments(
    study: Study, lengths: Mapping[str, int], scanned: Mapping[str, int] | None = None
) -> dict[str, list[Segment]]:
    """Read the segments of every run, in order of their start.

    A sheet with TR columns places segments by them; its rows with no TR describe time that was
    not scanned and are left out. Without TR columns, segments go by their seconds in the run.

    Parameters
    ----------
    study : Study
        Where the sheets are and what their columns are called.
    lengths : mapping of str to int
        TRs of each run that are used.
    scanned : mapping of str to int, optional
        TRs of each run that TR columns count, where a film cut a run short.

    Returns
    -------
    dict of str to list of Segment
        Times in TRs from the run's start.

    Raises
    ------
    DataError
        When a sheet is missing, has not the named columns, or covers nothing of a run.
    """
    segments: dict[str, list[Segment]] = {run.name: [] for run in study.runs}
    if study.annotations.file:
        table = _read(study.root / study.annotations.file, study.annotations)
        for run, rows in _by_run(table, study, scanned or lengths).items():
            segments[run] += rows
    for run_config in study.runs:
        if run_config.annotations:
            table = _read(study.root / run_config.annotations, study.annotations)
            own = _place_by_seconds(table, study)
            segments[run_config.name] += own
    for run, found in segments.items():
        segments[run] = sorted(
            (s for s in found if s.start < lengths[run] and s.text), key=lambda s: s.start
        )
        if not segments[run]:
            raise DataError(
                f"the annotations cover nothing of run {run} ({lengths[run]} TRs)",
                hint="check study.annotations: its columns, and where the seconds restart",
            )
    return segments


def require_columns(study: Study) -> None:
    """Check that all sheets can be read and have the named columns.

    Raises
    ------
    DataError
        When one is missing, or lacks a column.
    """
    own = [run.annotations for run in study.runs if run.annotations]
    for file in [*([study.annotations.file] if study.annotations.file else []), *own]:
        _read(study.root / file, study.annotations)


def _read(path: Path, names: Annotations) -> pd.DataFrame:
    require_file(path, what="annotation sheet")
    try:
        if path.suffix == ".xlsx":
            require_workbook(path)
            table = pd.read_excel(path)
        else:
            table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",")
    except (ValueError, OSError, KeyError, BadZipFile, pd.errors.ParserError) as error:
        raise DataError(f"cannot read the annotation sheet {path}: {error}") from None
    table.columns = pd.Index([str(column).strip() for column in table.columns])
    wanted = [*names.text, names.start_seconds, names.end_seconds, names.run]
    if names.start_tr and names.end_tr:
        wanted += [names.start_tr, names.end_tr]
    absent = [column for column in wanted if column and column not in table.columns]
    if absent:
        near = difflib.get_close_matches(absent[0], list(table.columns), n=1)
        raise DataError(
            f"{path} lacks the columns {absent}; it has {list(table.columns)}",
            hint=(f"did you mean {near[0]!r}? " if near else "")
            + "name your columns under study.annotations; null for TR columns it has not",
        )
    return table


def _words(table: pd.DataFrame, names: Annotations) -> list[str]:
    texts = table[list(names.text)].fillna("").astype(str)
    return ["; ".join(part.strip() for part in row if part.strip()) for row in texts.to_numpy()]


def _seconds(table: pd.DataFrame, names: Annotations) -> tuple[np.ndarray, np.ndarray]:
    start = pd.to_numeric(table[names.start_seconds], errors="coerce").to_numpy(dtype=float)
    stop = pd.to_numeric(table[names.end_seconds], errors="coerce").to_numpy(dtype=float)
    return start, stop


def _place_by_seconds(table: pd.DataFrame, study: Study) -> list[Segment]:
    start, stop = _seconds(table, study.annotations)
    return [
        Segment(a / study.tr, b / study.tr, text)
        for a, b, text in zip(start, stop, _words(table, study.annotations), strict=True)
        if np.isfinite(a) and np.isfinite(b)
    ]


def _run_of_row(table: pd.DataFrame, study: Study) -> np.ndarray:
    """Return the index of each row's run."""
    names = study.annotations
    known = [run.name for run in study.runs]
    if names.run:
        column = table[names.run].astype(str).str.strip()
        strange = sorted(set(column) - set(known))
        if strange:
            raise DataError(
                f"column {names.run!r} names runs {strange}; the config has {known}",
                hint="use the same names in study.runs",
            )
        return np.array([known.index(name) for name in column])
    start, _ = _seconds(table, names)
    filled = pd.Series(start).ffill().fillna(0.0).to_numpy()
    # A row may begin a little before the one above it; a new run begins near zero again.
    restarts = np.concatenate([[False], filled[1:] < filled[:-1] / 2])
    found = np.cumsum(restarts)
    if found[-1] + 1 != len(known):
        raise DataError(
            f"the annotations' seconds restart {found[-1]} times, so they hold {found[-1] + 1} "
            f"runs; the config has {len(known)}",
            hint="name the column that says the run (study.annotations.run), or give each run "
            "a sheet of its own",
        )
    return np.asarray(found)


def _by_run(
    table: pd.DataFrame, study: Study, lengths: Mapping[str, int]
) -> dict[str, list[Segment]]:
    names = study.annotations
    segments: dict[str, list[Segment]] = {run.name: [] for run in study.runs}
    order = [run.name for run in study.runs]
    if not (names.start_tr and names.end_tr):
        rows = _run_of_row(table, study)
        for index, run in enumerate(order):
            segments[run] = _place_by_seconds(table[rows == index], study)
        return segments
    first = pd.to_numeric(table[names.start_tr], errors="coerce").to_numpy(dtype=float)
    last = pd.to_numeric(table[names.end_tr], errors="coerce").to_numpy(dtype=float)
    begins = np.cumsum([0, *(lengths[run] for run in order)])
    if np.nanmin(first) < 1:
        raise DataError(
            f"the column {names.start_tr!r} has a TR of {np.nanmin(first):g}; TRs count from 1",
            hint="add one to TRs that count from 0; or set study.annotations.start_tr and end_tr "
            "to null, to go by seconds",
        )
    for a, b, text in zip(first, last, _words(table, names), strict=True):
        if not (np.isfinite(a) and np.isfinite(b)):
            continue
        index = int(np.searchsorted(begins, a - 1, side="right")) - 1
        if index < len(order):
            offset = begins[index]
            segments[order[index]].append(Segment(a - 1 - offset, b - offset, text))
    return segments
