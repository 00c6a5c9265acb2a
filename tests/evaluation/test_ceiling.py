"""A ceiling is not made of noise: what subjects share is tested against its own null."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.stats import norm

from giblet_hpc.evaluation import ceiling

RUNS = [slice(0, 400), slice(400, 1000)]


def slow(random: np.random.Generator, *shape: int, keep: float = 0.9) -> NDArray[np.float64]:
    """Courses with the autocorrelation of scans, over the axis before the last."""
    noise = random.standard_normal(shape)
    return np.asarray(lfilter([1], [1, -keep], noise, axis=-2)) * np.sqrt(1 - keep**2)


def test_noise_passes_as_often_as_the_level_says() -> None:
    """200 studies without anything shared, autocorrelation .9: 5 % at p < .05, hardly any by FDR."""
    below, passed, every = 0, 0, np.ones((5, 1000), bool)
    for seed in range(200):
        scans = slow(np.random.default_rng(seed), 5, 1000, 20)
        rho, mean, deviation, _ = ceiling.shared_and_chance(scans, every, RUNS)
        below += int((norm.sf((rho - mean) / deviation) < 0.05).sum())
        passed += int(ceiling.above_chance(rho, mean, deviation).any())
    assert 0.03 <= below / (200 * 20) <= 0.07
    assert passed / 200 <= 0.12, "5 % of studies, give or take, and the normal's tail"


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_what_is_shared_passes_and_noise_beside_it_does_not(share: float) -> None:
    random = np.random.default_rng(1)
    scans = slow(random, 6, 1000, 60)
    signal = slow(random, 1, 1000, 30)
    scans[:, :, :30] = np.sqrt(share) * signal + np.sqrt(1 - share) * scans[:, :, :30]
    found = ceiling.shared_and_chance(scans, np.ones((6, 1000), bool), RUNS)
    known = ceiling.above_chance(*found[:3])
    assert known[:30].mean() > (0.8 if share > 0.2 else 0.5)
    assert known[30:].mean() < 0.15
    made = ceiling.noise_ceiling(found[0], subjects_in_mean=1, known=known)
    assert made[30:][~known[30:]].max() == 0
    assert made[:30][known[:30]] == pytest.approx(np.sqrt(share), abs=0.15)


def test_voxels_that_do_not_vary_have_none() -> None:
    scans = np.zeros((3, 1000, 2))
    scans[:, :, 1] = np.sin(np.arange(1000) / 9)
    found = ceiling.shared_and_chance(scans, np.ones((3, 1000), bool), RUNS)
    known = ceiling.above_chance(*found[:3])
    assert not known[0]
    assert known[1] == (found[0, 1] > found[1, 1] + 2 * found[2, 1])


def test_subjects_who_lack_a_voxel_are_no_part_of_its_mean() -> None:
    """The mean over those who have it is what can be predicted."""
    random = np.random.default_rng(2)
    share = 0.3
    signal = random.standard_normal((1, 4000, 1)) * np.sqrt(share)
    scans = signal + np.sqrt(1 - share) * random.standard_normal((6, 4000, 2))
    scans[3:, :, 1] = 0
    rows = [slice(0, 4000)]
    found = ceiling.shared_and_chance(scans, np.ones((6, 4000), bool), rows)
    assert found[3].tolist() == [6, 3]
    made = ceiling.noise_ceiling(found[0], subjects_in_mean=found[3])
    reached = [np.corrcoef(signal[0, :, 0], scans[:, :, v].mean(0))[0, 1] for v in range(2)]
    assert made == pytest.approx(reached, abs=0.02)
