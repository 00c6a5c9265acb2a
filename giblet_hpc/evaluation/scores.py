"""From predictions to the tables of a report."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.evaluation import ceiling as ceilings
from giblet_hpc.evaluation import metrics
from giblet_hpc.evaluation.blocks import (
    FEWEST_TRS,
    over_ranks,
    scans_of,
    valid_rows,
    voxel_blocks,
    voxel_share,
)
from giblet_hpc.splits import Block, Fold
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.world import World

Maps = dict[str, NDArray[np.float64]]
ALL = "all voxels"


def score_maps(
    study: StudyArrays,
    blocks: Sequence[Block],
    predictions: Mapping[str, Any],
    world: World,
    *,
    scored: Sequence[int] | None = None,
    runs: Sequence[slice] | None = None,
) -> Maps:
    """Return r and R2 of every voxel and subject, for each predictor; ranks share the voxels.

    Parameters
    ----------
    study : StudyArrays
    blocks : sequence of Block
        Test TRs.
    predictions : mapping of str to ndarray, shape (subjects or 1, trs, voxels)
    world : World
    scored : sequence of int, optional
        From `scored_subjects`; by default all.
    runs : sequence of slice, optional
        Rows whose mean is taken out; by default those of each block.

    Returns
    -------
    dict
        ``<predictor>_r`` and ``<predictor>_r2``, shape (subjects, voxels); NaN of subjects that are
        not scored.
    """
    runs = runs or metrics.run_rows(blocks)
    subjects, voxels = len(study.subjects), study.voxels
    chosen_subjects = range(subjects) if scored is None else scored
    maps = {
        f"{name}_{score}": np.zeros((subjects, voxels))
        for name in predictions
        for score in ("r", "r2")
    }
    for values in maps.values():
        values[[n for n in range(subjects) if n not in chosen_subjects]] = np.nan
    mine = voxel_blocks(voxel_share(voxels, world))
    for subject, chosen in itertools.product(chosen_subjects, mine):
        measured, valid = scans_of(study, subject, blocks, chosen)
        for name, predicted in predictions.items():
            made = np.asarray(predicted[min(subject, len(predicted) - 1), :, chosen])
            maps[f"{name}_r"][subject, chosen] = metrics.pearson(made, measured, valid, runs)
            maps[f"{name}_r2"][subject, chosen] = metrics.r_squared(made, measured, valid, runs)
    return {name: over_ranks(values, world) for name, values in maps.items()}


def scored_subjects(study: StudyArrays, fold: Fold) -> list[int]:
    """Return who has scans to train on, and scans to test on: the others cannot be scored."""

    def scans(blocks: Sequence[Block], subject: int) -> int:
        return int(valid_rows(study, subject, blocks).sum())

    return [
        number
        for number in range(len(study.subjects))
        if scans(fold.train, number) >= FEWEST_TRS and scans(fold.test, number) >= FEWEST_TRS
    ]


Viewing = tuple[int, tuple[Block, ...]]
"""A subject, and the test blocks in which it saw something."""


def ceiling_map(
    everyone: StudyArrays,
    blocks: Sequence[Block],
    world: World,
    *,
    group_mean: bool,
    repeats: Sequence[Sequence[Block]] = (),
) -> NDArray[np.float64] | None:
    """Return the noise ceiling of every voxel on the test TRs.

    From what subjects share; of a single subject, from blocks that show the same. None where there
    is neither. It is 0 where what is shared is not above chance.

    Parameters
    ----------
    everyone : StudyArrays
        With subjects apart.
    blocks : sequence of Block
    world : World
        Its ranks share the voxels.
    group_mean : bool
        Whether the mean over subjects is predicted, rather than each.
    repeats : sequence of sequence of Block
        Test blocks that show the same, TR by TR.
    """
    groups = _watched_together(everyone, blocks)
    if len(everyone.subjects) == 1:
        groups = [[(0, (block,)) for block in same] for same in repeats]
    if not groups:
        return None
    parts = []
    for viewings in groups:
        found = np.zeros((4, everyone.voxels))
        valid = np.stack([
            valid_rows(everyone, subject, shown) for subject, shown in viewings
        ])  # fmt: skip
        for chosen in voxel_blocks(voxel_share(everyone.voxels, world)):
            scans = np.stack([
                scans_of(everyone, subject, shown, chosen)[0] for subject, shown in viewings
            ])  # fmt: skip
            rows = metrics.run_rows(viewings[0][1])
            found[:, chosen] = ceilings.shared_and_chance(scans, valid, rows)
        parts.append(over_ranks(found, world))
    trs = [sum(block.trs for block in viewings[0][1]) for viewings in groups]
    rho, mean, deviation, varying = ceilings.over_groups(np.stack(parts), trs)
    known = ceilings.above_chance(rho, mean, deviation)
    averaged = np.maximum(1, varying) if group_mean else 1
    return ceilings.noise_ceiling(rho, subjects_in_mean=averaged, known=known)


def _watched_together(everyone: StudyArrays, blocks: Sequence[Block]) -> list[list[Viewing]]:
    """Group test blocks by who was scanned in them; those of fewer than two subjects are left out.

    Where everyone has every run, that is one group of all.
    """
    groups: dict[tuple[int, ...], list[Block]] = {}
    for block in blocks:
        there = everyone.runs[block.run].valid[:, block.start : block.stop].any(axis=1)
        groups.setdefault(tuple(map(int, np.flatnonzero(there))), []).append(block)
    return [
        [(subject, tuple(shown)) for subject in members]
        for members, shown in groups.items()
        if len(members) > 1
    ]


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
