"""Puts a run's network and some of its training batches together, to measure gradients."""

from __future__ import annotations

import torch

from giblet_hpc.config.run import RunConfig
from giblet_hpc.diagnosis.gradients import Gradients
from giblet_hpc.errors import ConfigError
from giblet_hpc.files import read_json
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.runs import checkpoints
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.splits import Fold, load_folds
from giblet_hpc.training import checkpoint
from giblet_hpc.training.feed import StudyArrays, load_study
from giblet_hpc.training.losses import Losses
from giblet_hpc.training.predictor import make_predictor
from giblet_hpc.training.statistics import TrainingStatistics, fit, load_statistics
from giblet_hpc.training.strategy import DataParallel
from giblet_hpc.training.windows import epoch_windows
from giblet_hpc.training.world import World


def gradients_of(
    config: RunConfig, paths: RunPaths, *, step: int | None, batches: int, fold: str
) -> Gradients:
    """Measure gradients over some of a fold's training batches.

    Parameters
    ----------
    config : RunConfig
    paths : RunPaths
        Of a run whose preprocess is complete.
    step : int, optional
        Of the checkpoint; 0 for weights as they are drawn; by default the newest, or as drawn where
        there is none.
    batches : int
        At most: of the first epoch.
    fold : str
        By default the first.

    Raises
    ------
    ConfigError
        When there is no such fold or checkpoint.
    """
    world = World(0, 0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    study = load_study(config, read_json(paths.inputs), memory=None)
    chosen = _fold(paths, fold)
    statistics = _statistics(config, paths, chosen, study=study, world=world)
    predictor = make_predictor(config, study, statistics, DataParallel(world))
    losses = Losses(config.loss, predictor.modalities, statistics.bold_variance)
    folder = paths.checkpoints(chosen.name)
    at = (
        step
        if step is not None
        else max(map(checkpoints.step_of, checkpoints.committed(folder)), default=0)
    )
    if at:
        predictor.load(checkpoint.load(checkpoints.of_step(folder, at))[0])
    options = config.train
    windows = epoch_windows(chosen.train, options.window_trs, seed=options.seed, epoch=0)
    size = max(1, options.batch_windows // options.accumulation)
    groups = [windows[start : start + size] for start in range(0, len(windows), size)]
    whole = [group for group in groups if len(group) == size][:batches] or groups[:1]
    return Gradients(predictor, losses, whole, step=at)


def _fold(paths: RunPaths, name: str) -> Fold:
    folds = load_folds(paths.split)
    if not name:
        return folds[0]
    found = [fold for fold in folds if fold.name == name]
    if not found:
        raise ConfigError(
            f"there is no fold {name}; there are: {', '.join(fold.name for fold in folds)}"
        )
    return found[0]


def _statistics(
    config: RunConfig, paths: RunPaths, fold: Fold, *, study: StudyArrays, world: World
) -> TrainingStatistics:
    """Return the run's estimates, or make them without writing anything into the run."""
    file = paths.statistics(fold.name, paths.data_digest())
    if file.is_file():
        return load_statistics(file)
    return fit(modalities_of(config.features), study, fold.train, world)
