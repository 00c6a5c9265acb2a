"""Volumes: NIfTI files to voxels over time, and back."""

from __future__ import annotations

import gzip
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import nibabel
import nibabel.fileholders
import numpy as np
from numpy.typing import NDArray

from giblet_hpc.errors import DataError
from giblet_hpc.files import atomic_path, reading, require_file
from giblet_hpc.limits import require_possible
from giblet_hpc.scans.base import Labels, Recording, Space, as_labels, spread

SLICES = 8
COPY_AGAIN = "the file was cut off or damaged, perhaps while it was copied: copy it again"
SECONDS = {"msec": 1e-3, "usec": 1e-6, "sec": 1.0}
COMPRESSED = (".gz", ".bz2", ".zst")
READ_BYTES = 1 << 22
_checked: set[tuple[str, int, int]] = set()
"""gzip files that this process has read to their end: path, size, time of change."""


@dataclass(frozen=True)
class Grid(Space):
    """The voxel grid of an image.

    Parameters
    ----------
    size : tuple of int
        Voxels along x, y, z.
    affine : tuple of tuple of float
        Voxel indices to millimetres.
    """

    kind: ClassVar[str] = "volume"
    unit: ClassVar[str] = "voxels"
    size: tuple[int, ...]
    affine: tuple[tuple[float, ...], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along x, y, z."""
        return self.size

    def attributes(self) -> dict[str, Any]:
        """Return the affine."""
        return {"affine": np.array(self.affine).tolist()}

    @classmethod
    def restored(cls, shape: Sequence[int], attributes: Mapping[str, Any]) -> Grid:
        """Return the grid of a mask."""
        return cls(tuple(shape), tuple(tuple(map(float, row)) for row in attributes["affine"]))

    def difference(self, other: Space) -> str:
        """Say how another grid differs, in shape or in place."""
        assert isinstance(other, Grid)
        if other.size != self.size:
            return f"has a grid of {other.size} voxels; the study's is {self.size}"
        if not np.allclose(other.affine, self.affine, atol=1e-2):
            return "lies elsewhere in space (its affine differs) than the study's scans"
        return ""

    def write(
        self,
        stem: Path,
        values: NDArray[np.floating],
        mask: NDArray[np.bool_],
        *,
        tr: float | None = None,
    ) -> list[Path]:
        """Write a NIfTI file, 3-D or with time last; 0 outside the mask."""
        path = stem.with_name(f"{stem.name}.nii.gz")
        volume = self.whole(values, mask)
        if values.ndim == 2:
            volume = np.moveaxis(volume, 0, -1)
        image = nibabel.Nifti1Image(volume, np.array(self.affine))
        image.header.set_xyzt_units("mm", "sec")
        if tr is not None:
            image.header.set_zooms((*image.header.get_zooms()[:3], tr))
        with atomic_path(path) as temporary:
            nibabel.save(image, temporary)
        return [path]

    def draw(
        self, values: NDArray[np.floating], mask: NDArray[np.bool_], *, limit: float, label: str
    ) -> Any:
        """Return axial slices from bottom to top, grey outside the mask."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 1.9), layout="constrained")
        volume = self.whole(values, mask, outside=np.nan)
        affine = np.array(self.affine)
        filled = np.flatnonzero(mask.any(axis=(0, 1)))
        chosen = filled[spread(len(filled), SLICES)]
        axes = figure.subplots(1, len(chosen), squeeze=False)[0]
        shown: Any = None
        for axis, z in zip(axes, chosen, strict=True):
            axis.set_facecolor("0.9")
            shown = axis.imshow(
                volume[:, :, z].T, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit
            )
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_title(f"z = {affine[2, 2] * z + affine[2, 3]:.0f} mm", fontsize=7)
        # Images are drawn by index: where x grows to the right of the subject, left is on the left.
        sides = ("L", "R") if affine[0, 0] > 0 else ("R", "L")
        for side, place, where in zip(sides, (0.03, 0.97), ("left", "right"), strict=True):
            axes[0].text(place, 0.03, side, transform=axes[0].transAxes, fontsize=8, ha=where)
        figure.colorbar(shown, ax=list(axes), fraction=0.02, label=label)
        return figure


class VolumeFile(Recording):
    """A NIfTI image, 3-D or 4-D.

    Raises
    ------
    DataError
        When it is missing or is none.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(paths)
        self._image = open_image(self.path)

    @property
    def space(self) -> Grid:
        """Its grid."""
        affine = np.round(self._image.affine, 4)
        rows = tuple(tuple(float(v) for v in row) for row in affine)
        return Grid(tuple(self._image.shape[:3]), rows)

    @property
    def trs(self) -> int:
        """Its volumes; 1 of a 3-D image."""
        return int(self._image.shape[3]) if len(self._image.shape) > 3 else 1

    @property
    def tr(self) -> float | None:
        """As its header says: many tools leave 0, or 1 s, where they do not know."""
        if len(self._image.shape) < 4:
            return None
        stated = float(self._image.header.get_zooms()[3])
        unit = self._image.header.get_xyzt_units()[1]
        if stated == 0 or (stated == 1 and unit in ("sec", "unknown")):
            return None
        return stated * SECONDS.get(unit, 1.0)

    @property
    def written_tr(self) -> float | None:
        """As its header says: 1 s counts where its unit is said."""
        if len(self._image.shape) < 4:
            return None
        stated = float(self._image.header.get_zooms()[3])
        unit = self._image.header.get_xyzt_units()[1]
        return stated * SECONDS[unit] if stated and unit in SECONDS else self.tr

    def rows(self, span: slice) -> NDArray[np.float32]:
        """Read volumes: (trs, x, y, z)."""
        return self._read(slice(*span.indices(self.trs)), complete=True)

    def sample(self, span: slice, count: int) -> NDArray[np.float32]:
        """Read some volumes: of a compressed file, which can be read from its start only, the first
        ones.
        """
        first, stop, _ = span.indices(self.trs)
        if self.path.suffix.lower() in COMPRESSED:
            return self._read(slice(first, min(stop, first + count)), complete=False)
        chosen = first + spread(stop - first, count)
        return np.concatenate([self._read(slice(t, t + 1), complete=False) for t in chosen])

    def _read(self, span: slice, *, complete: bool) -> NDArray[np.float32]:
        with reading(self.path, "NIfTI", hint=COPY_AGAIN):
            if complete and self.path.suffix.lower() == ".gz":
                values = _read_checked(self._image, self.path, span)
            else:
                values = _volumes(self._image, span)
        return np.moveaxis(values, -1, 0)

    def labels(self) -> Labels:
        """Read it as a mask or an atlas."""
        return as_labels(self._one_row())


def _volumes(image: Any, span: slice) -> NDArray[np.float32]:
    """Read (x, y, z, trs)."""
    if len(image.shape) < 4:
        return np.asarray(image.dataobj, dtype=np.float32)[..., None]
    return np.asarray(image.dataobj[..., span], dtype=np.float32)


def _read_checked(image: Any, path: Path, span: slice) -> NDArray[np.float32]:
    """Read volumes of a gzip file, and on to its end, where its checks are: CRC and length."""
    status = path.stat()
    key = (str(path), status.st_size, status.st_mtime_ns)
    with gzip.open(path) as handle:
        if isinstance(image, nibabel.Nifti1Image):
            holder = nibabel.fileholders.FileHolder(fileobj=handle)
            image = type(image).from_file_map({"image": holder})
        values = _volumes(image, span)
        while key not in _checked and handle.read(READ_BYTES):
            pass
    _checked.add(key)
    return values


def open_image(path: Path) -> Any:
    """Open a NIfTI file, 1 or 2, single or a pair.

    Raises
    ------
    DataError
        When it is missing, is none, or cannot hold what its header claims.
    """
    require_file(path, what="scan")
    with reading(path, "NIfTI", hint=COPY_AGAIN):
        image: Any = nibabel.load(path)
    if not isinstance(image, nibabel.Nifti1Pair):
        raise DataError(
            f"{path} is {type(image).__name__.removesuffix('Image')}, not NIfTI: its header says "
            "neither where voxels lie nor units",
            hint="convert it, for instance with `mri_convert IN OUT.nii.gz` or nibabel",
        )
    if not 3 <= len(image.shape) <= 4:
        raise DataError(f"{path} has {len(image.shape)} dimensions; a run of scans has 4")
    if 0 in image.shape:
        raise DataError(f"{path} is empty: its shape is {image.shape}", hint=COPY_AGAIN)
    files = image.file_map
    values = Path(files.get("image", files.get("header")).filename)
    require_possible(values, math.prod(image.shape) * image.get_data_dtype().itemsize)
    return image
