"""How large what files claim may be, before memory is taken for it; each limit has a name."""

from __future__ import annotations

import os
from pathlib import Path
from zipfile import ZipFile

from giblet_hpc.errors import DataError

DEFLATE_RATIO = 1032
"""The most that deflate, in gzip and zip, makes of a byte (zlib's own documentation)."""
DEFAULTS = {
    "GIBLET_MOST_CONFIG_MB": 1.0,
    "GIBLET_MOST_YAML_VALUES": 100_000.0,
    "GIBLET_MOST_SHEET_MB": 500.0,
}
MB = 10**6


def limit(name: str) -> float:
    """Return a limit: the environment's, or the one above."""
    return float(os.environ.get(name, DEFAULTS[name]))


def require(value: float, name: str, *, what: str) -> None:
    """Check a value against a limit.

    Raises
    ------
    DataError
        When it is larger, with the name by which the limit is raised.
    """
    if value > limit(name):
        raise DataError(
            f"{what}: {value:,.0f}, and the limit is {limit(name):,.0f}",
            hint=f"if the file is what it should be, raise the limit: {name}={value * 1.1:.0f}",
        )


def require_text(path: Path, text: str, values: float) -> None:
    """Check the size of a YAML file, and how many values it comes to when its aliases are read."""
    require(len(text) / MB, "GIBLET_MOST_CONFIG_MB", what=f"{path} has very many megabytes")
    require(values, "GIBLET_MOST_YAML_VALUES", what=f"{path} comes to very many values")


def require_workbook(path: Path) -> None:
    """Check what a spreadsheet, a zip archive, says that its parts come to.

    Raises
    ------
    DataError
        When they come to more than the limit.
    BadZipFile
        When it is none.
    """
    with ZipFile(path) as archive:
        size = sum(part.file_size for part in archive.infolist())
    require(size / MB, "GIBLET_MOST_SHEET_MB", what=f"{path} comes to very many megabytes")


def require_possible(path: Path, claimed: int) -> None:
    """Check that a file can hold as much as its header claims.

    Parameters
    ----------
    path : Path
        Compressed when its name ends in ``.gz``.
    claimed : int
        Bytes.

    Raises
    ------
    DataError
        When it cannot, whatever is in it.
    """
    size = path.stat().st_size
    most = size * DEFLATE_RATIO if path.suffix == ".gz" else size
    if claimed > most:
        raise DataError(
            f"{path} is damaged or cut short: its header claims {claimed:,} bytes, and a file of "
            f"{size:,} bytes can hold at most {most:,}",
            hint="copy or convert it again",
        )
