"""A prior on a linear model's lags: responses that are near in time have similar weights.

Weights over lags are taken to come from a Gaussian process with a squared exponential covariance
(cf. Goutte et al. 2000, IEEE Transactions on Medical Imaging 19:1188, for FIR filters in fMRI).
Ridge regression on lagged features times a root of that covariance is the same model.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.config.evaluate import Ridge
from giblet_hpc.evaluation.metrics import fisher_mean, pearson
from giblet_hpc.evaluation.penalised import fit_ridge, usable_blocks

logger = logging.getLogger(__name__)
JITTER = 1e-4
"""Added to the covariance's diagonal: a long scale makes it singular."""
VOXELS, SUBJECTS = 512, 3
"""By which the prior is chosen: voxels at even distances, of so many subjects."""


@dataclass(frozen=True)
class Prior:
    """How a linear model's weights are held together.

    Parameters
    ----------
    smooth_seconds : float
        Length scale over lags; 0: lags are free.
    one_penalty : bool
        One penalty for all voxels, rather than one for each.
    """

    smooth_seconds: float = 0.0
    one_penalty: bool = False

    def facts(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def with_prior(
    lagged: NDArray[np.float32], delays: Sequence[int], length: float
) -> NDArray[np.float32]:
    """Return lagged features on which plain ridge has a smooth prior over lags.

    Parameters
    ----------
    lagged : ndarray, shape (trs, lags * columns)
        From `timing.delayed`.
    delays : sequence of int
        TRs.
    length : float
        Length scale in TRs; 0 returns the features as they are.
    """
    if not length or len(delays) == 1:
        return lagged
    apart = np.subtract.outer(delays, delays) / length
    covariance = np.exp(-0.5 * apart**2) + JITTER * np.eye(len(delays))
    root = np.linalg.cholesky(covariance).astype(np.float32)
    blocks = lagged.reshape(len(lagged), len(delays), -1)
    mixed: NDArray[np.float32] = np.einsum("tlk,lm->tmk", blocks, root)
    return mixed.reshape(lagged.shape)


def choose(
    lagged: NDArray[np.float32],
    scans: Sequence[NDArray[np.float32]],
    valid: Sequence[NDArray[np.bool_]],
    options: Ridge,
    *,
    delays: Sequence[int],
    tr: float,
) -> Prior:
    """Choose the prior by nested cross-validation inside some TRs.

    Each of ``options.folds`` purged blocks is predicted by models whose penalties are chosen on the
    others alone; the candidate with the highest mean r is taken, of equal ones the first.

    Parameters
    ----------
    lagged : ndarray, shape (trs, lags * columns)
    scans : sequence of ndarray, shape (trs, voxels)
        Of some subjects.
    valid : sequence of ndarray of bool, shape (trs,)
    options : Ridge
    delays : sequence of int
    tr : float
        Seconds.
    """
    several = {"auto": (False, True), "voxel": (False,), "one": (True,)}[options.penalties]
    candidates = [
        Prior(seconds, one) for seconds, one in itertools.product(options.smooth_seconds, several)
    ]
    if len(candidates) == 1:
        return candidates[0]
    fewest = min(int(there.sum()) for there in valid)
    if not _nested(fewest, options.folds, max(delays)):
        logger.warning(
            "%d training TRs are too few to choose ridge's prior: %s is taken",
            fewest,
            candidates[0],
        )
        return candidates[0]
    found = [
        _score(
            with_prior(lagged, delays, candidate.smooth_seconds / tr), scans, valid, options,
            purge=max(delays), one=candidate.one_penalty,
        )
        for candidate in candidates
    ]  # fmt: skip
    return candidates[int(np.argmax(found))]


def _nested(trs: int, folds: int, purge: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return the blocks beside which penalties can be chosen by blocks again."""
    return [
        pair
        for pair in usable_blocks(trs, folds, purge)
        if usable_blocks(len(pair[0]), folds, purge)
    ]


def _score(
    inputs: NDArray[np.float32],
    scans: Sequence[NDArray[np.float32]],
    valid: Sequence[NDArray[np.bool_]],
    options: Ridge,
    *,
    purge: int,
    one: bool,
) -> float:
    """Return the mean r of blocks that are held out."""
    every = []
    for own, there in zip(scans, valid, strict=True):
        x, y = inputs[there], own[there]
        made, rows = np.zeros_like(y), []
        for fit, held_out in _nested(len(x), options.folds, purge):
            model = fit_ridge(x[fit], y[fit], options, purge=purge, one=one)
            made[held_out] = model.predict(x[held_out])
            rows.append(slice(int(held_out[0]), int(held_out[-1]) + 1))
        every.append(pearson(made, y, np.ones(len(y), bool), rows))
    return fisher_mean(np.concatenate(every))
