"""Intervals: against a bootstrap by hand, against theory, and that they cover the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers, lists
from numpy.typing import NDArray
from scipy.stats import pearsonr

from giblet_hpc.evaluation import bootstrap, tables
from giblet_hpc.evaluation.metrics import fisher_mean, pearson
from giblet_hpc.scans.tables import Columns
from giblet_hpc.splits import Block
from giblet_hpc.training.feed import RunArrays, StudyArrays
from giblet_hpc.training.world import World

ALONE = World(0, 0, 1, torch.device("cpu"))
BLOCKS = (Block("run1", 0, 300), Block("run2", 20, 320))
Predictions = dict[str, NDArray[np.float32]]


def planted(seed: int, *, model: float, ridge: float, subjects: int = 4, voxels: int = 30
            ) -> tuple[StudyArrays, Predictions]:  # fmt: skip
    """Scans, and predictions that share some of their variance."""
    random = np.random.default_rng(seed)

    def smooth(*shape: int) -> NDArray[np.float64]:
        noise = random.standard_normal((*shape[:-2], shape[-2] + 4, shape[-1]))
        return sum(noise[..., k : k + shape[-2], :] for k in range(5)) / 5**0.5

    signal = smooth(600, voxels)
    scans = signal[None] + smooth(subjects, 600, voxels)
    runs = {}
    for number, block in enumerate(BLOCKS):
        bold = np.zeros((subjects, 320, voxels), np.float32)
        bold[:, block.start : block.stop] = scans[:, 300 * number : 300 * (number + 1)]
        runs[block.run] = RunArrays({}, bold, np.ones((subjects, 320), bool))
    study = StudyArrays(runs, tuple("abcd"[:subjects]), np.ones(voxels, bool), Columns(voxels), {})
    made = {
        name: (share * signal + smooth(600, voxels))[None].astype(np.float32)
        for name, share in (("model", model), ("ridge", ridge))
    }
    return study, made


def drawn(study: StudyArrays, made: Predictions, count: int = 200) -> bootstrap.Draws:
    members = np.ones((2, study.voxels), bool)
    members[1, 10:] = False
    found = bootstrap.draw_scores(study, BLOCKS, made, members, length=20, count=count, world=ALONE)
    assert found is not None
    return found


def test_the_first_draw_is_the_score_itself() -> None:
    study, made = planted(0, model=1.0, ridge=0.5)
    study.runs["run2"].valid[1, 250:] = False
    found = drawn(study, made, 10)
    runs = [slice(0, 300), slice(300, 600)]
    every = []
    for subject in range(4):
        bold = np.concatenate([study.runs[b.run].bold[subject, b.start : b.stop] for b in BLOCKS])
        valid = np.concatenate([study.runs[b.run].valid[subject, b.start : b.stop] for b in BLOCKS])
        every.append(pearson(made["model"][0], bold, valid, runs))
        assert found.of_subject("model", subject)[0, 0] == pytest.approx(fisher_mean(every[-1]))
    assert found.over_all("model")[0] == pytest.approx(
        [fisher_mean(np.array(every)), fisher_mean(np.array(every)[:, :10])], abs=1e-5
    )


def test_a_draw_is_r_over_the_blocks_that_were_drawn() -> None:
    random = np.random.default_rng(0)
    made, measured = random.standard_normal((2, 60, 1))
    parts = [slice(0, 20), slice(20, 40), slice(40, 60)]
    z = bootstrap._fisher(made, measured, parts, np.array([[2.0, 0.0, 1.0]], np.float32))
    rows = np.r_[0:20, 0:20, 40:60]
    a, b = made[rows, 0], measured[rows, 0]
    assert np.tanh(z[0, 0]) == pytest.approx((a @ b) / np.sqrt((a @ a) * (b @ b)), abs=1e-5)
    assert abs(pearsonr(a, b).statistic - np.tanh(z[0, 0])) < 0.05, "means of the whole are kept"


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    """The truth from 400 studies; 300 others, of which 95 % should cover it, by 3 %."""
    every = [_r(*planted(100_000 + s, model=1.0, ridge=0.5)) for s in range(400)]
    truth = np.mean([fisher_mean(r) for r in every])
    inside = 0
    for seed in range(300):
        study, made = planted(seed, model=1.0, ridge=0.5)
        low, high = bootstrap.interval(drawn(study, made, 200).over_all("model")[:, 0])
        inside += low <= truth <= high
    assert inside / 300 == pytest.approx(0.95, abs=0.03)


def _r(study: StudyArrays, made: Predictions) -> NDArray[np.float64]:
    bold = np.concatenate([study.runs[b.run].bold[:, b.start : b.stop] for b in BLOCKS], 1)
    every = np.ones(600, bool)
    return np.array([
        pearson(made["model"][0], one, every, [slice(0, 300), slice(300, 600)]) for one in bold
    ])  # fmt: skip


@pytest.mark.parametrize(
    ("model", "ridge", "expected"),
    [(1.0, 0.4, "better"), (0.4, 1.0, "worse"), (0.7, 0.7, "undecided")],
)
def test_verdicts(model: float, ridge: float, expected: str) -> None:
    study, made = planted(0, model=model, ridge=ridge)
    rows: list[dict[str, object]] = [{"region": "all voxels"}, {"region": "early"}]
    found = drawn(study, made)
    tables.add_intervals(rows, found)
    assert [row["verdict"] for row in rows] == [expected] * 2
    subjects = tables.subject_rows(found, study.subjects)
    assert [row["subject"] for row in subjects] == list("abcd")
    low, high = subjects[0]["model_r_interval"]
    assert low < subjects[0]["model_r"] < high


def test_few_test_trs_have_no_interval() -> None:
    study, made = planted(0, model=1.0, ridge=0.5)
    members = np.ones((1, 30), bool)
    for length, count in ((100, 50), (20, 0)):
        assert bootstrap.draw_scores(
            study, BLOCKS, made, members, length=length, count=count, world=ALONE
        ) is None  # fmt: skip


@given(sizes=lists(integers(1, 400), min_size=1, max_size=4), length=integers(1, 60))
def test_blocks_cover_each_run_once(sizes: list[int], length: int) -> None:
    edges = np.cumsum([0, *sizes])
    runs = [slice(int(a), int(b)) for a, b in zip(edges, edges[1:], strict=False)]
    found = bootstrap.tr_blocks(runs, length)
    assert [found[0].start, *(part.stop for part in found)][-1] == edges[-1]
    assert all(a.stop == b.start for a, b in zip(found, found[1:], strict=False))
    assert set(edges[1:]) <= {part.stop for part in found}
    assert all(part.stop - part.start <= 2 * length for part in found)
