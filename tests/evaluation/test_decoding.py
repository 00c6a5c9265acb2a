"""Decoding: the map against sklearn's on a design by hand; silent voxels against zeros."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from giblet_hpc.errors import DataError
from giblet_hpc.evaluation import decoding
from giblet_hpc.splits import Block
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.world import World
from tests.evaluation.test_chance import study_of

ALONE = World(0, 0, 1, torch.device("cpu"))
TRAINED = [Block("run0", 0, 60), Block("run1", 5, 55)]
TESTED = [Block("run0", 65, 80)]
SCANS = 4


def study(noise: float = 1.0) -> tuple[StudyArrays, NDArray[np.float64]]:
    """Two subjects' scans that follow five units 1 to 2 TRs later, and the units, (160, 5)."""
    random = np.random.default_rng(0)
    units = random.standard_normal((160, 5))
    late = 0.6 * np.roll(units, 1, axis=0) + 0.4 * np.roll(units, 2, axis=0)
    scans = np.stack([late @ random.standard_normal((5, 40)) for _ in range(2)])
    scans += noise * random.standard_normal(scans.shape)
    found, _ = study_of(scans, runs=2)
    return found, units


def design(of: StudyArrays, blocks: list[Block]) -> NDArray[np.float64]:
    """The scans of each TR and of those after it inside the block, by hand."""
    rows = []
    for block in blocks:
        for tr in range(block.start, block.stop):
            row = []
            for lag in range(SCANS):
                there = tr + lag < block.stop
                scan = of.runs[block.run].bold[:, tr + lag] if there else np.zeros((2, 40))
                row.append(np.asarray(scan).ravel())
            rows.append(np.concatenate(row))
    return np.array(rows, dtype=np.float64)


def units_of(units: NDArray[np.float64], blocks: list[Block]) -> NDArray[np.float64]:
    return np.concatenate(
        [units[80 * int(b.run[-1]) + b.start : 80 * int(b.run[-1]) + b.stop] for b in blocks]
    )


def test_similarity_is_that_of_lagged_scans() -> None:
    of, _ = study()
    found = decoding.similarity(of, TESTED, TRAINED, scans=SCANS, world=ALONE)[0]
    np.testing.assert_allclose(
        found, design(of, TESTED) @ design(of, TRAINED).T, rtol=1e-4, atol=1e-3
    )


def test_sets_of_voxels_are_those_of_scans_that_are_zero_elsewhere() -> None:
    of, _ = study()
    sets = np.random.default_rng(1).random((3, 40)) < 0.3
    found = decoding.similarity(of, TESTED, TRAINED, scans=SCANS, world=ALONE, sets=sets)
    for alike, inside in zip(found, sets, strict=True):
        scans = np.stack([np.asarray(run.bold) for run in of.runs.values()], axis=1)
        part, _ = study_of((scans * inside).reshape(2, 160, 40), runs=2)
        expected = decoding.similarity(part, TESTED, TRAINED, scans=SCANS, world=ALONE)[0]
        np.testing.assert_allclose(alike, expected, rtol=1e-5, atol=1e-4)


def test_the_map_is_sklearns_ridge() -> None:
    of, units = study()
    alike = decoding.similarity(of, TRAINED, TRAINED, scans=SCANS, world=ALONE)[0]
    wanted = units_of(units, TRAINED)
    decoder = decoding.fit(alike, wanted, TRAINED, scans=SCANS)
    penalty = decoder.penalty * np.diag(alike).mean()
    theirs = Ridge(penalty, fit_intercept=False).fit(
        design(of, TRAINED), wanted - wanted.mean(axis=0)
    )
    across = decoding.similarity(of, TESTED, TRAINED, scans=SCANS, world=ALONE)[0]
    expected = theirs.predict(design(of, TESTED)) + wanted.mean(axis=0)
    np.testing.assert_allclose(decoder(across), expected, atol=2e-3)


def test_units_are_decoded_and_noise_is_not() -> None:
    of, units = study(0.3)
    across = decoding.similarity(of, TESTED, TRAINED, scans=SCANS, world=ALONE)[0]
    alike = decoding.similarity(of, TRAINED, TRAINED, scans=SCANS, world=ALONE)[0]
    true = units_of(units, TESTED)
    made = decoding.fit(alike, units_of(units, TRAINED), TRAINED, scans=SCANS)(across)
    # The last TRs' scans are beyond the block's end.
    assert np.corrcoef(made[:-3].ravel(), true[:-3].ravel())[0, 1] > 0.9
    noise = np.random.default_rng(5).standard_normal((110, 5))
    by_noise = decoding.fit(alike, noise, TRAINED, scans=SCANS)
    assert by_noise.penalty > decoding.PENALTIES[len(decoding.PENALTIES) // 2]
    assert by_noise(across).std() < 0.3


def test_trs_without_scans_are_not_fitted_on() -> None:
    of, units = study()
    of.runs["run0"].valid[:, 10:40] = False
    of.runs["run0"].bold[:, 10:40] = np.nan  # type: ignore[index]
    alike = decoding.similarity(of, TRAINED, TRAINED, scans=SCANS, world=ALONE)[0]
    decoder = decoding.fit(alike, units_of(units, TRAINED), TRAINED, scans=SCANS)
    assert np.isfinite(decoder.weights).all()
    assert not decoder.weights[10:36].any(), "of 36 a scan is seen three TRs later"
    assert decoder.weights[40:50].any()


def test_too_few_trs_are_an_error() -> None:
    with pytest.raises(DataError, match=r"9 training TRs .* too few"):
        decoding.fit(np.eye(9), np.ones((9, 2)), [Block("a", 0, 9)], scans=7)


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    decoder = decoding.Decoder(
        random.random((6, 3)).astype(np.float32), np.ones(3, np.float32),
        (Block("ü run", 1, 3), Block("b", 0, 4)), 5, 0.1,
    )  # fmt: skip
    decoder.save(tmp_path / "decoder.npz")
    read = decoding.load_decoder(tmp_path / "decoder.npz")
    np.testing.assert_array_equal(read.weights, decoder.weights)
    assert (read.trained, read.scans, read.penalty) == (decoder.trained, 5, 0.1)
