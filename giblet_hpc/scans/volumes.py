"""Volumes: NIfTI files to voxels over time, and back."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import nibabel.filebasedimages
import numpy as np
from numpy.typing import NDArray

from giblet_hpc.config.bold import Bold
from giblet_hpc.config.study import ScanRun, Study
from giblet_hpc.errors import ConfigError, DataError
from giblet_hpc.files import require_file
from giblet_hpc.limits import require_possible

TR_TOLERANCE = 1e-3


class Grid(NamedTuple):
    """The voxel grid of an image."""

    shape: tuple[int, ...]
    """Voxels along x, y, z."""
    affine: tuple[tuple[float, ...], ...]
    """Voxel indices to millimetres."""


@dataclass(frozen=True)
class Scans:
    """One subject's runs, still as images.

    Parameters
    ----------
    images : dict of str to nibabel image
        A 4-D image for each run; several runs may share one file.
    spans : dict of str to slice
        Which volumes of its image belong to a run.
    """

    images: dict[str, Any]
    spans: dict[str, slice]

    def volumes(self, run: str) -> NDArray[np.float32]:
        """Read a run: (x, y, z, trs), float32, scaled as the header says.

        Raises
        ------
        DataError
            When the file ends too early.
        """
        image = self.images[run]
        try:
            return np.asarray(image.dataobj[..., self.spans[run]], dtype=np.float32)
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(
                f"{image.get_filename()}: the scans of run {run} cannot be read: {error}",
                hint="the file was cut off, perhaps while it was copied: copy it again",
            ) from None

    def sample(self, run: str, count: int) -> NDArray[np.float32]:
        """Read some volumes of a run: (x, y, z, count), without reading much else.

        Evenly spread ones; of a compressed file, which can be read from its start only, the first.

        Raises
        ------
        DataError
            When the file ends too early.
        """
        image, trs = self.images[run], self.trs(run)
        first = self.spans[run].indices(image.shape[3])[0]
        chosen = np.linspace(0, trs - 1, min(count, trs)).round().astype(int)
        name = str(image.file_map["image"].filename or "")
        if name.endswith((".gz", ".bz2", ".zst")):
            chosen = np.arange(min(count, trs))
        try:
            found = [np.asarray(image.dataobj[..., int(first + tr)]) for tr in chosen]
        except (EOFError, OSError, zlib.error) as error:
            raise DataError(
                f"{name}: the scans of run {run} cannot be read: {error}",
                hint="the file was cut off, perhaps while it was copied: copy it again",
            ) from None
        return np.stack(found, axis=-1).astype(np.float32)

    def trs(self, run: str) -> int:
        """Return how many volumes a run has."""
        length = self.images[run].shape[3]
        span = self.spans[run]
        return len(range(*span.indices(length)))


def scan_files(subject: str, study: Study, bold: Bold) -> dict[str, Path]:
    """Return the file that holds each run of a subject."""
    return {
        run.name: study.root / bold.files.format(subject=subject, run=run.name)
        for run in study.runs
    }


def open_scans(subject: str, study: Study, bold: Bold) -> Scans:
    """Open a subject's files and check their shape and repetition time.

    Raises
    ------
    DataError
        When a file is missing, is no 4-D NIfTI, or has another TR than the study.
    """
    files = scan_files(subject, study, bold)
    opened = {path: open_image(path) for path in set(files.values())}
    for path, image in opened.items():
        if len(image.shape) != 4:
            raise DataError(f"{path} has {len(image.shape)} dimensions; a run of scans has 4")
        _check_tr(path, image, study.tr)
    images = {run: opened[path] for run, path in files.items()}
    if "{run}" in bold.files:
        return Scans(images, {run: slice(None) for run in images})
    return Scans(images, concatenated_spans(study.runs))


def concatenated_spans(runs: Sequence[ScanRun]) -> dict[str, slice]:
    """Return which volumes belong to each run in a file that holds all of them.

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


def open_image(path: Path) -> Any:
    """Open a NIfTI file.

    Raises
    ------
    DataError
        When it is missing or is none.
    """
    require_file(path, what="scan")
    try:
        image: Any = nibabel.load(path)
    except (nibabel.filebasedimages.ImageFileError, OSError, ValueError, EOFError) as error:
        raise DataError(f"cannot read {path} as NIfTI: {error}") from None
    files = image.file_map
    values = Path(files.get("image", files.get("header")).filename)
    require_possible(values, math.prod(image.shape) * image.get_data_dtype().itemsize)
    return image


def _check_tr(path: Path, image: Any, tr: float) -> None:
    header = float(image.header.get_zooms()[3])
    unit = image.header.get_xyzt_units()[1]
    seconds = header / {"msec": 1e3, "usec": 1e6}.get(unit, 1.0)
    # Many tools leave 0 or 1 where they do not know; only a stated, other TR is a contradiction.
    if seconds not in (0.0, 1.0) and abs(seconds - tr) > TR_TOLERANCE:
        raise DataError(
            f"{path} has a TR of {seconds:g} s; the config says {tr:g} s",
            hint="correct study.tr, or the header if it is wrong",
        )


def grid_of(image: Any) -> Grid:
    """Return an image's voxel grid."""
    affine = np.round(image.affine, 4)
    return Grid(tuple(image.shape[:3]), tuple(tuple(float(v) for v in row) for row in affine))


def check_grid(path: Path | str, image: Any, expected: Grid) -> None:
    """Check that an image lies on the expected grid.

    Raises
    ------
    DataError
        When its shape or its affine differ.
    """
    found = grid_of(image)
    if found.shape != expected.shape:
        raise DataError(
            f"{path} has a grid of {found.shape} voxels; the study's is {expected.shape}",
            hint="resample it, for instance with nilearn.image.resample_to_img",
        )
    if not np.allclose(found.affine, expected.affine, atol=1e-2):
        raise DataError(
            f"{path} lies elsewhere in space (its affine differs) than the study's scans",
            hint="resample it, for instance with nilearn.image.resample_to_img",
        )


def load_labels(path: Path, expected: Grid) -> NDArray[np.int32]:
    """Read a NIfTI of integers (a mask, an atlas) on the study's grid."""
    image = open_image(path)
    check_grid(path, image, expected)
    return np.asarray(np.round(image.get_fdata()), dtype=np.int32).reshape(expected.shape)


def to_image(values: NDArray[Any], mask: NDArray[np.bool_], grid: Grid) -> Any:
    """Put voxel values back into space.

    Parameters
    ----------
    values : ndarray, shape (voxels,) or (trs, voxels)
    mask : ndarray, shape (x, y, z)
    grid : Grid

    Returns
    -------
    nibabel.Nifti1Image
        3-D, or 4-D with time last; 0 outside the mask.
    """
    volume = np.zeros((*grid.shape, *values.shape[:-1]), dtype=np.float32)
    volume[mask] = values.T
    return nibabel.Nifti1Image(volume, np.array(grid.affine))
