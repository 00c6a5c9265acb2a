"""Correlations and lags against numpy's own."""

from __future__ import annotations

import numpy as np
import pytest

from giblet_hpc.diagnosis import alignment


def test_leave_one_out_is_numpys_correlation() -> None:
    random = np.random.default_rng(0)
    scans = {name: random.standard_normal((60, 4)) for name in "abc"}
    valid = {name: np.ones(60, bool) for name in scans}
    r, _, _ = alignment.between_subjects(scans, valid)
    others = scans["b"] + scans["c"]
    expected = [np.corrcoef(scans["a"][:, v], others[:, v])[0, 1] for v in range(4)]
    assert r["a"] == pytest.approx(np.mean(expected))
    still = {**scans, "a": np.ones((60, 4))}
    assert alignment.between_subjects(still, valid)[0]["a"] == 0


@pytest.mark.parametrize("lag", [-6, -1, 0, 4, 12])
def test_the_lag_of_a_copy(lag: int) -> None:
    features = np.random.default_rng(0).standard_normal((300, 5))
    scans = np.roll(features, lag, axis=0) @ np.ones((5, 3))
    curve = alignment.lag_curve(features, scans, np.ones(300, bool))
    assert alignment.LagCurve("a", "x", curve).best == lag
    assert max(curve) > 0.95


def test_components_are_those_of_the_features() -> None:
    values = np.random.default_rng(0).standard_normal((40, 3)) @ np.ones((3, 60))
    found = alignment.features_of({"text": values})
    assert found.shape[0] == 40
    assert found.shape[1] <= 3
    np.testing.assert_allclose(found.std(0), 1)
