"""Films and words in a folder, and which belong to which run."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from giblet_hpc.discovery.scans import FoundRun
from giblet_hpc.study_files import natural

FILMS = (".mp4", ".mkv", ".mov", ".avi", ".m4v", ".webm", ".mpg", ".mpeg", ".ts", ".wmv")
SOUNDS = (".wav", ".mp3", ".flac", ".m4a", ".ogg")
TRANSCRIPTS = (".srt", ".vtt", ".textgrid")
SHEETS = (".xlsx", ".csv", ".tsv")
NO_SHEET = re.compile(
    r"confound|participants|_scans\.|channels|regressors|mcparams|physio|regions?\.|labels?\."
)
STARTS = ("onset", "start", "start_time", "start time (s)", "begin", "start (s)", "start_seconds")
ENDS = ("offset", "end", "end_time", "end time (s)", "stop", "end (s)", "end_seconds")
LENGTHS = ("duration", "length")
TEXTS = ("text", "word", "words", "description", "caption", "transcript", "sentence", "what",
         "annotation", "scene details - a level", "scene", "label")  # fmt: skip
PER_TR = ("words_per_tr", "onsets_per_tr")


@dataclass(frozen=True)
class Columns:
    """What the columns of a sheet seem to hold."""

    start: str = ""
    end: str = ""
    duration: str = ""
    text: tuple[str, ...] = ()
    start_tr: str = ""
    end_tr: str = ""

    @property
    def usable(self) -> bool:
        """Whether segments can be placed by them."""
        return bool(self.text and self.start and (self.end or self.duration))


@dataclass(frozen=True)
class Stimuli:
    """What belongs to the runs."""

    films: dict[FoundRun, Path] = field(default_factory=dict)
    words: dict[FoundRun, Path] = field(default_factory=dict)
    sheet: Path | None = None
    """A sheet of the whole study."""
    columns: Columns | None = None
    """Of the sheets; None where there are none, or where they need no columns."""
    picture: bool = False
    """Whether the films are films, rather than sounds."""
    undecided: tuple[str, ...] = ()
    """What was found and could not be given to runs."""


def find_stimuli(folder: Path, files: Sequence[Path], runs: Sequence[FoundRun]) -> Stimuli:
    """Return the films and words of a study's runs, as far as names tell.

    Parameters
    ----------
    folder : Path
    files : sequence of Path
        Relative to it.
    runs : sequence of FoundRun
    """
    undecided: list[str] = []
    films = [path for path in files if path.suffix.lower() in FILMS]
    picture = bool(films)
    films = films or [path for path in files if path.suffix.lower() in SOUNDS]
    shown = match_runs(films, runs)
    if films and not shown:
        undecided.append(f"{_some(films)}: which film belongs to which run")
    undecided += _guess_of(shown, "films")
    transcripts = [path for path in files if path.suffix.lower() in TRANSCRIPTS]
    transcripts += [
        path for path in files if path.suffix.lower() == ".json" and _whisper(folder, path)
    ]
    words = match_runs(transcripts, runs)
    undecided += _guess_of(words, "words")
    if words:
        return Stimuli(shown, words, picture=picture, undecided=tuple(undecided))
    sheets = {
        path: columns
        for path in files
        if path.suffix.lower() in SHEETS and not NO_SHEET.search(path.name)
        if (columns := read_columns(folder / path)) is not None
    }
    one_of_trs = len(sheets) == 1 and all(columns.start_tr for columns in sheets.values())
    several = len(sheets) > 1 or (len(runs) == 1 and not one_of_trs)
    own = match_runs(list(sheets), runs) if several else {}
    undecided += _guess_of(own, "words")
    if own:
        columns = sheets[next(iter(own.values()))]
        known = columns if columns.start else None
        return Stimuli(shown, own, columns=known, picture=picture, undecided=tuple(undecided))
    if len(sheets) == 1:
        ((path, columns),) = sheets.items()
        return Stimuli(shown, sheet=path, columns=columns, picture=picture,
                       undecided=tuple(undecided))  # fmt: skip
    if sheets or transcripts:
        undecided.append(f"{_some([*sheets, *transcripts])}: which words belong to which run")
    return Stimuli(shown, picture=picture, undecided=tuple(undecided))


def match_runs(files: Sequence[Path], runs: Sequence[FoundRun]) -> dict[FoundRun, Path]:
    """Give each run a file of its own by its name; nothing where names do not tell."""
    if not files or len(files) < len(runs):
        return {}
    for rule in (_exact, _contained, _numbered):
        chosen = {run: [path for path in files if rule(path, run)] for run in runs}
        if all(len(found) == 1 for found in chosen.values()):
            paths = {run: found[0] for run, found in chosen.items()}
            if len(set(paths.values())) == len(runs):
                return paths
    if len(files) == len(runs):
        ordered = sorted(files, key=lambda path: natural(path.as_posix()))
        return dict(zip(runs, ordered, strict=True))
    return {}


def _guess_of(given: Mapping[FoundRun, Path], what: str) -> list[str]:
    """Say it where files were given to runs by the order of their names alone."""
    told = any(all(rule(path, run) for run, path in given.items())
               for rule in (_exact, _contained, _numbered))  # fmt: skip
    return [] if told or len(given) < 2 else [f"{what}: given to runs in the order of their names"]


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _exact(path: Path, run: FoundRun) -> bool:
    own = _plain(path.stem)
    return own in {
        _plain(run.name),
        _plain(run.task + run.label),
        _plain(run.label),
        _plain(run.task),
    } - {""}


def _contained(path: Path, run: FoundRun) -> bool:
    words = re.findall(r"[a-z0-9]+", path.stem.lower())
    wanted = [part.lower() for part in (run.task, run.label) if part]
    return bool(wanted) and all(any(part == word for word in words) for part in wanted)


def _numbered(path: Path, run: FoundRun) -> bool:
    """Whether the last number in a file's name is that of the run."""
    own, wanted = (re.findall(r"\d+", text) for text in (path.stem, run.label or run.name))
    return bool(own and wanted) and int(own[-1]) == int(wanted[-1])


