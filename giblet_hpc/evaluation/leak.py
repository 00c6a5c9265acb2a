"""What a split by random TRs would score: neighbours in time are alike, so that it leaks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.config.evaluate import Ridge
from giblet_hpc.evaluation.baselines import Baselines
from giblet_hpc.evaluation.blocks import over_ranks, scans_of, voxel_share
from giblet_hpc.evaluation.metrics import pearson
from giblet_hpc.evaluation.penalised import fit_ridge
from giblet_hpc.splits import Block
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.world import World

SHARE = 0.2
"""Of all TRs, that are drawn as test TRs."""


def random_split_r(
    study: StudyArrays,
    linear: Baselines,
    tests: Sequence[Block],
    options: Ridge,
    *,
    scored: Sequence[int],
    world: World,
) -> NDArray[np.float64]:
    """Return r of ridge where a fifth of all TRs, drawn at random, are the test TRs.

    Parameters
    ----------
    study : StudyArrays
    linear : Baselines
        With its prior chosen.
    tests : sequence of Block
        Test TRs, which are drawn from like all others.
    options : Ridge
    scored : sequence of int
        Subjects; the others get NaN.
    world : World
        Its ranks share the voxels.

    Returns
    -------
    ndarray, shape (subjects, voxels)
    """
    blocks = (*linear.used, *tests)
    bands, mine = linear.mixed_of(blocks), voxel_share(study.voxels, world)
    found = np.zeros((len(study.subjects), study.voxels))
    for subject in range(len(study.subjects)):
        scans, valid = scans_of(study, subject, blocks, mine)
        if subject not in scored:
            found[subject, mine] = np.nan
            continue
        if not scans.shape[1]:
            continue
        rows = np.random.default_rng(subject).permutation(np.flatnonzero(valid))
        count = round(SHARE * len(rows))
        out, fitted = np.sort(rows[:count]), np.sort(rows[count:])
        sample, _ = scans_of(study, subject, blocks, linear.sampled)
        model = fit_ridge(
            [band[fitted] for band in bands], scans[fitted], options, purge=linear.purge,
            prior=linear.prior, sample=sample[fitted],
        )  # fmt: skip
        made = model.predict([band[out] for band in bands])
        every = np.ones(count, bool)
        found[subject, mine] = pearson(made, scans[out], every, [slice(0, count)])
    return over_ranks(found, world)
