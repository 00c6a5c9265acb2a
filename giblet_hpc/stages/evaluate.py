"""Evaluate: predictions of all ranks, ridge beside them, scores, maps, samples, the report.

Every product is a file that is written whole; a stage that was interrupted makes only what is
missing. Products of another checkpoint are discarded.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from giblet_hpc.config.io import fingerprint
from giblet_hpc.config.run import RunConfig
from giblet_hpc.evaluation import combine, figures, methods, page, reconstruction, samples
from giblet_hpc.evaluation.baselines import Baselines, delays_of
from giblet_hpc.evaluation.blocks import is_made
from giblet_hpc.evaluation.calibration import Calibration, summary
from giblet_hpc.evaluation.fold import RANDOM, ScoredFold, labels_of
from giblet_hpc.evaluation.leak import random_split_r
from giblet_hpc.evaluation.metrics import run_rows
from giblet_hpc.evaluation.prediction import predict_by
from giblet_hpc.files import read_json, write_json, write_with
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.plans.study_size import stored_bytes
from giblet_hpc.runs import checkpoints
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.runs.progress import Progress
from giblet_hpc.scans.cleaning import restore
from giblet_hpc.splits import Block, Fold, load_folds, outer_folds
from giblet_hpc.stages.choose import choice_file, chosen_members
from giblet_hpc.stages.train import statistics_of, trained_predictor
from giblet_hpc.store import FeatureStore
from giblet_hpc.training.feed import GROUP_MEAN, StudyArrays, load_study
from giblet_hpc.training.members import Member
from giblet_hpc.training.node_memory import memory_for
from giblet_hpc.training.predictor import Predictor
from giblet_hpc.training.statistics import fitted_modalities
from giblet_hpc.training.world import World

logger = logging.getLogger(__name__)


def run(config: RunConfig, paths: RunPaths, world: World) -> None:
    """Score every fold and write the report.

    Parameters
    ----------
    config : RunConfig
    paths : RunPaths
    world : World
        Of any number of ranks, whatever training used.
    """
    torch.use_deterministic_algorithms(True)
    progress = Progress(paths, "evaluate")
    inputs = read_json(paths.inputs)
    needed = stored_bytes(config, inputs)
    place = config.train.place
    study = load_study(config, inputs, memory=memory_for(world, needed, place))
    everyone = study
    if config.bold.mode == "cross_subject":
        needed = stored_bytes(config, inputs, per_subject=True)
        memory = memory_for(world, needed, place)
        everyone = load_study(config, inputs, memory=memory, per_subject=True)
    results = []
    folds = load_folds(paths.split)
    for fold in outer_folds(folds):
        inner = [one for one in folds if one.within == fold.name]
        work = _FoldWork(config, paths, fold, inner, study=study, world=world)
        scored = ScoredFold(config, study, everyone, fold, work.folder, world)
        if world.is_main:
            progress.note(phase=f"predicting {fold.name}")
            work.discard_others()
        work.predict()
        if world.is_main:
            progress.note(phase=f"scoring {fold.name}")
        if not is_made(work.folder / "fold.json", world):
            work.compare(scored)
        work.reconstruct()
        predictor, step = work.first()
        scored.write(step=step)
        if world.is_main:
            results.append(_shown(paths, predictor, scored))
    if world.is_main:
        _write_results(config, paths, results)
    world.wait()


class _FoldWork:
    """Makes a fold's predictions: of the network, of the linear baseline, of both together.

    Parameters
    ----------
    config : RunConfig
    paths : RunPaths
    fold : Fold
    inner : sequence of Fold
        Those that divide its training TRs.
    study : StudyArrays
    world : World
    """

    def __init__(
        self,
        config: RunConfig,
        paths: RunPaths,
        fold: Fold,
        inner: Sequence[Fold],
        *,
        study: StudyArrays,
        world: World,
    ) -> None:
        self._config, self._paths, self._fold, self._inner = config, paths, fold, inner
        self._study, self._world = study, world
        self.folder = paths.evaluation / fold.name
        self._held: tuple[str, Predictor, int] | None = None

    def discard_others(self) -> None:
        """Remove products that another checkpoint, config or store made."""
        used = [self._fold, *self._inner] if self._config.evaluate.network else []
        every = [member for fold in used for member in self._members(fold)]
        best = [checkpoints.best(self._paths.checkpoints(one.fold.name)) for one in every]
        _discard_others(self.folder, self._config, self._paths, best)

    def predict(self) -> None:
        """Have the network predict the test TRs."""
        if self._config.evaluate.network:
            self._predict_by(self._fold, self._fold.test, self.folder)

    def first(self) -> tuple[Predictor | None, int | None]:
        """Return the first of the fold's networks and its checkpoint's step; none without one."""
        if not self._config.evaluate.network:
            return None, None
        return self._network(self._members(self._fold)[0], self._fold)

    def reconstruct(self) -> None:
        """Write what reconstructions are held against, and what is decoded from scans."""
        predictor, _ = self.first()
        if predictor is None or not predictor.reconstructed:
            return
        options, folder, world = self._config.evaluate, self.folder, self._world
        if options.controls:
            reconstruction.write_controls(predictor, self._fold.test, folder, world)
        if options.decode:
            reconstruction.write_decoded(predictor, self._fold, self._study, folder, world)

    def compare(self, scored: ScoredFold) -> None:
        """Write what the network is held against, and both together."""
        linear = self._linear(self._fold)
        logger.info("ridge on %d training TRs",
                    sum(b.trs for b in self._fold.train + self._fold.validation))  # fmt: skip
        linear.write(self.folder)
        self._calibrate(linear, scored)
        self._show_leak(linear, scored)
        path = self.folder / "combined.npy"
        if not self._config.evaluate.network or is_made(path, self._world):
            return
        held_out = list(self._held_out(linear))
        if not held_out:
            logger.info("no gate between network and ridge: there are no validation TRs, and no "
                        "split.inner_blocks")  # fmt: skip
            return
        labels, names = labels_of(self._config)
        gate = combine.gates(
            self._study, held_out, labels, stretch=scored.stretch, scored=scored.scored(),
            world=self._world,
        )  # fmt: skip
        if self._world.is_main:
            write_json(self.folder / "gate.json", combine.by_region(gate, labels, names))
            made = scored.predictions(scored.files())
            runs = run_rows(self._fold.test)
            combine.write_combined(path, made["model"], made["ridge"], gate, runs)
        self._world.wait()

    def _calibrate(self, linear: Baselines, scored: ScoredFold) -> None:
        """Write how much of a new subject's data is needed, where it is asked for."""
        minutes, path = self._config.evaluate.calibration_minutes, self.folder / "calibration.json"
        if not minutes or is_made(path, self._world):
            return
        scored_subjects = scored.scored()
        if len(scored_subjects) < 2:
            logger.warning("no new subjects: evaluate.calibration_minutes needs two or more")
            return
        options, tr = self._config.evaluate.ridge, self._config.study.tr
        work = Calibration(self._study, linear, options, tr=tr, world=self._world)
        rows = work.rows(self._fold.test, minutes, scored=scored_subjects)
        if self._world.is_main:
            write_json(path, rows)
        self._world.wait()

    def _show_leak(self, linear: Baselines, scored: ScoredFold) -> None:
        """Write what a split by random TRs would score, where it is asked for."""
        path = self.folder / RANDOM
        if not self._config.evaluate.random_trs or is_made(path, self._world):
            return
        r = random_split_r(
            self._study, linear, self._fold.test, self._config.evaluate.ridge,
            scored=scored.scored(), world=self._world,
        )  # fmt: skip
        if self._world.is_main:
            write_with(path, lambda handle: np.save(handle, r))
        self._world.wait()

    def _held_out(self, linear: Baselines) -> Iterable[combine.HeldOut]:
        """Yield predictions of TRs that neither network nor ridge was fitted to."""
        for inner in self._inner:
            folder = self.folder / inner.name
            self._predict_by(inner, inner.test, folder)
            self._linear(inner).write_apart(folder, linear, inner.train, inner.test)
            yield _load(inner.test, folder)
        if not self._inner and self._fold.validation:
            folder = self.folder / "validation"
            self._predict_by(self._fold, self._fold.validation, folder)
            linear.write_apart(folder, linear, self._fold.train, self._fold.validation)
            yield _load(self._fold.validation, folder)

    def _network(self, member: Member, fold: Fold) -> tuple[Predictor, int]:
        """Return a network with its weights; one is held at a time, as two may not fit."""
        name = member.fold.name
        if self._held is not None and self._held[0] == name:
            return self._held[1:]
        self._held = None
        statistics = statistics_of(
            self._config, self._paths, fold, study=self._study, world=self._world
        )
        predictor, step = trained_predictor(
            member, statistics, self._paths, study=self._study, world=self._world
        )
        self._held = (name, predictor, step)
        return predictor, step

    def _predict_by(self, fold: Fold, blocks: Sequence[Block], folder: Path) -> None:
        """Write what a fold's networks predict of some TRs, in the mean of their seeds."""
        predict_by(
            self._members(fold), blocks, folder,
            load=lambda member: self._network(member, fold)[0], world=self._world,
        )  # fmt: skip

    def _members(self, fold: Fold) -> list[Member]:
        return chosen_members(self._config, self._paths, fold, self._fold)

    def _linear(self, fold: Fold) -> Baselines:
        statistics = statistics_of(
            self._config, self._paths, fold, study=self._study, world=self._world
        )
        modalities = fitted_modalities(
            modalities_of(self._config.features), self._study, statistics
        )
        return Baselines(self._config, self._study, modalities, fold, world=self._world)


