"""What rows are made from, and how rows that come one after the other become shards."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.arrays import ArraySpec
from giblet_hpc.config.study import ScanRun
from giblet_hpc.digests import Digests
from giblet_hpc.log import progress
from giblet_hpc.modalities.base import Note
from giblet_hpc.store import FeatureStore
from giblet_hpc.survey import Survey


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


def write_in_order(
    rows: Callable[[slice], Iterator[NDArray[Any]]],
    spec: ArraySpec,
    store: FeatureStore,
    *,
    label: str,
    note: Note,
) -> None:
    """Write the missing shards of an array whose rows are made one after the other.

    Parameters
    ----------
    rows : callable
        Yields the rows of some TRs: from the first that is missing to the last.
    spec : ArraySpec
    store : FeatureStore
    label : str
        Of the progress display.
    note : callable
        Called after each shard.
    """
    missing = store.missing(spec)
    if not missing:
        return
    trs = slice(spec.rows(missing[0]).start, spec.rows(missing[-1]).stop)
    shown = progress(rows(trs), label=label, total=trs.stop - trs.start)
    for shard, values in by_shard(shown, spec, trs.start):
        if shard in missing:
            store.write_shard(spec, shard, values)
            note()


def film_inputs(survey: Survey, run: ScanRun, digests: Digests) -> dict[str, Any]:
    """Return what rows taken from a film depend on, besides settings and code."""
    assert run.film is not None
    study = survey.config.study
    return {
        "film": digests.of(study.root / run.film),
        "film_start": run.film_start,
        "tr": study.tr,
    }
