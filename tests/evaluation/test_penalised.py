"""Banded ridge: against closed forms and himalaya, and that weights go where the signal is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from himalaya.kernel_ridge import MultipleKernelRidgeCV
from numpy.typing import NDArray
from sklearn.linear_model import Ridge as SklearnRidge

from giblet_hpc.config.evaluate import Ridge
from giblet_hpc.evaluation.metrics import pearson, product_measure, r_squared
from giblet_hpc.evaluation.penalised import (
    Prior,
    fit_ridge,
    usable_blocks,
    weights_of_bands,
)

Columns = NDArray[np.float32]
TRS, ALPHAS = 300, tuple(10.0**k for k in range(-1, 5))


def planted(
    seed: int, columns: tuple[int, int], *, noise: float = 1.0
) -> tuple[list[Columns], Columns]:
    """Two bands of unit variance; the first three voxels follow one, the last three the other."""
    random = np.random.default_rng(seed)
    bands = [random.standard_normal((TRS, n)).astype(np.float32) / n**0.5 for n in columns]
    signal = [band @ random.standard_normal((band.shape[1], 3)) for band in bands]
    scans = np.concatenate(signal, 1) + noise * random.standard_normal((TRS, 6))
    return bands, (scans + 3).astype(np.float32)


@pytest.mark.parametrize("columns", [(4, 9), (200, 300)])
def test_fixed_weights_are_ridge_on_scaled_bands(columns: tuple[int, int]) -> None:
    bands, scans = planted(0, columns)
    made = fit_ridge(bands, scans, Ridge(alphas=(10.0,)), purge=0)
    scaled = np.concatenate(bands, 1) / 2**0.5
    expected = SklearnRidge(alpha=10.0).fit(scaled, scans).predict(scaled)
    np.testing.assert_allclose(made.predict(bands), expected, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("kind", ["equal", "one", "voxel"])
@pytest.mark.parametrize("columns", [(4, 9), (200, 300)])
def test_parts_add_up(columns: tuple[int, int], kind: str) -> None:
    bands, scans = planted(1, columns)
    prior = Prior(0.0, "voxel", kind)  # type: ignore[arg-type]
    made = fit_ridge(bands, scans, Ridge(alphas=ALPHAS, folds=3), purge=2, prior=prior)
    tests = [band[:100] for band in bands]
    parts = [made.part(tests, number) for number in range(2)]
    whole = made.predict(tests)
    constant = made.predict([np.zeros_like(band) for band in tests])
    np.testing.assert_allclose(sum(parts) + constant, whole, atol=1e-3)
    every, rows = np.ones(100, bool), [slice(0, 100)]
    added = sum(product_measure(part, whole, scans[:100], every, rows) for part in parts)
    centred = whole - whole.mean(0) + scans[:100].mean(0)
    np.testing.assert_allclose(added, r_squared(centred, scans[:100], every, rows), atol=1e-3)


def test_weights_of_voxels_are_himalayas() -> None:
    bands, scans = planted(2, (200, 300))
    options = Ridge(alphas=ALPHAS, folds=3, draws=8)
    made = fit_ridge(bands, scans, options, purge=2, prior=Prior(bands="voxel"))
    kernels = np.stack([band @ band.T for band in bands])
    model = MultipleKernelRidgeCV(
        kernels="precomputed", fit_intercept=True, cv=usable_blocks(TRS, 3, 2),
        solver_params={"n_iter": weights_of_bands(2, 8), "alphas": np.array(ALPHAS),
                       "progress_bar": False},
    )  # fmt: skip
    given = [torch.from_numpy(values) for values in (kernels, scans)]
    expected = model.fit(*given).predict(given[0])
    np.testing.assert_allclose(made.predict(bands), expected, atol=1e-5)


@pytest.mark.parametrize("columns", [(20, 30), (300, 200)])
def test_weights_of_voxels_go_where_the_signal_is(columns: tuple[int, int]) -> None:
    bands, scans = planted(3, columns)
    tests, truth = planted(3, columns, noise=0.0)
    options = Ridge(alphas=ALPHAS, folds=3)
    scores = {}
    for kind in ("equal", "voxel"):
        prior = Prior(0.0, "voxel", kind)  # type: ignore[arg-type]
        made = fit_ridge(bands, scans, options, purge=0, prior=prior)
        parts = np.stack([made.part(tests, number) for number in range(2)]).std(1)
        scores[kind] = (parts[0, :3] / parts.sum(0)[:3]).mean()
        r = pearson(made.predict(tests), truth, np.ones(TRS, bool), [slice(0, TRS)])
        assert r.mean() > 0.6
    assert scores["voxel"] > max(0.8, scores["equal"])


def test_weights_that_all_share_leave_out_what_is_noise() -> None:
    random = np.random.default_rng(4)
    bands, scans = planted(4, (20, 300))
    scans[:, 3:] = random.standard_normal((TRS, 3))
    prior = Prior(0.0, "one", "one")
    made = fit_ridge(bands, scans, Ridge(alphas=ALPHAS, folds=3), purge=0, prior=prior)
    assert made.part(bands, 1).std() < 0.1 * made.part(bands, 0)[:, :3].std()
    assert len({float(alpha) for alpha in made.model.best_alphas_}) == 1


def test_what_all_share_is_chosen_by_the_sample_alone() -> None:
    bands, scans = planted(5, (20, 30))
    options, prior = Ridge(alphas=ALPHAS, folds=3), Prior(0.0, "one", "one")
    whole = fit_ridge(bands, scans, options, purge=0, prior=prior, sample=scans[:, ::2])
    for voxels in (slice(0, 2), slice(2, 6)):
        part = fit_ridge(
            bands, scans[:, voxels], options, purge=0, prior=prior, sample=scans[:, ::2]
        )
        np.testing.assert_allclose(part.predict(bands), whole.predict(bands)[:, voxels], atol=1e-4)


@pytest.mark.parametrize("bands", [2, 3, 5])
def test_weights_to_choose_from(bands: int) -> None:
    found = weights_of_bands(bands, 20)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(found[0], 1 / bands)
    np.testing.assert_allclose(found[1 : 1 + bands], np.eye(bands), atol=1e-4)
    assert len(found) == 20 and found.min() > 0
