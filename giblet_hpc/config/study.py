"""A study: its files and how its time runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from giblet_hpc.config.section import Count, Name, NonNegative, Positive, Section


class ScanRun(Section):
    """One scan run: what was shown and for how long."""

    name: Name
    """Name of the run, as used in the store and, unless `label` says otherwise, for {run} in file
    names."""
    label: str | None = None
    """What {run} stands for in file names, where that is not the name."""
    task: str | None = None
    """What {task} stands for in file names. Null: the name of the run."""
    session: str | None = None
    """What {session} stands for in file names. Null: any, also another one for each subject."""
    trs: Count | None = None
    """Length of the run in TRs. Needed when one BOLD file holds all runs one after the other."""
    film: Path | None = None
    """Film with the picture and the sound of this run, relative to study.root."""
    film_start: float = 0.0
    """Position in the film, in seconds, at which the run's first TR begins. Negative when the
    film starts after the scan: the TRs before it are black and silent."""
    annotations: Path | None = None
    """Annotations of this run alone; seconds count from the run's start. A sheet (.xlsx, .csv,
    .tsv; BIDS events too), subtitles (.srt, .vtt), a .TextGrid, WhisperX's .json, or a .tsv with
    the columns words_per_tr and onsets_per_tr."""
    skip_trs: NonNegative = 0
    """Leading TRs that stay out of every split, such as a cartoon shown before each run."""

    @property
    def fields(self) -> dict[str, str]:
        """What {run}, {task} and, where it is said, {session} stand for in file patterns."""
        given = {"run": self.label or self.name, "task": self.task or self.name}
        return {**given, "session": self.session} if self.session else given


class Annotations(Section):
    """The sheet that says in words what happens when (.xlsx, .csv or .tsv)."""

    file: Path | None = None
    """Sheet of the whole study, relative to study.root."""
    text: tuple[str, ...] = ("Scene Details - A Level", "Name - All", "Location")
    """Columns whose words describe a segment; joined by '; '."""
    start_seconds: str = "Start Time (s)"
    """Column of a segment's start in seconds within its run (may restart at each run)."""
    end_seconds: str = "End Time (s)"
    """Column of a segment's end in seconds within its run."""
    duration_seconds: str | None = None
    """Column of a segment's length in seconds, in place of end_seconds (`duration` of BIDS
    events)."""
    decimal_comma: bool = False
    """Whether times in text have a comma before their decimals."""
    tier: str | None = None
    """Interval tier of TextGrids. Null: the one called word or words, else the only one."""
    join_seconds: Positive | None = None
    """Words that begin within the same stretch of so many seconds are one segment. Null: each row,
    word or line is a segment of its own."""
    start_tr: str | None = "Start Time (TRs, 1.5s)"
    """Column of the first TR, 1-based, counted through all runs. Null: use seconds only."""
    end_tr: str | None = "End Time (TRs, 1.5s)"
    """Column of the last TR, 1-based and included, counted through all runs."""
    run: str | None = None
    """Column that names a segment's run. Null: a new run begins where the seconds restart."""


class Study(Section):
    """Which files belong to the study and how its time runs."""

    name: Name
    """Name of the study."""
    root: Path = Path()
    """Folder that the study's files are relative to; itself relative to the working folder."""
    store: Path | None = None
    """Feature store. Null: `stores/<study.name>.zarr` in the working folder."""
    tr: Annotated[float, Field(gt=0, le=60)]
    """Repetition time in seconds, not milliseconds: one sample of the scans and of features."""
    runs: Annotated[tuple[ScanRun, ...], Field(min_length=1)]
    """Scan runs in the order in which they were shown."""
    subjects: Literal["all"] | Count | tuple[str, ...] = "all"
    """`all` subjects found on disk, the first N of them, or a list of their names."""
    annotations: Annotations = Annotations()
    """The annotation sheet."""
    max_trim_trs: NonNegative = 10
    """How many TRs film and scans may differ in length; the longer is cut, never stretched."""

    @field_validator("subjects", mode="before")
    @classmethod
    def _names_are_text(cls, given: object) -> object:
        if isinstance(given, list | tuple) and not all(isinstance(name, str) for name in given):
            quoted = ", ".join(f'"{name}"' for name in given)
            raise ValueError(
                "names of subjects are text, and YAML makes numbers of them: quote them as the "
                f"files write them, such as [{quoted}]"
            )
        if not isinstance(given, list | tuple | int) and given != "all":
            raise ValueError("`all`, the number of the first so many, or a list of names")
        return given
