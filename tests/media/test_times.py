"""Times as people write them: seconds in full, or the row's number."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from giblet_hpc.errors import DataError
from giblet_hpc.media.times import read_times, seconds_of

MS = st.integers(0, 30 * 3600 * 1000 - 1)
"""Milliseconds of up to 30 hours."""


def clock(ms: int, mark: str = ".", hours: bool = True) -> str:
    seconds, rest = divmod(ms, 1000)
    minutes, s = divmod(seconds, 60)
    tail = f"{s:02d}{mark}{rest:03d}" if rest else f"{s:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{tail}" if hours else f"{minutes}:{tail}"


@given(MS)
def test_any_written_form_comes_back(ms: int) -> None:
    value = ms / 1000
    forms: list[object] = [
        value, np.float64(value), str(value), f" {value} ", f"{value} s", f"{value}s",
        f"{value:.3f} sec", f"{ms} ms", f"+{value}", f"{value:e}",
        clock(ms), clock(ms, ","), f"0{clock(ms)}", datetime.timedelta(milliseconds=ms),
    ]  # fmt: skip
    if ms < 999 * 60_000:
        forms.append(clock(ms, hours=False))
    if ms < 24 * 3_600_000:
        whole, rest = divmod(ms // 1000, 3600)
        forms.append(datetime.time(whole, rest // 60, rest % 60, 1000 * (ms % 1000)))
    for form in forms:
        found = seconds_of(form)
        assert found == pytest.approx(value, abs=1e-6 * max(1, value)), form
    assert seconds_of(f"{value:.3f}".replace(".", ","), decimal_comma=True) == pytest.approx(value)


@pytest.mark.parametrize(
    "cell",
    ["6..2", "1,020.5", "=A2+6", "six", "1:2:3:4", "0:61", "1:75:00", "--5", "inf", "nan s", "5 m",
     "1_000", "٣", True, float("-inf"), datetime.datetime(2026, 1, 2, 3), "2026-01-02", "1,5"],
)  # fmt: skip
def test_what_is_no_time_is_refused(cell: object) -> None:
    with pytest.raises(ValueError):
        seconds_of(cell)
    with pytest.raises(DataError, match=r"x.csv, column onset: 1 of 3 rows hold no time: row 7"):
        read_times([0.0, cell, 5], where="x.csv, column onset", rows=[2, 7, 9], decimal_comma=False)


@pytest.mark.parametrize("cell", [None, "", "  ", "n/a", "NaN", float("nan")])
def test_blank_cells_have_no_time(cell: object) -> None:
    assert seconds_of(cell) is None


@given(st.lists(st.one_of(st.floats(0, 1e5), st.text(max_size=12), st.none()), max_size=8))
def test_every_row_is_read_or_named(cells: list[object]) -> None:
    try:
        found = read_times(cells, where="x", rows=range(2, 2 + len(cells)), decimal_comma=False)
    except DataError as error:
        assert "rows hold no time: row " in str(error)
    else:
        assert len(found) == len(cells)
        assert all(value is None or np.isfinite(value) for value in found)


def test_minutes_and_seconds_do_not_mix_with_numbers() -> None:
    options = {"where": "x", "decimal_comma": False}
    assert read_times(["0:30", "1:02", "0"], rows=[2, 3, 4], **options) == [30, 62, 0]
    assert read_times(["59:30", "1:00:02"], rows=[2, 3], **options) == [3570, 3602]
    assert read_times(["12", "0:01:02"], rows=[2, 3], **options) == [12, 62]
    with pytest.raises(DataError, match=r"row 3 \('0:30'\)"):
        read_times(["24", "0:30"], rows=[2, 3], **options)
