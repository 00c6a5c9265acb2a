"""Annotations: which words belong to which TRs of which run."""

from __future__ import annotations

import csv
import difflib
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from giblet_hpc.config.study import Annotations, Study
from giblet_hpc.errors import DataError
from giblet_hpc.files import reading, require_file
from giblet_hpc.limits import require_workbook
from giblet_hpc.media import transcripts
from giblet_hpc.media.times import read_times
from giblet_hpc.media.transcripts import Spoken
from giblet_hpc.timing import Segment

logger = logging.getLogger(__name__)
WORKBOOKS = (".xlsx", ".xlsm")
FIRST_ROW = 2
"""What a spreadsheet calls the row below its header."""
MOST_NAMED = 5


class Lengths(NamedTuple):
    """How long a run is, in TRs."""

    used: int
    """TRs that are used."""
    scanned: int
    """TRs that TR columns count, where a film cut a run short."""
    shown: int
    """TRs until what was shown ends, scanned or not: segments end before."""


def read_segments(study: Study, lengths: Mapping[str, Lengths]) -> dict[str, list[Segment]]:
    """Read the segments of every run, in order of their start.

    A sheet with TR columns places segments by them; its rows with no TR describe time that was
    not scanned and are left out. Without TR columns, segments go by their seconds in the run.

    Parameters
    ----------
    study : Study
        Where the sheets are and what their columns are called.
    lengths : mapping of str to Lengths
        Of each run.

    Returns
    -------
    dict of str to list of Segment
        Times in TRs from the run's start.

    Raises
    ------
    DataError
        When a sheet is missing, has not the named columns, holds a row whose time cannot be read
        or lies outside its run, or covers nothing of a run.
    """
    names = study.annotations
    segments: dict[str, list[Segment]] = {run.name: [] for run in study.runs}
    if names.file:
        path = study.root / names.file
        table = _read(path, names)
        by_tr = bool(names.start_tr and names.end_tr)
        place = _by_tr if by_tr else _by_seconds
        for run, rows in place(table, study, lengths, path=path).items():
            segments[run] += rows
    for run_config in study.runs:
        if run_config.annotations:
            path = study.root / run_config.annotations
            spoken = _own_sheet(path, study)
            segments[run_config.name] += _placed(spoken, study, lengths[run_config.name], path)
    for run, found in segments.items():
        segments[run] = sorted(
            (s for s in found if s.start < lengths[run].used and s.text), key=lambda s: s.start
        )
        if not segments[run]:
            raise DataError(
                f"the annotations cover nothing of run {run} ({lengths[run].used} TRs)",
                hint="check study.annotations: its columns, and where the seconds restart",
            )
    return segments


def single_runs(study: Study) -> list[Study]:
    """Return the study itself, or where each run has a sheet of its own, one study for each run."""
    if study.annotations.file:
        return [study]
    return [study.model_copy(update={"runs": (run,)}) for run in study.runs]


def require_columns(study: Study) -> None:
    """Check that all sheets can be read, have the named columns, and hold times.

    Raises
    ------
    DataError
        When one does not.
    """
    if study.annotations.file:
        _read(study.root / study.annotations.file, study.annotations)
    for run in study.runs:
        if run.annotations:
            _own_sheet(study.root / run.annotations, study)


def _own_sheet(path: Path, study: Study) -> list[Spoken]:
    """Read the sheet, or the transcript, of one run."""
    names = study.annotations
    if path.suffix.lower() in transcripts.SUFFIXES:
        return transcripts.read_transcript(path, tier=names.tier)
    table = _table(path)
    if set(transcripts.PER_TR) <= set(table.columns):
        return transcripts.words_by_tr(path, table, study.tr)
    _require(path, table, names)
    return _spoken(table, names, path)


def _table(path: Path) -> pd.DataFrame:
    """Read a sheet as it is written: cells of text files as text, of workbooks as they are."""
    require_file(path, what="annotation sheet")
    suffix = path.suffix.lower()
    with reading(path, "an annotation sheet"):
        if suffix in WORKBOOKS:
            require_workbook(path)
            table = pd.read_excel(path, dtype=object)
        else:
            table = _text_table(path, suffix)
    table.columns = pd.Index([str(column).strip() for column in table.columns])
    return table


