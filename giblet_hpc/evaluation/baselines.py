"""The linear baseline: ridge regression on lagged features of the same store and split."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.config.evaluate import Ridge
from giblet_hpc.config.run import RunConfig
from giblet_hpc.evaluation.blocks import FEWEST_TRS, voxel_share, write_rows
from giblet_hpc.evaluation.penalised import fit_ridge
from giblet_hpc.evaluation.smooth_lags import SUBJECTS, VOXELS, Prior, choose, with_prior
from giblet_hpc.files import write_json
from giblet_hpc.modalities.base import Modality
from giblet_hpc.splits import Block, Fold
from giblet_hpc.timing import delayed
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.statistics import in_parts, rows_of
from giblet_hpc.training.world import World

logger = logging.getLogger(__name__)
RESPONSE_SECONDS = 16.0
SVD_SEED = 0


def delays_of(ridge: Ridge, tr: float) -> tuple[int, ...]:
    """Return the lags in TRs: the config's, else from 1 TR to 16 s."""
    return ridge.delays or tuple(range(1, math.ceil(RESPONSE_SECONDS / tr) + 1))


def principal_features(
    config: RunConfig,
    study: StudyArrays,
    modalities: Mapping[str, Modality],
    blocks: Sequence[Block],
) -> dict[str, NDArray[np.float32]]:
    """Return every run's features: each modality's principal components of the training TRs.

    A modality is scaled to unit total variance, its components keep their relative sizes.

    Returns
    -------
    dict of str to ndarray, shape (trs, components of all modalities)
    """
    from sklearn.decomposition import PCA

    def features_of(rows: NDArray[Any], kind: Modality) -> NDArray[Any]:
        return kind.baseline_features(
            kind.inputs(rows, kind.estimates), study.shared.get(kind.name)
        )

    columns: dict[str, list[NDArray[np.float32]]] = {name: [] for name in study.runs}
    for modality, kind in modalities.items():
        if not kind.feeds:
            continue
        features = {
            name: in_parts(run.stimulus[modality], partial(features_of, kind=kind))
            for name, run in study.runs.items()
        }
        training = rows_of([features[b.run][b.start : b.stop] for b in blocks])
        size = min(config.evaluate.ridge.components, *(n - 1 for n in training.shape))
        pca = PCA(size, svd_solver="full" if min(training.shape) < 2000 else "randomized",
                  random_state=SVD_SEED).fit(training)  # fmt: skip
        divisor = math.sqrt(float(pca.explained_variance_.sum())) or 1.0
        for name, values in features.items():
            columns[name].append((pca.transform(values) / divisor).astype(np.float32))
    return {name: np.concatenate(parts, axis=1) for name, parts in columns.items()}


def write_ridge(
    config: RunConfig,
    study: StudyArrays,
    modalities: Mapping[str, Modality],
    fold: Fold,
    *,
    path: Path,
    world: World,
) -> None:
    """Write each subject's predictions as a .npy file, (subjects, test trs, voxels).

    Fit on the fold's training and validation TRs, predict its test TRs; each rank does so for a
    share of the voxels.

    How smooth responses are over lags, and whether voxels share a penalty, is chosen by nested
    cross-validation over contiguous, purged blocks of those TRs, penalties by one inside it;
    principal components and LSA come from the training TRs alone. The choice is written beside the
    file, as ``ridge.json``.
    """
    trs, subjects = sum(block.trs for block in fold.test), len(study.subjects)
    mine = voxel_share(study.voxels, world)
    files = [path.with_name(f"ridge-rank-{rank}.npy") for rank in range(world.size)]
    inputs = _Inputs(config, study, modalities, fold)
    prior = Prior(**world.broadcast(inputs.choose().facts() if world.is_main else {}))
    if world.is_main:
        write_json(path.with_suffix(".json"), prior.facts())
        logger.info("ridge: %s", prior)
    own = inputs.predictions(prior, mine)
    write_rows(files[world.rank], (subjects, trs, mine.stop - mine.start), own)
    world.wait()
    if world.is_main:
        ranks = [np.load(file, mmap_mode="r") for file in files]
        rows = (
            np.concatenate([part[subject, tr] for part in ranks])
            for subject in range(subjects)
            for tr in range(trs)
        )
        write_rows(path, (subjects, trs, study.voxels), rows)
        for file in files:
            file.unlink()
    world.wait()


class _Inputs:
    """A fold's lagged features, and the scans that go with them.

    Parameters
    ----------
    config : RunConfig
    study : StudyArrays
    modalities : mapping of str to Modality
    fold : Fold
    """

    def __init__(
        self,
        config: RunConfig,
        study: StudyArrays,
        modalities: Mapping[str, Modality],
        fold: Fold,
    ) -> None:
        self._options, self._tr, self._study = config.evaluate.ridge, config.study.tr, study
        self._delays = delays_of(self._options, self._tr)
        self._used = (*fold.train, *fold.validation)
        features = principal_features(config, study, modalities, fold.train)

        def lagged(blocks: Sequence[Block]) -> NDArray[np.float32]:
            every = [delayed(features[b.run][b.start : b.stop], self._delays) for b in blocks]
            return rows_of(every)

        self._fitted, self._tests = lagged(self._used), lagged(fold.test)

    def choose(self) -> Prior:
        """Choose the prior by some voxels of some subjects."""
        step = max(1, self._study.voxels // VOXELS)
        everyone = range(len(self._study.subjects))
        some = [number for number in everyone if self._scanned(number)][:SUBJECTS]
        pairs = [self._scans(subject, slice(0, None, step)) for subject in some]
        scans, valid = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        return choose(self._fitted, scans, valid, self._options, delays=self._delays, tr=self._tr)

    def _scanned(self, subject: int) -> bool:
        """Whether a subject has scans enough to fit a model to."""
        runs = self._study.runs
        there = [runs[b.run].valid[subject, b.start : b.stop].sum() for b in self._used]
        return sum(map(int, there)) >= FEWEST_TRS

    def _scans(self, subject: int, voxels: slice) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        runs = self._study.runs
        if voxels.step is None:
            scans = [runs[b.run].bold[subject, b.start : b.stop, voxels] for b in self._used]
        else:
            scans = [runs[b.run].bold[subject, b.start : b.stop][:, voxels] for b in self._used]
        valid = [runs[b.run].valid[subject, b.start : b.stop] for b in self._used]
        return rows_of(scans), rows_of(valid)

    def predictions(self, prior: Prior, voxels: slice) -> Iterator[NDArray[np.float32]]:
        """Yield each subject's predictions of some voxels, (test trs, voxels).

        NaN of a subject without scans to fit a model to.
        """
        length, purge = prior.smooth_seconds / self._tr, max(self._delays)
        inputs = with_prior(self._fitted, self._delays, length)
        tests = with_prior(self._tests, self._delays, length)
        for subject in range(len(self._study.subjects)):
            scans, valid = self._scans(subject, voxels)
            if not scans.shape[1]:
                yield np.empty((len(tests), 0), np.float32)
                continue
            if not self._scanned(subject):
                yield np.full((len(tests), scans.shape[1]), np.nan, np.float32)
                continue
            model = fit_ridge(
                inputs[valid], scans[valid], self._options, purge=purge, one=prior.one_penalty
            )
            yield np.asarray(model.predict(tests), dtype=np.float32)
