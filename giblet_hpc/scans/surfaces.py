"""Surfaces: pairs of GIFTI files, one for each hemisphere, to vertices over time, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import nibabel
import nibabel.gifti
import numpy as np
from numpy.typing import NDArray

from giblet_hpc.errors import DataError
from giblet_hpc.files import atomic_path, reading, require_file
from giblet_hpc.scans.base import Labels, Recording, Space, as_labels, mask_pieces
from giblet_hpc.scans.flat import strip_figure

SIDES = ("L", "R")
STRUCTURES = {"L": "CortexLeft", "R": "CortexRight"}
FSAVERAGE5 = 10_242
FSAVERAGE = (10_242, 40_962, 163_842)
"""Vertices of fsaverage5, 6 and 7: each begins with those of the one before."""
HEAD_BYTES = 1 << 22
"""Of a file, in which its values begin."""
FIRST_MS = 100.0
"""A stated time between rows from this on is in milliseconds."""


@dataclass(frozen=True)
class Surface(Space):
    """The vertices of both hemispheres, left first.

    Parameters
    ----------
    vertices : tuple of int
        Of the left and of the right hemisphere.
    mesh : str
        Name of the mesh, from `space-` in the files' names; empty where they do not say.
    """

    kind: ClassVar[str] = "surface"
    unit: ClassVar[str] = "vertices"
    vertices: tuple[int, int]
    mesh: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Vertices of both hemispheres."""
        return (sum(self.vertices),)

    def attributes(self) -> dict[str, Any]:
        """Return the number of vertices of each hemisphere, and the mesh."""
        return {"vertices": list(self.vertices), "mesh": self.mesh}

    @classmethod
    def restored(cls, shape: Sequence[int], attributes: Mapping[str, Any]) -> Surface:
        """Return the surface of a mask."""
        left, right = attributes["vertices"]
        return cls((int(left), int(right)), str(attributes["mesh"]))

    def difference(self, other: Space) -> str:
        """Say how another surface differs, in vertices or in mesh."""
        assert isinstance(other, Surface)
        if other.vertices != self.vertices:
            return f"has {other.vertices} vertices (left, right); the study's have {self.vertices}"
        if other.mesh and self.mesh and other.mesh != self.mesh:
            return f"lies on {other.mesh}; the study's scans on {self.mesh}"
        return ""

    def write(
        self,
        stem: Path,
        values: NDArray[np.floating],
        mask: NDArray[np.bool_],
        *,
        tr: float | None = None,
    ) -> list[Path]:
        """Write `STEM_hemi-L.func.gii` and `STEM_hemi-R.func.gii`; 0 outside the mask."""
        written = []
        rows = np.atleast_2d(self.whole(values, mask))
        begin = 0
        for side, count in zip(SIDES, self.vertices, strict=True):
            path = stem.with_name(f"{stem.name}_hemi-{side}.func.gii")
            meta = {"AnatomicalStructurePrimary": STRUCTURES[side]}
            if tr is not None:
                meta["TimeStep"] = f"{1000 * tr:f}"
            arrays = [
                nibabel.gifti.GiftiDataArray(
                    np.ascontiguousarray(row[begin : begin + count], dtype=np.float32),
                    intent="NIFTI_INTENT_NONE" if tr is None else "NIFTI_INTENT_TIME_SERIES",
                    datatype="NIFTI_TYPE_FLOAT32",
                )
                for row in rows
            ]
            image = nibabel.gifti.GiftiImage(darrays=arrays, meta=nibabel.gifti.GiftiMetaData(meta))
            with atomic_path(path) as temporary:
                nibabel.save(image, temporary)
            written.append(path)
            begin += count
        return written

    def draw(
        self, values: NDArray[np.floating], mask: NDArray[np.bool_], *, limit: float, label: str
    ) -> Any:
        """Return views of both hemispheres of fsaverage; of another mesh, values by vertex."""
        if self.vertices[0] != self.vertices[1] or self.vertices[0] not in FSAVERAGE:
            sides = zip(SIDES, mask_pieces(mask, self.vertices), strict=True)
            parts = {f"hemisphere {side}": values[piece] for side, piece in sides}
            return strip_figure(parts, limit=limit, label=label)
        whole = self.whole(values, mask, outside=np.nan)
        left, right = np.split(whole, [self.vertices[0]])
        return _fsaverage_figure(left[:FSAVERAGE5], right[:FSAVERAGE5], limit=limit, label=label)


