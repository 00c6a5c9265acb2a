"""Columns are standardised by the training TRs, in parts as at once."""

from __future__ import annotations

import numpy as np

from giblet_hpc.config.features import OwnFeatures
from giblet_hpc.modalities.own import Own
from giblet_hpc.modalities.vectors import Vectors

ROWS = np.random.default_rng(0).normal(5, [1, 10, 0.1], (40, 3)).astype(np.float32)


def kind() -> Vectors:
    return Own("motion", OwnFeatures(files="{run}.npy"))


def test_what_is_seen_has_mean_0_and_variance_1() -> None:
    estimates = kind().fit([ROWS[:15], ROWS[15:]], None)
    seen = kind().inputs(ROWS, estimates)
    np.testing.assert_allclose(seen, (ROWS - ROWS.mean(0)) / ROWS.std(0), atol=1e-3)
    bound = kind().fitted((3,), estimates)
    assert float(bound.estimates["variance"]) == 1
    assert not bound.estimates["mean"].any()


def test_a_constant_column_says_nothing() -> None:
    rows = ROWS.copy()
    rows[:, 1] = 7
    estimates = kind().fit([rows], None)
    other = rows.copy()
    other[:, 1] = 900
    assert not kind().inputs(other, estimates)[:, 1].any()
