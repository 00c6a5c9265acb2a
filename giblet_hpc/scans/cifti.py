"""CIFTI-2 dense time series (.dtseries.nii) to grayordinates over time, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import nibabel
import numpy as np
from nibabel import cifti2
from nibabel.cifti2 import parse_cifti2
from numpy.typing import NDArray

from giblet_hpc.errors import DataError
from giblet_hpc.files import atomic_path, reading, require_file
from giblet_hpc.scans.base import Labels, Recording, Space, as_labels, mask_pieces, spread
from giblet_hpc.scans.flat import strip_figure
from giblet_hpc.scans.volumes import COPY_AGAIN

SHORT = "CIFTI_STRUCTURE_"


@dataclass(frozen=True)
class Grayordinates(Space):
    """Vertices of the cortex and voxels below it, as a CIFTI file orders them.

    Parameters
    ----------
    places : nibabel.cifti2.BrainModelAxis
    """

    kind: ClassVar[str] = "cifti"
    unit: ClassVar[str] = "grayordinates"
    places: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of grayordinates."""
        return (len(self.places),)

    def attributes(self) -> dict[str, Any]:
        """Return the XML by which CIFTI files describe the brain models."""
        header = cifti2.Cifti2Header.from_axes((cifti2.ScalarAxis(["value"]), self.places))
        return {"cifti": header.matrix.to_xml().decode()}

    @classmethod
    def restored(cls, shape: Sequence[int], attributes: Mapping[str, Any]) -> Grayordinates:
        """Return the grayordinates of a mask."""
        text = f'<CIFTI Version="2">{attributes["cifti"]}</CIFTI>'
        parser = parse_cifti2.Cifti2Parser()
        parser.parse(string=text.encode())
        return cls(parser.header.get_axis(1))

    def difference(self, other: Space) -> str:
        """Say how other grayordinates differ."""
        assert isinstance(other, Grayordinates)
        if len(other.places) != len(self.places):
            return f"has {len(other.places)} grayordinates; the study's have {len(self.places)}"
        return "" if other.places == self.places else "orders its grayordinates otherwise"

    def write(
        self,
        stem: Path,
        values: NDArray[np.floating],
        mask: NDArray[np.bool_],
        *,
        tr: float | None = None,
    ) -> list[Path]:
        """Write `STEM.dscalar.nii`, or with ``tr`` `STEM.dtseries.nii`; 0 outside the mask."""
        rows = np.atleast_2d(self.whole(values, mask))
        if tr is None:
            path = stem.with_name(f"{stem.name}.dscalar.nii")
            first: Any = cifti2.ScalarAxis([f"{stem.name} {n}" if n else stem.name
                                            for n in range(len(rows))])  # fmt: skip
        else:
            path = stem.with_name(f"{stem.name}.dtseries.nii")
            first = cifti2.SeriesAxis(0, tr, len(rows))
        image = cifti2.Cifti2Image(rows, (first, self.places))
        with atomic_path(path) as temporary:
            nibabel.save(image, temporary)
        return [path]

    def draw(
        self, values: NDArray[np.floating], mask: NDArray[np.bool_], *, limit: float, label: str
    ) -> Any:
        """Return values by position: left cortex, right cortex, and what lies below."""
        names, sizes = [], []
        for name, piece, _ in self.places.iter_structures():
            names.append(str(name).removeprefix(SHORT).lower().replace("_", " "))
            sizes.append(len(range(*piece.indices(len(self.places)))))
        parts: dict[str, list[NDArray[np.floating]]] = {}
        for name, piece in zip(names, mask_pieces(mask, sizes), strict=True):
            group = name if name.startswith("cortex") else "below the cortex"
            parts.setdefault(group, []).append(values[piece])
        joined = {name: np.concatenate(found) for name, found in parts.items()}
        return strip_figure(joined, limit=limit, label=label)


class CiftiFile(Recording):
    """A CIFTI-2 file of grayordinates.

    Raises
    ------
    DataError
        When it is missing, is none, or holds parcels or connections.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(paths)
        require_file(self.path, what="scan")
        with reading(self.path, "CIFTI", hint=COPY_AGAIN):
            self._image: Any = nibabel.load(self.path)
            self._first, self._places = (self._image.header.get_axis(n) for n in (0, 1))
        if not isinstance(self._places, cifti2.BrainModelAxis):
            raise DataError(
                f"{self.path} holds {type(self._places).__name__.removesuffix('Axis')}s, not "
                "grayordinates",
                hint="a .dtseries.nii is wanted",
            )

    @property
    def space(self) -> Grayordinates:
        """Its grayordinates."""
        return Grayordinates(self._places)

    @property
    def trs(self) -> int:
        """Its rows."""
        return int(self._image.shape[0])

    @property
    def tr(self) -> float | None:
        """As its series says."""
        if isinstance(self._first, cifti2.SeriesAxis) and self._first.unit == "SECOND":
            return float(self._first.step) or None
        return None

    def rows(self, span: slice) -> NDArray[np.float32]:
        """Read rows: (trs, grayordinates)."""
        with reading(self.path, "CIFTI", hint=COPY_AGAIN):
            return np.asarray(self._image.dataobj[span], dtype=np.float32)

    def sample(self, span: slice, count: int) -> NDArray[np.float32]:
        """Read some rows."""
        first, stop, _ = span.indices(self.trs)
        chosen = first + spread(stop - first, count)
        return np.concatenate([self.rows(slice(t, t + 1)) for t in chosen])

    def labels(self) -> Labels:
        """Read it as a mask or an atlas, with the names of its label table."""
        names = {}
        if isinstance(self._first, cifti2.LabelAxis):
            names = {str(key): value[0] for key, value in self._first.label[0].items() if key}
        return as_labels(self._one_row(), names)
