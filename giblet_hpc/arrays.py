"""An array of the feature store before it is there: shape, shards, what it is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from giblet_hpc.config.io import differences
from giblet_hpc.files import sha256_json

SHARD_BYTES = 100_000_000


@dataclass(frozen=True)
class ArraySpec:
    """One array of the store and what it is made from."""

    name: str
    """Path of the array in the store, such as `stimulus/run1/video`."""
    shape: tuple[int, ...]
    """Rows first."""
    dtype: str
    """numpy name of the type."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Digests of inputs and code, and the settings: all that the content depends on."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Stored with the array for its readers."""
    max_shard_rows: int | None = None
    """Smaller shards than 100 MB, for arrays that are slow to compute."""

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return int(np.prod(self.shape[1:], dtype=np.int64)) * np.dtype(self.dtype).itemsize

    @property
    def shard_rows(self) -> int:
        """Rows of a shard: about 100 MB, at most the whole array."""
        row = max(1, self.row_bytes)
        rows = min(self.shape[0], SHARD_BYTES // row, self.max_shard_rows or 2**62)
        return max(1, rows)

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.shape[0] // self.shard_rows)

    @property
    def fingerprint(self) -> str:
        """sha256 of provenance, shape, type and the rows of a shard."""
        layout = [list(self.shape), self.dtype, self.shard_rows]
        return sha256_json([dict(self.provenance), *layout])

    def rows(self, shard: int) -> slice:
        """Rows of a shard."""
        return slice(shard * self.shard_rows, min((shard + 1) * self.shard_rows, self.shape[0]))


def changes(known: Mapping[str, Any], spec: ArraySpec) -> list[str]:
    """Return in what an array is to be made otherwise than the record of it says, line by line."""
    before = spec_of(known)
    old, new = (
        {"shape": list(s.shape), "dtype": s.dtype, "rows of a shard": s.shard_rows, **s.provenance}
        for s in (before, spec)
    )
    return differences(old, new)


def record_of(spec: ArraySpec, because: Sequence[str] = ()) -> dict[str, Any]:
    """Return what the store writes down of an array, and why it replaces an earlier one."""
    return {
        "because": list(because),
        "name": spec.name,
        "shape": list(spec.shape),
        "dtype": spec.dtype,
        "provenance": dict(spec.provenance),
        "fingerprint": spec.fingerprint,
        "attributes": dict(spec.attributes),
        "max_shard_rows": spec.max_shard_rows,
    }


def spec_of(record: Mapping[str, Any]) -> ArraySpec:
    """Return the array that the store has written down."""
    return ArraySpec(
        record["name"],
        tuple(record["shape"]),
        record["dtype"],
        record["provenance"],
        record["attributes"],
        record["max_shard_rows"],
    )
