"""The linear baseline: ridge regression on lagged features of the same store and split."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from giblet_hpc.config.evaluate import Ridge
from giblet_hpc.config.run import RunConfig
from giblet_hpc.evaluation.blocks import VOXELS, voxel_share, write_rows
from giblet_hpc.modalities.base import Modality
from giblet_hpc.splits import Block, Fold
from giblet_hpc.timing import delayed
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.statistics import in_parts, rows_of
from giblet_hpc.training.world import World

logger = logging.getLogger(__name__)
RESPONSE_SECONDS = 12.0
SVD_SEED = 0


def delays_of(ridge: Ridge, tr: float) -> tuple[int, ...]:
    """Return the lags in TRs: the config's, else from 1 TR to 12 s."""
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

    The penalty of each voxel is chosen by cross-validation over contiguous, purged blocks of
    those TRs; principal components and LSA come from the training TRs alone.
    """
    trs, subjects = sum(block.trs for block in fold.test), len(study.subjects)
    mine = voxel_share(study.voxels, world)
    files = [path.with_name(f"ridge-rank-{rank}.npy") for rank in range(world.size)]
    own = _predictions(config, study, modalities, fold, mine)
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


def _predictions(
    config: RunConfig,
    study: StudyArrays,
    modalities: Mapping[str, Modality],
    fold: Fold,
    voxels: slice,
) -> Iterator[NDArray[np.float32]]:
    """Yield each subject's predictions of some voxels, (test trs, voxels)."""
    options = config.evaluate.ridge
    features = principal_features(config, study, modalities, fold.train)
    delays = delays_of(options, config.study.tr)
    used = (*fold.train, *fold.validation)

    def lagged(blocks: Sequence[Block]) -> NDArray[np.float32]:
        return rows_of([delayed(features[b.run][b.start : b.stop], delays) for b in blocks])

    inputs, tests = lagged(used), lagged(fold.test)
    for subject in range(len(study.subjects)):
        scans = rows_of([study.runs[b.run].bold[subject, b.start : b.stop, voxels] for b in used])
        valid = rows_of([study.runs[b.run].valid[subject, b.start : b.stop] for b in used])
        if not scans.shape[1]:
            yield np.empty((len(tests), 0), np.float32)
            continue
        model = fit_ridge(inputs[valid], scans[valid], options, purge=max(delays))
        yield np.asarray(model.predict(tests), dtype=np.float32)


def fit_ridge(
    inputs: NDArray[np.float32], scans: NDArray[np.float32], options: Ridge, *, purge: int
) -> Any:
    """Fit himalaya's ridge with a penalty of its own for each voxel.

    Parameters
    ----------
    inputs : ndarray, shape (trs, columns)
    scans : ndarray, shape (trs, voxels)
    options : Ridge
    purge : int
        TRs dropped on both sides of a cross-validation block.
    """
    from himalaya.backend import set_backend
    from himalaya.kernel_ridge import KernelRidgeCV
    from himalaya.ridge import RidgeCV

    backend = set_backend("torch_cuda" if torch.cuda.is_available() else "numpy")
    kind = RidgeCV if inputs.shape[1] < inputs.shape[0] else KernelRidgeCV
    model = kind(
        alphas=np.array(options.alphas),
        cv=purged_blocks(len(inputs), options.folds, purge),
        fit_intercept=True,
        solver_params={"n_targets_batch": VOXELS, "n_targets_batch_refit": VOXELS},
    )
    model.fit(backend.asarray(inputs), backend.asarray(scans))
    return _OnCpu(model, backend)


class _OnCpu:
    """A fitted model whose predictions are numpy arrays."""

    def __init__(self, model: Any, backend: Any) -> None:
        self._model = model
        self._backend = backend

    def predict(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        predicted = self._model.predict(self._backend.asarray(inputs))
        result: NDArray[np.float32] = self._backend.to_numpy(predicted)
        return result


def purged_blocks(
    trs: int, folds: int, purge: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return (fitting rows, scoring rows) of a contiguous cross-validation with gaps."""
    edges = np.linspace(0, trs, folds + 1).astype(int)
    rows = np.arange(trs)
    return [
        (rows[(rows < start - purge) | (rows >= stop + purge)], rows[start:stop])
        for start, stop in itertools.pairwise(edges)
    ]
