"""A split by random TRs: against ridge by hand, and on slow noise that no model can predict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from sklearn.linear_model import Ridge

from giblet_hpc.evaluation.leak import random_split_r
from giblet_hpc.training.feed import RunArrays, StudyArrays
from tests.evaluation.test_baselines import ALONE, BANDS, DEMO, FOLD, TRS, config_of, made, planted
from tests.evaluation.test_chance import slow

ONE = ("evaluate.ridge.bands=equal", "evaluate.ridge.alphas=[30]")


def leaked(study: StudyArrays, folder: Path, scored: list[int]) -> np.ndarray:
    config = config_of(folder, str(DEMO), *ONE)
    linear = made(config, study)
    return random_split_r(study, linear, FOLD.test, config.evaluate.ridge, scored=scored, world=ALONE)  # fmt: skip


def test_it_is_r_over_the_trs_that_are_drawn(tmp_path: Path) -> None:
    study = planted(2)
    linear = made(config_of(tmp_path, str(DEMO), *ONE), study)
    # Two bands of equal weights that add up to 1.
    x = np.concatenate(linear.mixed_of((*linear.used, *FOLD.test)), axis=1) * 0.5**0.5
    a, b = (study.runs[name].bold[0] for name in "ab")
    scans = np.concatenate([a[:420], a[430:TRS], b])
    rows = np.random.default_rng(0).permutation(len(scans))
    count = round(0.2 * len(scans))
    out, fitted = np.sort(rows[:count]), np.sort(rows[count:])
    predicted = Ridge(30).fit(x[fitted], scans[fitted]).predict(x[out])
    r = [np.corrcoef(p, s)[0, 1] for p, s in zip(predicted.T, scans[out].T, strict=True)]
    found = leaked(study, tmp_path, [0])
    np.testing.assert_allclose(found[0], r, atol=2e-3)
    assert np.isnan(found[1]).all()


def test_slow_noise_is_predicted_from_its_neighbours(tmp_path: Path) -> None:
    """Features and scans have nothing to do with each other, but both are slow."""
    random, runs = np.random.default_rng(0), {}
    for name in "ab":
        stimulus = {band: slow(random, TRS, 6).astype(np.float32) for band in BANDS}
        scans = slow(random, TRS, 10)[None].astype(np.float32)
        runs[name] = RunArrays(stimulus, scans, np.ones((1, TRS), bool))
    study = replace(planted(1), runs=runs)
    found = leaked(study, tmp_path, [0])
    linear = made(config_of(tmp_path, str(DEMO), *ONE), study)
    linear.write(tmp_path)
    honest = np.load(tmp_path / "ridge.npy")[0]
    r = [np.corrcoef(p, s)[0, 1] for p, s in zip(honest.T, runs["b"].bold[0].T, strict=True)]
    assert found.mean() > 0.3
    assert abs(np.mean(r)) < 0.15
