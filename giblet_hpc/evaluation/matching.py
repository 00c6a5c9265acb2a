"""Which moment of the film was it: stretches of TRs told apart by what is predicted or decoded.

Each stretch is compared with all stretches of the test TRs; it counts when its own counterpart is
the most similar one, or among the five most similar (Haxby et al. 2011, Neuron 72:404, "time
segment matching"; Chen et al. 2017, Nature Neuroscience 20:115).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.config.evaluate import SEGMENT_SECONDS
from giblet_hpc.evaluation.blocks import over_ranks, scans_of, valid_rows, voxel_blocks, voxel_share
from giblet_hpc.splits import Block
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.world import World

TOP = 5
Products = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]
"""Of rows that are queries with rows that are candidates, (trs, trs), and of each with itself,
(trs,)."""


def segments(blocks: Sequence[Block], trs: int) -> NDArray[np.int64]:
    """Return the first rows of stretches of ``trs`` TRs that do not overlap, none over an edge."""
    starts, row = [], 0
    for block in blocks:
        starts += [row + number * trs for number in range(block.trs // trs)]
        row += block.trs
    return np.array(starts, dtype=np.int64)


def segment_trs(tr: float) -> int:
    """Return how many TRs of ``tr`` seconds a stretch has."""
    return max(1, round(SEGMENT_SECONDS / tr))


def products(queries: NDArray[np.floating], candidates: NDArray[np.floating]) -> Products:
    """Return the products of rows, (trs, features) each, which add up over features."""
    left, right = queries.astype(np.float64), candidates.astype(np.float64)
    return left @ right.T, np.square(left).sum(axis=1), np.square(right).sum(axis=1)


def matched(found: Products, starts: NDArray[np.int64], trs: int) -> dict[str, float]:
    """Return how often the right stretch is found, and how often it would be by chance.

    Similarity is the cosine between stretches of all their features and TRs.

    Parameters
    ----------
    found : tuple
        From `products`, of rows whose columns have mean 0.
    starts : ndarray, shape (stretches,)
    trs : int
        Of a stretch.

    Returns
    -------
    dict
        ``top1``, ``top5``: shares of stretches; ``chance1``, ``chance5``: what guessing reaches;
        ``segments``: how many there are. Empty with fewer than two.
    """
    count = len(starts)
    if count < 2:
        return {}
    cross, of_queries, of_candidates = found
    inner = np.zeros((count, count))
    left, right = np.zeros(count), np.zeros(count)
    for k in range(trs):
        inner += cross[np.ix_(starts + k, starts + k)]
        left += of_queries[starts + k]
        right += of_candidates[starts + k]
    lengths = np.sqrt(np.outer(left, right))
    similar = np.divide(inner, lengths, out=np.full_like(inner, -1.0), where=lengths > 0)
    # As good as the right one is not better than it by chance: it counts against it.
    better = (similar >= np.diag(similar)[:, None]).sum(axis=1) - 1
    few = min(TOP, count)
    return {
        "top1": float((better < 1).mean()), f"top{TOP}": float((better < TOP).mean()),
        "chance1": 1 / count, f"chance{TOP}": few / count, "segments": float(count),
    }  # fmt: skip


def match_scans(
    study: StudyArrays,
    blocks: Sequence[Block],
    predictions: Mapping[str, NDArray[np.float32]],
    *,
    tr: float,
    scored: Sequence[int],
    world: World,
) -> dict[str, dict[str, float]]:
    """Return how often a stretch of scans is found among predicted ones, by predictor.

    The mean over subjects; stretches in which a subject lacks a scan are left out. Ranks share the
    voxels.

    Parameters
    ----------
    study : StudyArrays
    blocks : sequence of Block
        Test TRs.
    predictions : mapping of str to ndarray, shape (subjects or 1, trs, voxels)
    tr : float
        Seconds.
    scored : sequence of int
        Subjects.
    world : World
    """
    trs = segment_trs(tr)
    every = segments(blocks, trs)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in predictions}
    for subject in scored:
        valid = valid_rows(study, subject, blocks)
        starts = every[[bool(valid[start : start + trs].all()) for start in every]]
        for name, made in predictions.items():
            sums = _over_voxels(study, blocks, made, subject=subject, world=world)
            found[name].append(matched(sums, starts, trs))
    return {name: mean_of(rows) for name, rows in found.items() if any(rows)}


def mean_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of each figure over those rows that have it."""
    there = [row for row in rows if row]
    return {key: float(np.mean([row[key] for row in there])) for key in there[0]} if there else {}


def _over_voxels(
    study: StudyArrays, blocks: Sequence[Block], made: Any, *, subject: int, world: World
) -> Products:
    """Return the products of a subject's scans with their predictions, over all voxels."""
    trs = sum(block.trs for block in blocks)
    cross, left, right = np.zeros((trs, trs)), np.zeros(trs), np.zeros(trs)
    for voxels in voxel_blocks(voxel_share(study.voxels, world)):
        scans, valid = scans_of(study, subject, blocks, voxels)
        predicted = np.asarray(made[min(subject, len(made) - 1), slice(None), voxels])
        parts = products(_centred(scans, valid), _centred(predicted, valid))
        for total, part in zip((cross, left, right), parts, strict=True):
            np.add(total, part, out=total)
    return over_ranks(cross, world), over_ranks(left, world), over_ranks(right, world)


def _centred(rows: NDArray[np.floating], valid: NDArray[np.bool_]) -> NDArray[np.floating]:
    """Return rows less each column's mean over valid ones; the others are 0."""
    mean = rows[valid].mean(axis=0) if valid.any() else 0.0
    return np.where(valid[:, None], rows - mean, 0.0)
