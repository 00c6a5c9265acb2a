"""What every kind of scans is asked: a space of targets, and files of time courses in it.

A target is a voxel, a vertex, a grayordinate or a parcel: one column of the scans.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.errors import DataError

RESAMPLE = "bring all subjects into one space first"


@dataclass(frozen=True)
class Labels:
    """A number for each place of a space, and what the numbers mean."""

    values: NDArray[np.int32]
    """In the shape of the space."""
    names: Mapping[str, str] = field(default_factory=dict)
    """By label, where the file itself says them."""


class Space(ABC):
    """Where targets lie: what tells two spaces apart, and how values are put back into it."""

    kind: ClassVar[str]
    """Name of the kind, as the store keeps it."""
    unit: ClassVar[str]
    """What one target is called in texts, in the plural."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of the mask: axes of all places that a target can have."""

    @abstractmethod
    def attributes(self) -> dict[str, Any]:
        """Return what JSON can hold of this space, from which `restored` makes it again."""

    @classmethod
    @abstractmethod
    def restored(cls, shape: Sequence[int], attributes: Mapping[str, Any]) -> Space:
        """Return the space of a mask of some shape with the attributes from `attributes`."""

    @abstractmethod
    def difference(self, other: Space) -> str:
        """Say how another space of this kind differs; empty where it is the same."""

    def check(self, path: Path | str, found: Space) -> None:
        """Check that a file lies in this space.

        Raises
        ------
        DataError
            When it does not.
        """
        if found.kind != self.kind:
            raise DataError(
                f"{path} holds {found.unit}; the study's scans are {self.unit}",
                hint="one study has one kind of scans: correct bold.files",
            )
        if said := self.difference(found):
            raise DataError(f"{path} {said}", hint=RESAMPLE)

    @abstractmethod
    def write(
        self,
        stem: Path,
        values: NDArray[np.floating],
        mask: NDArray[np.bool_],
        *,
        tr: float | None = None,
    ) -> list[Path]:
        """Write values of targets as files that other tools read, atomically.

        Parameters
        ----------
        stem : Path
            Of the files; hemisphere and suffix are added.
        values : ndarray, shape (targets,) or (trs, targets)
        mask : ndarray of bool
            In the shape of the space.
        tr : float, optional
            Seconds between rows.
        """

    @abstractmethod
    def draw(
        self, values: NDArray[np.floating], mask: NDArray[np.bool_], *, limit: float, label: str
    ) -> Any:
        """Return a figure of values of targets, (targets,), coloured from -limit to limit."""

    def whole(
        self, values: NDArray[np.floating], mask: NDArray[np.bool_], *, outside: float = 0.0
    ) -> NDArray[np.float32]:
        """Return values of targets in the shape of the space, (..., *shape)."""
        filled = np.full((*values.shape[:-1], *self.shape), outside, dtype=np.float32)
        filled[..., mask] = values
        return filled


class Recording(ABC):
    """A file of scans (or a pair of them), opened and not read.

    Parameters
    ----------
    paths : sequence of Path
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)

    @property
    def path(self) -> Path:
        """The file that messages name."""
        return self.paths[0]

    @property
    @abstractmethod
    def space(self) -> Space:
        """Where its values lie."""

    @property
    @abstractmethod
    def trs(self) -> int:
        """How many rows it has."""

    @property
    def tr(self) -> float | None:
        """Seconds between rows; None where the file does not say."""
        return None

    @property
    def written_tr(self) -> float | None:
        """The seconds that the file says, also where they may be a writer's default."""
        return self.tr

    @abstractmethod
    def rows(self, span: slice) -> NDArray[np.float32]:
        """Read rows: (trs, *shape of the space), scaled as the file says.

        Raises
        ------
        DataError
            When the file is cut short or damaged.
        """

    def sample(self, span: slice, count: int) -> NDArray[np.float32]:
        """Read up to ``count`` rows, evenly spread where that needs no more reading.

        By default they are taken out of all rows.
        """
        rows = self.rows(span)
        return rows[spread(len(rows), count)]

    @abstractmethod
    def labels(self) -> Labels:
        """Read it as labels instead: a mask, or an atlas.

        Raises
        ------
        DataError
            When it has several rows.
        """

    def _one_row(self) -> NDArray[np.float32]:
        """Read the only row.

        Raises
        ------
        DataError
            When there are several, or values that are no labels.
        """
        if self.trs != 1:
            raise DataError(
                f"{self.path} has {self.trs} volumes; a mask or an atlas of labels has one",
                hint="take one of them, or make labels of a probabilistic atlas first",
            )
        row = self.rows(slice(0, 1))[0]
        if not np.isfinite(row).all():
            row = np.nan_to_num(row, nan=0.0, posinf=0.0, neginf=0.0)
        if np.abs(row - np.round(row)).max(initial=0.0) > 1e-3:
            raise DataError(
                f"{self.path} holds fractions such as {row[row != np.round(row)].flat[0]:.4g}; "
                "labels are whole numbers",
                hint="a probabilistic atlas or a statistical map has to be thresholded first",
            )
        return row


def spread(length: int, count: int) -> NDArray[np.intp]:
    """Return up to ``count`` evenly spread positions of ``length``."""
    return np.linspace(0, length - 1, min(count, length)).round().astype(np.intp)


def as_labels(row: NDArray[np.floating], names: Mapping[str, str] | None = None) -> Labels:
    """Return labels from a row of whole numbers."""
    return Labels(np.round(row).astype(np.int32), dict(names or {}))


def mask_pieces(mask: NDArray[np.bool_], sizes: Sequence[int]) -> Iterator[slice]:
    """Yield which targets belong to each stretch of a flat space.

    Parameters
    ----------
    mask : ndarray of bool, shape (places,)
    sizes : sequence of int
        Places of each stretch.
    """
    begin = target = 0
    for size in sizes:
        count = int(mask[begin : begin + size].sum())
        yield slice(target, target + count)
        begin, target = begin + size, target + count
