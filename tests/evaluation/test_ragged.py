"""Ceilings and scores where subjects lack runs, and of a single subject with repeats."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from giblet_hpc.evaluation import scores, tables
from giblet_hpc.scans.tables import Columns
from giblet_hpc.splits import Block, Fold
from giblet_hpc.training.feed import RunArrays, StudyArrays
from giblet_hpc.training.world import World

ALONE = World(0, 0, 1, torch.device("cpu"))
TRS, VOXELS = 400, 60
SHARE = 0.5
"""Of each voxel's variance that the stimulus explains."""


def study(viewings: dict[str, list[int]], subjects: int, films: dict[str, str]) -> StudyArrays:
    """Return scans of who watched what; runs of one film share their signal."""
    random = np.random.default_rng(0)
    signal = {film: random.standard_normal((TRS, VOXELS)) for film in set(films.values())}
    runs = {}
    for run, members in viewings.items():
        noise = random.standard_normal((subjects, TRS, VOXELS))
        bold = SHARE**0.5 * signal[films[run]] + (1 - SHARE) ** 0.5 * noise
        valid = np.zeros((subjects, TRS), bool)
        valid[members] = True
        bold[~valid] = 0
        runs[run] = RunArrays({}, bold.astype(np.float32), valid)
    names = tuple(f"s{number}" for number in range(subjects))
    return StudyArrays(runs, names, np.ones(VOXELS, bool), Columns(VOXELS), {})


def test_ceilings_are_of_those_who_watched_together() -> None:
    watched = {"a": [0, 1, 2], "b": [2, 3, 4], "c": [3]}
    own = study(watched, 5, {run: run for run in watched})
    blocks = [Block(run, 0, TRS) for run in watched]
    found = scores.ceiling_map(own, blocks, ALONE, group_mean=False)
    assert found is not None
    assert found.mean() == pytest.approx(SHARE**0.5, abs=0.03)
    assert scores.ceiling_map(own, blocks[2:], ALONE, group_mean=False) is None


def test_repeats_give_a_ceiling_with_a_single_subject() -> None:
    own = study({"a": [0], "b": [0], "c": [0]}, 1, {"a": "x", "b": "x", "c": "y"})
    same = [[Block("a", 0, TRS), Block("b", 0, TRS)]]
    blocks = [Block(run, 0, TRS) for run in "abc"]
    found = scores.ceiling_map(own, blocks, ALONE, group_mean=False, repeats=same)
    assert found is not None
    assert found.mean() == pytest.approx(SHARE**0.5, abs=0.03)
    assert scores.ceiling_map(own, blocks, ALONE, group_mean=False) is None
    other = [[Block("a", 0, TRS), Block("c", 0, TRS)]]
    noise = scores.ceiling_map(own, blocks, ALONE, group_mean=False, repeats=other)
    assert noise is not None
    assert (noise > 0).mean() < 0.05


def test_who_cannot_be_scored_is_not_a_number() -> None:
    own = study({"a": [0, 1], "b": [0, 2]}, 3, {"a": "a", "b": "b"})
    fold = Fold("", (Block("a", 0, TRS),), (), (Block("b", 0, TRS),))
    assert scores.scored_subjects(own, fold) == [0]
    made = {name: np.ones((3, TRS, VOXELS), np.float32) for name in ("model", "ridge")}
    for values in made.values():
        values[:] = own.runs["b"].bold
    maps = scores.score_maps(own, fold.test, made, ALONE, scored=[0])
    assert np.isfinite(maps["model_r"][0]).all()
    assert np.isnan(maps["model_r"][1:]).all()
    (row,) = tables.region_rows(
        maps, ceiling=None, best=None, members=scores.members_of(None, {}, VOXELS), min_ceiling=0.1
    )
    assert row["model_r"] == pytest.approx(1, abs=1e-3)
