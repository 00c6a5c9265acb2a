"""Times as people write them in sheets, to seconds: read in full, or refused by row."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Sequence
from typing import Any

from giblet_hpc.errors import DataError

NUMBER = re.compile(
    r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)\s*(s|sec|secs|seconds|ms)?"
)
CLOCK = re.compile(r"(?:([0-9]+):)?([0-9]{1,3}):([0-9]{1,2}(?:[.,][0-9]*)?)")
BLANK = ("", "n/a", "na", "nan", "none", "null")
MOST_NAMED = 3


def seconds_of(cell: Any, *, decimal_comma: bool = False) -> float | None:
    """Return the seconds that a cell holds; None when it is blank.

    Numbers and text of numbers, with or without `s`, are seconds; `ms` is understood. Text with
    colons is m:ss or h:mm:ss, a cell of Excel's time format is h:mm:ss.

    Parameters
    ----------
    cell : object
        As pandas reads it, without conversion.
    decimal_comma : bool
        Whether text has a comma before the decimals.

    Raises
    ------
    ValueError
        When it is no time.
    """
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return None
    if isinstance(cell, datetime.timedelta):
        return cell.total_seconds()
    if isinstance(cell, datetime.time):
        return cell.hour * 3600 + cell.minute * 60 + cell.second + cell.microsecond / 1e6
    if isinstance(cell, datetime.date | bool):
        raise ValueError(cell)
    if isinstance(cell, str):
        return _of_text(cell, decimal_comma=decimal_comma)
    value = float(cell)
    if not math.isfinite(value):
        raise ValueError(cell)
    return value


def _of_text(cell: str, *, decimal_comma: bool) -> float | None:
    text = cell.strip().casefold()
    if text in BLANK:
        return None
    if clock := CLOCK.fullmatch(text):
        hours, minutes = int(clock[1] or 0), int(clock[2])
        seconds = float(clock[3].replace(",", "."))
        if seconds >= 60 or (clock[1] is not None and minutes >= 60):
            raise ValueError(cell)
        return hours * 3600 + minutes * 60 + seconds
    if decimal_comma:
        if "." in text:
            raise ValueError(cell)
        text = text.replace(",", ".", 1)
    number = NUMBER.fullmatch(text)
    if number is None or not math.isfinite(float(number[1])):
        raise ValueError(cell)
    return float(number[1]) / (1000 if number[2] == "ms" else 1)


def _is_number(cell: Any) -> bool:
    """Whether a cell holds a number other than 0, as a number or as text."""
    text = str(cell).strip().casefold()
    return NUMBER.fullmatch(text) is not None and text.strip("0.") != ""


def read_times(
    cells: Sequence[Any], *, where: str, rows: Sequence[int], decimal_comma: bool
) -> list[float | None]:
    """Return the seconds of a column; None where it is blank.

    Parameters
    ----------
    cells : sequence
    where : str
        File and column, for messages.
    rows : sequence of int
        What each row is called.
    decimal_comma : bool

    Raises
    ------
    DataError
        That names the rows which hold something else.
    """
    found: list[float | None] = []
    bad: list[str] = []
    # 0:30 beside 24 may be 30 seconds or half an hour: m:ss is for columns without plain numbers.
    plain = any(_is_number(cell) for cell in cells)
    for row, cell in zip(rows, cells, strict=True):
        try:
            if plain and isinstance(cell, str) and cell.count(":") == 1:
                raise ValueError(cell)
            found.append(seconds_of(cell, decimal_comma=decimal_comma))
        except ValueError:
            bad.append(f"row {row} ({str(cell)[:30]!r})")
    if bad:
        more = f" and {len(bad) - MOST_NAMED} more" if len(bad) > MOST_NAMED else ""
        raise DataError(
            f"{where}: {len(bad)} of {len(cells)} rows hold no time: "
            + ", ".join(bad[:MOST_NAMED])
            + more,
            hint="times are seconds or h:mm:ss, or m:ss in the whole column; for decimal commas "
            "set study.annotations.decimal_comma",
        )
    return found
