"""Words and lines of other tools' files."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from praatio import textgrid

from giblet_hpc.errors import DataError
from giblet_hpc.media.transcripts import Spoken, read_transcript, words_by_tr

SRT = """1
00:00:01,500 --> 00:00:03,000
<i>Where</i> is
the kettle?

2
00:01:02,250 --> 00:01:04,000
Here.
"""
LINES = [Spoken(1.5, 3.0, "Where is the kettle?"), Spoken(62.25, 64.0, "Here.")]


@pytest.mark.parametrize("suffix", [".srt", ".SRT", ".vtt"])
def test_subtitles(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"film{suffix}"
    body = SRT.replace(",", ".") if suffix == ".vtt" else SRT
    path.write_text(("WEBVTT\n\n" if suffix == ".vtt" else "") + body)
    assert read_transcript(path) == LINES


def write_grid(path: Path, **tiers: list[tuple[float, float, str]]) -> None:
    grid = textgrid.Textgrid()
    for name, entries in tiers.items():
        grid.addTier(textgrid.IntervalTier(name, entries, 0, 10))
    grid.save(str(path), format="long_textgrid", includeBlankSpaces=True)


WORDS = [(0.5, 0.9, "I"), (0.9, 1.4, "sp"), (1.5, 2.0, "{BR}"), (2.0, 2.75, "ran")]


def test_the_words_of_a_textgrid(tmp_path: Path) -> None:
    path = tmp_path / "story.TextGrid"
    write_grid(path, phone=[(0.5, 0.6, "AY")], word=WORDS)
    assert read_transcript(path) == [Spoken(0.5, 0.9, "I"), Spoken(2.0, 2.75, "ran")]
    assert read_transcript(path, tier="phone") == [Spoken(0.5, 0.6, "AY")]
    write_grid(path, speech=WORDS)
    assert [one.text for one in read_transcript(path)] == ["I", "ran"]
    write_grid(path, a=WORDS, b=WORDS)
    with pytest.raises(
        DataError, match=r"has the interval tiers \['a', 'b'\]; which one"
    ) as caught:
        read_transcript(path)
    assert "study.annotations.tier" in caught.value.hint


def test_words_of_whisperx(tmp_path: Path) -> None:
    path = tmp_path / "story.json"
    words = [{"word": "In"}, {"word": "the", "start": 1.0, "end": 1.2}, {"word": "1920s"},
             {"word": "rain", "start": 2.0, "end": 2.5}]  # fmt: skip
    segments = [{"start": 0.9, "end": 2.5, "text": "In the 1920s rain", "words": words},
                {"start": 4.0, "end": 5.0, "text": " And then."}]  # fmt: skip
    path.write_text(json.dumps({"segments": segments}))
    assert read_transcript(path) == [
        Spoken(1.0, 1.2, "In the 1920s"), Spoken(2.0, 2.5, "rain"), Spoken(4.0, 5.0, "And then."),
    ]  # fmt: skip


def table(**columns: list[object]) -> pd.DataFrame:
    return pd.DataFrame({name: [str(cell) for cell in cells] for name, cells in columns.items()})


def test_words_by_tr_count_from_the_run_or_from_their_tr() -> None:
    words = [["a", "dog"], [], ["it's"]]
    lengths = [[0.2, 0.3], [], [0.1]]
    own = table(words_per_tr=words, onsets_per_tr=[[0.1, 1.0], [], [0.5]], durations_per_tr=lengths)
    run = table(words_per_tr=words, onsets_per_tr=[[0.1, 1.0], [], [20.5 - 17.5 + 0.5]],
                durations_per_tr=lengths)  # fmt: skip
    expected = [Spoken(0.1, 0.1 + 0.2, "a"), Spoken(1.0, 1.3, "dog"), Spoken(3.5, 3.6, "it's")]
    for given in (own, run):
        found = words_by_tr(Path("w.tsv"), given, 1.5)
        assert [one.text for one in found] == ["a", "dog", "it's"]
        for one, other in zip(found, expected, strict=True):
            assert (one.start, one.stop) == pytest.approx((other.start, other.stop))
    far = table(words_per_tr=[["a"]], onsets_per_tr=[[700.0]])
    with pytest.raises(DataError, match="lie neither within their TR"):
        words_by_tr(Path("w.tsv"), far, 1.5)
    uneven = table(words_per_tr=[["a", "b"]], onsets_per_tr=[[0.1]])
    with pytest.raises(DataError, match="row 2 has 2 words and 1 onsets"):
        words_by_tr(Path("w.tsv"), uneven, 1.5)
    code = table(words_per_tr=["__import__('os')"], onsets_per_tr=[[0.1]])
    with pytest.raises(DataError, match="cannot be read as words by TR"):
        words_by_tr(Path("w.tsv"), code, 1.5)


@pytest.mark.parametrize("name", ["x.srt", "x.TextGrid", "x.json"])
def test_files_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="not found"):
        read_transcript(tmp_path / name)
    (tmp_path / name).write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(DataError, match=name):
        read_transcript(tmp_path / name)


def test_words_in_the_first_trs_alone_count_from_their_tr() -> None:
    own = table(words_per_tr=[["a"], ["b"], []], onsets_per_tr=[[0.2], [0.4], []])
    assert [round(one.start, 3) for one in words_by_tr(Path("w.tsv"), own, 1.5)] == [0.2, 1.9]
    run = table(words_per_tr=[["a"], ["b"], []], onsets_per_tr=[[0.2], [1.9], []])
    assert [round(one.start, 3) for one in words_by_tr(Path("w.tsv"), run, 1.5)] == [0.2, 1.9]
