"""A prior on a linear model's lags: responses that are near in time have similar weights.

Weights over lags are taken to come from a Gaussian process with a squared exponential covariance
(cf. Goutte et al. 2000, IEEE Transactions on Medical Imaging 19:1188, for FIR filters in fMRI).
Ridge regression on lagged features times a root of that covariance is the same model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

JITTER = 1e-4
"""Added to the covariance's diagonal: a long scale makes it singular."""


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
