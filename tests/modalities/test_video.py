"""Frames as pixels: what is estimated from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage import metrics

from giblet_hpc.config.features import VideoFeatures
from giblet_hpc.modalities.moments import SMALLEST_VARIANCE
from giblet_hpc.modalities.video import Video


def test_mean_and_variance_of_pixels() -> None:
    rows = np.random.default_rng(0).integers(0, 256, (6, 2, 4, 5, 3), dtype=np.uint8)
    found = Video("video", VideoFeatures()).fit([rows], None)
    pixels = rows.astype(np.float64) / 255
    np.testing.assert_allclose(found["mean"], pixels.mean(axis=(0, 1)), rtol=1e-6)
    np.testing.assert_allclose(found["variance"], pixels.var(axis=(0, 1)).mean(), rtol=1e-9)


def test_a_film_that_stands_still_has_a_variance_to_divide_by() -> None:
    found = Video("video", VideoFeatures()).fit([np.full((4, 1, 2, 2, 3), 9, np.uint8)], None)
    assert found["variance"] == SMALLEST_VARIANCE


def bound() -> Video:
    shape = (2, 18, 32, 3)
    frames = np.random.default_rng(0).integers(0, 256, (6, *shape), dtype=np.uint8)
    video = Video("video", VideoFeatures())
    return video.fitted(shape, video.fit([frames], None))


def test_frames_are_compared_as_scikit_image_does() -> None:
    random = np.random.default_rng(1)
    rows = torch.from_numpy(random.integers(0, 256, (1, 5, 2, 18, 32, 3), dtype=np.uint8))
    made = rows.float() / 255 + 0.1 * torch.from_numpy(random.standard_normal(rows.shape)).float()
    mask = torch.tensor([[True, True, False, True, True]])
    found = bound().scores(made, rows, mask, positions=None)
    psnr, ssim = [], []
    for tr in (0, 1, 3, 4):
        shown = rows[0, tr].numpy() / np.float32(255)
        other = made[0, tr].clamp(0, 1).numpy()
        psnr += [
            metrics.peak_signal_noise_ratio(a, b, data_range=1)
            for a, b in zip(shown, other, strict=True)
        ]
        ssim.append(
            metrics.structural_similarity(
                shown[0], other[0], channel_axis=-1, data_range=1, gaussian_weights=True,
                sigma=1.5, use_sample_covariance=False,
            )
        )  # fmt: skip
    assert float(found["psnr"]) == pytest.approx(np.mean(psnr), abs=1e-4)
    assert float(found["ssim"]) == pytest.approx(np.mean(ssim), abs=1e-6)
    same = bound().scores(rows.float() / 255, rows, mask, positions=None)
    assert float(same["ssim"]) == pytest.approx(1)
    assert float(same["psnr"]) == pytest.approx(100)


def test_controls_know_nothing_of_the_tr() -> None:
    video = bound()
    random = np.random.default_rng(2)
    every = torch.from_numpy(random.integers(0, 256, (1, 6, 2, 18, 32, 3), dtype=np.uint8))
    rows, before = every[:, 1:], every[:, :-1]
    mask = torch.ones(1, 5, dtype=torch.bool)
    made = torch.zeros(1, 1, 2, 18, 32, 3)
    found = video.control_scores(rows, before, mask, positions=None, made=made)
    variance = float(video.estimates["variance"])
    pixels, earlier = rows.numpy() / 255, before.numpy() / 255
    mean = ((pixels - video.estimates["mean"]) ** 2).mean() / variance
    previous = ((pixels - earlier) ** 2).mean() / variance
    assert float(found["mean"]["error"]) == pytest.approx(mean, rel=1e-4)
    assert float(found["previous"]["error"]) == pytest.approx(previous, rel=1e-4)
    one = video.control_scores(rows, before, mask, positions=None, made=made[:, :, :1])
    first = ((pixels[:, :, 0] - earlier[:, :, 0]) ** 2).mean() / variance
    assert float(one["previous"]["error"]) == pytest.approx(first, rel=1e-4), "dense: one frame"
