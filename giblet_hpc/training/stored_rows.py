"""Rows that are read from the store when they are asked for, where a study fits nowhere else.

They are indexed as arrays are. Each row's crc32c is checked when it is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.store import FeatureStore


class StoredRows:
    """An array of the store.

    Parameters
    ----------
    store : FeatureStore
    name : str
    """

    def __init__(self, store: FeatureStore, name: str) -> None:
        self._rows = store.rows(name)
        self.shape, self.dtype = self._rows.spec.shape, np.dtype(self._rows.spec.dtype)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __getitem__(self, key: slice) -> NDArray[Any]:
        start, stop, step = key.indices(len(self))
        assert step == 1
        out = np.empty((max(0, stop - start), *self.shape[1:]), self.dtype)
        self.read(start, out)
        return out

    def read(self, start: int, out: NDArray[Any]) -> None:
        """Read the rows from ``start`` on into an array."""
        self._rows.read(start, out)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        del copy
        return self[:].astype(dtype or self.dtype, copy=False)


class StoredScans:
    """Scans of a run, as (subjects, trs, voxels), or their mean over subjects as (1, ...).

    Parameters
    ----------
    store : FeatureStore
    subjects : sequence of str
    run : str
    shift : int
        TRs by which the files are earlier than the scans.
    counts : ndarray of int, shape (trs,), optional
        How many subjects have a scan at each row of the files: the mean is taken then.
    """

    def __init__(
        self,
        store: FeatureStore,
        subjects: Sequence[str],
        run: str,
        *,
        shift: int,
        counts: NDArray[np.int64] | None,
    ) -> None:
        self._files = [StoredRows(store, f"bold/{name}/{run}") for name in subjects]
        self._shift, self._counts = shift, counts
        trs, voxels = self._files[0].shape
        self.shape = (len(subjects) if counts is None else 1, trs, voxels)
        self.dtype = self._files[0].dtype

    def __getitem__(self, key: Any) -> NDArray[Any]:
        subjects, rows, *rest = key
        start, stop, _ = rows.indices(self.shape[1])
        which = range(self.shape[0])[subjects]
        found = [self._of(n, start, stop) for n in ([which] if isinstance(which, int) else which)]
        chosen = np.stack([values[:, *rest] for values in found])
        return chosen[0] if isinstance(which, int) else chosen

    def read(self, start: int, out: NDArray[np.float32]) -> None:
        """Read all subjects' rows from ``start`` on into an array, (trs, subjects, voxels)."""
        for subject in range(self.shape[0]):
            if self._counts is None and self.shape[0] == 1 and start >= self._shift:
                self._files[0].read(start - self._shift, out[:, 0])
            else:
                out[:, subject] = self._of(subject, start, start + len(out))

    def _of(self, subject: int, start: int, stop: int) -> NDArray[np.float32]:
        """Return rows of one subject, or of the mean; zero before the first scan."""
        out = np.zeros((stop - start, self.shape[2]), dtype=np.float32)
        first, last = max(0, start - self._shift), max(0, stop - self._shift)
        if last == first:
            return out
        there = out[len(out) - (last - first) :]
        if self._counts is None:
            there[:] = self._files[subject][first:last]
            return out
        for file in self._files:
            there += file[first:last]
        there /= np.maximum(self._counts[first:last], 1)[:, None]
        return out
