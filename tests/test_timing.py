from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nilearn.glm.first_level import spm_hrf

from giblet_hpc import timing


@pytest.mark.parametrize(
    ("fps", "tr", "skip", "frames"),
    [(25, 1.5, 1, 38), (25, 1.5, 2, 19), (25, 1.5, 4, 10), (23.976, 2, 1, 48), (29.97, 2, 1, 60)],
)
def test_frames_of_a_tr(fps: float, tr: float, skip: int, frames: int) -> None:
    assert timing.frames_per_tr(fps=fps, tr=tr, skip=skip) == frames
    times = timing.frame_times(trs=3, tr=tr, fps=fps, skip=skip)
    assert times.shape == (3, frames)
    for number in range(3):
        assert (times[number] >= number * tr).all()
        assert (times[number] < (number + 1) * tr).all()


def test_codes_of_a_tr_do_not_drift() -> None:
    starts, count = timing.code_starts(trs=2000, tr=1.5, rate=75.0)
    assert count == 112
    np.testing.assert_array_equal(starts, np.floor(np.arange(2000) * 112.5))


def test_hrf_matches_an_independent_one() -> None:
    mine = timing.canonical_hrf(tr=0.5, trs=64)
    fine = spm_hrf(0.5, oversampling=20, time_length=32.0)
    theirs = fine.reshape(-1, 20).mean(axis=1)
    assert np.corrcoef(mine, theirs[:64])[0, 1] > 0.995
    assert mine.argmax() * 0.5 == pytest.approx(5.0, abs=0.6)
    assert mine.sum() == pytest.approx(1)


def test_convolution_is_causal() -> None:
    impulse = np.zeros((60, 1))
    impulse[20] = 1
    kernel = timing.canonical_hrf(tr=1.5, trs=20)
    response = timing.convolve_causal(impulse, kernel)[:, 0]
    assert not response[:20].any()
    np.testing.assert_allclose(response[20:40], kernel)
    assert response.argmax() > 20


@given(st.integers(5, 60), st.integers(1, 12), st.integers(0, 2**31))
def test_convolution_equals_numpy(trs: int, lags: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    signal, kernel = random.standard_normal(trs), random.standard_normal(lags)
    expected = np.convolve(signal, kernel)[:trs]
    np.testing.assert_allclose(
        timing.convolve_causal(signal[:, None], kernel)[:, 0], expected, atol=1e-9
    )


@given(st.integers(8, 30), st.lists(st.integers(-3, 5), min_size=1, max_size=4))
def test_delays(trs: int, delays: list[int]) -> None:
    features = np.arange(trs * 2, dtype=float).reshape(trs, 2) + 1
    out = timing.delayed(features, delays).reshape(trs, len(delays), 2)
    for position, lag in enumerate(delays):
        for t in range(trs):
            inside = 0 <= t - lag < trs
            expected = features[t - lag] if inside else np.zeros(2)
            np.testing.assert_array_equal(out[t, position], expected)


def test_overlap_of_segments() -> None:
    segments = [timing.Segment(0.5, 2.0, "a"), timing.Segment(3.0, 9.0, "b")]
    np.testing.assert_allclose(
        timing.segment_overlap(segments, 5), [[0.5, 0], [1, 0], [0, 0], [0, 1], [0, 1]]
    )
