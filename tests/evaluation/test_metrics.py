from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.metrics import r2_score

from giblet_hpc.config.evaluate import Ridge
from giblet_hpc.evaluation import metrics
from giblet_hpc.evaluation.baselines import delays_of
from giblet_hpc.evaluation.ceiling import noise_ceiling, pairwise_correlation
from giblet_hpc.evaluation.penalised import fit_ridge, purged_blocks
from giblet_hpc.evaluation.scores import members_of
from giblet_hpc.evaluation.tables import region_rows

RANDOM = np.random.default_rng(1)
WHOLE = [slice(0, 60)]


def test_r_and_r2_equal_scipy_and_sklearn() -> None:
    made, measured = RANDOM.standard_normal((2, 60, 5))
    valid = RANDOM.random(60) > 0.2
    r = metrics.pearson(made, measured, valid, WHOLE)
    explained = metrics.r_squared(made, measured, valid, WHOLE)
    for voxel in range(5):
        expected = pearsonr(made[valid, voxel], measured[valid, voxel]).statistic
        assert r[voxel] == pytest.approx(expected)
        expected = r2_score(measured[valid, voxel], made[valid, voxel])
        assert explained[voxel] == pytest.approx(expected)


def test_a_shared_offset_of_runs_is_no_correlation() -> None:
    runs = [slice(0, 30), slice(30, 60)]
    offset = np.repeat([10.0, -10.0], 30)[:, None]
    made, measured = RANDOM.standard_normal((2, 60, 200))
    everything = np.ones(60, bool)
    raw = metrics.pearson(made + offset, measured + offset, everything, WHOLE)
    fair = metrics.pearson(made + offset, measured + offset, everything, runs)
    assert raw.mean() > 0.9
    assert abs(fair.mean()) < 0.05


def test_constant_courses_score_zero() -> None:
    made, measured = np.ones((60, 2)), RANDOM.standard_normal((60, 2))
    measured[:, 1] = 3
    valid = np.ones(60, bool)
    assert metrics.pearson(made, measured, valid, WHOLE).tolist() == [0, 0]
    assert metrics.r_squared(made, measured, valid, WHOLE)[1] == 0


def test_fisher_mean_of_equal_values_is_the_value() -> None:
    assert metrics.fisher_mean(np.full(9, 0.6)) == pytest.approx(0.6)


def test_pairwise_correlation_equals_brute_force() -> None:
    scans = RANDOM.standard_normal((4, 60, 3)) + RANDOM.standard_normal((60, 3))
    valid = np.ones((4, 60), bool)
    valid[2, 50:] = False
    rho = pairwise_correlation(scans, valid, WHOLE)
    for voxel in range(3):
        pairs = [
            pearsonr(scans[i, :50, voxel], scans[j, :50, voxel]).statistic
            for i in range(4)
            for j in range(i)
        ]
        assert rho[voxel] == pytest.approx(np.mean(pairs))


def test_ceiling_is_reached_by_the_true_signal() -> None:
    """A simulation with a known answer: nothing beats the shared signal, which hits the bound."""
    trs, subjects, share = 4000, 6, 0.3
    signal = np.sqrt(share) * RANDOM.standard_normal((trs, 20))
    scans = signal + np.sqrt(1 - share) * RANDOM.standard_normal((subjects, trs, 20))
    runs, valid = [slice(0, trs)], np.ones((subjects, trs), bool)
    rho = pairwise_correlation(scans, valid, runs)
    assert rho.mean() == pytest.approx(share, abs=0.01)
    individual = metrics.pearson(signal, scans[0], valid[0], runs).mean()
    assert noise_ceiling(rho, subjects_in_mean=1).mean() == pytest.approx(individual, abs=0.01)
    group = metrics.pearson(signal, scans.mean(0), valid[0], runs).mean()
    assert noise_ceiling(rho, subjects_in_mean=6).mean() == pytest.approx(group, abs=0.01)
    assert noise_ceiling(np.array([-0.2]), subjects_in_mean=1)[0] == 0


@pytest.mark.parametrize("columns", [5, 90])
def test_ridge_equals_sklearn_at_one_penalty(columns: int) -> None:
    inputs = RANDOM.standard_normal((60, columns)).astype(np.float32)
    scans = (inputs[:, :3] @ RANDOM.standard_normal((3, 4)) + 5).astype(np.float32)
    made = fit_ridge([inputs], scans, Ridge(alphas=(10.0,)), purge=0).predict([inputs])
    expected = SklearnRidge(alpha=10.0).fit(inputs, scans).predict(inputs)
    np.testing.assert_allclose(made, expected, rtol=2e-3, atol=2e-3)


def test_ridge_chooses_a_penalty_for_each_voxel() -> None:
    inputs = RANDOM.standard_normal((200, 30)).astype(np.float32)
    clear = inputs @ RANDOM.standard_normal((30, 1))
    noise = RANDOM.standard_normal((200, 1))
    scans = np.hstack([clear, noise]).astype(np.float32)
    made = fit_ridge([inputs], scans, Ridge(), purge=2).predict([inputs])
    assert np.corrcoef(made[:, 0], clear[:, 0])[0, 1] > 0.999
    assert made[:, 1].std() < 0.3 * noise.std()


def test_cross_validation_blocks_are_purged() -> None:
    scored = []
    for fitting, scoring in purged_blocks(100, 4, 7):
        assert np.abs(fitting[:, None] - scoring[None]).min() > 7
        scored += scoring.tolist()
    assert scored == list(range(100))


def test_default_delays_span_sixteen_seconds() -> None:
    assert delays_of(Ridge(), 1.5) == tuple(range(1, 12))
    assert delays_of(Ridge(), 2.0) == tuple(range(1, 9))
    assert delays_of(Ridge(delays=(0, 3)), 2.0) == (0, 3)


def test_region_rows() -> None:
    maps = {
        "model_r": np.array([[0.5, 0.3, 0.0, 0.1]]),
        "ridge_r": np.zeros((1, 4)),
        "model_r2": np.zeros((1, 4)),
        "ridge_r2": np.zeros((1, 4)),
    }
    rows = region_rows(
        maps,
        ceiling=np.array([0.5, 0.6, 0.05, 0.0]),
        best=np.array([[0.5, 0.6, 0.0, 0.0]]),
        members=members_of(np.array([1, 1, 2, 0], np.int32), {"1": "left"}, 4),
        min_ceiling=0.1,
    )
    assert [row["region"] for row in rows] == ["all voxels", "left", "2"]
    assert rows[1]["normalised_r"] == pytest.approx((1 + 0.5) / 2)
    assert rows[2]["normalised_r"] is None
    assert rows[2]["share_of_best"] is None
    assert rows[1]["voxels"] == 2
