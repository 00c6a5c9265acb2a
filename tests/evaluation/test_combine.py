"""The gate between ridge and network: least squares, by region, and 0 where nothing is added."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from giblet_hpc.evaluation import combine
from tests.evaluation.test_chance import ALONE, slow, study_of

LABELS = np.array([1] * 5 + [2] * 5 + [0] * 2, np.int32)


def held_out(
    seed: int = 0, subjects: int = 3
) -> tuple[object, combine.HeldOut, NDArray[np.float32], NDArray[np.float64]]:
    """Ridge knows one of two signals; the network both in region 1, noise elsewhere."""
    random = np.random.default_rng(seed)
    first, second = slow(random, 400, 12), slow(random, 400, 12)
    scans = first + second + slow(random, subjects * 400, 12).reshape(subjects, 400, 12)
    study, tests = study_of(scans, 2)
    network = np.where(LABELS == 1, first + second, first + slow(random, 400, 12))
    ridge = np.repeat(first[None], subjects, 0).astype(np.float32)
    part = combine.HeldOut(tests, network[None].astype(np.float32), ridge)
    return study, part, ridge, scans


def gates_of(study: object, part: combine.HeldOut, labels: NDArray[np.int32] | None = LABELS
             ) -> NDArray[np.float64]:  # fmt: skip
    everyone = range(len(part.ridge))
    return combine.gates(study, [part], labels, scored=everyone, world=ALONE)  # type: ignore[arg-type]


def test_a_gate_is_the_least_squares_of_its_region() -> None:
    study, part, ridge, scans = held_out()
    found = gates_of(study, part)
    for label in (0, 1, 2):
        voxels = label == LABELS
        runs = np.split(np.arange(400), 2)
        y, n, r = (np.concatenate([v[:, rows] - v[:, rows].mean(1, keepdims=True) for rows in runs], 1)
                   for v in (scans[..., voxels], np.repeat(part.model, 3, 0)[..., voxels],
                             ridge[..., voxels]))  # fmt: skip
        slope = np.linalg.lstsq((n - r).reshape(-1, 1), (y - r).ravel(), rcond=None)[0][0]
        np.testing.assert_allclose(found[voxels], np.clip(slope, 0, 1), atol=1e-4)
    assert found[0] > 0.8
    assert found[5] < 0.2


def test_what_a_network_adds_wrongly_is_left_out() -> None:
    study, part, _, _ = held_out()
    opposite = combine.HeldOut(part.blocks, 2 * part.ridge[:1] - part.model, part.ridge)
    assert gates_of(study, opposite)[0] == 0
    same = combine.HeldOut(part.blocks, part.ridge, part.ridge)
    assert not gates_of(study, same).any()


def test_subjects_whom_ridge_does_not_know_do_not_count() -> None:
    study, part, _, _ = held_out()
    missing = part.ridge.copy()
    missing[2] = np.nan
    found = gates_of(study, combine.HeldOut(part.blocks, part.model, missing))
    expected = combine.gates(study, [part], LABELS, scored=[0, 1], world=ALONE)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, expected)


def test_the_combination_goes_from_ridge_to_network(tmp_path: Path) -> None:
    _, part, ridge, _ = held_out()
    gate = np.linspace(0, 1, 12)
    combine.write_combined(tmp_path / "c.npy", part.model, ridge, gate)
    made = np.load(tmp_path / "c.npy")
    np.testing.assert_allclose(made, ridge + gate * (part.model - ridge), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(made[..., 0], ridge[..., 0])


@pytest.mark.parametrize("labels", [LABELS, None])
def test_gates_by_name(labels: NDArray[np.int32] | None) -> None:
    gate = np.array([0.5] * 5 + [0.25] * 5 + [0.0] * 2)
    found = combine.by_region(gate, labels, {"1": "early", "2": "late"})
    if labels is None:
        assert found == {"all voxels": 0.5}
    else:
        assert found == {"no region": 0.0, "early": 0.5, "late": 0.25}
