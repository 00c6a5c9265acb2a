"""Annotation sheets: rows are used or named."""

from __future__ import annotations

import logging
from pathlib import Path

import openpyxl
import pandas as pd
import pytest

from giblet_hpc.config.study import Annotations, ScanRun, Study
from giblet_hpc.errors import DataError
from giblet_hpc.media.sheets import Lengths, read_segments, require_columns
from giblet_hpc.timing import Segment

COLUMNS = {"start_seconds": "onset", "end_seconds": "offset", "start_tr": None, "end_tr": None,
           "text": ("what",)}  # fmt: skip
LENGTHS = {"a": Lengths(30, 30, 30)}


def study(folder: Path, name: str, **given: object) -> Study:
    names = Annotations(**{**COLUMNS, **given})  # type: ignore[arg-type]
    run = ScanRun(name="a", annotations=Path(name))
    return Study(name="s", root=folder, tr=2.0, runs=(run,), annotations=names)


def written(folder: Path, text: str, name: str = "run.csv") -> str:
    (folder / name).write_text(text)
    return name


def test_events_of_bids(tmp_path: Path) -> None:
    name = written(tmp_path, "onset\tduration\twhat\n2\t4\tkettle\n8\t1.5\ttaxi\n", "events.tsv")
    own = study(tmp_path, name, duration_seconds="duration")
    assert read_segments(own, LENGTHS)["a"] == [Segment(1, 3, "kettle"), Segment(4, 4.75, "taxi")]


def test_cells_of_excel(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["onset", "offset", "what"])
    for row, (start, stop) in enumerate([("0:00:00", "0:00:06"), ("0:00:06", "0:01:00")], 2):
        sheet.append([None, None, "kettle"])
        for column, value in ((1, start), (2, stop)):
            cell = sheet.cell(row, column)
            cell.value = pd.Timestamp(f"1970-01-01 {value}").time()
            cell.number_format = "h:mm:ss"
    book.save(tmp_path / "RUN.XLSX")
    found = read_segments(study(tmp_path, "RUN.XLSX"), LENGTHS)["a"]
    assert found == [Segment(0, 3, "kettle"), Segment(3, 30, "kettle")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "onset,offset,what\n0,6,a\n6,twelve,b\n",
            r"column offset: 1 of 2 rows hold no time: row 3",
        ),
        ("onset,offset,what\n0,6,a\n6,,b\n", "1 rows have a start without an end.*: 3"),
        ("onset,offset,what\n0,6,a\n6,6,b\n", "1 rows do not end after their start: 3"),
        ("onset,offset,what\n0,6000,a\n", "segments lie between 0 and 6000 s; the run has 60 s"),
        ("onset,offset,what\n-100,6,a\n", "segments lie between -100 and 6 s"),
        ("onset,offset,what\n0,6,a, b\n", "1 rows have more cells than the 3 of the header: 2"),
        ("onset,offset,what\n", "cover nothing of run a"),
        ("", "lacks the columns"),
    ],
)
def test_rows_are_used_or_named(tmp_path: Path, text: str, message: str) -> None:
    own = study(tmp_path, written(tmp_path, text))
    with pytest.raises(DataError, match=message) as caught:
        read_segments(own, LENGTHS)
    assert "run" in str(caught.value)


def test_blank_rows_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = study(tmp_path, written(tmp_path, "onset,offset,what\n0,6,a\n,,not shown\n,,\n"))
    with caplog.at_level(logging.INFO):
        assert read_segments(own, LENGTHS)["a"] == [Segment(0, 3, "a")]
    assert "1 rows have words and no time, and are left out (rows 3)" in caplog.text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "onset,offset,what,\n0,6,kettle scene,\n6,12,taxi,\n"),
        ("b.csv", "onset,offset,what\n0,6,kettle scene,\n6,12,taxi,\n"),
        ("c.csv", "onset;offset;what\n0;6;kettle scene\n6;12;taxi\n"),
        ("d.TSV", "onset\toffset\twhat\n0\t6\tkettle scene\n\n6\t12\ttaxi\n"),
        ("e.csv", '\ufeffonset,offset,what\n0,6,"kettle scene"\n6,12,taxi\n'),
    ],
)
def test_ways_of_writing_the_same_sheet(tmp_path: Path, name: str, text: str) -> None:
    found = read_segments(study(tmp_path, written(tmp_path, text, name)), LENGTHS)["a"]
    assert found == [Segment(0, 3, "kettle scene"), Segment(3, 6, "taxi")]


