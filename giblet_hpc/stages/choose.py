"""Choosing settings inside a fold's training TRs, by what candidates predict of other blocks."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.config import choices
from giblet_hpc.config.run import RunConfig
from giblet_hpc.evaluation import scores
from giblet_hpc.evaluation.blocks import Joined, is_made, joined_runs
from giblet_hpc.evaluation.metrics import fisher_mean
from giblet_hpc.files import read_json, write_json
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.splits import Fold
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.members import Member, members
from giblet_hpc.training.world import World

logger = logging.getLogger(__name__)
Predict = Callable[[Sequence[Member], Fold, Path], None]
"""Writes ``predictions.npy`` of an inner fold's test TRs by some networks into a folder."""


def choice_file(paths: RunPaths, fold: Fold) -> Path:
    """Return the record of what is chosen for a fold."""
    return paths.root / "choices" / f"{fold.name or 'all'}.json"


def of_candidate(fold: Fold, number: int) -> Fold:
    """Return an inner fold under the name of a candidate, counted from 1."""
    return fold._replace(name=f"{fold.name}+choice-{number}")


def chosen_members(config: RunConfig, paths: RunPaths, fold: Fold, outer: Fold) -> list[Member]:
    """Return the networks of a fold, or of one inside it, with the settings chosen for it.

    Parameters
    ----------
    config : RunConfig
    paths : RunPaths
        Of a run that is trained.
    fold : Fold
    outer : Fold
        ``fold``, or the one whose training TRs it divides.
    """
    if not config.train.choose:
        return members(config, fold)
    number = int(read_json(choice_file(paths, outer))["chosen"])
    candidate = config.candidates[number - 1]
    return members(candidate, fold if fold.within is None else of_candidate(fold, number))


def settle(
    config: RunConfig,
    paths: RunPaths,
    fold: Fold,
    inner: Sequence[Fold],
    *,
    study: StudyArrays,
    world: World,
    predict: Predict,
) -> None:
    """Write which candidate is best on the inner folds' test TRs, where it is not written yet.

    Parameters
    ----------
    config : RunConfig
    paths : RunPaths
    fold : Fold
    inner : sequence of Fold
        Those that divide its training TRs; networks of each candidate are trained.
    study : StudyArrays
    world : World
    predict : callable
    """
    file = choice_file(paths, fold)
    if is_made(file, world):
        return
    work = file.with_suffix("")
    means = []
    combinations = choices.combinations(config.train.choose)
    for number, candidate in enumerate(config.candidates, 1):
        parts = []
        for one in inner:
            folder = work / f"{one.name}+choice-{number}"
            if world.is_main:
                folder.mkdir(parents=True, exist_ok=True)
            world.wait()
            predict(members(candidate, of_candidate(one, number)), one, folder)
            parts.append(np.load(folder / "predictions.npy", mmap_mode="r"))
        means.append(_mean_r(study, fold, inner, parts, world))
        said = choices.in_words(combinations[number - 1])
        logger.info("%s: r %.4f inside the training TRs", said, means[-1])
    if world.is_main:
        # Of equal ones the first.
        best = int(np.argmax(np.round(means, 6)))
        found = zip(combinations, means, strict=True)
        rows = [{"settings": settings, "r": mean} for settings, mean in found]
        write_json(file, {"chosen": best + 1, "candidates": rows})
        shutil.rmtree(work, ignore_errors=True)
    world.wait()


def _mean_r(
    study: StudyArrays,
    fold: Fold,
    inner: Sequence[Fold],
    parts: Sequence[NDArray[np.float32]],
    world: World,
) -> float:
    """Return r over all inner folds' TRs, averaged over voxels and subjects as Fisher z.

    A run's mean is taken out over all its blocks, as of test TRs: what is slow counts there too.
    """
    blocks = [block for one in inner for block in one.test]
    scored = scores.scored_subjects(study, fold._replace(test=tuple(blocks)))
    maps = scores.score_maps(
        study,
        blocks,
        {"model": Joined(parts)},
        world,
        scored=scored,
        runs=joined_runs(blocks),
    )
    return fisher_mean(maps["model_r"][scored])
