from __future__ import annotations

import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr

from giblet_hpc.config.loss import Loss

from giblet_hpc.config.train import Train
from giblet_hpc.errors import DataError
from giblet_hpc.models.shapes import Batch, Output, Shapes
from giblet_hpc.splits import Block
from giblet_hpc.training import checkpoint
from giblet_hpc.training.feed import RunArrays, StudyArrays, Window, WindowReader, unshifted
from giblet_hpc.training.statistics import Fitted, _fit_codes, _fit_video, _variance, sound_vectors
from giblet_hpc.training.losses import Losses, pearson_over_time
from giblet_hpc.training.world import World
from giblet_hpc.training.schedule import learning_rate
from giblet_hpc.training.voxel_sums import VoxelSums

CPU = torch.device("cpu")
RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("normalise", ["variance", "std", "none"])
def test_predicting_the_training_mean_costs_one(normalise: str) -> None:
    """At variance normalisation every component is 1, whatever its scale."""
    trs = 40
    video = RANDOM.integers(0, 255, (trs, 2, 3, 4, 3)).astype(np.uint8)
    codes = RANDOM.integers(0, 1024, (trs, 2, 5)).astype(np.int16)
    text = (50 * RANDOM.standard_normal((trs, 6))).astype(np.float32)
    bold = (7 * RANDOM.standard_normal((trs, 1, 8))).astype(np.float32)
    fitted = Fitted(
        {
            **_fit_video(video),
            **_fit_codes(codes),
            "text_variance": _variance(text),
            "bold_variance": np.array(bold.var(axis=0).mean()),
        }
    )
    shapes = Shapes((2, 3, 4), (2, 5), 1024, 6, 1, 8)
    batch = Batch(
        {
            "video": torch.from_numpy(video)[None],
            "audio": torch.from_numpy(codes)[None],
            "text": torch.from_numpy(text)[None],
        },
        torch.ones(1, trs, dtype=torch.bool),
        torch.from_numpy(bold)[None],
        torch.ones(1, trs, 1, dtype=torch.bool),
    )
    frames = torch.arange(5)
    unigram = torch.from_numpy(fitted.values["audio_log_probability"])
    made = {
        "video": torch.from_numpy(fitted.values["video_mean"]).expand(1, trs, 2, 3, 4, 3),
        "audio": unigram.expand(1, trs, 5, 2, 1024),
        "text": torch.from_numpy(text.mean(0)).expand(1, trs, 6),
    }
    mean = batch.bold.mean(1, keepdim=True).expand_as(batch.bold)
    output = Output(mean, torch.zeros(1), torch.zeros(()), made)
    options = Loss(normalise=normalise, reconstruction_weight=1.0)
    parts = Losses(options, shapes, fitted).components(output, batch, frames)
    if normalise == "variance":
        for name, value in parts.items():
            assert float(value) == pytest.approx(1.0, rel=2e-3), name
    if normalise == "std":
        assert float(parts["fmri"]) == pytest.approx(7.0, rel=0.2)
    if normalise == "none":
        assert float(parts["fmri"]) == pytest.approx(49.0, rel=0.3)
        assert float(parts["text"]) == pytest.approx(2500.0, rel=0.3)


def test_missing_scans_do_not_count() -> None:
    fitted = Fitted({"bold_variance": np.array(1.0)})
    shapes = Shapes(None, None, 0, None, 2, 3)
    valid = torch.ones(1, 6, 2, dtype=torch.bool)
    valid[0, 4:, 1] = False
    bold = torch.randn(1, 6, 2, 3)
    made = Output(torch.zeros(1, 6, 2, 3), torch.zeros(1), torch.zeros(()), {})
    for kind in ("mse", "mae", "correlation"):
        losses = Losses(Loss(fmri=kind, correlation_weight=0.5), shapes, fitted)
        values = []
        for filler in (0.0, 9.0):
            filled = torch.where(valid[..., None], bold, torch.tensor(filler))
            batch = Batch({}, torch.ones(1, 6, dtype=torch.bool), filled, valid)
            values.append(float(losses.components(made, batch, torch.zeros(0))["fmri"]))
        assert values[0] == pytest.approx(values[1]), kind


