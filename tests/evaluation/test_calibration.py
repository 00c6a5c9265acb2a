"""A new subject by minutes of its scans: against ridge by hand; what others' scans are worth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from giblet_hpc.evaluation import calibration
from giblet_hpc.evaluation.calibration import Calibration
from giblet_hpc.evaluation.metrics import fisher_z, pearson
from giblet_hpc.training.feed import StudyArrays
from tests.evaluation.test_baselines import ALONE, DEMO, FOLD, TRS, config_of, made, planted


def work(of: StudyArrays, folder: Path) -> Calibration:
    config = config_of(folder, str(DEMO), "evaluate.ridge.bands=equal",
                       "evaluate.ridge.alphas=[30]")  # fmt: skip
    linear = made(config, of)
    return Calibration(of, linear, config.evaluate.ridge, tr=1.5, world=ALONE)


def noisy(noise: float = 3.0, differ: float = 0.0) -> StudyArrays:
    """Three subjects, of whom the third may differ."""
    study, random = planted(3), np.random.default_rng(1)
    runs = {}
    for name, run in study.runs.items():
        scans = np.array(run.bold[:], copy=True)
        if differ:
            scans[2] = (1 - differ) * scans[2] + differ * scans[2, :, ::-1]
        scans += noise * random.standard_normal(scans.shape).astype(np.float32)
        runs[name] = replace(run, bold=scans)
    return replace(study, runs=runs)


def test_scores_are_those_of_ridge_by_hand(tmp_path: Path) -> None:
    study = noisy()
    done = work(study, tmp_path)
    found = done.rows(FOLD.test, [4], scored=[0, 1, 2])
    # Two bands of equal weights that add up to 1.
    train, test = (np.concatenate(b, axis=1) * 0.5**0.5 for b in (done._train, done._test))
    scans = np.concatenate([study.runs["a"].bold[:, :420], study.runs["a"].bold[:, 430:TRS]], 1)
    measured, every = study.runs["b"].bold[1], np.ones(TRS, bool)

    def r(predicted: np.ndarray) -> float:
        z = fisher_z(pearson(predicted, measured, every, [slice(0, TRS)]))
        return float(np.tanh(z.mean()))

    def fitted(x: np.ndarray, y: np.ndarray) -> Ridge:
        return Ridge(30).fit(x, y)

    group = fitted(train, scans[[0, 2]].mean(axis=0))
    none, some = (row for row in found if row["subject"] == "t")
    assert none == {"subject": "t", "minutes": 0, "trs": 0, "others": pytest.approx(r(group.predict(test)), abs=2e-3)}  # fmt: skip
    assert some["trs"] == 160
    own = fitted(train[:160], scans[1, :160])
    assert some["own"] == pytest.approx(r(own.predict(test)), abs=2e-3)
    shared = group.predict(train[:160])
    slope = np.linalg.lstsq(shared.reshape(-1, 1), scans[1, :160].ravel(), rcond=None)[0][0]
    left = fitted(train[:160], scans[1, :160] - slope * shared)
    both = slope * group.predict(test) + left.predict(test)
    assert some["both"] == pytest.approx(r(both), abs=2e-3)


def test_more_minutes_say_more_and_others_help_while_there_are_few(tmp_path: Path) -> None:
    found = work(noisy(), tmp_path).rows(FOLD.test, [2, 4, 8], scored=[0, 1, 2])
    rows = calibration.summary(found)
    assert [row["minutes"] for row in rows] == [0, 2, 4, 8]
    assert all(row["subjects"] == 3 for row in rows)
    own = [row["own"] for row in rows[1:]]
    assert own == sorted(own)
    assert rows[1]["both"] > rows[1]["own"] + 0.05
    assert "own" not in rows[0]


def test_who_differs_needs_own_scans(tmp_path: Path) -> None:
    found = work(noisy(0.5, differ=1.0), tmp_path).rows(FOLD.test, [8], scored=[0, 1, 2])
    row = found[-1]
    assert (row["subject"], row["minutes"]) == ("u", 8)
    assert row["own"] > 0.4 > 0.1 > row["others"]
    assert row["both"] > 0.9 * row["own"]


def test_what_is_too_little_or_more_than_there_is_is_left_out(tmp_path: Path) -> None:
    found = work(noisy(), tmp_path).rows(FOLD.test, [0.2, 4, 400], scored=[0, 1])
    assert {row["minutes"] for row in found} == {0, 4}
