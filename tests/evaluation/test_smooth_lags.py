"""A smooth prior over lags, against its closed form."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.config.evaluate import Ridge
from giblet_hpc.evaluation.penalised import fit_ridge
from giblet_hpc.evaluation.smooth_lags import JITTER, with_prior
from giblet_hpc.timing import delayed

DELAYS = tuple(range(1, 12))
ALPHAS = tuple(10.0**k for k in range(-1, 5))


def planted(seed: int, weights: NDArray[np.float64], noise: float, voxels: int = 40
            ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:  # fmt: skip
    """Lagged features, and scans that follow them with the same weights over lags."""
    random = np.random.default_rng(seed)
    features = random.standard_normal((500, 6)).astype(np.float32)
    lagged = delayed(features, DELAYS)
    blocks = lagged.reshape(500, len(DELAYS), 6)
    course = np.einsum("tlk,l->tk", blocks, weights) @ random.standard_normal((6, voxels))
    scans = course / course.std() + noise * random.standard_normal((500, voxels))
    return lagged, scans.astype(np.float32)


def test_weights_are_those_of_generalised_ridge() -> None:
    """argmin |y - Xw|^2 + a w' K^-1 w, in its closed form."""
    lagged, scans = planted(0, np.hanning(11), 1.0)
    length, alpha = 3.0, 10.0
    options = Ridge(alphas=(alpha,), folds=2)
    mixed = [with_prior(lagged, DELAYS, length)]
    predicted = fit_ridge(mixed, scans, options, purge=0).predict(mixed)
    apart = np.subtract.outer(DELAYS, DELAYS) / length
    kernel = np.kron(np.exp(-0.5 * apart**2) + JITTER * np.eye(11), np.eye(6))
    x, y = lagged - lagged.mean(0), scans - scans.mean(0)
    weights = np.linalg.solve(x.T @ x + alpha * np.linalg.inv(kernel), x.T @ y)
    np.testing.assert_allclose(predicted, x @ weights + scans.mean(0), atol=2e-3)


def test_free_lags_stay_as_they_are() -> None:
    lagged, _ = planted(0, np.hanning(11), 1.0)
    assert with_prior(lagged, DELAYS, 0.0) is lagged
    assert with_prior(lagged[:, :6], (3,), 5.0) is not None
