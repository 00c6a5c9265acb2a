"""A run's study and network, with the weights of one of its checkpoints, in this process."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import ConfigError
from giblet_hpc.files import read_json
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.plans.study_size import stored_bytes
from giblet_hpc.runs import checkpoints
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.splits import Fold, load_folds
from giblet_hpc.stages.choose import choice_file, chosen_members
from giblet_hpc.training import checkpoint
from giblet_hpc.training.feed import StudyArrays, load_study
from giblet_hpc.training.node_memory import memory_for
from giblet_hpc.training.predictor import Predictor, make_predictor
from giblet_hpc.training.span import with_span
from giblet_hpc.training.statistics import TrainingStatistics, fit, load_statistics
from giblet_hpc.training.strategy import DataParallel
from giblet_hpc.training.world import World


@dataclass(frozen=True)
class Loaded:
    """What `with_checkpoint` returns.

    Parameters
    ----------
    predictor : Predictor
    study : StudyArrays
    fold : Fold
    step : int
        Of the checkpoint; 0 for weights as they are drawn.
    """

    predictor: Predictor
    study: StudyArrays
    fold: Fold
    step: int


def with_checkpoint(
    config: RunConfig,
    paths: RunPaths,
    *,
    step: int | None,
    fold: str,
    device: torch.device,
    in_memory: bool = False,
) -> Loaded:
    """Load a run's study and network; nothing in the run is written.

    Parameters
    ----------
    config : RunConfig
    paths : RunPaths
        Of a run whose preprocess is complete.
    step : int, optional
        Of the checkpoint; 0 for weights as they are drawn; by default the newest, or as drawn where
        there is none.
    fold : str
        By default the first.
    device : torch.device
    in_memory : bool
        Whether the study's arrays are read at once, where all of them are needed; by default rows
        stay in the store until they are asked for.

    Raises
    ------
    ConfigError
        When there is no such fold or checkpoint.
    """
    world = World(0, 0, 1, device)
    inputs = read_json(paths.inputs)
    needed = stored_bytes(config, inputs)
    memory = memory_for(world, needed, config.train.place) if in_memory else None
    study = load_study(config, inputs, memory=memory)
    chosen = _fold(paths, fold)
    statistics = _statistics(config, paths, chosen, study=study, world=world)
    if config.train.choose and chosen.within is None and choice_file(paths, chosen).is_file():
        config = chosen_members(config, paths, chosen, chosen)[0].config
    predictor = make_predictor(config, study, statistics, DataParallel(world))
    folder = paths.checkpoints(chosen.name)
    known = map(checkpoints.step_of, checkpoints.committed(folder))
    at = step if step is not None else max(known, default=0)
    if at:
        predictor.load(checkpoint.load(checkpoints.of_step(folder, at))[0])
    predictor.model.eval()
    return Loaded(predictor, study, chosen, at)


def _fold(paths: RunPaths, name: str) -> Fold:
    folds = load_folds(paths.split)
    found = [fold for fold in folds if fold.name == name] if name else folds[:1]
    if not found:
        known = ", ".join(fold.name for fold in folds)
        raise ConfigError(f"there is no fold {name}; there are: {known}")
    return found[0]


def _statistics(
    config: RunConfig, paths: RunPaths, fold: Fold, *, study: StudyArrays, world: World
) -> TrainingStatistics:
    """Return the run's estimates, or make them without writing anything into the run."""
    file = paths.statistics(fold.name, paths.data_digest())
    if file.is_file():
        return load_statistics(file)
    modalities, components = modalities_of(config.features), config.model.span
    found = fit(modalities, study, fold.train, world)
    if components is None:
        return found
    return with_span(
        found, modalities, study, fold.train, components=components, device=world.device
    )
