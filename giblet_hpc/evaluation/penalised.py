"""Ridge regression with penalties chosen by purged cross-validation."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from giblet_hpc.config.evaluate import Ridge
from giblet_hpc.errors import DataError
from giblet_hpc.evaluation.blocks import VOXELS

FEWEST_TRS = 2
"""To fit on."""


def fit_ridge(
    inputs: NDArray[np.float32],
    scans: NDArray[np.float32],
    options: Ridge,
    *,
    purge: int,
    one: bool = False,
) -> Any:
    """Fit himalaya's ridge, its penalties chosen by cross-validation.

    Parameters
    ----------
    inputs : ndarray, shape (trs, columns)
    scans : ndarray, shape (trs, voxels)
    options : Ridge
    purge : int
        TRs dropped on both sides of a cross-validation block.
    one : bool
        One penalty for all voxels, rather than one for each.

    Raises
    ------
    DataError
        When the TRs are too few for any block.
    """
    if not usable_blocks(len(inputs), options.folds, purge):
        raise DataError(
            f"{len(inputs)} training TRs are too few for ridge, whose lags reach {purge} TRs",
            hint="fewer evaluate.ridge.delays, or more training TRs",
        )
    from himalaya.backend import set_backend
    from himalaya.kernel_ridge import KernelRidgeCV
    from himalaya.ridge import RidgeCV

    backend = set_backend("torch_cuda" if torch.cuda.is_available() else "numpy")
    kind = RidgeCV if inputs.shape[1] < inputs.shape[0] else KernelRidgeCV
    model = kind(
        alphas=np.array(options.alphas),
        cv=usable_blocks(len(inputs), options.folds, purge),
        fit_intercept=True,
        solver_params={
            "n_targets_batch": VOXELS,
            "n_targets_batch_refit": VOXELS,
            "local_alpha": not one,
        },
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


def usable_blocks(
    trs: int, folds: int, purge: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return those blocks of `purged_blocks` beside which something is left to fit on."""
    return [pair for pair in purged_blocks(trs, folds, purge) if len(pair[0]) >= FEWEST_TRS]


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
