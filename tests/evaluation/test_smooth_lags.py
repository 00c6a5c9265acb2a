"""A smooth prior over lags: against its closed form, and that it is chosen where it is true."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from giblet_hpc.config.evaluate import Ridge
from giblet_hpc.errors import DataError
from giblet_hpc.evaluation.penalised import fit_ridge
from giblet_hpc.evaluation.smooth_lags import JITTER, Prior, choose, with_prior
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
    made = fit_ridge(with_prior(lagged, DELAYS, length), scans, options, purge=0)
    predicted = made.predict(with_prior(lagged, DELAYS, length))
    apart = np.subtract.outer(DELAYS, DELAYS) / length
    kernel = np.kron(np.exp(-0.5 * apart**2) + JITTER * np.eye(11), np.eye(6))
    x, y = lagged - lagged.mean(0), scans - scans.mean(0)
    weights = np.linalg.solve(x.T @ x + alpha * np.linalg.inv(kernel), x.T @ y)
    np.testing.assert_allclose(predicted, x @ weights + scans.mean(0), atol=2e-3)


def test_free_lags_stay_as_they_are() -> None:
    lagged, _ = planted(0, np.hanning(11), 1.0)
    assert with_prior(lagged, DELAYS, 0.0) is lagged
    assert with_prior(lagged[:, :6], (3,), 5.0) is not None


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("smooth", [True, False])
def test_what_is_true_is_chosen(seed: int, smooth: bool) -> None:
    weights = np.hanning(11) if smooth else np.array([1.0, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1])
    lagged, scans = planted(seed, weights, 3.0)
    options = Ridge(alphas=ALPHAS, folds=4, smooth_seconds=(0.0, 4.0))
    every = np.ones(500, bool)
    found = choose(lagged, [scans], [every], options, delays=DELAYS, tr=1.5)
    assert (found.smooth_seconds > 0) == smooth


def test_one_penalty_where_voxels_are_alike_and_weak() -> None:
    lagged, scans = planted(0, np.hanning(11), 5.0)
    options = Ridge(alphas=ALPHAS, folds=4, smooth_seconds=(4.0,))
    every = np.ones(500, bool)
    assert choose(lagged, [scans], [every], options, delays=DELAYS, tr=1.5).one_penalty
    model = fit_ridge(lagged, scans, options, purge=11, one=True)
    assert len(set(np.ravel(model._model.best_alphas_))) == 1


def test_a_single_candidate_needs_no_fit() -> None:
    options = Ridge(smooth_seconds=(2.0,), penalties="one")
    empty = np.zeros((0, 3), np.float32)
    found = choose(empty, [], [], options, delays=DELAYS, tr=1.5)
    assert found == Prior(2.0, True)
    assert Prior(**found.facts()) == found


def test_studies_that_are_too_short_to_choose_by(caplog: pytest.LogCaptureFixture) -> None:
    lagged, scans = planted(0, np.hanning(11), 1.0)
    options = Ridge(alphas=ALPHAS, folds=5, smooth_seconds=(2.0, 4.0))
    every = np.ones(30, bool)
    found = choose(lagged[:30], [scans[:30]], [every], options, delays=DELAYS, tr=1.5)
    assert found == Prior(2.0, False)
    assert "30 training TRs are too few to choose" in caplog.text
    fit_ridge(lagged[:30], scans[:30], options, purge=11).predict(lagged)
    with pytest.raises(DataError, match="20 training TRs are too few for ridge"):
        fit_ridge(lagged[:20], scans[:20], options, purge=18)
