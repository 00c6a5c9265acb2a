"""Single rows of the store's shards, each checked by its own crc32c."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from giblet_hpc.arrays import ArraySpec
from giblet_hpc.errors import StoreError

NOTHING = 2**64 - 1
"""Begin and length of a row of zeros, which is not written."""
CRC = 4
"""Bytes of a crc32c."""
RESIDUE = 0x48674BC7
"""The crc32c of anything that is followed by its own crc32c."""


class ShardRows:
    """Rows of one array, read when they are asked for.

    Parameters
    ----------
    spec : ArraySpec
    files : sequence of Path
        Those of its shards.
    """

    def __init__(self, spec: ArraySpec, files: Sequence[Path]) -> None:
        self.spec = spec
        self._files = [str(file) for file in files]
        self._begins: dict[int, list[int]] = {}
        self._shard_rows = spec.shard_rows
        self._width = spec.row_bytes

    def read(self, start: int, out: NDArray[Any]) -> None:
        """Read the rows from ``start`` on.

        Parameters
        ----------
        start : int
        out : ndarray, shape (rows, ...)
            Contiguous; receives them.

        Raises
        ------
        StoreError
            When a row is damaged or its file cannot be read.
        """
        flat = out.view(np.uint8).reshape(len(out), self._width)
        done = 0
        while done < len(flat):
            shard, row = divmod(start + done, self._shard_rows)
            count = min(len(flat) - done, self._shard_rows - row)
            try:
                self._read(shard, row, flat[done : done + count])
            except OSError as error:
                raise self._damaged(shard, str(error)) from error
            done += count

    def _read(self, shard: int, row: int, flat: NDArray[np.uint8]) -> None:
        descriptor = os.open(self._files[shard], os.O_RDONLY | os.O_CLOEXEC)
        try:
            if shard not in self._begins:
                self._begins[shard] = self._index(descriptor, shard)
            begins = self._begins[shard][row : row + len(flat)]
            size = self._width + CRC
            for number, (place, begin) in enumerate(zip(flat, begins, strict=True)):
                if begin == NOTHING:
                    place[:] = 0
                    continue
                # A row at a time: it is still in the processor's cache when it is copied.
                content = os.pread(descriptor, size, begin)
                if len(content) < size or google_crc32c.value(content) != RESIDUE:
                    raise self._damaged(shard, f"row {row + number} is damaged")
                place[:] = np.frombuffer(content, np.uint8, self._width)
        finally:
            os.close(descriptor)

    def _index(self, descriptor: int, shard: int) -> list[int]:
        """Return where each row of a shard begins."""
        size = 16 * self.spec.shard_rows + CRC
        end = os.fstat(descriptor).st_size
        content = os.pread(descriptor, size, max(0, end - size))
        if len(content) < size or google_crc32c.value(content) != RESIDUE:
            raise self._damaged(shard, "its index is damaged")
        index = np.frombuffer(content, "<u8", 2 * self.spec.shard_rows).reshape(-1, 2)
        here = self.spec.rows(shard)
        begins, sizes = index[: here.stop - here.start].T
        there = (begins != NOTHING) | (sizes != NOTHING)
        if (sizes[there] != self._width + CRC).any():
            raise self._damaged(shard, "rows are not laid out as its description says")
        return [int(begin) for begin in begins]

    def _damaged(self, shard: int, problem: str) -> StoreError:
        return StoreError(
            f"{self._files[shard]}: {problem}",
            hint="`giblet-hpc run preprocess NAME` writes what is missing or damaged",
        )
