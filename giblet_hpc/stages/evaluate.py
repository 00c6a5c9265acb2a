"""Evaluate: predictions of all ranks, ridge beside them, scores, maps, samples, the report.

Every product is a file that is written whole; a stage that was interrupted makes only what is
missing. Products of another checkpoint are discarded.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from giblet_hpc.config.io import fingerprint
from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import DataError
from giblet_hpc.evaluation import bootstrap, figures, methods, page, samples, scores
from giblet_hpc.evaluation.baselines import delays_of, write_ridge
from giblet_hpc.evaluation.prediction import load_best, predict_test, read_figures
from giblet_hpc.files import read_json, write_json, write_with
from giblet_hpc.plans.study_size import stored_bytes
from giblet_hpc.runs import checkpoints
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.runs.progress import Progress
from giblet_hpc.scans.cleaning import restore
from giblet_hpc.scans.recordings import hemisphere_files, open_recording
from giblet_hpc.splits import Fold, load_folds, repeats_of
from giblet_hpc.stages.train import statistics_of
from giblet_hpc.store import FeatureStore
from giblet_hpc.subjects import find_subjects
from giblet_hpc.training.feed import GROUP_MEAN, StudyArrays, load_study
from giblet_hpc.training.node_memory import memory_for
from giblet_hpc.training.predictor import Predictor, make_predictor
from giblet_hpc.training.strategy import DataParallel
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
    results, strategy = [], DataParallel(world)
    for fold in load_folds(paths.split):
        folder = paths.evaluation / fold.name
        statistics = statistics_of(config, paths, fold, study=study, world=world)
        predictor = make_predictor(config, study, statistics, strategy)
        best = paths.checkpoints(fold.name)
        manifest = load_best(predictor, best, data=paths.data_digest())
        if world.is_main:
            progress.note(phase=f"predicting {fold.name}")
            _discard_others(folder, config, paths, checkpoints.best(best))
        if not world.broadcast((folder / "predictions.npy").is_file()):
            predict_test(predictor, fold.test, folder, world)
        if world.is_main:
            progress.note(phase=f"scoring {fold.name}")
        _make_scores(predictor, fold, (study, everyone), folder, manifest=manifest, world=world)
        if world.is_main:
            results.append(_score(paths, predictor, fold, study))
    if world.is_main:
        _write_results(config, paths, results)
    world.wait()


def _discard_others(folder: Path, config: RunConfig, paths: RunPaths, best: Path) -> None:
    """Remove products that another checkpoint, config or store made."""
    made_from = {
        "inputs": read_json(paths.inputs),
        "checkpoint": checkpoints.manifest_of(best)["files"],
        "config": fingerprint(config),
    }
    record = folder / "made_from.json"
    if record.is_file() and read_json(record) == made_from:
        return
    if folder.exists():
        shutil.rmtree(folder)
    write_json(record, made_from)


def _make_scores(
    predictor: Predictor,
    fold: Fold,
    studies: tuple[StudyArrays, StudyArrays],
    folder: Path,
    *,
    manifest: dict[str, Any],
    world: World,
) -> None:
    """Write a fold's ridge, scores and maps where they are not there yet; all ranks share in it."""
    config, (study, everyone) = predictor.config, studies
    ridge = folder / "ridge.npy"
    if not world.broadcast(ridge.is_file()):
        logger.info("ridge on %d training TRs", sum(b.trs for b in fold.train + fold.validation))
        write_ridge(config, study, predictor.modalities, fold, path=ridge, world=world)
    if world.broadcast((folder / "fold.json").is_file()):
        return
    predictions = _predictions(folder)
    scored = scores.scored_subjects(study, fold)
    _require_scored(study, fold, scored)
    arrays = scores.score_maps(study, fold.test, predictions, world, scored=scored)
    group = config.bold.mode == "cross_subject"
    ceiling = scores.ceiling_map(
        everyone, fold.test, world, group_mean=group, repeats=repeats_of(fold.test, config.study)
    )
    members = scores.members_of(*_labels(config), study.voxels)
    draws = bootstrap.draw_scores(
        study, fold.test, predictions, np.stack(list(members.values())),
        length=max(1, round(config.evaluate.bootstrap_seconds / config.study.tr)),
        count=config.evaluate.bootstrap_draws, world=world, scored=scored,
    )  # fmt: skip
    if world.is_main:
        rows = scores.region_rows(
            arrays, ceiling=ceiling, best=_best_r(config, study), members=members,
            min_ceiling=config.evaluate.min_ceiling,
        )  # fmt: skip
        names = [study.subjects[number] for number in scored]
        subjects = bootstrap.subject_rows(draws, names) if draws else []
        if draws is not None:
            bootstrap.add_intervals(rows, draws)
        saved = {**arrays, **({} if ceiling is None else {"ceiling": ceiling})}
        _write_scores(folder, fold, study, saved, rows=(rows, subjects), manifest=manifest)