def test_torch_correlation_equals_scipy() -> None:
    a, b = torch.randn(30, 2, 4), torch.randn(30, 2, 4)
    valid = torch.rand(30, 2) > 0.3
    r = pearson_over_time(a, b, valid)
    for s in range(2):
        for v in range(4):
            there = valid[:, s]
            expected = pearsonr(a[there, s, v].numpy(), b[there, s, v].numpy()).statistic
            assert float(r[s, v]) == pytest.approx(expected, abs=1e-4)


def test_validation_sums_equal_scipy_however_they_are_cut() -> None:
    predicted, measured = torch.randn(24, 2, 3), torch.randn(24, 2, 3)
    valid = torch.rand(24, 2) > 0.2
    totals = []
    for size in (24, 5):
        sums = VoxelSums(["a"], subjects=2, voxels=3, device=CPU)
        for start in range(0, 24, size):
            rows = slice(start, start + size)
            batch = Batch({}, torch.ones(1), measured[None, rows], valid[None, rows])
            sums.add("a", predicted[None, rows], batch, 0)
        totals.append((sums.correlation(), sums.mean_squared_error()))
    torch.testing.assert_close(totals[0][0], totals[1][0])
    there = valid[:, 1]
    expected = pearsonr(predicted[there, 1, 2].numpy(), measured[there, 1, 2].numpy()).statistic
    assert float(totals[0][0][1, 2]) == pytest.approx(expected, abs=1e-6)
    error = ((predicted - measured)[valid] ** 2).mean()
    assert totals[0][1] == pytest.approx(float(error), rel=1e-6)


def test_each_runs_mean_is_removed() -> None:
    course = torch.randn(20, 1, 1)
    sums = VoxelSums(["a", "b"], subjects=1, voxels=1, device=CPU)
    for run, offset in (("a", 5.0), ("b", -5.0)):
        valid = torch.ones(1, 20, 1, dtype=torch.bool)
        batch = Batch({}, torch.ones(1), (course + offset)[None], valid)
        sums.add(run, torch.randn(1, 20, 1, 1) + offset, batch, 0)
    assert abs(float(sums.correlation())) < 0.6


def test_schedules() -> None:
    cosine = Train(epochs=10, lr=1e-2, min_lr=1e-4, warmup_epochs=2)
    rates = [learning_rate(s, options=cosine, steps_per_epoch=5) for s in range(50)]
    assert rates[0] == pytest.approx(1e-3)
    assert max(rates) == pytest.approx(1e-2)
    assert rates[9] == pytest.approx(1e-2)
    assert rates[-1] == pytest.approx(1e-4, rel=0.2)
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))
    stepped = cosine.model_copy(update={"schedule": "step"})
    rates = [learning_rate(s, options=stepped, steps_per_epoch=5) for s in range(50)]
    assert sorted(set(np.round(rates[10:], 9))) == pytest.approx([1e-4, 1e-3, 1e-2])
    constant = cosine.model_copy(update={"schedule": "none", "warmup_epochs": 0})
    assert {learning_rate(s, options=constant, steps_per_epoch=5) for s in range(50)} == {1e-2}


@given(st.integers(0, 6), st.integers(10, 20))
def test_undoing_a_shift(shift: int, trs: int) -> None:
    truth = np.random.default_rng(trs).standard_normal((1, trs + shift, 3)).astype(np.float32)
    file = truth[:, shift:]
    bold, valid = unshifted(file, np.ones((1, trs), bool), shift)
    assert valid.sum() == trs - shift
    np.testing.assert_array_equal(bold[0, shift:], truth[0, shift:trs])


