"""Arrays in parts come out as in one piece."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from giblet_hpc.evaluation import blocks, ceiling, metrics, scores
from giblet_hpc.scans.tables import Columns
from giblet_hpc.splits import Block
from giblet_hpc.training.feed import RunArrays, StudyArrays
from giblet_hpc.training.world import World

ALONE = World(0, 0, 1, torch.device("cpu"))


class One(World):
    """One of several ranks, whose part is looked at by itself."""

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        return values


@given(st.integers(1, 3 * blocks.VOXELS))
def test_blocks_cover_all_voxels_once(voxels: int) -> None:
    covered = [
        n for chosen in blocks.voxel_blocks(slice(0, voxels)) for n in (chosen.start, chosen.stop)
    ]
    assert covered[0] == 0 and covered[-1] == voxels
    assert covered[1:-1:2] == covered[2::2]


def test_rows_make_the_file_that_numpy_makes(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    blocks.write_rows(tmp_path / "a.npy", values.shape, (row[:, :] for row in values))
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy", mmap_mode="r"), values)
    blocks.write_rows(tmp_path / "none.npy", (0, 1, 2, 3), iter(()))
    assert np.load(tmp_path / "none.npy").shape == (0, 1, 2, 3)


def test_a_failure_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    def rows() -> Iterator[NDArray[np.float32]]:
        yield np.zeros(3, np.float32)
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        blocks.write_rows(tmp_path / "a.npy", (2, 3), rows())
    assert list(tmp_path.iterdir()) == []


def test_scores_by_blocks_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    tests = (Block("a", 2, 12), Block("b", 0, 9))
    runs = {
        name: RunArrays({}, random.standard_normal((3, 12, 11)).astype(np.float32),
                        random.random((3, 12)) > 0.1)
        for name in "ab"
    }  # fmt: skip
    study = StudyArrays(runs, ("x", "y", "z"), np.ones(11, bool), Columns(11), {})
    made = {"model": random.standard_normal((1, 19, 11)).astype(np.float32),
            "ridge": random.standard_normal((3, 19, 11)).astype(np.float32)}  # fmt: skip
    monkeypatch.setattr(blocks, "VOXELS", 4)
    maps = scores.score_maps(study, tests, made, ALONE)
    rows = metrics.run_rows(tests)
    for subject in range(3):
        measured = np.concatenate([runs[b.run].bold[subject, b.start : b.stop] for b in tests])
        valid = np.concatenate([runs[b.run].valid[subject, b.start : b.stop] for b in tests])
        for name, predicted in made.items():
            own = predicted[min(subject, len(predicted) - 1)]
            np.testing.assert_allclose(
                maps[f"{name}_r"][subject], metrics.pearson(own, measured, valid, rows)
            )
            np.testing.assert_allclose(
                maps[f"{name}_r2"][subject], metrics.r_squared(own, measured, valid, rows)
            )
    scans = np.concatenate([runs[b.run].bold[:, b.start : b.stop] for b in tests], 1)
    there = np.concatenate([runs[b.run].valid[:, b.start : b.stop] for b in tests], 1)
    rho, mean, deviation, _ = ceiling.shared_and_chance(scans, there, rows)
    np.testing.assert_allclose(rho, ceiling.pairwise_correlation(scans, there, rows), rtol=1e-6)
    known = ceiling.above_chance(rho, mean, deviation)
    found = scores.ceiling_map(study, tests, ALONE, group_mean=False)
    assert found is not None
    np.testing.assert_allclose(found, ceiling.noise_ceiling(rho, subjects_in_mean=1, known=known))
    for ranks in (2, 5):
        shares = [
            scores.score_maps(study, tests, made, One(n, n, ranks, ALONE.device, ranks))
            for n in range(ranks)
        ]
        for name, values in maps.items():
            np.testing.assert_allclose(sum(s[name] for s in shares), values, rtol=1e-12)


@given(st.integers(1, 50), st.integers(1, 9))
def test_ranks_have_all_voxels_between_them(voxels: int, ranks: int) -> None:
    worlds = [World(n, n, ranks, ALONE.device, ranks) for n in range(ranks)]
    shares = [blocks.voxel_share(voxels, world) for world in worlds]
    assert [v for share in shares for v in range(share.start, share.stop)] == list(range(voxels))
