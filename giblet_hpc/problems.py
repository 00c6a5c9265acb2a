"""All that is wrong with a study's files, as far as can be known before any work."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from giblet_hpc import survey
from giblet_hpc.config.run import RunConfig
from giblet_hpc.config.study import ScanRun
from giblet_hpc.errors import DataError, GibletError
from giblet_hpc.media import film, sheets
from giblet_hpc.scans import confounds, masks
from giblet_hpc.scans.base import Recording, Space
from giblet_hpc.scans.files import StudyScans
from giblet_hpc.scans.recordings import Scans, concatenated_spans, open_run, read_labels
from giblet_hpc.study_files import FilePattern, StudyFiles
from giblet_hpc.subjects import find_subjects

MOST_NAMED = 30


def problems(config: RunConfig) -> list[DataError]:
    """Return all that is wrong with a study's files, where `survey` stops at the first.

    Headers of scans and films, all tables and sheets, masks and atlases; scans themselves are not
    read.
    """
    return _Study(config).problems()


def require_sound(config: RunConfig, *, hint: str = "") -> None:
    """Check a study's files.

    Parameters
    ----------
    config : RunConfig
    hint : str
        What else to do about several problems.

    Raises
    ------
    DataError
        That names all that is wrong.
    """
    found = problems(config)
    if len(found) == 1:
        raise found[0]
    if found:
        lines = [f"{error}" + (f" ({error.hint})" if error.hint else "") for error in found]
        more = [f"and {len(lines) - MOST_NAMED} more"] if len(lines) > MOST_NAMED else []
        root = f"{config.study.root}/"
        text = "\n  ".join(lines[:MOST_NAMED] + more).replace(root, "")
        raise DataError(f"{len(found)} problems with the study's files:\n  {text}", hint=hint)


class _Study:
    """The files of a study, looked at one by one."""

    def __init__(self, config: RunConfig) -> None:
        self._config, self._found = config, dict[str, DataError]()
        self._recordings: dict[str, dict[str, Recording]] = {}
        self._films: dict[str, film.Film] = {}

    def problems(self) -> list[DataError]:
        """Look at everything; return what is wrong, each thing once."""
        config = self._config
        for missing in survey.missing_files(config):
            self._note(missing)
        subjects: tuple[str, ...] = ()
        files = StudyFiles(config.study, config.bold)
        with self._noting():
            subjects = find_subjects(config.study, config.bold, files)
        for subject in subjects:
            for run in config.study.runs:
                with self._noting():
                    self._open(subject, run, files)
        space = self._spaces()
        for run in config.study.runs:
            with self._noting():
                if run.film:
                    self._films[run.name] = survey.read_film(config, run)
        self._tables(files)
        if space is not None:
            self._labels(StudyScans(config, files, subjects, {}, space))
        self._runs_and_sheets()
        return list(self._found.values())

    def _note(self, error: GibletError) -> None:
        found = error if isinstance(error, DataError) else DataError(str(error), hint=error.hint)
        self._found.setdefault(str(found), found)

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except GibletError as error:
            self._note(error)

    def _open(self, subject: str, run: ScanRun, files: StudyFiles) -> None:
        recording = open_run(subject, run, self._config.study, self._config.bold, files=files)
        if recording is not None:
            self._recordings.setdefault(subject, {})[run.name] = recording

    def _spaces(self) -> Space | None:
        """Compare all spaces with the first."""
        first: Space | None = None
        for own in self._recordings.values():
            for recording in own.values():
                first = first or recording.space
                with self._noting():
                    first.check(recording.path, recording.space)
        return first

    def _tables(self, files: StudyFiles) -> None:
        """Read the tables of confounds and compare their rows with the scans."""
        bold = self._config.bold
        if bold.confounds is None:
            return
        pattern = FilePattern(bold.confounds, self._config.study.root)
        spans: dict[str, slice] = {}
        if bold.confounds_by_run and not bold.one_file_a_run:
            with self._noting():
                spans = concatenated_spans(self._config.study.runs)
        for subject, own in self._recordings.items():
            for run, recording in own.items():
                with self._noting():
                    table = files.beside(pattern, subject, run)
                    rows = confounds.read_regressors(table, bold, scans=recording.path).usable
                    span = spans.get(run, slice(None)).indices(recording.trs)
                    expected = len(range(*span))
                    confounds.require_rows(table, len(rows), recording.path, expected)

    def _labels(self, scans: StudyScans) -> None:
        """Read masks and atlases, which are small."""
        config = self._config
        regions, names = config.bold.regions, config.bold.region_names
        there = {field for field, paths in survey.named_files(config).items()
                 if all(path.is_file() for path in paths)}  # fmt: skip
        with self._noting():
            if regions and "bold.regions" in there:
                read_labels(config.study.root, regions, scans.space)
        with self._noting():
            if names and "bold.region_names" in there:
                masks.region_names(config.study.root / names)
        with self._noting():
            if "bold.mask" in there:
                read_labels(config.study.root, config.bold.mask, scans.space)

    def _runs_and_sheets(self) -> None:
        """Compare lengths, and read the annotations of runs whose length is known."""
        config = self._config
        scans: dict[str, Scans] = {}
        with self._noting():
            for subject, own in self._recordings.items():
                spans = {run: slice(None) for run in own}
                if not config.bold.one_file_a_run:
                    spans = concatenated_spans(config.study.runs)
                scans[subject] = Scans(own, spans, config.study.tr, config.bold.resample)
        lengths: dict[str, int] = {}
        for run in config.study.runs:
            if not any(run.name in own for own in self._recordings.values()) and self._found:
                # Why nobody has scans of it has been said.
                continue
            with self._noting():
                survey.scanned_trs(config, run, scans)
            with self._noting():
                if run.film is None or run.name in self._films:
                    shown = self._films.get(run.name)
                    lengths[run.name] = survey.run_length(config, run, scans=scans, shown=shown)
        if not survey.needed(config, "annotations"):
            return
        if len(lengths) < len(config.study.runs):
            for study in sheets.single_runs(config.study):
                with self._noting():
                    sheets.require_columns(study)
            return
        known = survey.sheet_lengths(config, lengths, scans, self._films)
        for study in sheets.single_runs(config.study):
            with self._noting():
                sheets.read_segments(study, {run.name: known[run.name] for run in study.runs})