def _require_scored(study: StudyArrays, fold: Fold, scored: Sequence[int]) -> None:
    """Say who is not scored.

    Raises
    ------
    DataError
        When that is everyone.
    """
    left = [name for number, name in enumerate(study.subjects) if number not in scored]
    if left:
        logger.warning("%s: not scored, for lack of scans to train on or to test on: %s",
                       fold.name or "test", ", ".join(left))  # fmt: skip
    if not scored:
        raise DataError(
            "nobody has scans both to train on and to test on",
            hint="let split.test_runs name runs of subjects who have others too",
        )


def _predictions(folder: Path) -> dict[str, NDArray[np.float32]]:
    files = {"model": "predictions.npy", "ridge": "ridge.npy"}
    return {name: np.load(folder / file, mmap_mode="r") for name, file in files.items()}


def _score(paths: RunPaths, predictor: Predictor, fold: Fold, study: StudyArrays) -> dict[str, Any]:
    """Return a fold's part of the report, from its products."""
    config = predictor.config
    folder = paths.evaluation / fold.name
    predictions = _predictions(folder)
    if config.evaluate.write_scans and study.subjects != (GROUP_MEAN,):
        _write_predicted_scans(config, study, fold, predictions["model"], folder)
    rows = read_json(folder / "fold.json")
    with np.load(folder / "maps.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    figures = read_figures(folder)
    reconstruction = [
        (f"{name}: {label}", figures[name][key])
        for name, modality in predictor.reconstructed.items()
        for key, label in modality.labels.items()
        if key in figures[name]
    ]
    _draw(paths, predictor, fold, study, arrays, rows["subjects"])
    return {**rows, "reconstruction": reconstruction}


def _draw(
    paths: RunPaths,
    predictor: Predictor,
    fold: Fold,
    study: StudyArrays,
    arrays: dict[str, NDArray[np.float64]],
    subjects: list[dict[str, Any]],
) -> None:
    """Write a fold's pictures."""
    folder, predictions = paths.figures(fold.name), _predictions(paths.evaluation / fold.name)
    figures.save_figure(folder, "training", figures.training_figure(paths.metrics(fold.name)))
    histogram = figures.histogram_figure(arrays["model_r"], arrays["ridge_r"])
    figures.save_figure(folder, "histogram", histogram)
    if subjects:
        figures.save_figure(folder, "subjects", figures.subjects_figure(subjects))
    figures.save_maps(folder, arrays, study.mask, study.space)
    for place in samples.sample_trs(fold.test, predictor.config.evaluate.samples):
        drawn = samples.sample_figure(predictor, study, place, predictions["model"])
        figures.save_figure(folder, f"sample-{place[0].run}-TR-{place[1]:04d}", drawn)


def _write_scores(
    folder: Path,
    fold: Fold,
    study: StudyArrays,
    saved: dict[str, NDArray[np.float64]],
    *,
    rows: tuple[list[dict[str, Any]], list[dict[str, Any]]],
    manifest: dict[str, Any],
) -> None:
    """Write a fold's maps and tables, of regions and of subjects."""
    write_with(folder / "maps.npz", lambda handle: np.savez(handle, **saved))  # type: ignore[arg-type]
    for name, values in saved.items():
        mean = values if values.ndim == 1 else np.nanmean(values, axis=0)
        study.space.write(folder / name, mean, study.mask)
    trained = ", ".join(dict.fromkeys(block.run for block in fold.train))
    tested = ", ".join(dict.fromkeys(block.run for block in fold.test))
    write_json(
        folder / "fold.json",
        {
            "title": f"trained on {trained}, tested on {tested}",
            "fold": fold.name,
            "verdict": _verdict(rows[0][0]),
            "test_trs": sum(block.trs for block in fold.test),
            "step": manifest["step"],
            "rows": rows[0],
            "subjects": rows[1],
        },
    )


def _write_predicted_scans(
    config: RunConfig,
    study: StudyArrays,
    fold: Fold,
    predictions: NDArray[np.float32],
    folder: Path,
) -> None:
    """Write the predictions of each test block and subject, with the scans' mean and deviation."""
    assert config.study.store is not None
    store = FeatureStore(config.study.store)
    begin = 0
    for block in fold.test:
        rows = slice(begin, begin + block.trs)
        begin = rows.stop
        for number, subject in enumerate(study.subjects):
            statistics = store.read(f"stats/{subject}/{block.run}")
            scans = restore(predictions[min(number, len(predictions) - 1), rows], statistics)
            name = f"predicted_{subject}_{block.run}_{block.start}-{block.stop}"
            study.space.write(folder / name, scans, study.mask, tr=config.study.tr)


def _labels(config: RunConfig) -> tuple[NDArray[np.int32] | None, dict[str, str]]:
    if config.bold.regions is None:
        return None, {}
    assert config.study.store is not None
    store = FeatureStore(config.study.store)
    return store.read("regions"), dict(store.array("regions").attributes["names"])


def _best_r(config: RunConfig, study: StudyArrays) -> NDArray[np.float64] | None:
    """Return the known best r, (subjects, voxels); None where there is none, or not of the mean."""
    if config.evaluate.best_r is None or study.subjects == (GROUP_MEAN,):
        return None
    paths = hemisphere_files(config.study.root, str(config.evaluate.best_r))
    known = open_recording(paths)
    study.space.check(paths[0], known.space)
    everyone = find_subjects(config.study.model_copy(update={"subjects": "all"}), config.bold)
    if known.trs != len(everyone):
        raise DataError(
            f"evaluate.best_r {paths[0]} has {known.trs} volumes; wanted is one for each of the "
            f"{len(everyone)} subjects"
        )
    values = known.rows(slice(None))[:, study.mask].astype(np.float64)
    return values[[everyone.index(name) for name in study.subjects]]


def _verdict(row: dict[str, Any]) -> str:
    """Say in a sentence how the network stands against the linear baseline."""
    model, ridge = _with_interval(row, "model_r"), _with_interval(row, "ridge_r")
    said = row.get("verdict", "")
    if said == "better":
        return f"The network (mean r {model}) is better than ridge ({ridge})."
    if said == "worse":
        return (
            f"Ridge (mean r {ridge}) is better than the network ({model}): for prediction alone, "
            "the linear model is the one to use."
        )
    if said:
        low, high = row["difference_interval"]
        return (
            f"The network (mean r {model}) and ridge ({ridge}) cannot be told apart: their "
            f"difference is {row['difference']:+.3f} [{low:+.3f}, {high:+.3f}]."
        )
    return f"Mean r of the network {model}, of ridge {ridge}: too few test TRs to tell them apart."


def _with_interval(row: dict[str, Any], key: str) -> str:
    ends = row.get(f"{key}_interval")
    return f"{row[key]:.3f}" + (f" [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else "")


def _write_results(config: RunConfig, paths: RunPaths, folds: list[dict[str, Any]]) -> None:
    write_json(paths.scores, folds)
    methods.save(
        paths,
        "evaluate",
        methods.of_evaluation(config, delays=delays_of(config.evaluate.ridge, config.study.tr)),
    )
    logger.info("report: %s", page.write_report(paths, config))
