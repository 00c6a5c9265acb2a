"""Time segment matching: against correlations by hand, and by chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from giblet_hpc.evaluation import matching
from giblet_hpc.splits import Block
from giblet_hpc.training.world import World
from tests.evaluation.test_chance import study_of

ALONE = World(0, 0, 1, torch.device("cpu"))
BLOCKS = [Block("a", 3, 50), Block("b", 0, 33)]


def test_stretches_do_not_cross_edges() -> None:
    starts = matching.segments(BLOCKS, 10)
    assert starts.tolist() == [0, 10, 20, 30, 47, 57, 67]
    assert matching.segment_trs(1.5) == 10
    assert matching.segment_trs(60.0) == 1


@pytest.mark.parametrize("noise", [0.0, 2.0, 8.0])
def test_it_is_the_share_whose_cosine_is_the_largest(noise: float) -> None:
    random = np.random.default_rng(1)
    true = random.standard_normal((80, 12))
    made = true + noise * random.standard_normal((80, 12))
    starts = matching.segments(BLOCKS, 10)
    found = matching.matched(matching.products(made, true), starts, 10)
    stretches = [(made[s : s + 10].ravel(), true[s : s + 10].ravel()) for s in starts]
    first, few = 0, 0
    for number, (own, _) in enumerate(stretches):
        alike = [
            own @ other / np.linalg.norm(own) / np.linalg.norm(other) for _, other in stretches
        ]
        place = list(np.argsort(alike)[::-1]).index(number)
        first, few = first + (place < 1), few + (place < 5)
    assert found["top1"] == pytest.approx(first / 7)
    assert found["top5"] == pytest.approx(few / 7)
    assert (found["chance1"], found["chance5"]) == (pytest.approx(1 / 7), pytest.approx(5 / 7))
    assert noise or found["top1"] == 1


def test_by_chance_it_is_one_in_as_many_as_there_are() -> None:
    random = np.random.default_rng(2)
    starts = matching.segments([Block("a", 0, 200)], 10)
    found = []
    for _ in range(200):
        made, true = random.standard_normal((2, 200, 6))
        found.append(matching.matched(matching.products(made, true), starts, 10)["top1"])
    assert np.mean(found) == pytest.approx(1 / 20, abs=0.01)


def test_a_constant_prediction_finds_nothing() -> None:
    true = np.random.default_rng(3).standard_normal((40, 6))
    starts = matching.segments([Block("a", 0, 40)], 10)
    assert matching.matched(matching.products(np.zeros((40, 6)), true), starts, 10)["top1"] == 0


def test_one_stretch_says_nothing() -> None:
    rows = np.ones((12, 2))
    assert matching.matched(matching.products(rows, rows), np.array([0]), 10) == {}


def _scans() -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    random = np.random.default_rng(4)
    scans = random.standard_normal((2, 90, 30))
    return scans, (scans + 3 * random.standard_normal(scans.shape)).astype(np.float32)


def test_scans_of_all_voxels_are_matched_and_subjects_averaged() -> None:
    scans, made = _scans()
    study, blocks = study_of(scans, runs=2)
    found = matching.match_scans(
        study, blocks, {"ridge": made}, tr=1.5, scored=[0, 1], world=ALONE
    )["ridge"]
    starts = matching.segments(blocks, 10)
    each = []
    for own, true in zip(made, scans.astype(np.float32), strict=True):
        pair = matching.products(true - true.mean(axis=0), own - own.mean(axis=0))
        each.append(matching.matched(pair, starts, 10)["top1"])
    assert found["top1"] == pytest.approx(np.mean(each))
    assert found["segments"] == 8


def test_stretches_with_missing_scans_are_left_out() -> None:
    scans, made = _scans()
    study, blocks = study_of(scans)
    run = study.runs["run0"]
    run.valid[0, 12] = False
    run.bold[0, 12] = np.nan  # type: ignore[index]
    found = matching.match_scans(study, blocks, {"ridge": made}, tr=1.5, scored=[0], world=ALONE)[
        "ridge"
    ]
    assert found["segments"] == 8
    assert np.isfinite(found["top1"])
