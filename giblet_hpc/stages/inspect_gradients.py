"""Puts a run's network and some of its training batches together, to measure gradients."""

from __future__ import annotations

import torch

from giblet_hpc.config.run import RunConfig
from giblet_hpc.diagnosis.gradients import Gradients
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.stages.with_checkpoint import with_checkpoint
from giblet_hpc.training.losses import Losses
from giblet_hpc.training.windows import epoch_windows


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
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded = with_checkpoint(config, paths, step=step, fold=fold, device=device)
    predictor, options = loaded.predictor, config.train
    losses = Losses(config.loss, predictor.modalities, predictor.statistics.bold_variance)
    windows = epoch_windows(loaded.fold.train, options.window_trs, seed=options.seed, epoch=0)
    size = max(1, options.batch_windows // options.accumulation)
    groups = [windows[start : start + size] for start in range(0, len(windows), size)]
    whole = [group for group in groups if len(group) == size][:batches] or groups[:1]
    return Gradients(predictor, losses, whole, step=loaded.step)
