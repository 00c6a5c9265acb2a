from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nilearn.glm.first_level import spm_hrf
from scipy.stats import gamma

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


@pytest.mark.parametrize("tr", [0.72, 1.5, 2.0])
def test_hrf_is_that_of_scans_in_the_middle_of_their_trs(tr: float) -> None:
    """A stimulus of one TR, nilearn's response in small steps, read in the middle of each TR."""
    steps, trs = 40, round(32 / tr)
    mine = timing.canonical_hrf(tr=tr, trs=trs)
    response = spm_hrf(tr, oversampling=steps, time_length=tr * trs)
    shown = np.zeros(trs * steps)
    shown[:steps] = 1
    theirs = np.convolve(shown, response)[steps // 2 : trs * steps : steps]
    np.testing.assert_allclose(mine, theirs / theirs.sum(), atol=0.004)
    assert mine.sum() == pytest.approx(1)


@pytest.mark.parametrize("tr", [0.5, 1.0, 1.5, 2.0])
def test_the_response_comes_as_late_at_every_tr(tr: float) -> None:
    """Its centre of mass does not move with the grid."""
    kernel = timing.canonical_hrf(tr=tr, trs=round(30 / tr))
    fine = timing.canonical_hrf(tr=0.05, trs=600)
    centre = (kernel * np.arange(len(kernel)) * tr).sum()
    assert centre == pytest.approx((fine * np.arange(600) * 0.05).sum(), abs=0.03)


def test_the_gamma_density_is_scipys() -> None:
    values = np.linspace(-3, 40, 500)
    for shape in (timing.HRF_PEAK_SHAPE, timing.HRF_UNDERSHOOT_SHAPE):
        np.testing.assert_allclose(
            timing.gamma_density(values, shape), gamma.pdf(values, shape), rtol=1e-9
        )


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
