"""Rows that come one after the other, put together to the shards of an array."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.arrays import ArraySpec


def by_shard(
    rows: Iterator[NDArray[Any]], spec: ArraySpec, first: int
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Collect consecutive rows from row ``first`` on, itself a shard's start, into shards."""
    shard = first // spec.shard_rows
    while True:
        span = spec.rows(shard)
        values = list(itertools.islice(rows, span.stop - span.start))
        if len(values) < span.stop - span.start:
            return
        yield shard, np.stack(values)
        shard += 1
        if shard == spec.shards:
            # Lets the progress display finish.
            next(rows, None)
            return
