"""The scans of a study as its survey found them, and what identifies the content of their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from giblet_hpc.config.run import RunConfig
from giblet_hpc.digests import Digests
from giblet_hpc.files import sha256_json
from giblet_hpc.scans.base import Space
from giblet_hpc.scans.recordings import Scans, concatenated_spans, open_scans
from giblet_hpc.study_files import FilePattern, StudyFiles


@dataclass(frozen=True)
class StudyScans:
    """The scans of a study."""

    config: RunConfig
    files: StudyFiles
    subjects: tuple[str, ...]
    """Names of the subjects."""
    lengths: Mapping[str, int]
    """TRs of each run that are used."""
    space: Space
    """Where the targets of all of them lie."""

    def open(self, subject: str, run: str = "") -> Scans:
        """Open a subject's files: of one run, or by default of all."""
        return open_scans(subject, self.config.study, self.config.bold, self.files, only=run)

    def first_run(self, subject: str) -> str:
        """Return the first run that a subject has."""
        return next(run for run in self.lengths if self.files.of(subject, run))

    def fields(self, run: str) -> dict[str, str]:
        """Return what a run stands for in patterns of files and of arrays."""
        return next(own for own in self.config.study.runs if own.name == run).fields

    def digest(self, digests: Digests, *, subject: str, run: str) -> str:
        """Return one digest of the files of a subject's run; empty where the subject lacks it."""
        paths = self.files.of(subject, run)
        if not paths:
            return ""
        if self.config.bold.confounds:
            table = self.confounds_path(subject, run)
            # nilearn's strategies read what fMRIPrep says of the columns beside the table.
            beside = table.with_suffix(".json")
            paths = (*paths, table, *([beside] if beside.is_file() else []))
        return sha256_json([digests.of(path) for path in paths])

    def confounds_path(self, subject: str, run: str) -> Path:
        """Return the confound table of a subject's run."""
        assert self.config.bold.confounds is not None
        pattern = FilePattern(self.config.bold.confounds, self.config.study.root)
        return self.files.beside(pattern, subject, run)

    def rows_in_file(self, run: str) -> list[int]:
        """Return the first row and the end of a run in a file of all runs; empty for own files."""
        if self.config.bold.one_file_a_run:
            return []
        span = concatenated_spans(self.config.study.runs)[run]
        return [span.start, span.stop]
