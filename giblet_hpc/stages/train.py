"""Train: every fold in turn, each from its newest checkpoint."""

from __future__ import annotations

import gc
import logging
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from giblet_hpc.config.run import RunConfig
from giblet_hpc.diagnosis.lag_check import require_possible_lags
from giblet_hpc.errors import DataError
from giblet_hpc.evaluation import methods
from giblet_hpc.evaluation.prediction import load_best, predict_by
from giblet_hpc.files import read_json
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.plans import study_size
from giblet_hpc.runs import beacon
from giblet_hpc.runs.environment import LOCAL
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.splits import Fold, load_folds, outer_folds
from giblet_hpc.stages import choose
from giblet_hpc.training.feed import StudyArrays, load_study
from giblet_hpc.training.loop import Trainer
from giblet_hpc.training.members import Member, members
from giblet_hpc.training.network_size import meta_model
from giblet_hpc.training.node_memory import memory_for
from giblet_hpc.training.parallel import strategy_of, with_settled_mode
from giblet_hpc.training.predictor import Predictor, make_predictor
from giblet_hpc.training.span import with_span
from giblet_hpc.training.statistics import TrainingStatistics, fit, load_statistics
from giblet_hpc.training.strategy import DataParallel
from giblet_hpc.training.world import World

logger = logging.getLogger(__name__)
STOP_POLL_SECONDS = 1.0


class StopRequest:
    """Whether this stage is asked to stop: by its supervisor, or by SIGTERM or SIGUSR2.

    A supervisor looks at the run's STOP file for all its ranks, and tells them on the node's own
    disk; without one each process looks itself.

    Parameters
    ----------
    paths : RunPaths
    """

    def __init__(self, paths: RunPaths) -> None:
        self._file = None if LOCAL in os.environ else paths.stop
        self._asked = False
        self._last_look = 0.0
        for number in (signal.SIGTERM, signal.SIGUSR2):
            signal.signal(number, self._note)
        beacon.unblock_signals()

    def _note(self, *_: object) -> None:
        self._asked = True

    def __call__(self) -> bool:
        """Return whether to stop; files are looked at once a second at most."""
        now = time.monotonic()
        if now - self._last_look > STOP_POLL_SECONDS:
            self._last_look = now
            asked = self._file.exists() if self._file else beacon.asked_to_stop()
            self._asked = self._asked or asked
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
    inputs = read_json(paths.inputs)
    config = with_settled_mode(config, paths, inputs, world)
    memory = memory_for(world, study_size.stored_bytes(config, inputs), config.train.place)
    study = load_study(config, inputs, memory=memory)
    _require_possible_lags(config, paths, study, world)
    if not config.train.choose:
        _write_methods(config, config, paths, world)
    work = _Training(config, paths, study=study, world=world, stop=stop)
    folds = load_folds(paths.split)
    if not config.train.choose:
        return all(work.train(members(config, fold), fold) for fold in folds)
    for fold in outer_folds(folds):
        inner = [one for one in folds if one.within == fold.name]
        if not work.choose(fold, inner):
            return False
        networks = choose.chosen_members(config, paths, fold, fold)
        _write_methods(config, networks[0].config, paths, world)
        if not work.train(networks, fold):
            return False
    return True


def _write_methods(config: RunConfig, used: RunConfig, paths: RunPaths, world: World) -> None:
    """Write what is said of training, with the settings that are used."""
    if world.is_main:
        model = meta_model(used, study_size.of_store(used, read_json(paths.inputs)))
        size = sum(parameter.numel() for parameter in model.parameters())
        chosen = tuple(config.train.choose)
        methods.save(paths, "train", methods.of_training(used, parameters=size, chosen=chosen))


