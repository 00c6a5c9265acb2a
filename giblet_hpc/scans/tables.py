"""Tables: arrays of time courses without a space, such as parcels (.h5, .npy, .npz, .tsv)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.errors import DataError
from giblet_hpc.files import reading, require_file, write_text, write_with
from giblet_hpc.scans.base import Labels, Recording, Space, as_labels
from giblet_hpc.scans.flat import strip_figure

HDF5 = (".h5", ".hdf5")
TEXT = {".tsv": "\t", ".csv": ","}


@dataclass(frozen=True)
class Columns(Space):
    """So many targets, in the order of a table's columns.

    Parameters
    ----------
    count : int
    """

    kind: ClassVar[str] = "table"
    unit: ClassVar[str] = "columns of a table"
    count: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of columns."""
        return (self.count,)

    def attributes(self) -> dict[str, Any]:
        """Return nothing: the shape says all."""
        return {}

    @classmethod
    def restored(cls, shape: Sequence[int], attributes: Mapping[str, Any]) -> Columns:
        """Return the columns of a mask."""
        return cls(int(shape[0]))

    def difference(self, other: Space) -> str:
        """Say how many columns others are."""
        assert isinstance(other, Columns)
        if other.count == self.count:
            return ""
        return f"has {other.count} columns; the study's tables have {self.count}"

    def write(
        self,
        stem: Path,
        values: NDArray[np.floating],
        mask: NDArray[np.bool_],
        *,
        tr: float | None = None,
    ) -> list[Path]:
        """Write `STEM.tsv` with the columns target (from 0) and value; of rows, `STEM.npy`.

        Targets outside the mask are n/a in the table, NaN in the array.
        """
        whole = self.whole(values, mask, outside=np.nan)
        if values.ndim == 2:
            path = stem.with_name(f"{stem.name}.npy")
            write_with(path, lambda handle: np.save(handle, whole))
            return [path]
        path = stem.with_name(f"{stem.name}.tsv")
        lines = [f"{n}\t{'n/a' if np.isnan(v) else f'{v:.6g}'}" for n, v in enumerate(whole)]
        write_text(path, "\n".join(["target\tvalue", *lines]) + "\n")
        return [path]

    def draw(
        self, values: NDArray[np.floating], mask: NDArray[np.bool_], *, limit: float, label: str
    ) -> Any:
        """Return values by position."""
        return strip_figure({"targets in order": values}, limit=limit, label=label)


class TableFile(Recording):
    """An array of (TRs, targets) in a file.

    Parameters
    ----------
    paths : sequence of Path
    dataset : callable, optional
        From the names of a file's arrays to the one of this run; by default there may be one only.

    Raises
    ------
    DataError
        When the file is missing or cannot be read, or when it is open which array is meant.
    """

    def __init__(self, paths: Sequence[Path], dataset: Any = None) -> None:
        super().__init__(paths)
        require_file(self.path, what="scan")
        self._suffix = self.path.suffix.lower()
        self._choose = dataset or _only
        with reading(self.path, "an array of TRs and targets", hint="copy or write it again"):
            self._shape = self._opened()
        if len(self._shape) not in (1, 2) or 0 in self._shape:
            raise DataError(
                f"{self.path} has the shape {self._shape}; (TRs, targets) is wanted",
                hint="write it as two axes, time first",
            )

    @property
    def space(self) -> Columns:
        """Its columns."""
        return Columns(self._shape[-1])

    @property
    def trs(self) -> int:
        """Its rows."""
        return self._shape[0] if len(self._shape) == 2 else 1

    def rows(self, span: slice) -> NDArray[np.float32]:
        """Read rows: (trs, columns)."""
        with reading(self.path, "an array of TRs and targets", hint="copy or write it again"):
            values = self._values(span if len(self._shape) == 2 else slice(None))
            return np.atleast_2d(np.asarray(values, dtype=np.float32))

    def labels(self) -> Labels:
        """Read it as a label for each target."""
        if self.trs != 1 and self._shape[1] == 1:
            return as_labels(self.rows(slice(None))[:, 0])
        return as_labels(self._one_row())

    def _opened(self) -> tuple[int, ...]:
        """Return the shape, from the header where there is one."""
        if self._suffix in HDF5:
            import h5py

            with h5py.File(self.path, "r") as file:
                self._name = self._choose(self.path, _datasets(file))
                return tuple(int(size) for size in file[self._name].shape)
        if self._suffix == ".npz":
            with np.load(self.path, allow_pickle=False) as archive:
                self._name = self._choose(self.path, archive.files)
                return tuple(archive[self._name].shape)
        if self._suffix == ".npy":
            return tuple(np.load(self.path, mmap_mode="r", allow_pickle=False).shape)
        return tuple(self._text().shape)

    def _values(self, span: slice) -> Any:
        if self._suffix in HDF5:
            import h5py

            with h5py.File(self.path, "r") as file:
                return file[self._name][span]
        if self._suffix == ".npz":
            with np.load(self.path, allow_pickle=False) as archive:
                return archive[self._name][span]
        if self._suffix == ".npy":
            return np.load(self.path, mmap_mode="r", allow_pickle=False)[span]
        return self._text()[span]

    def _text(self) -> NDArray[np.float64]:
        import pandas as pd

        with self.path.open(encoding="utf-8-sig") as handle:
            first = handle.readline().rstrip("\n").split(TEXT[self._suffix])
        header = None if all(map(_is_number, first)) else 0
        table = pd.read_csv(
            self.path, sep=TEXT[self._suffix], index_col=False, header=header,
            encoding="utf-8-sig",
        )  # fmt: skip
        return table.to_numpy(dtype=np.float64)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _datasets(file: Any) -> list[str]:
    """Return the paths of all datasets of an HDF5 file."""
    import h5py

    found: list[str] = []
    file.visititems(
        lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None
    )
    return found


def _only(path: Path, names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    raise DataError(
        f"{path} holds {len(names)} arrays: {', '.join(sorted(names)[:6])}",
        hint='say with bold.dataset which one is a run\'s, for instance "*{run}"',
    )
