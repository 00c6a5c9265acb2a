"""The prior of the linear baseline is chosen where it is true."""

from __future__ import annotations

import numpy as np
import pytest

from giblet_hpc.config.evaluate import Ridge
from giblet_hpc.errors import DataError
from giblet_hpc.evaluation.choice import choose
from giblet_hpc.evaluation.penalised import Prior, fit_ridge
from tests.evaluation.test_smooth_lags import ALPHAS, DELAYS, planted

EVERY = np.ones(500, bool)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("smooth", [True, False])
def test_what_is_true_is_chosen(seed: int, smooth: bool) -> None:
    weights = np.hanning(11) if smooth else np.array([1.0, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1])
    lagged, scans = planted(seed, weights, 3.0)
    options = Ridge(alphas=ALPHAS, folds=4, smooth_seconds=(0.0, 4.0))
    found = choose([lagged], [scans], [EVERY], options, delays=DELAYS, tr=1.5)
    assert (found.smooth_seconds > 0) == smooth


def test_one_penalty_where_voxels_are_alike_and_weak() -> None:
    lagged, scans = planted(0, np.hanning(11), 5.0)
    options = Ridge(alphas=ALPHAS, folds=4, smooth_seconds=(4.0,))
    found = choose([lagged], [scans], [EVERY], options, delays=DELAYS, tr=1.5)
    assert found.penalties == "one" and found.bands == "equal"
    model = fit_ridge([lagged], scans, options, purge=11, prior=found)
    assert len({float(alpha) for alpha in model.model.best_alphas_}) == 1


def test_bands_are_weighed_where_one_of_them_is_noise() -> None:
    lagged, scans = planted(0, np.hanning(11), 4.0)
    noise = np.random.default_rng(1).standard_normal(lagged.shape).astype(np.float32)
    options = Ridge(alphas=ALPHAS, folds=3, smooth_seconds=(4.0,), penalties="one", draws=5)
    found = choose([lagged, noise], [scans], [EVERY], options, delays=DELAYS, tr=1.5)
    assert found == Prior(4.0, "one", "one")


def test_each_voxel_weighs_bands_where_they_go_to_different_voxels() -> None:
    first, own = planted(0, np.hanning(11), 1.0, voxels=10)
    second, others = planted(1, np.hanning(11), 1.0, voxels=10)
    options = Ridge(alphas=ALPHAS, folds=3, smooth_seconds=(4.0,), draws=5)
    scans = np.concatenate([own, others], 1)
    found = choose([first, second], [scans], [EVERY], options, delays=DELAYS, tr=1.5)
    assert found == Prior(4.0, "voxel", "voxel")


def test_a_single_candidate_needs_no_fit() -> None:
    options = Ridge(smooth_seconds=(2.0,), penalties="one")
    empty = np.zeros((0, 3), np.float32)
    found = choose([empty], [], [], options, delays=DELAYS, tr=1.5)
    assert found == Prior(2.0, "one")
    assert Prior(**found.facts()) == found
    told = Ridge(smooth_seconds=(2.0,), bands="voxel")
    found = choose([empty, empty], [], [], told, delays=DELAYS, tr=1.5)
    assert found == Prior(2.0, "voxel", "voxel")


def test_studies_that_are_too_short_to_choose_by(caplog: pytest.LogCaptureFixture) -> None:
    lagged, scans = planted(0, np.hanning(11), 1.0)
    options = Ridge(alphas=ALPHAS, folds=5, smooth_seconds=(2.0, 4.0))
    every = np.ones(30, bool)
    found = choose([lagged[:30]], [scans[:30]], [every], options, delays=DELAYS, tr=1.5)
    assert found == Prior(2.0)
    assert "30 training TRs are too few to choose" in caplog.text
    fit_ridge([lagged[:30]], scans[:30], options, purge=11).predict([lagged])
    with pytest.raises(DataError, match="20 training TRs are too few for ridge"):
        fit_ridge([lagged[:20]], scans[:20], options, purge=18)


def test_one_penalty_contradicts_weights_of_voxels() -> None:
    with pytest.raises(ValueError, match="bands: voxel has a penalty for each voxel"):
        Ridge(bands="voxel", penalties="one")
