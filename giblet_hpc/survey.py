"""A look at every input file's header: subjects, lengths of runs, films, annotated segments."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from giblet_hpc import timing
from giblet_hpc.config.features import FROM_FILMS
from giblet_hpc.config.run import RunConfig
from giblet_hpc.config.study import ScanRun
from giblet_hpc.errors import DataError
from giblet_hpc.media import film, sheets
from giblet_hpc.scans.files import StudyScans
from giblet_hpc.scans.recordings import Scans, hemisphere_files, open_scans
from giblet_hpc.study_files import StudyFiles
from giblet_hpc.subjects import find_subjects

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Survey:
    """The facts of a study that its arrays depend on."""

    config: RunConfig
    """What was surveyed."""
    scans: StudyScans
    """The subjects, the space of their scans, and which files hold them."""
    films: Mapping[str, film.Film]
    """What the header of each run's film says; without those that have none."""
    segments: Mapping[str, list[timing.Segment]]
    """Annotated segments of each run; empty where no modality needs them."""

    @property
    def subjects(self) -> tuple[str, ...]:
        """Names of the subjects."""
        return self.scans.subjects

    @property
    def lengths(self) -> Mapping[str, int]:
        """TRs of each run, after cutting film and scans to the same length."""
        return self.scans.lengths


def survey(config: RunConfig) -> Survey:
    """Look at every input file's header and settle the runs' lengths.

    Raises
    ------
    DataError
        When a file is missing or contradicts the others.
    """
    if missing := missing_files(config):
        raise missing[0]
    files = StudyFiles(config.study, config.bold)
    subjects = find_subjects(config.study, config.bold, files)
    scans = {name: open_scans(name, config.study, config.bold, files) for name in subjects}
    space = next(iter(scans[subjects[0]].recordings.values())).space
    for own in scans.values():
        for recording in own.recordings.values():
            space.check(recording.path, recording.space)
    films = {run.name: read_film(config, run) for run in config.study.runs if run.film}
    lengths = {
        run.name: run_length(config, run, scans=scans, shown=films.get(run.name))
        for run in config.study.runs
    }
    segments = {}
    if needed(config, "annotations"):
        segments = sheets.read_segments(config.study, sheet_lengths(config, lengths, scans, films))
    found = StudyScans(config, files, subjects, lengths, space)
    return Survey(config, found, films, segments)


def sheet_lengths(
    config: RunConfig,
    lengths: Mapping[str, int],
    scans: Mapping[str, Scans],
    films: Mapping[str, film.Film],
) -> dict[str, sheets.Lengths]:
    """Return how long each run is for its annotations."""
    found = {}
    for run in config.study.runs:
        scanned = run.trs or max(_trs_of(scans, run.name).values())
        shown = max(scanned, shown_trs(config, run, films.get(run.name)))
        found[run.name] = sheets.Lengths(lengths[run.name], scanned, shown)
    return found


def needed(config: RunConfig, *what: str) -> bool:
    """Whether any modality in use needs one of some things of each run."""
    return any(section.needs in what for section in config.features.sections.values())


def read_film(config: RunConfig, run: ScanRun) -> film.Film:
    """Read the header of a run's film.

    Raises
    ------
    DataError
        When it lacks what a modality needs of it.
    """
    assert run.film is not None
    found = film.probe(config.study.root / run.film)
    for name, section in config.features.sections.items():
        if section.needs == "picture" and not found.has_picture:
            raise DataError(
                f"{config.study.root / run.film} has no picture, which features.{name} needs",
                hint=f"point study.runs.film to a video file, or leave out features.{name}",
            )
        if section.needs == "sound" and not found.has_audio:
            raise DataError(
                f"{config.study.root / run.film} has no sound track, which features.{name} needs",
                hint=f"leave out features.{name}",
            )
    return found


def named_files(config: RunConfig) -> dict[str, list[Path]]:
    """Return the files that single fields name, by field: they are read long after the scans."""
    root = config.study.root
    given = {
        "bold.regions": config.bold.regions,
        "bold.region_names": config.bold.region_names,
        "bold.mask": config.bold.mask if config.bold.one_mask_file else None,
        "evaluate.best_r": config.evaluate.best_r,
    }
    there = {field: str(file) for field, file in given.items() if file is not None}
    found = {field: hemisphere_files(root, file) for field, file in there.items()}
    for name, section in config.features.sections.items():
        own = [path for run in config.study.runs for path in section.paths(config.study, run)]
        if own:
            found[f"features.{name}.files"] = own
    return found


def missing_files(config: RunConfig) -> list[DataError]:
    """Return an error for each of those files that is not there."""
    return [
        DataError(f"{field}: no file {path}", hint=f"correct {field}, or leave it out")
        for field, paths in named_files(config).items()
        for path in paths
        if not path.is_file()
    ]


def run_length(
    config: RunConfig, run: ScanRun, *, scans: Mapping[str, Scans], shown: film.Film | None
) -> int:
    """Return a run's TRs: the shorter of film and scans, which may differ by a little only."""
    expected = scanned_trs(config, run, scans)
    limit = config.study.max_trim_trs
    if shown is None or not needed(config, *FROM_FILMS):
        return expected
    trs = shown_trs(config, run, shown)
    if expected - trs > limit or (run.trs is None and trs - expected > limit):
        raise DataError(
            f"run {run.name}: the film lasts {trs} TRs of {config.study.tr:g} s from "
            f"{run.film_start:g} s, the scans {expected}",
            hint="check study.tr, film and film_start; give study.runs.trs when the film goes on "
            "after the scan",
        )
    if trs != expected and (run.trs is None or trs < expected):
        shorter = min(trs, expected)
        logger.info(
            "run %s: film %d TRs, scans %d TRs; cut to %d", run.name, trs, expected, shorter
        )
    return min(trs, expected)


def shown_trs(config: RunConfig, run: ScanRun, shown: film.Film | None) -> int:
    """Return how many whole TRs a run's film lasts from where the run begins; 0 without one."""
    if shown is None:
        return 0
    return int((shown.seconds - run.film_start) / config.study.tr + 1e-6)


def _trs_of(scans: Mapping[str, Scans], run: str) -> dict[str, int]:
    """Return how many TRs of a run each subject who has it was scanned for.

    Raises
    ------
    DataError
        When nobody has it.
    """
    found = {name: scan.trs(run) for name, scan in scans.items() if run in scan.recordings}
    if not found:
        raise DataError(f"nobody has scans of run {run}", hint="correct the names of study.runs")
    return found


def scanned_trs(config: RunConfig, run: ScanRun, scans: Mapping[str, Scans]) -> int:
    """Return how many TRs of a run the scans have, as the config says or the longest of them."""
    found = _trs_of(scans, run.name)
    longest = max(found.values())
    expected = run.trs or longest
    short = {name: trs for name, trs in found.items() if trs < expected}
    if expected - min(found.values()) > config.bold.max_missing_trs:
        raise DataError(
            f"run {run.name} should have {expected} TRs; these subjects have fewer: {short}",
            hint="leave them out with study.subjects, or raise bold.max_missing_trs",
        )
    if longest - expected > config.study.max_trim_trs:
        raise DataError(
            f"run {run.name}: the scans have {longest} TRs, study.runs.trs says {expected}",
            hint="correct study.runs.trs, or raise study.max_trim_trs to cut the scans",
        )
    return expected