def _fsaverage_figure(
    left: NDArray[np.float32], right: NDArray[np.float32], *, limit: float, label: str
) -> Any:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from nilearn.datasets import load_fsaverage
    from nilearn.plotting import plot_surf

    mesh = load_fsaverage("fsaverage5")["inflated"]
    figure = Figure(figsize=(10, 2.4), layout="constrained")
    axes = figure.subplots(1, 4, subplot_kw={"projection": "3d"})
    views = [("left", "lateral"), ("left", "medial"), ("right", "medial"), ("right", "lateral")]
    for axis, (side, view) in zip(axes, views, strict=True):
        plot_surf(
            mesh.parts[side], left if side == "left" else right, hemi=side, view=view, axes=axis,
            figure=figure, cmap="RdBu_r", vmin=-limit, vmax=limit, colorbar=False,
        )  # fmt: skip
        axis.set_title(f"{side}, {view}", fontsize=7)
    shown = ScalarMappable(Normalize(-limit, limit), cmap="RdBu_r")
    figure.colorbar(shown, ax=list(axes), fraction=0.02, label=label)
    return figure


class SurfaceFile(Recording):
    """A GIFTI file for each hemisphere, left first.

    Raises
    ------
    DataError
        When one is missing or is none, or when they differ in rows.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(paths)
        if len(paths) != 2:
            raise DataError(
                f"{self.path} is one hemisphere of a surface; both are wanted",
                hint="write {hemi} in the pattern where the file names have L and R",
            )
        self._headers = [_header(path) for path in paths]
        rows = [header.rows for header in self._headers]
        if rows[0] != rows[1]:
            raise DataError(
                f"{paths[0]} has {rows[0]} TRs and {paths[1]} has {rows[1]}",
                hint="the hemispheres of a run belong together: make them again",
            )

    @property
    def space(self) -> Surface:
        """Its vertices, and the mesh that its name says."""
        match = re.search(r"space-([A-Za-z0-9]+)", self.path.name)
        left, right = (header.vertices for header in self._headers)
        return Surface((left, right), match[1] if match else "")

    @property
    def trs(self) -> int:
        """Its rows."""
        return self._headers[0].rows

    @property
    def tr(self) -> float | None:
        """As the file says: milliseconds, or seconds where the number is small."""
        return self._headers[0].seconds

    def rows(self, span: slice) -> NDArray[np.float32]:
        """Read rows: (trs, vertices)."""
        return np.concatenate([_rows(path)[span] for path in self.paths], axis=1)

    def labels(self) -> Labels:
        """Read it as a mask or an atlas, with the names of its label table."""
        names: dict[str, str] = {}
        for path in self.paths:
            with reading(path, "GIFTI"):
                table = nibabel.load(path).labeltable.get_labels_as_dict()
            names |= {str(label): name for label, name in table.items() if label}
        return as_labels(self._one_row(), names)


@dataclass(frozen=True)
class _Header:
    """What the begin of a GIFTI file says."""

    rows: int
    vertices: int
    seconds: float | None


def _header(path: Path) -> _Header:
    """Read a GIFTI file up to its first values, which takes no time however many there are."""
    require_file(path, what="scan")
    with reading(path, "GIFTI", hint="copy or convert it again"):
        with path.open("rb") as handle:
            text = handle.read(HEAD_BYTES).split(b"<Data>", 1)[0].decode("utf-8", "replace")
        arrays = re.search(r"<GIFTI\b[^>]*NumberOfDataArrays=\"(\d+)\"", text)
        first = re.search(r"<DataArray\b[^>]*>", text)
        if arrays is None or first is None:
            raise DataError(
                f"{path} is no GIFTI file, or holds no values", hint="copy or convert it again"
            )
        if "NIFTI_INTENT_POINTSET" in first[0]:
            raise DataError(f"{path} is a mesh, not scans on one", hint="correct bold.files")
        sizes = [int(size) for size in re.findall(r"\bDim\d=\"(\d+)\"", first[0])]
    step = re.search(r"TimeStep.*?<Value>(?:<!\[CDATA\[)?([^<\]]*)", text, re.DOTALL)
    rows = int(arrays[1]) if len(sizes) == 1 or sizes[1] == 1 else sizes[1]
    return _Header(rows, sizes[0], _seconds(step[1]) if step else None)


def _seconds(text: str) -> float | None:
    try:
        stated = float(text)
    except ValueError:
        return None
    return (stated / 1000 if stated >= FIRST_MS else stated) or None


def _rows(path: Path) -> NDArray[np.float32]:
    """Read all rows of a hemisphere: (trs, vertices)."""
    with reading(path, "GIFTI", hint="it is cut off or damaged: copy or convert it again"):
        arrays = nibabel.load(path).darrays
        values = [np.asarray(array.data, dtype=np.float32) for array in arrays]
        if len(values) == 1 and values[0].ndim == 2:
            return np.ascontiguousarray(values[0].T)
        return np.stack([value.reshape(-1) for value in values])
