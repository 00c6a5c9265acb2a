"""Lesions: silent voxels against scans of zeros, changes by hand, ranks among random ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from giblet_hpc.evaluation import decoding, lesions
from giblet_hpc.splits import Block
from giblet_hpc.training.windows import Window
from tests.diagnosis.test_gradients import made
from tests.evaluation import test_decoding
from tests.evaluation.test_decoding import ALONE, SCANS, TESTED, TRAINED, units_of
from tests.training.test_loop import FOLD

WINDOWS = [Window(FOLD.validation[0], 70), Window(FOLD.validation[0], 86)]
TRS = 16


def decoder() -> decoding.Decoder:
    of, units = test_decoding.study()
    alike = decoding.similarity(of, TRAINED, TRAINED, scans=SCANS, world=ALONE)[0]
    return decoding.fit(alike, units_of(units, TRAINED), TRAINED, scans=SCANS)


def test_silent_voxels_are_those_whose_scans_are_zero() -> None:
    """Decoding whole runs of scans in which they are zero gives the same at the windows' TRs."""
    of, _ = test_decoding.study()
    windows = [Window(Block("run0", 65, 80), 67), Window(Block("run0", 65, 80), 75)]
    found = lesions.Silencing(of, decoder(), windows, trs=5, world=ALONE)
    whole = decoding.similarity(of, TESTED, TRAINED, scans=SCANS, world=ALONE)[0]
    rows = [*range(2, 7), *range(10, 15)]
    np.testing.assert_allclose(found.intact, decoder()(whole)[rows], atol=1e-4)
    sets = np.random.default_rng(0).random((3, 40)) < 0.4
    for made_so, inside in zip(found(sets), sets, strict=True):
        scans = np.stack([np.asarray(run.bold) for run in of.runs.values()], axis=1)
        silent = (scans * ~inside).reshape(2, 160, 40)
        cut, _ = test_decoding.study_of(silent, runs=2)
        alike = decoding.similarity(cut, TESTED, TRAINED, scans=SCANS, world=ALONE)[0]
        # Training scans keep their voxels: the map is not fitted again.
        np.testing.assert_allclose(made_so, decoder()(alike)[rows], atol=1e-4)


def test_random_ones_are_as_large_and_the_same_each_time() -> None:
    lesion = lesions.Lesion("x", np.arange(30) < 7)
    found = lesion.random(20, seed=3)
    assert (found.sum(axis=1) == 7).all()
    assert len(np.unique(found, axis=0)) > 10
    np.testing.assert_array_equal(found, lesion.random(20, seed=3))
    assert lesion.random(0, seed=3).shape == (0, 30)


def test_silent_units_stay_at_their_mean() -> None:
    intact, mean = np.ones((4, 3), np.float32), np.array([5, 6, 7], np.float32)
    found = lesions.silent_units(intact, mean, np.array([[True, False, True], [False] * 3]))
    np.testing.assert_array_equal(found[0], np.tile([5, 1, 7], (4, 1)))
    np.testing.assert_array_equal(found[1], intact)


def test_what_moves_is_the_change_beside_the_variance() -> None:
    predictor, _ = made()
    predictor.model.eval()
    random = np.random.default_rng(0)
    trs = sum(block.trs for block in lesions.blocks_of(WINDOWS, predictor.config.train.window_trs))
    size = predictor.config.model.bottleneck
    intact, other = random.standard_normal((2, trs, size)).astype(np.float32)
    done: list[int] = []
    effects = lesions.Effects(predictor, WINDOWS, note=done.append)
    before, (same, changed) = effects.of(intact, np.stack([intact, other]))
    assert done == [1, 2]
    where = predictor.positions(None)
    with torch.inference_mode():
        one, two = (
            predictor.reconstruct(torch.from_numpy(v)[None], where) for v in (intact, other)
        )
    for name in predictor.reconstructed:
        assert same[name].pop("moved") == 0
        assert same[name] == pytest.approx(before[name])
        a, b = one[name][0].numpy(), two[name][0].numpy()
        expected = ((a - b) ** 2).sum() / ((a - a.mean(axis=0)) ** 2).sum()
        assert changed[name]["moved"] == pytest.approx(expected, rel=1e-3)
        assert changed[name]["error"] != pytest.approx(before[name]["error"], abs=1e-6)


def test_units_move_the_predicted_scans() -> None:
    predictor, _ = made()
    predictor.model.eval()
    size = predictor.config.model.bottleneck
    mean = np.zeros(size, np.float32)
    sets = np.stack([np.zeros(size, bool), np.ones(size, bool)])
    members = {"all": np.ones(5, bool), "two": np.arange(5) < 2}
    still, moved = lesions.moved_scans(predictor, WINDOWS, mean, sets, members)
    assert still == {"all": 0, "two": 0}
    assert moved["all"] > 0
    assert moved["two"] > 0


def test_a_lesion_is_ranked_among_random_ones() -> None:
    lesion = lesions.Lesion("<region>", np.arange(10) < 4)
    random = [{"video": {"error": 0.5 + n, "moved": 0.1 * n}} for n in range(9)]
    (row,) = lesions.table(
        lesion, {"video": {"error": 0.4}}, {"video": {"error": 0.9, "moved": 0.75}}, random
    )
    assert (row["lesion"], row["size"], row["modality"]) == ("<region>", 4, "video")
    assert row["moved_p"] == pytest.approx((1 + 1) / 10)
    assert row["moved_random"] == pytest.approx(0.4)
    assert row["figures"]["error"] == {"before": 0.4, "after": 0.9, "after_random": 4.5}
    (alone,) = lesions.table(
        lesion, {"video": {"error": 0.4}}, {"video": {"error": 0.9, "moved": 0.75}}, []
    )
    assert alone["moved_p"] is None
