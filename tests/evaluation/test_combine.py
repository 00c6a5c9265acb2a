"""The gate between ridge and network: the best of each region, and 0 where nothing is added."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from giblet_hpc.evaluation import combine
from giblet_hpc.evaluation.metrics import demeaned, pearson
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
    return combine.gates(study, [part], labels, stretch=20, scored=everyone, world=ALONE)  # type: ignore[arg-type]


def test_a_gate_is_the_least_within_a_standard_error_of_the_best() -> None:
    """Against r of every combination, by hand; runs' means out, unit deviation over the part."""
    study, part, ridge, scans = held_out()
    found = gates_of(study, part)
    runs, every = [slice(0, 200), slice(200, 400)], np.ones(400, bool)
    for label in (0, 1, 2):
        voxels = label == LABELS
        added = []
        for gate in combine.GATES:
            total = np.zeros(20)
            for subject in range(3):
                network, linear, true = (
                    demeaned(made[:, voxels], every, runs)
                    for made in (part.model[0], ridge[subject], scans[subject])
                )
                both = gate * network / network.std(0) + (1 - gate) * linear / linear.std(0)
                product = both / both.std(0) * true / true.std(0) / 400
                r = pearson(both, scans[subject][:, voxels], every, runs)
                np.testing.assert_allclose(product.sum(0), r, atol=1e-4)
                total += product.sum(1).reshape(20, 20).sum(1)
            added.append(total)
        best = int(np.argmax([one.sum() for one in added]))
        within = [
            (added[best] - one).sum() <= np.sqrt(20) * np.std(added[best] - one, ddof=1)
            for one in added
        ]
        assert (found[voxels] == combine.GATES[within.index(True)]).all()
        assert within.index(True) <= best
    assert found[0] > 0.7
    assert found[5] < 0.2


def test_a_network_that_is_better_by_chance_alone_gets_no_part() -> None:
    """Both know the same; their errors differ. On 40 studies, most gates stay at ridge."""
    left = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        signal = slow(random, 400, 12)
        scans = signal + slow(random, 400, 12)[None]
        study, tests = study_of(scans, 2)
        made = [signal + 0.5 * slow(random, 400, 1) for _ in range(2)]
        network, ridge = (one[None].astype(np.float32) for one in made)
        part = combine.HeldOut(tests, network, ridge)
        alone = combine.gates(study, [part], None, stretch=20, scored=[0], world=ALONE)
        left += alone[0] <= 0.5
    assert left >= 30


def test_how_far_predictions_are_shrunk_does_not_matter() -> None:
    study, part, _, _ = held_out()
    shrunk = combine.HeldOut(part.blocks, part.model, 0.01 * part.ridge)
    np.testing.assert_array_equal(gates_of(study, shrunk), gates_of(study, part))


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
    expected = combine.gates(study, [part], LABELS, stretch=20, scored=[0, 1], world=ALONE)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, expected)


def test_the_combination_goes_from_ridge_to_network(tmp_path: Path) -> None:
    _, part, ridge, _ = held_out()
    gate, runs = np.linspace(0, 1, 12), [slice(0, 200), slice(200, 400)]
    combine.write_combined(tmp_path / "c.npy", part.model, 0.1 * ridge, gate, runs)
    made = np.load(tmp_path / "c.npy")
    np.testing.assert_allclose(made[..., 0], 0.1 * ridge[..., 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(made[0, :, 11], part.model[0, :, 11], rtol=1e-4, atol=1e-5)
    for rows in runs:
        network, linear = part.model[0, rows, 6], 0.1 * ridge[0, rows, 6]
        size = (1 - gate[6]) * linear.std() + gate[6] * network.std()
        shapes = [(one - one.mean()) / one.std() for one in (linear, network)]
        expected = size * ((1 - gate[6]) * shapes[0] + gate[6] * shapes[1])
        expected += (1 - gate[6]) * linear.mean() + gate[6] * network.mean()
        np.testing.assert_allclose(made[0, rows, 6], expected, atol=1e-4)


def test_a_constant_prediction_adds_nothing(tmp_path: Path) -> None:
    _, part, ridge, _ = held_out()
    flat = np.full_like(part.model, 2.0)
    combine.write_combined(tmp_path / "c.npy", flat, ridge, np.full(12, 0.5), [slice(0, 400)])
    assert np.isfinite(np.load(tmp_path / "c.npy")).all()


def test_labels_below_zero_are_no_region() -> None:
    study, part, _, _ = held_out()
    negative = np.where(LABELS == 0, -7, LABELS).astype(np.int32)
    found = gates_of(study, part, negative)
    np.testing.assert_array_equal(found, gates_of(study, part))
    twice = combine.by_region(found, negative, {"1": "V1", "2": "V1"})
    assert set(twice) == {"no region", "V1", "V1 (2)"}


@pytest.mark.parametrize("labels", [LABELS, None])
def test_gates_by_name(labels: NDArray[np.int32] | None) -> None:
    gate = np.array([0.5] * 5 + [0.25] * 5 + [0.0] * 2)
    found = combine.by_region(gate, labels, {"1": "early", "2": "late"})
    if labels is None:
        assert found == {"all voxels": 0.5}
    else:
        assert found == {"no region": 0.0, "early": 0.5, "late": 0.25}
