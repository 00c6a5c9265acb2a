"""Frames as pixels: what is estimated from them."""

from __future__ import annotations

import numpy as np

from giblet_hpc.config.features import VideoFeatures
from giblet_hpc.modalities.base import SMALLEST_VARIANCE
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
