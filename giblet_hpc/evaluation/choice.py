"""Choosing a linear model's prior by nested cross-validation inside some TRs."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.config.evaluate import Ridge
from giblet_hpc.evaluation.metrics import fisher_mean, fisher_z, pearson
from giblet_hpc.evaluation.penalised import Bands, Prior, fit_ridge, usable_blocks
from giblet_hpc.evaluation.smooth_lags import with_prior

logger = logging.getLogger(__name__)
VOXELS, SUBJECTS, TRS = 512, 3, 2000
"""By which the prior is chosen: voxels at even distances, of so many subjects, and their first
TRs."""


def choose(
    bands: Bands,
    scans: Sequence[NDArray[np.float32]],
    valid: Sequence[NDArray[np.bool_]],
    options: Ridge,
    *,
    delays: Sequence[int],
    tr: float,
) -> Prior:
    """Choose how smooth responses are and what voxels share, then how bands are weighed.

    Each of ``options.folds`` purged blocks is predicted by models all of whose settings are chosen
    on the others alone; the candidate with the highest mean r is taken, of equal ones the first.
    Weights of bands other than equal ones are taken when they are better by more than a standard
    error over blocks (Breiman et al. 1984, Classification and Regression Trees, chapter 3).

    Parameters
    ----------
    bands : sequence of ndarray, shape (trs, lags * columns)
    scans : sequence of ndarray, shape (trs, voxels)
        Of some subjects.
    valid : sequence of ndarray of bool, shape (trs,)
    options : Ridge
    delays : sequence of int
    tr : float
        Seconds.
    """
    first, weighed = _candidates(options, len(bands))
    if len(first) == 1 and not weighed:
        return first[0]
    counts = [int(there.sum()) for there in valid]
    used = [n for n, trs in enumerate(counts) if _nested(trs, options.folds, max(delays))]
    if not used:
        logger.warning(
            "%d training TRs are too few to choose ridge's prior: %s is taken",
            max(counts, default=0), first[0],
        )  # fmt: skip
        return first[0]
    scans, valid = [scans[n] for n in used], [valid[n] for n in used]

    def score(prior: Prior) -> tuple[float, NDArray[np.float64]]:
        mixed = [with_prior(band, delays, prior.smooth_seconds / tr) for band in bands]
        return _score(mixed, scans, valid, options, purge=max(delays), prior=prior)

    found = [score(prior) for prior in first]
    best = int(np.argmax([mean for mean, _ in found]))
    chosen, blocks = first[best], found[best][1]
    for changes in weighed:
        other = replace(chosen, **changes)
        _, of_other = score(other)
        if _clearly_better(of_other - blocks):
            logger.info("ridge: %s is better than %s", other, chosen)
            chosen, blocks = other, of_other
    return chosen


def _clearly_better(gains: NDArray[np.float64]) -> bool:
    """Whether gains of blocks are in the mean more than a standard error above 0."""
    return bool(gains.mean() > gains.std(ddof=1) / np.sqrt(len(gains)))


def _candidates(options: Ridge, bands: int) -> tuple[list[Prior], list[dict[str, Any]]]:
    """Return priors to choose from, and in what the best of them may then be changed."""
    penalties = {"auto": ("voxel", "one"), "voxel": ("voxel",), "one": ("one",)}[options.penalties]
    several = bands > 1
    if several and options.bands == "voxel":
        penalties = ("voxel",)
    start = options.bands if several and options.bands != "auto" else "equal"
    first = [
        Prior(seconds, kind, start)  # type: ignore[arg-type]
        for seconds, kind in itertools.product(options.smooth_seconds, penalties)
    ]
    if not several or options.bands != "auto":
        return first, []
    changes: list[dict[str, Any]] = [{"bands": "one"}]
    if options.penalties != "one":
        changes.append({"bands": "voxel", "penalties": "voxel"})
    return first, changes


def _nested(trs: int, folds: int, purge: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return the blocks beside which penalties can be chosen by blocks again."""
    return [
        pair
        for pair in usable_blocks(trs, folds, purge)
        if usable_blocks(len(pair[0]), folds, purge)
    ]


def _score(
    bands: Bands,
    scans: Sequence[NDArray[np.float32]],
    valid: Sequence[NDArray[np.bool_]],
    options: Ridge,
    *,
    purge: int,
    prior: Prior,
) -> tuple[float, NDArray[np.float64]]:
    """Return the mean r of blocks that are held out, and each block's mean Fisher z, (blocks,)."""
    every, whole = [], []
    for own, there in zip(scans, valid, strict=True):
        x, y = [band[there][:TRS] for band in bands], own[there][:TRS]
        predicted, rows, own_blocks = np.zeros_like(y), [], []
        for fit, held_out in _nested(len(y), options.folds, purge):
            model = fit_ridge([band[fit] for band in x], y[fit], options, purge=purge, prior=prior)
            predicted[held_out] = model.predict([band[held_out] for band in x])
            rows.append(slice(int(held_out[0]), int(held_out[-1]) + 1))
            apart = [slice(0, len(held_out))]
            known = np.ones(len(held_out), bool)
            r = pearson(predicted[held_out], y[held_out], known, apart)
            own_blocks.append(float(fisher_z(r).mean()))
        every.append(own_blocks)
        whole.append(pearson(predicted, y, np.ones(len(y), bool), rows))
    # Someone with fewer scans may have fewer blocks beside which there is enough to fit on.
    fewest = min(map(len, every))
    blocks = np.mean([own[:fewest] for own in every], axis=0)
    return fisher_mean(np.concatenate(whole)), blocks
