"""Scores by chance: shifts by hand, the level that is asked for, ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.signal import lfilter

from giblet_hpc.evaluation import blocks, chance
from giblet_hpc.evaluation.metrics import demeaned, pearson
from giblet_hpc.scans.tables import Columns
from giblet_hpc.splits import Block
from giblet_hpc.training.feed import RunArrays, StudyArrays
from giblet_hpc.training.world import World

ALONE = World(0, 0, 1, torch.device("cpu"))
AUTOCORRELATION = 0.9


def slow(random: np.random.Generator, *shape: int) -> NDArray[np.float64]:
    """Noise with an autocorrelation of .9, over the first axis."""
    noise = random.standard_normal((shape[0] + 100, *shape[1:]))
    return np.asarray(lfilter([1.0], [1.0, -AUTOCORRELATION], noise, axis=0))[100:]


def study_of(scans: NDArray[np.float64], runs: int = 1) -> tuple[StudyArrays, list[Block]]:
    """(subjects, trs, voxels), cut into runs."""
    parts = np.array_split(scans.astype(np.float32), runs, axis=1)
    arrays = {
        f"run{n}": RunArrays({}, part, np.ones(part.shape[:2], bool))
        for n, part in enumerate(parts)
    }
    subjects, _, voxels = scans.shape
    study = StudyArrays(arrays, tuple("abcdef"[:subjects]), np.ones(voxels, bool),
                        Columns(voxels), {})  # fmt: skip
    return study, [Block(name, 0, run.bold.shape[1]) for name, run in arrays.items()]


def chance_of(
    study: StudyArrays, tests: list[Block], made: NDArray[np.float64], count: int = 500
) -> chance.Chance:
    members = np.ones((1, study.voxels), bool)
    return chance.score_chance(
        study, tests, {"model": made.astype(np.float32)}, members,
        count=count, world=ALONE, scored=range(len(study.subjects)),
    )["model"]  # fmt: skip


@pytest.mark.parametrize("missing", [[], [*range(30, 50), 60]])
def test_shifted_scores_are_those_of_rolled_predictions(missing: list[int]) -> None:
    """Also where some TRs have no scan."""
    random = np.random.default_rng(0)
    made, measured = slow(random, 90, 4), slow(random, 90, 4)
    runs, valid = [slice(0, 50), slice(50, 90)], np.ones(90, bool)
    valid[missing] = False
    shifts = chance.shifts_of(runs, 7)
    z = chance.shifted_scores(made, demeaned(measured, valid, runs), valid, runs, shifts)
    for row, by in zip(np.tanh(z), [np.zeros(2, int), *shifts], strict=True):
        rolled = np.concatenate([
            np.roll(made[rows], int(n), axis=0) for rows, n in zip(runs, by, strict=True)
        ])  # fmt: skip
        np.testing.assert_allclose(row, pearson(rolled, measured, valid, runs), atol=1e-6)


@pytest.mark.parametrize("runs", [1, 3])
def test_noise_is_above_chance_as_often_as_the_level_says(runs: int) -> None:
    """200 studies of noise with an autocorrelation of .9: 5 % +- 2 of voxels have p below .05."""
    below, regions, found = [], [], 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        study, tests = study_of(np.moveaxis(slow(random, 400, 2, 20), 1, 0), runs)
        result = chance_of(study, tests, slow(random, 400, 20)[None])
        below.append((result.p < 0.05).mean())
        regions.append(result.of_region(0)[0] < 0.05)
        found += bool((result.r > result.largest).any())
    assert np.mean(below) == pytest.approx(0.05, abs=0.02)
    assert np.mean(regions) == pytest.approx(0.05, abs=0.04), "200 draws of a share of 5 %"
    assert found / 200 == pytest.approx(0.05, abs=0.04), "any voxel above the largest by chance"


def test_what_is_predicted_is_above_chance() -> None:
    random = np.random.default_rng(0)
    signal, noise = slow(random, 400, 20), slow(random, 3 * 400, 20).reshape(3, 400, 20)
    study, tests = study_of(signal[None] * (np.arange(20) < 10) + noise)
    result = chance_of(study, tests, signal[None])
    assert result.significant()[:10].all()
    assert result.significant()[10:].mean() <= 0.2
    assert (result.r > result.largest)[:10].mean() > 0.8
    assert result.of_region(0)[0] < 0.01
    assert result.of_region(0)[1] < np.tanh(np.arctanh(result.r).mean())


def test_few_test_trs_tell_nothing_of_chance() -> None:
    random = np.random.default_rng(0)
    study, tests = study_of(slow(random, 40, 2)[None])
    made = {"model": np.zeros((1, 40, 2), np.float32)}
    for count in (0, 500):
        assert not chance.score_chance(
            study, tests, made, np.ones((1, 2), bool), count=count, world=ALONE, scored=[0]
        )


def test_ranks_find_together_what_one_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rank's voxels alone; sums are those of the whole."""
    monkeypatch.setattr(blocks, "VOXELS", 3)
    random = np.random.default_rng(0)
    study, tests = study_of(slow(random, 200, 11)[None])
    made = {"model": slow(random, 200, 11)[None].astype(np.float32)}
    members = np.ones((1, 11), bool)

    class One(World):
        def sum(self, values: torch.Tensor) -> torch.Tensor:
            return values

        def gather(self, value: object) -> list[object]:  # type: ignore[override]
            return [value]

    def found(world: World) -> chance.Chance:
        return chance.score_chance(study, tests, made, members, count=100, world=world, scored=[0])[
            "model"
        ]

    whole = found(ALONE)
    parts = [found(One(n, n, 2, ALONE.device, 2)) for n in range(2)]
    np.testing.assert_allclose(sum(part.p for part in parts), whole.p)
    np.testing.assert_allclose(sum(part.r for part in parts), whole.r)
    assert whole.largest >= max(part.largest for part in parts)