def _text_table(path: Path, suffix: str) -> pd.DataFrame:
    """Read a text file of cells: as text, none of them lost.

    Raises
    ------
    DataError
        That names rows with more cells than the header.
    """
    text = path.read_text(encoding="utf-8-sig")
    header = text.split("\n", 1)[0]
    comma = ";" if ";" in header and "," not in header else ","
    if suffix == ".tsv":
        # Quotation marks are text there, as in BIDS; a pair around a cell is a writer's.
        lines = [[_unquoted(cell) for cell in line.split("\t")] for line in text.splitlines()]
    else:
        try:
            lines = list(csv.reader(io.StringIO(text), delimiter=comma, strict=True))
        except csv.Error as error:
            raise DataError(
                f"{path}: a quotation mark is not closed, or stands inside a cell ({error})",
                hint="put quotes around the whole cell, and double those inside it",
            ) from None
    columns, *rows = [row for row in lines if any(cell.strip() for cell in row)] or [[]]
    width = len(columns)
    wide = [n for n, row in enumerate(rows, FIRST_ROW) if any(map(str.strip, row[width:]))]
    _refuse(path, wide, f"have more cells than the {width} of the header",
            "put quotes around text that holds the separator")  # fmt: skip
    filled = [row[:width] + [""] * (width - len(row)) for row in rows]
    return pd.DataFrame(filled, columns=columns, dtype=object)


def _unquoted(cell: str) -> str:
    text = cell.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].replace('""', '"')
    return text


def _read(path: Path, names: Annotations) -> pd.DataFrame:
    table = _table(path)
    _require(path, table, names)
    return table


def _require(path: Path, table: pd.DataFrame, names: Annotations) -> None:
    wanted = [*names.text, names.start_seconds, names.duration_seconds or names.end_seconds]
    wanted += [names.run] if names.run else []
    if names.start_tr and names.end_tr:
        wanted += [names.start_tr, names.end_tr]
    absent = [column for column in wanted if column not in table.columns]
    if absent:
        near = difflib.get_close_matches(absent[0], list(table.columns), n=1)
        raise DataError(
            f"{path} lacks the columns {absent}; it has {list(table.columns)}",
            hint=(f"did you mean {near[0]!r}? " if near else "")
            + "name your columns under study.annotations; null for TR columns it has not",
        )


def _words(table: pd.DataFrame, names: Annotations) -> list[str]:
    texts = table[list(names.text)].fillna("").astype(str)
    return ["; ".join(part.strip() for part in row if part.strip()) for row in texts.to_numpy()]


def _column(table: pd.DataFrame, column: str, names: Annotations, path: Path) -> list[float | None]:
    return read_times(
        table[column].tolist(),
        where=f"{path}, column {column}",
        rows=_numbers(table),
        decimal_comma=names.decimal_comma,
    )


def _numbers(table: pd.DataFrame) -> list[int]:
    """Return what a spreadsheet calls each row."""
    return [int(number) + FIRST_ROW for number in table.index]


def _spoken(table: pd.DataFrame, names: Annotations, path: Path) -> list[Spoken]:
    """Return the rows that have a time.

    Raises
    ------
    DataError
        That names rows with a start and no end, or with an end that comes before the start.
    """
    starts = _column(table, names.start_seconds, names, path)
    ends = _column(table, names.duration_seconds or names.end_seconds, names, path)
    found, blank, half, back = [], [], [], []
    for row, start, end, text in zip(
        _numbers(table), starts, ends, _words(table, names), strict=True
    ):
        if start is None and end is None:
            blank += [row] if text else []
            continue
        if start is None or end is None:
            half.append(row)
            continue
        stop = start + end if names.duration_seconds else end
        back += [row] if stop <= start else []
        found.append(Spoken(start, stop, text))
    _refuse(path, half, "have a start without an end, or an end without a start",
            "fill in both, or neither for a row without a time")  # fmt: skip
    _refuse(path, back, "do not end after their start",
            f"if {names.end_seconds!r} holds durations, name it as "
            "study.annotations.duration_seconds")  # fmt: skip
    if blank:
        logger.info("%s: %d rows have words and no time, and are left out (rows %s)",
                    path, len(blank), _listed(blank))  # fmt: skip
    return found


