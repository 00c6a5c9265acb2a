"""Words and lines with their times: subtitles, TextGrid, WhisperX, lists of words by TR."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from giblet_hpc.errors import DataError
from giblet_hpc.files import read_json, reading, require_file

SUBTITLES = (".srt", ".vtt", ".ass", ".ssa")
TEXTGRID = ".textgrid"
JSON = ".json"
SUFFIXES = (*SUBTITLES, TEXTGRID, JSON)
PER_TR = ("words_per_tr", "onsets_per_tr")
"""Columns of lists, a row a TR."""
SILENCE = ("", "sp", "sil", "<sil>", "<p:>", "spn", "<unk>")
TIERS = ("word", "words")


class Spoken(NamedTuple):
    """A line or a word, in seconds from the run's start."""

    start: float
    stop: float
    text: str


def read_transcript(path: Path, *, tier: str | None = None) -> list[Spoken]:
    """Read subtitles (.srt, .vtt, .ass), a .TextGrid, or WhisperX's .json.

    Parameters
    ----------
    path : Path
    tier : str, optional
        Of a TextGrid; by default the one called word or words, else the only one.

    Raises
    ------
    DataError
        When it is missing or cannot be read.
    """
    require_file(path, what="transcript")
    suffix = path.suffix.lower()
    if suffix == JSON:
        return list(_whisper(path))
    with reading(path, "a transcript"):
        if suffix == TEXTGRID:
            return list(_textgrid(path, tier))
        return list(_subtitles(path))


def _subtitles(path: Path) -> Iterator[Spoken]:
    import pysubs2

    for line in pysubs2.load(str(path)):
        text = " ".join(line.plaintext.split())
        if text and not line.is_comment:
            yield Spoken(line.start / 1000, line.end / 1000, text)


def _textgrid(path: Path, wanted: str | None) -> Iterator[Spoken]:
    from praatio import textgrid

    grid = textgrid.openTextgrid(str(path), includeEmptyIntervals=False)
    tiers = {name: grid.getTier(name) for name in grid.tierNames}
    tiers = {name: tier for name, tier in tiers.items() if tier.tierType == "IntervalTier"}
    chosen = [name for name in tiers if name == wanted or (not wanted and name.lower() in TIERS)]
    if not chosen and not wanted and len(tiers) == 1:
        chosen = list(tiers)
    if len(chosen) != 1:
        raise DataError(
            f"{path} has the interval tiers {list(tiers)}; "
            + (f"none is {wanted!r}" if wanted else "which one holds the words?"),
            hint="name it with study.annotations.tier",
        )
    for start, stop, label in tiers[chosen[0]].entries:
        mark = label.strip()
        if mark.lower() not in SILENCE and not (mark[0] in "{<[" and mark[-1] in "}>]"):
            yield Spoken(float(start), float(stop), mark)


def _whisper(path: Path) -> Iterator[Spoken]:
    """Yield the words of WhisperX's output; a word without a time joins the one before."""
    found = read_json(path)
    with reading(path, "WhisperX's output", hint="its `segments` with start, end and text"):
        for segment in found["segments"]:
            words = segment.get("words") or []
            if not any("start" in word for word in words):
                text = str(segment["text"]).strip()
                yield Spoken(float(segment["start"]), float(segment["end"]), text)
                continue
            yield from _words(words, float(segment["start"]))


def _words(words: Sequence[dict[str, Any]], start: float) -> Iterator[Spoken]:
    current: Spoken | None = None
    before = ""
    for word in words:
        text = str(word["word"]).strip()
        if "start" not in word:
            if current is None:
                before = f"{before}{text} "
            else:
                current = current._replace(text=f"{current.text} {text}")
            continue
        if current is not None:
            yield current
        current = Spoken(float(word["start"]), float(word["end"]), before + text)
        before = ""
    assert current is not None
    yield current


def words_by_tr(path: Path, table: Any, tr: float) -> list[Spoken]:
    """Read a table of lists, a row a TR: words, onsets and where there are any durations.

    Onsets count from the run's start, or from their TR: which of both, the file itself tells.

    Parameters
    ----------
    path : Path
    table : pandas.DataFrame of str
        With the columns ``words_per_tr`` and ``onsets_per_tr``.
    tr : float
        Seconds.

    Raises
    ------
    DataError
        When lists differ in length, or onsets lie in neither place.
    """
    found: list[tuple[int, float, float, str]] = []
    with reading(path, "words by TR", hint="its cells are lists, such as ['a', 'dog']"):
        for row in range(len(table)):
            words, onsets = (ast.literal_eval(table[name][row] or "[]") for name in PER_TR)
            lengths = [0.0] * len(words)
            if "durations_per_tr" in table.columns:
                lengths = ast.literal_eval(table["durations_per_tr"][row] or "[]")
            if not len(words) == len(onsets) == len(lengths):
                raise DataError(f"{path}: row {row + 2} has {len(words)} words and "
                                f"{len(onsets)} onsets")  # fmt: skip
            found += [
                (row, float(onset), float(length), str(word))
                for word, onset, length in zip(words, onsets, lengths, strict=True)
            ]
    origin = _origin(path, found, tr)
    return [
        Spoken(onset + origin * row * tr, onset + origin * row * tr + (length or tr / 10), word)
        for row, onset, length, word in found
    ]


def _origin(path: Path, found: Sequence[tuple[int, float, float, str]], tr: float) -> int:
    """Return 0 where onsets count from the run's start, 1 where they count from their TR."""
    if not found:
        return 0
    apart = {
        origin: np.array([onset - (1 - origin) * row * tr for row, onset, _, _ in found])
        for origin in (0, 1)
    }
    # How far onsets lie outside their TR: the less, the better the origin.
    outside = {
        origin: np.maximum(0, -values) + np.maximum(0, values - tr)
        for origin, values in apart.items()
    }
    best = min(outside, key=lambda origin: float(outside[origin].sum()))
    if outside[best].max() <= tr:
        return best
    raise DataError(
        f"{path}: the onsets of words lie neither within their TR of {tr:g} s nor at their place "
        "in the run",
        hint="check study.tr, and that the table begins with the run",
    )
