"""Choosing settings inside a fold's training TRs, by what candidates predict of other blocks."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.config import choices
from giblet_hpc.config.run import RunConfig
from giblet_hpc.evaluation import scores
from giblet_hpc.evaluation.blocks import Joined, is_made, joined_runs
from giblet_hpc.evaluation.metrics import fisher_mean
from giblet_hpc.files import read_json, write_json
from giblet_hpc.runs.beacon import Beacon
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


def is_settled(paths: RunPaths, fold: Fold, world: World) -> bool:
    """Whether it is written which candidate is best, on the data that the run has now."""
    file = choice_file(paths, fold)
    known = world.is_main and file.is_file() and read_json(file)["data"] == paths.data_digest()
    return bool(world.broadcast(known))


class Choosing:
    """Finds which candidate is best on the inner folds' test TRs.

    Parameters
    ----------
    config : RunConfig
    paths : RunPaths
    study : StudyArrays
    world : World
    predict : callable
    should_stop : callable
        Whether the stage is asked to stop.
    """

    def __init__(
        self,
        config: RunConfig,
        paths: RunPaths,
        *,
        study: StudyArrays,
        world: World,
        predict: Predict,
        should_stop: Callable[[], bool],
    ) -> None:
        self._config, self._paths, self._study, self._world = config, paths, study, world
        self._predict, self._should_stop = predict, should_stop
        self._beacon, self._done = Beacon(world.rank), 0

    def settle(self, fold: Fold, inner: Sequence[Fold]) -> bool:
        """Write a fold's choice; return whether that is done, or the stage is asked to stop.

        Networks of each candidate are trained without each of the inner folds' test TRs.
        """
        file = choice_file(self._paths, fold)
        settings = choices.combinations(self._config.train.choose)
        means = []
        for number, candidate in enumerate(self._config.candidates, 1):
            mean = self._of(number, candidate, fold, inner, file.with_suffix(""))
            if mean is None:
                return False
            means.append(mean)
            logger.info("%s: r %.4f inside the training TRs",
                        choices.in_words(settings[number - 1]), mean)  # fmt: skip
        if self._world.is_main:
            # Of equal ones the first.
            best = int(np.argmax(np.round(means, 6)))
            rows = [{"settings": one, "r": r} for one, r in zip(settings, means, strict=True)]
            data = self._paths.data_digest()
            write_json(file, {"chosen": best + 1, "candidates": rows, "data": data})
        self._world.wait()
        return True

    def _of(
        self, number: int, candidate: RunConfig, fold: Fold, inner: Sequence[Fold], work: Path
    ) -> float | None:
        """Return a candidate's r; None when the stage is asked to stop."""
        world, record = self._world, work / f"choice-{number}.json"
        data = self._paths.data_digest()
        if is_made(record, world):
            known: dict[str, Any] = world.broadcast(read_json(record) if world.is_main else {})
            if known["data"] == data:
                return float(known["r"])
        parts, folders = [], []
        for one in inner:
            if world.any(self._should_stop()):
                return None
            # The supervisor takes what shows no progress for stuck.
            self._done += 1
            self._beacon.show(self._done, "choose")
            folders.append(work / f"{one.name}+choice-{number}")
            if world.is_main:
                folders[-1].mkdir(parents=True, exist_ok=True)
            world.wait()
            self._predict(members(candidate, of_candidate(one, number)), one, folders[-1])
            parts.append(np.load(folders[-1] / "predictions.npy", mmap_mode="r"))
        mean = _mean_r(self._study, fold, inner, parts, world)
        if world.is_main:
            write_json(record, {"r": mean, "data": data})
            for folder in folders:
                shutil.rmtree(folder)
        world.wait()
        return mean


def remove_others(paths: RunPaths, fold: Fold, inner: Sequence[Fold]) -> None:
    """Remove what was needed to choose: checkpoints of candidates that are not chosen, their r."""
    file = choice_file(paths, fold)
    shutil.rmtree(file.with_suffix(""), ignore_errors=True)
    chosen = int(read_json(file)["chosen"])
    kept = {of_candidate(one, chosen).name for one in inner}
    for one in inner:
        for folder in paths.checkpoints().glob(f"{one.name}+choice-*"):
            if not any(folder.name == name or folder.name.startswith(f"{name}+") for name in kept):
                shutil.rmtree(folder)


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