def test_decimal_commas_where_they_are_said(tmp_path: Path) -> None:
    name = written(tmp_path, "onset;offset;what\n0;6,5;a\n6,5;12;b\n")
    with pytest.raises(DataError, match="column onset: 1 of 2 rows hold no time") as caught:
        read_segments(study(tmp_path, name), LENGTHS)
    assert "decimal_comma" in caught.value.hint
    found = read_segments(study(tmp_path, name, decimal_comma=True), LENGTHS)["a"]
    assert found == [Segment(0, 3.25, "a"), Segment(3.25, 6, "b")]


def test_annotations_may_go_on_with_the_film(tmp_path: Path) -> None:
    own = study(tmp_path, written(tmp_path, "onset,offset,what\n0,50,a\n80,180,credits\n"))
    shown = {"a": Lengths(30, 30, 100)}
    assert read_segments(own, shown)["a"] == [Segment(0, 25, "a")]


def test_words_are_joined_where_that_is_asked(tmp_path: Path) -> None:
    rows = ["0.1,0.3,a", "1.9,2.3,dog", "2.0,2.2,ran", "9.0,9.5,off"]
    name = written(tmp_path, "\n".join(["onset,offset,what", *rows]))
    found = read_segments(study(tmp_path, name, join_seconds=2.0), LENGTHS)["a"]
    assert found == [Segment(0, 1, "a dog"), Segment(1, 2, "ran"), Segment(4, 5, "off")]


def test_a_transcript_of_a_run(tmp_path: Path) -> None:
    name = written(tmp_path, "1\n00:00:02,000 --> 00:00:04,000\nHere.\n", "run.srt")
    assert read_segments(study(tmp_path, name), LENGTHS)["a"] == [Segment(1, 2, "Here.")]
    require_columns(study(tmp_path, name))
    lists = "words_per_tr\tonsets_per_tr\n['a', 'b']\t[0.2, 1.0]\n[]\t[]\n['c']\t[4.1]\n"
    found = read_segments(study(tmp_path, written(tmp_path, lists, "w.tsv")), LENGTHS)["a"]
    assert [segment.text for segment in found] == ["a", "b", "c"]
    assert found[2].start == pytest.approx(2.05)


def test_tr_columns_are_whole_numbers_within_the_runs(tmp_path: Path) -> None:
    for last, message in (("x", "1 rows hold no TR in the column 'to': 3"), (90, "goes to TR 90")):
        name = written(tmp_path, f"onset,offset,what,from,to\n0,6,a,1,3\n6,12,b,4,{last}\n")
        names = Annotations(**{**COLUMNS, "start_tr": "from", "end_tr": "to"}, file=Path(name))  # type: ignore[arg-type]
        own = Study(name="s", root=tmp_path, tr=2.0, runs=(ScanRun(name="a"),), annotations=names)
        with pytest.raises(DataError, match=message):
            read_segments(own, LENGTHS)


def test_quotation_marks_are_words_in_a_tsv(tmp_path: Path) -> None:
    words = ['"I', "am", "going", 'home"', '"quite"', '"he said ""no"""']
    rows = [f"{n}\t{n + 0.5}\t{word}" for n, word in enumerate(words)]
    name = written(tmp_path, "\n".join(["onset\toffset\twhat", *rows]), "w.tsv")
    found = read_segments(study(tmp_path, name), LENGTHS)["a"]
    assert [one.text for one in found] == ['"I', "am", "going", 'home"', "quite", 'he said "no"']


def test_an_open_quotation_mark_in_a_csv_is_named(tmp_path: Path) -> None:
    name = written(tmp_path, 'onset,offset,what\n0,6,"I\n6,12,am\n12,18,home"x\n')
    with pytest.raises(DataError, match="a quotation mark is not closed"):
        read_segments(study(tmp_path, name), LENGTHS)