def _whisper(folder: Path, path: Path) -> bool:
    try:
        if (folder / path).stat().st_size > 50_000_000:
            return False
        found = json.loads((folder / path).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and isinstance(found.get("segments"), list)


def read_columns(path: Path) -> Columns | None:
    """Guess what a sheet's columns hold; None where it is no sheet of words."""
    header = _header(path)
    plain = {name.strip().lower(): name.strip() for name in header}
    if set(PER_TR) <= set(plain):
        return Columns()

    def first(names: Sequence[str], test: Callable[[str], bool] = bool) -> str:
        return next((plain[name] for name in names if name in plain and test(name)), "")

    texts = [plain[name] for name in TEXTS if name in plain][:1]
    trs = [
        name
        for low, name in plain.items()
        if re.search(r"\btrs?\b", low) and ("start" in low or "end" in low)
    ]
    found = Columns(
        first(STARTS), first(ENDS), first(LENGTHS), tuple(texts),
        next((name for name in trs if "start" in name.lower()), ""),
        next((name for name in trs if "end" in name.lower()), ""),
    )  # fmt: skip
    return found if found.usable else None


def _header(path: Path) -> list[str]:
    try:
        if path.suffix.lower() == ".xlsx":
            return _workbook_header(path)
        with path.open(encoding="utf-8-sig", newline="") as handle:
            line = handle.readline(100_000)
    except (OSError, UnicodeDecodeError, ValueError):
        return []
    mark = (
        "\t" if path.suffix.lower() == ".tsv" else (";" if ";" in line and "," not in line else ",")
    )
    return next(csv.reader([line], delimiter=mark), [])


def _workbook_header(path: Path) -> list[str]:
    """Return the first row of a workbook; nothing where openpyxl is not installed."""
    try:
        from openpyxl import load_workbook
    except ImportError:
        return []
    from giblet_hpc.limits import require_workbook

    require_workbook(path)
    book = load_workbook(path, read_only=True)
    try:
        row = next(book.worksheets[0].iter_rows(max_row=1, values_only=True), ())
        return [str(cell) for cell in row if cell is not None]
    finally:
        book.close()


def _some(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - 2} more" if len(paths) > 2 else ""
    return ", ".join(path.as_posix() for path in paths[:2]) + more
