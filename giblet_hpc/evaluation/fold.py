"""A fold's predictions and scores: files in its folder, each made where it is not there yet."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import DataError
from giblet_hpc.evaluation import bootstrap, chance, matching, scores, tables
from giblet_hpc.evaluation.baselines import TIME, WITHOUT
from giblet_hpc.evaluation.blocks import is_made
from giblet_hpc.evaluation.controls import PREVIOUS, PreviousScan
from giblet_hpc.files import write_json, write_with
from giblet_hpc.scans.recordings import hemisphere_files, open_recording
from giblet_hpc.splits import Fold, repeats_of
from giblet_hpc.store import FeatureStore
from giblet_hpc.subjects import find_subjects
from giblet_hpc.training.feed import GROUP_MEAN, StudyArrays
from giblet_hpc.training.world import World

logger = logging.getLogger(__name__)
RANDOM = "random_r.npy"
FILES = {"model": "predictions.npy", "ridge": "ridge.npy", "combined": "combined.npy"}


@dataclass(frozen=True)
class ScoredFold:
    """What a fold is scored with.

    Parameters
    ----------
    config : RunConfig
    study : StudyArrays
        As it is predicted.
    everyone : StudyArrays
        With subjects apart, for ceilings.
    fold : Fold
    folder : Path
        Of the fold's predictions and scores.
    world : World
    """

    config: RunConfig
    study: StudyArrays
    everyone: StudyArrays
    fold: Fold
    folder: Path
    world: World

    @property
    def stretch(self) -> int:
        """TRs of the blocks over which scores are taken to be independent."""
        return max(1, round(self.config.evaluate.bootstrap_seconds / self.config.study.tr))

    def files(self) -> dict[str, str]:
        """Return the files of predictors in the fold's folder, by predictor."""
        found = {name: file for name, file in FILES.items() if (self.folder / file).is_file()}
        if self.config.evaluate.controls:
            found[TIME] = f"{TIME}.npy"
        found |= {file.stem: file.name for file in sorted(self.folder.glob(f"{WITHOUT}*.npy"))}
        for file in sorted(self.folder.glob(f"{tables.SEED}*/predictions.npy")):
            found[file.parent.name] = f"{file.parent.name}/{file.name}"
        return found

    def predictions(self, files: Mapping[str, str]) -> dict[str, NDArray[np.float32]]:
        """Return what is predicted of the test TRs, by predictor; read as it is used."""
        found = {name: np.load(self.folder / file, mmap_mode="r") for name, file in files.items()}
        if self.config.evaluate.controls:
            found[PREVIOUS] = PreviousScan(self.study, self.fold.test)
        return found

    def scored(self) -> list[int]:
        """Return the subjects who are scored, and say who is not.

        Raises
        ------
        DataError
            When that is everyone.
        """
        ridge = np.load(self.folder / FILES["ridge"], mmap_mode="r")
        found = [
            number
            for number in scores.scored_subjects(self.study, self.fold)
            if np.isfinite(ridge[number, 0]).all()
        ]
        left = [name for number, name in enumerate(self.study.subjects) if number not in found]
        if left:
            logger.warning("%s: not scored, for lack of scans to train on or to test on: %s",
                           self.fold.name or "test", ", ".join(left))  # fmt: skip
        if not found:
            raise DataError(
                "nobody has scans both to train on and to test on",
                hint="let split.test_runs name runs of subjects who have others too",
            )
        return found

    def write(self, *, step: int | None) -> None:
        """Write maps and tables where they are not there yet; all ranks share in it.

        Parameters
        ----------
        step : int, optional
            Of the checkpoint that predicted, where there is a network.
        """
        if is_made(self.folder / "fold.json", self.world):
            return
        options, test, scored = self.config.evaluate, self.fold.test, self.scored()
        # Rank 0's list: others may not see yet what it has written.
        predictions = self.predictions(self.world.broadcast(self.files()))
        maps = self._maps(predictions, scored)
        ceiling = self._ceiling()
        members = scores.members_of(*labels_of(self.config), self.study.voxels)
        inside = np.stack(list(members.values()))
        draws = bootstrap.draw_scores(
            self.study, test, predictions, inside,
            length=self.stretch,
            count=options.bootstrap_draws, world=self.world, scored=scored,
        )  # fmt: skip
        main = {name: made for name, made in predictions.items() if name in FILES}
        by_chance = chance.score_chance(
            self.study, test, main, inside,
            count=options.chance_shifts, world=self.world, scored=scored,
        )  # fmt: skip
        moments = matching.match_scans(
            self.study, test, main, tr=self.config.study.tr, scored=scored, world=self.world
        )
        if not self.world.is_main:
            return
        rows = tables.region_rows(
            maps, ceiling=ceiling, best=best_r(self.config, self.study), members=members,
            min_ceiling=options.min_ceiling,
        )  # fmt: skip
        tables.add_chance(rows, by_chance, members)
        subjects: list[dict[str, Any]] = []
        if draws is not None:
            tables.add_intervals(rows, draws)
            names = [self.study.subjects[number] for number in scored]
            subjects = tables.subject_rows(draws, names)
        if ceiling is not None:
            maps["ceiling"] = ceiling
        maps |= {f"{name}_p": found.p for name, found in by_chance.items()}
        self._write(maps, {"rows": rows, "subjects": subjects, "matching": moments}, step=step)

    def _ceiling(self) -> NDArray[np.float64] | None:
        """Return the noise ceiling of every voxel, where there is one."""
        return scores.ceiling_map(
            self.everyone, self.fold.test, self.world,
            group_mean=self.config.bold.mode == "cross_subject",
            repeats=repeats_of(self.fold.test, self.config.study),
        )  # fmt: skip

    def _maps(
        self, predictions: Mapping[str, NDArray[np.float32]], scored: Sequence[int]
    ) -> scores.Maps:
        """Return each predictor's scores, and what each band adds to ridge, of every voxel."""
        maps = scores.score_maps(self.study, self.fold.test, predictions, self.world, scored=scored)
        parts = {
            f"{tables.UNIQUE}{name.removeprefix(WITHOUT)}": maps["ridge_r"] - maps[f"{name}_r"]
            for name in predictions
            if name.startswith(WITHOUT)
        }
        return {**maps, **parts, **self._products(scored), **self._leak()}

    def _leak(self) -> scores.Maps:
        """Return what a split by random TRs would score, where it was asked for."""
        file = self.folder / RANDOM
        there = self.world.is_main and file.is_file()
        return {file.stem: np.load(file)} if there else {}

    def _products(self, scored: Sequence[int]) -> scores.Maps:
        """Return what each band adds to ridge's R2, (subjects, voxels)."""
        file = self.folder / "product.npz"
        if not self.world.is_main or not file.is_file():
            return {}
        left = [n for n in range(len(self.study.subjects)) if n not in scored]
        found = {}
        with np.load(file) as archive:
            for band in archive.files:
                found[f"{tables.PRODUCT}{band}"] = archive[band]
                found[f"{tables.PRODUCT}{band}"][left] = np.nan
        return found

    def _write(
        self,
        maps: scores.Maps,
        found: Mapping[str, Any],
        *,
        step: int | None,
    ) -> None:
        write_with(self.folder / "maps.npz", lambda handle: np.savez(handle, **maps))  # type: ignore[arg-type]
        for name, values in maps.items():
            mean = values if values.ndim == 1 else np.nanmean(values, axis=0)
            if tables.is_drawn(name):
                self.study.space.write(self.folder / name, mean, self.study.mask)
        fold = self.fold
        trained = ", ".join(dict.fromkeys(block.run for block in fold.train))
        tested = ", ".join(dict.fromkeys(block.run for block in fold.test))
        write_json(
            self.folder / "fold.json",
            {
                "title": f"trained on {trained}, tested on {tested}",
                "fold": fold.name,
                "verdict": tables.in_words(found["rows"][0]),
                "test_trs": sum(block.trs for block in fold.test),
                "step": step,
                **found,
            },
        )
        # Their scores are in the tables.
        for file in self.folder.glob(f"{WITHOUT}*.npy"):
            file.unlink()


def labels_of(config: RunConfig) -> tuple[NDArray[np.int32] | None, dict[str, str]]:
    """Return the region of each voxel, and regions' names by label; none without an atlas."""
    if config.bold.regions is None:
        return None, {}
    assert config.study.store is not None
    store = FeatureStore(config.study.store)
    labels = store.read("regions")
    return labels, distinct(labels, store.array("regions").attributes["names"])


def distinct(labels: NDArray[np.int32], names: Mapping[str, str]) -> dict[str, str]:
    """Return a name for each label that is there: one that two labels have gets its number."""
    used: set[str] = {scores.ALL}
    found = {}
    for label in np.unique(labels[labels > 0]):
        name = names.get(str(label), str(label))
        found[str(label)] = f"{name} ({label})" if name in used else name
        used.add(found[str(label)])
    return found


def best_r(config: RunConfig, study: StudyArrays) -> NDArray[np.float64] | None:
    """Return the known best r, (subjects, voxels); None where there is none, or not of the mean.

    Raises
    ------
    DataError
        When its file is not of these subjects.
    """
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
