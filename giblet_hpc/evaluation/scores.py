"""From predictions to the tables of a report."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.evaluation import ceiling as ceilings
from giblet_hpc.evaluation import metrics
from giblet_hpc.evaluation.blocks import over_ranks, voxel_blocks, voxel_share
from giblet_hpc.splits import Block
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.statistics import rows_of
from giblet_hpc.training.world import World

Maps = dict[str, NDArray[np.float64]]
ALL = "all voxels"


def test_rows(blocks: Sequence[Block]) -> list[slice]:
    """Return the rows of each run among the test TRs, one after the other."""
    edges = np.cumsum([0, *(block.trs for block in blocks)])
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(edges)]


def score_maps(
    study: StudyArrays,
    blocks: Sequence[Block],
    predictions: dict[str, NDArray[np.float32]],
    world: World,
) -> Maps:
    """Return r and R2 of every voxel and subject, for each predictor; ranks share the voxels.

    Parameters
    ----------
    study : StudyArrays
    blocks : sequence of Block
        Test TRs.
    predictions : dict of str to ndarray, shape (subjects or 1, trs, voxels)
    world : World

    Returns
    -------
    dict
        ``<predictor>_r`` and ``<predictor>_r2``, shape (subjects, voxels).
    """
    runs = test_rows(blocks)
    subjects, voxels = len(study.subjects), study.voxels
    maps = {
        f"{name}_{score}": np.zeros((subjects, voxels))
        for name in predictions
        for score in ("r", "r2")
    }
    mine = voxel_blocks(voxel_share(voxels, world))
    for subject, chosen in itertools.product(range(subjects), mine):
        valid = rows_of([study.runs[b.run].valid[subject, b.start : b.stop] for b in blocks])
        measured = rows_of(
            [study.runs[b.run].bold[subject, b.start : b.stop, chosen] for b in blocks]
        )
        for name, predicted in predictions.items():
            made = np.asarray(predicted[min(subject, len(predicted) - 1), :, chosen])
            maps[f"{name}_r"][subject, chosen] = metrics.pearson(made, measured, valid, runs)
            maps[f"{name}_r2"][subject, chosen] = metrics.r_squared(made, measured, valid, runs)
    return {name: over_ranks(values, world) for name, values in maps.items()}


def ceiling_map(
    everyone: StudyArrays, blocks: Sequence[Block], world: World, *, group_mean: bool
) -> NDArray[np.float64] | None:
    """Return the noise ceiling of every voxel on the test TRs; None with fewer than two subjects.

    It is 0 where what subjects share is not above chance.

    Parameters
    ----------
    everyone : StudyArrays
        With subjects apart.
    blocks : sequence of Block
    world : World
        Its ranks share the voxels.
    group_mean : bool
        Whether the mean over subjects is predicted, rather than each.
    """
    count = len(everyone.subjects)
    if count < 2:
        return None
    valid = np.concatenate([everyone.runs[b.run].valid[:, b.start : b.stop] for b in blocks], 1)
    found = np.zeros((4, everyone.voxels))
    for chosen in voxel_blocks(voxel_share(everyone.voxels, world)):
        scans = np.concatenate(
            [everyone.runs[b.run].bold[:, b.start : b.stop, chosen] for b in blocks], 1
        )
        found[:, chosen] = ceilings.shared_and_chance(scans, valid, test_rows(blocks))
    rho, mean, deviation, varying = over_ranks(found, world)
    known = ceilings.above_chance(rho, mean, deviation)
    averaged = np.maximum(1, varying) if group_mean else 1
    return ceilings.noise_ceiling(rho, subjects_in_mean=averaged, known=known)


def members_of(
    labels: NDArray[np.int32] | None, names: Mapping[str, str], voxels: int
) -> dict[str, NDArray[np.bool_]]:
    """Return which voxels belong to all voxels, and to each region.

    Parameters
    ----------
    labels : ndarray, shape (voxels,), optional
        Region of each voxel, 0 for none.
    names : mapping of str to str
        Region names by label.
    voxels : int
    """
    members = {ALL: np.ones(voxels, dtype=bool)}
    if labels is not None:
        for label in np.unique(labels[labels > 0]):
            members[names.get(str(label), str(label))] = labels == label
    return members


def region_rows(
    maps: Maps,
    *,
    ceiling: NDArray[np.float64] | None,
    best: NDArray[np.float64] | None,
    members: Mapping[str, NDArray[np.bool_]],
    min_ceiling: float,
) -> list[dict[str, Any]]:
    """Return one row for all voxels and one for each region.

    Parameters
    ----------
    maps : dict
        From :func:`score_maps`.
    ceiling : ndarray, shape (voxels,), optional
    best : ndarray, shape (subjects or 1, voxels), optional
        The best r where the truth is known.
    members : mapping of str to ndarray of bool, shape (voxels,)
        From :func:`members_of`.
    min_ceiling : float
        Voxels with a lower ceiling get no normalised r.
    """
    rows = []
    for name, chosen in members.items():
        row: dict[str, Any] = {"region": name, "voxels": int(chosen.sum())}
        for predictor in ("model", "ridge"):
            r = maps[f"{predictor}_r"][:, chosen]
            row[f"{predictor}_r"] = metrics.fisher_mean(r)
            row[f"{predictor}_median_r"] = float(np.median(r))
            row[f"{predictor}_r2"] = float(maps[f"{predictor}_r2"][:, chosen].mean())
        if ceiling is not None:
            row["ceiling"] = float(ceiling[chosen].mean())
            good = chosen & (ceiling > min_ceiling)
            row["normalised_r"] = (
                float((maps["model_r"][:, good] / ceiling[good]).mean()) if good.any() else None
            )
        if best is not None:
            reachable = metrics.fisher_mean(best[:, chosen])
            row["best_r"] = reachable
            row["share_of_best"] = row["model_r"] / reachable if reachable > 0.01 else None
        rows.append(row)
    return rows
