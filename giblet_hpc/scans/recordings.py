"""Which kind of scans a file is; and one subject's runs, whatever their kind."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.config.bold import Bold
from giblet_hpc.config.study import ScanRun, Study
from giblet_hpc.errors import ConfigError, DataError
from giblet_hpc.scans import base, cifti, surfaces, tables, volumes
from giblet_hpc.scans.base import Labels, Recording, Space
from giblet_hpc.study_files import HEMISPHERES, StudyFiles

SPACES: dict[str, type[Space]] = {
    kind.kind: kind
    for kind in (volumes.Grid, surfaces.Surface, cifti.Grayordinates, tables.Columns)
}
CIFTI = (".dtseries.nii", ".dscalar.nii", ".dlabel.nii")
TABLES = (*tables.HDF5, *tables.TEXT, ".npy", ".npz")
TR_TOLERANCE = 1e-3
CODE = (base, cifti, surfaces, tables, volumes)
"""What the values that are read depend on."""


def open_recording(paths: Sequence[Path], dataset: Any = None) -> Recording:
    """Open a file of scans, or the pair of a surface, by the end of its name.

    Parameters
    ----------
    paths : sequence of Path
    dataset : callable, optional
        As of `tables.TableFile`.

    Raises
    ------
    DataError
        When it cannot be read.
    """
    name = paths[0].name.lower()
    if name.endswith(CIFTI):
        return cifti.CiftiFile(paths)
    if name.endswith(".gii"):
        return surfaces.SurfaceFile(paths)
    if name.endswith(TABLES):
        return tables.TableFile(paths, dataset)
    return volumes.VolumeFile(paths)


def restored_space(shape: Sequence[int], attributes: Mapping[str, Any]) -> Space:
    """Return the space of a stored mask."""
    return SPACES[attributes["kind"]].restored(shape, attributes)


def stored_space(space: Space) -> dict[str, Any]:
    """Return the attributes from which `restored_space` makes a space again."""
    return {"kind": space.kind, **space.attributes()}


def read_labels(root: Path, pattern: str, space: Space) -> Labels:
    """Read a mask or an atlas that belongs to a space.

    Parameters
    ----------
    root : Path
    pattern : str
        Of one file, or with {hemi} of two.
    space : Space

    Raises
    ------
    DataError
        When it cannot be read, or belongs to another space.
    """
    paths = hemisphere_files(root, pattern)
    recording = open_recording(paths)
    labels = recording.labels()
    if recording.space.kind == "table" and labels.values.shape == space.shape:
        return labels
    space.check(paths[0], recording.space)
    return labels


def hemisphere_files(root: Path, pattern: str) -> list[Path]:
    """Return the file that a pattern names, or with {hemi} the two, left first."""
    if "{hemi}" in pattern:
        return [root / pattern.replace("{hemi}", side) for side in HEMISPHERES]
    return [root / pattern]


@dataclass(frozen=True)
class Scans:
    """One subject's runs, opened and not read."""

    recordings: Mapping[str, Recording]
    """The file of each run that the subject has; several runs may share one."""
    spans: Mapping[str, slice]
    """Which rows of its file belong to a run."""
    tr: float
    """Seconds: of the study, and of files that do not say."""
    resample: bool = False
    """Whether files may have another TR: what they say is then taken at its word."""

    def rows(self, run: str) -> NDArray[np.float32]:
        """Read a run: (trs, *shape of the space)."""
        return self.recordings[run].rows(self.spans[run])

    def sample(self, run: str, count: int) -> NDArray[np.float32]:
        """Read some rows of a run, without reading much else."""
        return self.recordings[run].sample(self.spans[run], count)

    def scanned(self, run: str) -> int:
        """Return how many rows a run has."""
        return len(range(*self.spans[run].indices(self.recordings[run].trs)))

    def file_tr(self, run: str) -> float:
        """Return the seconds of a row."""
        recording = self.recordings[run]
        stated = recording.written_tr if self.resample else recording.tr
        return self.tr if stated is None or abs(stated - self.tr) <= TR_TOLERANCE else stated

    def trs(self, run: str) -> int:
        """Return how many TRs of the study a run has."""
        rows, own = self.scanned(run), self.file_tr(run)
        return rows if own == self.tr else int(rows * own / self.tr + 1e-6)


def open_scans(
    subject: str, study: Study, bold: Bold, files: StudyFiles, *, only: str = ""
) -> Scans:
    """Open a subject's files and check their space and repetition time.

    Parameters
    ----------
    subject : str
    study : Study
    bold : Bold
    files : StudyFiles
    only : str
        The run that is opened; by default all.

    Raises
    ------
    DataError
        When a file is missing, cannot be read, or has another TR than the study.
    """
    opened: dict[Any, Recording] = {}
    recordings = {}
    for run in study.runs:
        if only and run.name != only:
            continue
        key = (files.of(subject, run.name), run.name if bold.dataset else "")
        if key not in opened:
            recording = open_run(subject, run, study, bold, files=files)
            if recording is None:
                continue
            opened[key] = recording
        recordings[run.name] = opened[key]
    if bold.one_file_a_run:
        return Scans(recordings, {run: slice(None) for run in recordings}, study.tr, bold.resample)
    return Scans(recordings, concatenated_spans(study.runs), study.tr)


def open_run(
    subject: str, run: ScanRun, study: Study, bold: Bold, *, files: StudyFiles
) -> Recording | None:
    """Open the file that holds a subject's run; None where the subject lacks it.

    Raises
    ------
    DataError
        When it is missing, cannot be read, or has another TR than the study.
    """
    paths = files.of(subject, run.name)
    if not paths:
        return None
    recording = open_recording(paths, _chooser(bold, subject, run))
    _check(recording, study.tr, resample=bold.resample)
    return recording


def _chooser(bold: Bold, subject: str, run: ScanRun) -> Any:
    """Return what finds a run's array among those of a file."""
    if bold.dataset is None:
        return None
    given = {**run.fields, "subject": subject}
    text = re.sub(r"\{([a-z]+)\}", lambda part: given.get(part[1], "*"), bold.dataset)
    regex = re.compile(".*".join(re.escape(piece) for piece in text.split("*")))

    def choose(path: Path, names: Sequence[str]) -> str:
        fitting = [name for name in names if regex.fullmatch(name)]
        if len(fitting) == 1:
            return fitting[0]
        raise DataError(
            f"{path}: {len(fitting) or 'none'} of its arrays fit bold.dataset {text!r}; it holds "
            f"{', '.join(sorted(names)[:6])}",
            hint="correct bold.dataset, or the names of study.runs",
        )

    return choose


def _check(recording: Recording, tr: float, *, resample: bool) -> None:
    stated = recording.tr
    if recording.trs < 2:
        raise DataError(f"{recording.path} holds one volume; a run of scans has many")
    if stated is not None and abs(stated - tr) > TR_TOLERANCE and not resample:
        raise DataError(
            f"{recording.path} has a TR of {stated:g} s; the config says {tr:g} s",
            hint="correct study.tr, or the header if it is wrong; bold.resample brings scans of "
            "several TRs to one",
        )


def concatenated_spans(runs: Sequence[ScanRun]) -> dict[str, slice]:
    """Return which rows belong to each run in a file that holds all of them.

    Raises
    ------
    ConfigError
        When a run's length is not given.
    """
    spans, start = {}, 0
    for run in runs:
        if run.trs is None:
            raise ConfigError(
                f"study.runs {run.name}: `trs` is needed, because bold.files has no {{run}} and "
                "so each file holds all runs one after the other"
            )
        spans[run.name] = slice(start, start + run.trs)
        start += run.trs
    return spans