def test_windows_hold_the_right_trs_and_nothing_from_outside_their_block() -> None:
    course = np.arange(50, dtype=np.float32)
    run = RunArrays(
        {"text": course[:, None]}, np.stack([course[:, None]] * 2), np.ones((2, 50), bool)
    )
    run.valid[1, 45:] = False
    study = StudyArrays({"a": run}, ("x", "y"), np.ones((1, 1, 1), bool), np.eye(4), (), None)
    reader = WindowReader(study, trs=8, context=3, text=None, device=CPU)
    batch = reader([Window(Block("a", 10, 30), 20), Window(Block("a", 10, 30), 11)])
    np.testing.assert_array_equal(batch.stimulus["text"][0, :, 0], np.arange(17, 28))
    np.testing.assert_array_equal(batch.bold[0, :, 0, 0], np.arange(20, 28))
    np.testing.assert_array_equal(batch.inside[1], [False, False] + [True] * 9)
    assert not batch.stimulus["text"][1, :2].any()
    batch = reader([Window(Block("a", 40, 50), 44)])
    np.testing.assert_array_equal(batch.valid[0, :, 0], [True] * 6 + [False] * 2)
    np.testing.assert_array_equal(batch.valid[0, :, 1], [True] + [False] * 7)


def test_codes_stand_for_the_sum_of_their_vectors() -> None:
    books = RANDOM.standard_normal((2, 1024, 4)).astype(np.float32)
    codes = np.array([[[3, 5], [7, 1023]]], dtype=np.int16)
    expected = [books[0, 3] + books[1, 7], books[0, 5] + books[1, 1023]]
    np.testing.assert_allclose(sound_vectors(codes, books)[0], expected)


def save(folder: Path, step: int, *, best: bool = False) -> Path:
    state = {"model": {"w": torch.full((3,), float(step))}}
    return checkpoint.save(folder, state, {"step": step}, best=best, keep_last=2)


def test_last_and_best_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in range(1, 7):
        save(tmp_path, step, best=step == 2)
    kept = sorted(path.name for path in tmp_path.glob("step-*"))
    assert kept == ["step-00000002", "step-00000005", "step-00000006"]
    state, manifest = checkpoint.load(checkpoint.best(tmp_path), mmap=True)
    assert manifest["step"] == 2
    assert state["model"]["w"].tolist() == [2, 2, 2]
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize("damage", ["flip", "truncate", "no manifest", "half manifest"])
def test_damaged_checkpoints_are_passed_over(tmp_path: Path, damage: str) -> None:
    good, bad = save(tmp_path, 1), save(tmp_path, 2)
    state = bad / checkpoint.STATE
    content = bytearray(state.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        state.write_bytes(content)
    elif damage == "truncate":
        state.write_bytes(content[:-9])
    elif damage == "no manifest":
        (bad / checkpoint.MANIFEST).unlink()
    else:
        (bad / checkpoint.MANIFEST).write_text('{"step": 2, "fi')
    assert checkpoint.newest(tmp_path) == good
    save(tmp_path, 2)
    assert checkpoint.newest(tmp_path) == bad


def test_a_full_disk_leaves_earlier_checkpoints(tmp_path: Path) -> None:
    """With a real limit on the size of files, as a quota sets it; torch hides the cause."""
    good = save(tmp_path, 1, best=True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            checkpoint.save(
                tmp_path, {"w": torch.zeros(10**6)}, {"step": 2}, best=True, keep_last=2
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert checkpoint.newest(tmp_path) == checkpoint.best(tmp_path) == good
    assert not list(tmp_path.glob(".tmp-*"))


def test_checkpoints_of_other_data_are_refused() -> None:
    checkpoint.require_data({"data": "a", "step": 3}, "a")
    with pytest.raises(DataError, match="step 3 was trained on other data"):
        checkpoint.require_data({"data": "a", "step": 3}, "b")


def test_no_best_checkpoint_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no best checkpoint"):
        checkpoint.best(tmp_path)


def test_a_world_of_one() -> None:
    world = World(0, 0, 1, CPU)
    assert world.any(True)
    assert not world.any(False)
    assert world.from_main("x") == "x"


def test_a_resume_in_another_image_or_with_other_ranks_warns(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIBLET_IMAGE", "sha256:one")
    before = checkpoint.maker(8)
    checkpoint.compare_makers(before, checkpoint.maker(8))
    assert not caplog.records
    monkeypatch.setenv("GIBLET_IMAGE", "sha256:two")
    checkpoint.compare_makers(before, checkpoint.maker(4))
    said = [record.getMessage() for record in caplog.records]
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "made with ranks 8, this is 4" in said[0]
    assert "made with image sha256:one, this is sha256:two" in said[1]
