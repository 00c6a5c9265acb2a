"""Training on scans that come before their stimulus is refused; nothing else is."""

from __future__ import annotations

import numpy as np
import pytest

from giblet_hpc.diagnosis import lag_check
from giblet_hpc.errors import DataError
from giblet_hpc.modalities.registry import modalities_of
from tests.diagnosis.test_align_study import TRS, VOXELS, Planted


def require(planted: Planted) -> None:
    config, study = planted.study()
    lag_check.require_possible_lags(config, study, modalities_of(config.features))


@pytest.mark.parametrize("seed", range(20))
def test_a_sound_study_is_trained_on(seed: int) -> None:
    require(Planted(seed))


@pytest.mark.parametrize("trs", [-6, -4, 7])
def test_a_lag_that_blood_flow_cannot_have(trs: int) -> None:
    """Of a study whose scans follow by 4 TRs: at -2, 0 and 11 TRs then."""
    planted = Planted()
    planted.bold["run2"] = np.roll(planted.bold["run2"], trs, axis=1)
    with pytest.raises(DataError, match="the scans of run2 follow the stimulus by") as caught:
        require(planted)
    assert "run1" not in str(caught.value)
    assert "train.check_lag=false" in caught.value.hint


@pytest.mark.parametrize("trs", [-1, 2])
def test_a_lag_that_is_only_unusual_is_trained_on(trs: int) -> None:
    planted = Planted()
    planted.bold["run2"] = np.roll(planted.bold["run2"], trs, axis=1)
    require(planted)


def test_scans_that_tell_nothing_are_trained_on() -> None:
    planted = Planted()
    for run in planted.bold:
        planted.bold[run] = planted.random.standard_normal((4, TRS, VOXELS))
    require(planted)