class _Training:
    """Trains the networks of folds, one after the other.

    Parameters
    ----------
    config : RunConfig
        With its parallel mode settled.
    paths : RunPaths
    study : StudyArrays
    world : World
    stop : StopRequest
    """

    def __init__(
        self,
        config: RunConfig,
        paths: RunPaths,
        *,
        study: StudyArrays,
        world: World,
        stop: StopRequest,
    ) -> None:
        self._config, self._paths, self._study = config, paths, study
        self._world, self._stop = world, stop

    def train(self, networks: Sequence[Member], fold: Fold) -> bool:
        """Train some networks on a fold; return whether they are finished."""
        statistics = self._statistics(fold)
        for member in networks:
            trainer = Trainer(
                member.config, self._paths, member.fold, study=self._study, statistics=statistics,
                strategy=strategy_of(member.config, self._world), should_stop=self._stop,
            )  # fmt: skip
            if not trainer.run():
                logger.info("stopped at step %d; the checkpoint is written", trainer.step)
                return False
            # The next model needs its memory.
            del trainer
            gc.collect()
        return True

    def choose(self, fold: Fold, inner: Sequence[Fold]) -> bool:
        """Train each candidate without each inner block, and choose; whether that is finished."""
        if choose.is_settled(self._paths, fold, self._world):
            return self._tidied(fold, inner)
        for number, candidate in enumerate(self._config.candidates, 1):
            for one in inner:
                named = choose.of_candidate(one, number)
                if not self.train(members(candidate, named), one):
                    return False
        work = choose.Choosing(
            self._config, self._paths, study=self._study, world=self._world,
            predict=self._predict, should_stop=self._stop,
        )  # fmt: skip
        return work.settle(fold, inner) and self._tidied(fold, inner)

    def _tidied(self, fold: Fold, inner: Sequence[Fold]) -> bool:
        """Remove what was needed to choose; an attempt that ended before it may have left that."""
        if self._world.is_main:
            choose.remove_others(self._paths, fold, inner)
        return True

    def _predict(self, networks: Sequence[Member], fold: Fold, folder: Path) -> None:
        def load(member: Member) -> Predictor:
            return trained_predictor(
                member, self._statistics(fold), self._paths, study=self._study, world=self._world
            )[0]

        predict_by(networks, fold.test, folder, load=load, world=self._world)

    def _statistics(self, fold: Fold) -> TrainingStatistics:
        return statistics_of(self._config, self._paths, fold, study=self._study, world=self._world)


def trained_predictor(
    member: Member,
    statistics: TrainingStatistics,
    paths: RunPaths,
    *,
    study: StudyArrays,
    world: World,
) -> tuple[Predictor, int]:
    """Return a network with the weights of its best checkpoint, and that one's step."""
    predictor = make_predictor(member.config, study, statistics, DataParallel(world))
    best = paths.checkpoints(member.fold.name)
    manifest = load_best(predictor, best, data=paths.data_digest())
    return predictor, int(manifest["step"])


def _require_possible_lags(
    config: RunConfig, paths: RunPaths, study: StudyArrays, world: World
) -> None:
    """Have rank 0 look, before the first step, whether stimulus and scans fit in time."""
    problem: tuple[str, str] | None = None
    if world.is_main and config.train.check_lag and not paths.checkpoint_step():
        try:
            require_possible_lags(config, study, modalities_of(config.features))
        except DataError as error:
            problem = str(error), error.hint
    if (told := world.broadcast(problem)) is not None:
        raise DataError(told[0], hint=told[1])


def statistics_of(
    config: RunConfig, paths: RunPaths, fold: Fold, *, study: StudyArrays, world: World
) -> TrainingStatistics:
    """Return a fold's estimates; all ranks make them together when they are not there yet."""
    file = paths.statistics(fold.name, paths.data_digest())
    if not world.broadcast(file.is_file()):
        modalities, components = modalities_of(config.features), config.model.span
        found = fit(modalities, study, fold.train, world)
        if world.is_main:
            if components is not None:
                found = with_span(
                    found, modalities, study, fold.train,
                    components=components, device=world.device,
                )  # fmt: skip
            found.save(file)
    world.wait()
    return load_statistics(file)
