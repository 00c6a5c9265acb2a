"""Train: every fold in turn, each from its newest checkpoint."""

from __future__ import annotations

import logging
import signal
import time

import torch

from giblet_hpc import beacon
from giblet_hpc.config import RunConfig
from giblet_hpc.files import read_json
from giblet_hpc.runs import RunPaths
from giblet_hpc.splits import Fold, load_folds
from giblet_hpc.training.data import StudyArrays, load_study
from giblet_hpc.training.fitted import Fitted, fit, load_fitted
from giblet_hpc.training.loop import Trainer
from giblet_hpc.training.parallel import World

logger = logging.getLogger(__name__)
STOP_POLL_SECONDS = 1.0


class StopRequest:
    """Whether somebody asked this stage to stop: by a STOP file, or by SIGTERM or SIGUSR2.

    Parameters
    ----------
    paths : RunPaths
    """

    def __init__(self, paths: RunPaths) -> None:
        self._files = paths.stops
        self._asked = False
        self._last_look = 0.0
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, self._note)
        beacon.take_signals()

    def _note(self, *_: object) -> None:
        self._asked = True

    def __call__(self) -> bool:
        """Return whether to stop; the files are looked at once a second at most."""
        now = time.monotonic()
        if now - self._last_look > STOP_POLL_SECONDS:
            self._last_look = now
            self._asked = self._asked or any(file.exists() for file in self._files)
        return self._asked


def run(config: RunConfig, paths: RunPaths, world: World) -> bool:
    """Train all folds.

    Parameters
    ----------
    config : RunConfig
    paths : RunPaths
    world : World

    Returns
    -------
    bool
        Whether all folds are finished; otherwise the stage was asked to stop.
    """
    torch.use_deterministic_algorithms(True)
    stop = StopRequest(paths)
    study = load_study(config, read_json(paths.inputs))
    for fold in load_folds(paths):
        fitted = fitted_of(config, paths, fold, study=study, world=world)
        trainer = Trainer(
            config, paths, fold, study=study, fitted=fitted, world=world, should_stop=stop
        )
        if not trainer.run():
            logger.info("stopped at step %d; the checkpoint is written", trainer.step)
            return False
    return True


def fitted_of(
    config: RunConfig, paths: RunPaths, fold: Fold, *, study: StudyArrays, world: World
) -> Fitted:
    """Return a fold's estimates; rank 0 makes them when they are not there yet."""
    file = paths.statistics(fold.name, paths.data_digest())
    if world.is_main and not file.is_file():
        fit(config, study, fold.train).save(file)
    world.wait()
    return load_fitted(file)