def _refuse(path: Path, rows: Sequence[int], what: str, hint: str) -> None:
    if rows:
        raise DataError(f"{path}: {len(rows)} rows {what}: {_listed(rows)}", hint=hint)


def _listed(rows: Sequence[int]) -> str:
    more = ", ..." if len(rows) > MOST_NAMED else ""
    return ", ".join(map(str, rows[:MOST_NAMED])) + more


def _placed(spoken: Sequence[Spoken], study: Study, length: Lengths, path: Path) -> list[Segment]:
    """Return segments in TRs.

    Raises
    ------
    DataError
        When they go on after what was shown, or begin before it.
    """
    slack = study.max_trim_trs * study.tr
    last = max((one.stop for one in spoken), default=0.0)
    first = min((one.start for one in spoken), default=0.0)
    if last > length.shown * study.tr + slack or first < -slack:
        raise DataError(
            f"{path}: segments lie between {first:g} and {last:g} s; the run has "
            f"{length.shown * study.tr:g} s",
            hint="times are seconds from the run's start, not milliseconds and not counted "
            "through all runs; cut what was not shown",
        )
    return [Segment(a / study.tr, b / study.tr, t) for a, b, t in joined(spoken, study)]


def joined(spoken: Sequence[Spoken], study: Study) -> list[Spoken]:
    """Join words within the same stretch of `join_seconds` into one segment, where that is set."""
    size = study.annotations.join_seconds
    if size is None:
        return list(spoken)
    found: dict[int, list[str]] = {}
    for one in sorted(spoken):
        found.setdefault(int(one.start // size), []).append(one.text)
    return [Spoken(n * size, (n + 1) * size, " ".join(texts)) for n, texts in found.items()]


def _run_of_row(table: pd.DataFrame, study: Study, path: Path) -> np.ndarray:
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
    start = np.array(_column(table, names.start_seconds, names, path), dtype=float)
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


def _by_seconds(
    table: pd.DataFrame, study: Study, lengths: Mapping[str, Lengths], *, path: Path
) -> dict[str, list[Segment]]:
    rows = _run_of_row(table, study, path)
    found = {}
    for index, run in enumerate(study.runs):
        spoken = _spoken(table[rows == index], study.annotations, path)
        found[run.name] = _placed(spoken, study, lengths[run.name], path)
    return found


def _by_tr(
    table: pd.DataFrame, study: Study, lengths: Mapping[str, Lengths], *, path: Path
) -> dict[str, list[Segment]]:
    names = study.annotations
    assert names.start_tr and names.end_tr
    segments: dict[str, list[Segment]] = {run.name: [] for run in study.runs}
    order = list(segments)
    first = _trs(table, names.start_tr, path)
    last = _trs(table, names.end_tr, path)
    begins = np.cumsum([0, *(lengths[run].scanned for run in order)])
    if np.nanmin(first, initial=1) < 1:
        raise DataError(
            f"the column {names.start_tr!r} has a TR of {np.nanmin(first):g}; TRs count from 1",
            hint="add one to TRs that count from 0; or set study.annotations.start_tr and end_tr "
            "to null, to go by seconds",
        )
    if np.nanmax(last, initial=0) > begins[-1] + study.max_trim_trs:
        raise DataError(
            f"{path}: the column {names.end_tr!r} goes to TR {np.nanmax(last):g}; all runs have "
            f"{begins[-1]}",
            hint="check the lengths of study.runs; or set study.annotations.start_tr and end_tr "
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


def _trs(table: pd.DataFrame, column: str, path: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return a column of TRs, NaN where it is blank.

    Raises
    ------
    DataError
        That names rows which hold something else.
    """
    cells = table[column].tolist()
    numbers = pd.to_numeric(pd.Series(cells, dtype=object), errors="coerce").to_numpy(dtype=float)
    blank = [cell is None or cell != cell or not str(cell).strip() for cell in cells]
    bad = [row for row, (value, empty) in enumerate(zip(numbers, blank, strict=True), FIRST_ROW)
           if not empty and not np.isfinite(value)]  # fmt: skip
    _refuse(path, bad, f"hold no TR in the column {column!r}", "TRs are whole numbers from 1")
    return np.asarray(numbers)