def _discard_others(folder: Path, config: RunConfig, paths: RunPaths, best: Sequence[Path]) -> None:
    """Remove products that other checkpoints, another config or another store made."""
    made_from = {
        "inputs": read_json(paths.inputs),
        "checkpoints": [checkpoints.manifest_of(one)["files"] for one in best],
        "config": fingerprint(config),
    }
    record = folder / "made_from.json"
    if record.is_file() and read_json(record) == made_from:
        return
    if folder.exists():
        shutil.rmtree(folder)
    write_json(record, made_from)


def _load(blocks: Sequence[Block], folder: Path) -> combine.HeldOut:
    model, ridge = (
        np.load(folder / name, mmap_mode="r") for name in ("predictions.npy", "ridge.npy")
    )
    return combine.HeldOut(blocks, model, ridge)


def _shown(paths: RunPaths, predictor: Predictor | None, scored: ScoredFold) -> dict[str, Any]:
    """Return a fold's part of the report, from its products, and draw its pictures."""
    config, folder = scored.config, scored.folder
    made = scored.predictions(scored.files())
    if config.evaluate.write_scans and scored.study.subjects != (GROUP_MEAN,):
        _write_predicted_scans(scored, made.get("model", made["ridge"]))
    rows = read_json(folder / "fold.json")
    with np.load(folder / "maps.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    _draw(paths, scored, arrays, rows["subjects"])
    gate = read_json(folder / "gate.json") if (folder / "gate.json").is_file() else {}
    choice = choice_file(paths, scored.fold)
    rows["choice"] = read_json(choice) if choice.is_file() else {}
    path = folder / "calibration.json"
    rows["calibration"] = summary(read_json(path)) if path.is_file() else []
    if predictor is None:
        return {**rows, "gate": gate, "reconstruction": [], "decoded": {}}
    where = paths.figures(scored.fold.name)
    figures.save_figure(where, "training", figures.training_figure(paths.metrics(scored.fold.name)))
    for place in samples.sample_trs(scored.fold.test, config.evaluate.samples):
        drawn = samples.sample_figure(predictor, scored.study, place, made["model"])
        figures.save_figure(where, f"sample-{place[0].run}-TR-{place[1]:04d}", drawn)
    labels = {name: modality.labels for name, modality in predictor.reconstructed.items()}
    return {**rows, "gate": gate, **reconstruction.of_fold(folder, labels)}


def _draw(
    paths: RunPaths,
    scored: ScoredFold,
    arrays: Mapping[str, NDArray[np.float64]],
    subjects: list[dict[str, Any]],
) -> None:
    """Write a fold's pictures of scores."""
    where = paths.figures(scored.fold.name)
    figures.save_figure(where, "histogram", figures.histogram_figure(arrays))
    if subjects:
        figures.save_figure(where, "subjects", figures.subjects_figure(subjects))
    figures.save_maps(where, arrays, scored.study.mask, scored.study.space)


def _write_predicted_scans(scored: ScoredFold, predictions: NDArray[np.float32]) -> None:
    """Write the predictions of each test block and subject, with the scans' mean and deviation."""
    config, study = scored.config, scored.study
    assert config.study.store is not None
    store = FeatureStore(config.study.store)
    begin = 0
    for block in scored.fold.test:
        rows = slice(begin, begin + block.trs)
        begin = rows.stop
        for number, subject in enumerate(study.subjects):
            statistics = store.read(f"stats/{subject}/{block.run}")
            scans = restore(predictions[min(number, len(predictions) - 1), rows], statistics)
            name = f"predicted_{subject}_{block.run}_{block.start}-{block.stop}"
            study.space.write(scored.folder / name, scans, study.mask, tr=config.study.tr)


def _write_results(config: RunConfig, paths: RunPaths, folds: list[dict[str, Any]]) -> None:
    write_json(paths.scores, folds)
    methods.save(
        paths,
        "evaluate",
        methods.of_evaluation(config, delays=delays_of(config.evaluate.ridge, config.study.tr)),
    )
    logger.info("report: %s", page.write_report(paths, config))
