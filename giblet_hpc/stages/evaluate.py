"""Evaluate: predictions of all ranks, ridge beside them, scores, maps, samples, the report.

Every product is a file that is written whole; a stage that was interrupted makes only what is
missing. Products of another checkpoint are discarded.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from giblet_hpc.config.io import fingerprint
from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import DataError
from giblet_hpc.evaluation import maps as drawing
from giblet_hpc.evaluation import report, samples, scores
from giblet_hpc.evaluation.baselines import delays_of, write_ridge
from giblet_hpc.evaluation.prediction import load_best, predict_test, read_figures
from giblet_hpc.files import read_json, write_json, write_with
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.plans.study_size import stored_bytes
from giblet_hpc.runs import checkpoints
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.runs.progress import Progress
from giblet_hpc.scans.cleaning import restore
from giblet_hpc.scans.volumes import open_image
from giblet_hpc.splits import Fold, load_folds
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
    arrays = scores.score_maps(study, fold.test, predictions, world)
    group = config.bold.mode == "cross_subject"
    ceiling = scores.ceiling_map(everyone, fold.test, world, group_mean=group)
    if world.is_main:
        _write_scores(config, folder, fold, study, (arrays, ceiling), manifest)


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
        for name, modality in predictor.modalities.items()
        for key, label in modality.labels.items()
        if key in figures[name]
    ]
    places = samples.sample_trs(fold.test, config.evaluate.samples)
    drawn = [samples.sample_figure(predictor, study, p, predictions["model"]) for p in places]
    pictures = [drawing.slices_figure(arrays["model_r"].mean(0), study.mask, title="model r")]
    if "ceiling" in arrays:
        pictures.append(drawing.slices_figure(arrays["ceiling"], study.mask, title="noise ceiling"))
    return {
        **rows,
        "reconstruction": reconstruction,
        "training": report.training_figure(paths.metrics(fold.name)),
        "histogram": report.histogram_figure(arrays["model_r"], arrays["ridge_r"]),
        "maps": [drawing.as_data_uri(picture) for picture in pictures],
        "samples": [drawing.as_data_uri(figure) for figure in drawn],
        "health": report.health_of(paths.metrics(fold.name), config),
        "profiles": [
            f"{file.parent.name}/{file.name}"
            for file in sorted(paths.profile(fold.name).glob("steps-*"))
        ],
    }


def _write_scores(
    config: RunConfig,
    folder: Path,
    fold: Fold,
    study: StudyArrays,
    found: tuple[scores.Maps, NDArray[np.float64] | None],
    manifest: dict[str, Any],
) -> None:
    arrays, ceiling = found
    labels, names = _labels(config)
    rows = scores.region_rows(
        arrays,
        ceiling=ceiling,
        best=_best_r(config, study),
        labels=labels,
        names=names,
        min_ceiling=config.evaluate.min_ceiling,
    )
    saved = {**arrays, **({} if ceiling is None else {"ceiling": ceiling})}
    write_with(folder / "maps.npz", lambda handle: np.savez(handle, **saved))  # type: ignore[arg-type]
    for name, values in saved.items():
        mean = values if values.ndim == 1 else values.mean(axis=0)
        drawing.save_map(folder / f"{name}.nii.gz", mean, study.mask, study.affine)
    trained = ", ".join(dict.fromkeys(block.run for block in fold.train))
    tested = ", ".join(dict.fromkeys(block.run for block in fold.test))
    write_json(
        folder / "fold.json",
        {
            "title": f"trained on {trained}, tested on {tested}",
            "fold": fold.name,
            "verdict": _verdict(rows[0]),
            "test_trs": sum(block.trs for block in fold.test),
            "step": manifest["step"],
            "rows": rows,
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
            name = f"predicted_{subject}_{block.run}_{block.start}-{block.stop}.nii.gz"
            drawing.save_map(folder / name, scans, study.mask, study.affine, tr=config.study.tr)


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
    path = config.study.root / config.evaluate.best_r
    volume = np.asarray(open_image(path).dataobj, dtype=np.float64)
    everyone = find_subjects(config.study.model_copy(update={"subjects": "all"}), config.bold)
    wanted = (*study.mask.shape, len(everyone))
    if volume.shape != wanted:
        raise DataError(
            f"evaluate.best_r {path} has the shape {volume.shape}; wanted is {wanted}: the grid of "
            "the scans, and a volume for each subject"
        )
    values: NDArray[np.float64] = volume[study.mask].T
    return values[[everyone.index(name) for name in study.subjects]]


def _verdict(row: dict[str, Any]) -> str:
    """Say in a sentence how the network stands against the linear baseline."""
    model, ridge = row["model_r"], row["ridge_r"]
    if model >= ridge:
        return f"The network (mean r {model:.3f}) is at or above ridge ({ridge:.3f})."
    return (
        f"Ridge (mean r {ridge:.3f}) is better than the network ({model:.3f}): for prediction "
        "alone, the linear model is the one to use."
    )


def _write_results(config: RunConfig, paths: RunPaths, folds: list[dict[str, Any]]) -> None:
    keep = ("title", "fold", "verdict", "test_trs", "step", "rows", "reconstruction")
    write_json(paths.scores, [{key: fold[key] for key in keep} for fold in folds])
    report.write_report(
        paths.report, name=paths.name, config=config, folds=folds, notes=_notes(config)
    )
    logger.info("report: %s", paths.report)


def _notes(config: RunConfig) -> list[str]:
    delays = delays_of(config.evaluate.ridge, config.study.tr)
    notes = [
        "Scans were z-scored (and filtered, where asked) per voxel over each whole run, test TRs "
        "included: the field's convention, which uses the mean and deviation of test scans.",
        "Correlations are over time, after removing each run's mean, on all test TRs at once.",
        f"The split leaves {config.split.purge_trs} TRs between parts of a run; the network's "
        f"memory is {config.memory_trs} TRs.",
        f"Ridge: lags of {min(delays)} to {max(delays)} TRs, at most "
        f"{config.evaluate.ridge.components} principal components a modality fitted on the "
        "training TRs, penalty chosen for each voxel by cross-validation over purged contiguous "
        "blocks of training and validation TRs.",
        "The noise ceiling comes from the correlation between subjects on the test TRs; it sees "
        "only what subjects share, and individual scores may exceed it.",
    ]
    if config.bold.mode == "cross_subject":
        notes.append("The mean over subjects was predicted; r and ceiling are of that mean.")
    if config.bold.shifted_trs:
        notes.append(
            f"The files were shifted by {config.bold.shifted_trs} TRs; that was undone before "
            "modelling."
        )
    for modality in modalities_of(config.features).values():
        notes += modality.remarks()
    return notes
