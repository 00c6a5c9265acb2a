"""Confounds of a run: columns of tables, or nilearn's strategies; and scans that they rule out."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from giblet_hpc.config.bold import Bold
from giblet_hpc.errors import DataError
from giblet_hpc.files import reading, require_file

NON_STEADY = "non_steady_state_outlier"
DISPLACEMENT = "framewise_displacement"
HEADERLESS = (".txt", ".1d", ".par")
MOST_NAMED = 8


class Regressors(NamedTuple):
    """The confounds of a file of scans."""

    values: NDArray[np.float32] | None
    """(trs, columns); None where only scans are ruled out."""
    usable: NDArray[np.bool_]
    """(trs,): not ruled out by motion, nor before the steady state."""


def read_regressors(path: Path, bold: Bold, *, scans: Path) -> Regressors:
    """Read the confounds that belong to a file of scans, for all of its rows.

    Parameters
    ----------
    path : Path
        The table.
    bold : Bold
    scans : Path
        The file of scans, by whose name nilearn finds fMRIPrep's table and its JSON.

    Raises
    ------
    DataError
        When the table or a column is missing, or holds what is no number.
    """
    table = read_table(path)
    usable = np.ones(len(table), dtype=bool)
    if bold.scrub_fd is not None:
        displaced = _columns(path, table, [DISPLACEMENT], "bold.confounds")[:, 0]
        usable &= displaced <= bold.scrub_fd
    for name in (name for name in table.columns if str(name).startswith(NON_STEADY)):
        usable &= table[name].to_numpy() == 0
    parts = []
    if bold.confound_strategy:
        parts.append(_by_strategy(path, bold, scans=scans, trs=len(table)))
    if bold.regressed_columns:
        wanted = bold.regressed_columns
        headerless = path.suffix.lower() in HEADERLESS and bold.confound_columns is None
        every = wanted == ("all",) or headerless
        names = list(table.columns) if every else list(wanted)
        parts.append(_columns(path, table, names, "bold.confound_columns"))
    return Regressors(np.concatenate(parts, axis=1) if parts else None, usable)


def require_rows(path: Path, rows: int, scans: Path, expected: int) -> None:
    """Check that a table has a row for each scan.

    Raises
    ------
    DataError
        When it has not.
    """
    if rows != expected:
        raise DataError(
            f"{path} has {rows} rows; {scans} has {expected} scans",
            hint="if leading scans were dropped, drop their rows too: rows and scans must belong "
            "together",
        )


def read_table(path: Path) -> pd.DataFrame:
    """Read a table of confounds: tab-separated with a header, or (.txt, .1D, .par) without.

    The columns of a table without a header are called 1, 2 and so on.

    Raises
    ------
    DataError
        When it is missing or is no table.
    """
    require_file(path, what="confound table")
    with reading(path, "a confound table"):
        if path.suffix.lower() in HEADERLESS:
            table = pd.read_csv(path, sep=r"\s+", header=None, comment="#", dtype=str)
            table.columns = pd.Index([str(n + 1) for n in range(table.shape[1])])
        else:
            separator = "," if path.suffix.lower() == ".csv" else "\t"
            table = pd.read_csv(path, sep=separator, index_col=False)
    if table.empty:
        raise DataError(f"{path} holds no rows", hint="copy it again")
    return table


def _columns(path: Path, table: pd.DataFrame, names: list[str], field: str) -> NDArray[np.float32]:
    """Return columns as numbers; a leading n/a, as of derivatives, becomes the first value."""
    absent = [name for name in names if name not in table.columns]
    if absent:
        raise DataError(
            f"{path} lacks the columns {absent}; it has {len(table.columns)}: "
            + ", ".join(map(str, table.columns[:MOST_NAMED])),
            hint=f"set {field} to columns it has",
        )
    values = np.empty((len(table), len(names)), dtype=np.float32)
    for number, name in enumerate(names):
        column = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64, copy=True)
        bad = np.flatnonzero(~np.isfinite(column))
        first = int(np.argmax(np.isfinite(column))) if len(bad) < len(column) else 0
        # Differences and framewise displacement have no value at the first volume.
        if len(bad) and len(bad) == first == 1:
            column[0] = column[1]
        elif len(bad):
            raise DataError(
                f"{path}: column {name} holds no number in {len(bad)} of {len(column)} rows, "
                f"such as row {bad[-1] + 1}",
                hint="repair the table, or leave the column out",
            )
        values[:, number] = column
    return values


def _by_strategy(path: Path, bold: Bold, *, scans: Path, trs: int) -> NDArray[np.float32]:
    """Return the confounds of nilearn's `load_confounds`, which reads fMRIPrep's names.

    Raises
    ------
    DataError
        When nilearn cannot find or use them.
    """
    from nilearn.interfaces.fmriprep import load_confounds

    with reading(path, "fMRIPrep's confounds", hint="name columns with bold.confound_columns"):
        found, _ = load_confounds(
            str(scans),
            strategy=bold.confound_strategy,
            motion=bold.confound_motion,
            n_compcor=bold.confound_compcor,
            demean=False,
        )
    values = np.asarray(found.to_numpy(dtype=np.float32))
    if len(values) != trs or not np.isfinite(values).all():
        raise DataError(f"{path}: nilearn makes confounds of {len(values)} rows of {trs}, or NaN")
    return values
