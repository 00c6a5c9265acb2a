"""Time: the TR grid of a run, frames and segments on it, and the hemodynamic response.

TR k (0-based) covers the seconds [k * tr, (k + 1) * tr) after the run's start.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

HRF_PEAK_SHAPE = 6.0
HRF_UNDERSHOOT_SHAPE = 16.0
HRF_UNDERSHOOT_RATIO = 1.0 / 6.0


class Segment(NamedTuple):
    """An annotated stretch of a run and its words."""

    start: float
    """First TR, a fraction where it begins inside one."""
    stop: float
    """End in TRs, excluded."""
    text: str
    """What is said of it."""


def frames_per_tr(*, fps: float, tr: float, skip: int) -> int:
    """Return how many frames of a TR are kept: ceil(round(fps * tr) / skip)."""
    return -(-max(1, round(fps * tr)) // skip)


def frame_times(*, trs: int, tr: float, fps: float, skip: int) -> NDArray[np.float64]:
    """Return the moments at which frames are taken.

    The window of a TR is cut into round(fps * tr) equal parts; a frame is what is on screen in
    the middle of a part. Every ``skip``-th part is kept.

    Returns
    -------
    ndarray, shape (trs, frames), seconds from the run's start
    """
    parts = max(1, round(fps * tr))
    inside = (np.arange(parts)[::skip] + 0.5) * (tr / parts)
    times: NDArray[np.float64] = np.arange(trs)[:, None] * tr + inside[None, :]
    return times


def code_starts(*, trs: int, tr: float, rate: float) -> tuple[NDArray[np.int64], int]:
    """Return where each TR begins in a sequence of ``rate`` codes a second.

    Returns
    -------
    starts : ndarray, shape (trs,)
        Index of each TR's first code, floor(k * tr * rate).
    count : int
        Codes of a TR, floor(tr * rate), the same for all.
    """
    count = int(tr * rate + 1e-9)
    starts = np.floor(np.arange(trs) * tr * rate + 1e-9).astype(np.int64)
    return starts, count


def segment_overlap(segments: Sequence[Segment], trs: int) -> NDArray[np.float32]:
    """Return the share of each TR that each segment covers.

    Returns
    -------
    ndarray, shape (trs, segments), between 0 and 1
    """
    grid = np.arange(trs, dtype=np.float64)[:, None]
    starts = np.array([segment.start for segment in segments])[None, :]
    stops = np.array([segment.stop for segment in segments])[None, :]
    overlap = np.minimum(grid + 1, stops) - np.maximum(grid, starts)
    return np.clip(overlap, 0, 1).astype(np.float32)


def canonical_hrf(*, tr: float, trs: int) -> NDArray[np.float64]:
    """Return the canonical hemodynamic response on the TR grid.

    Difference of two gamma densities (Friston et al. 1998; SPM's defaults: peak shape 6 s,
    undershoot shape 16 s, ratio 1/6), scaled to sum to 1. A scan is of the middle of its TR, as
    slice timing correction leaves it, and a stimulus fills its TR: lag k averages the response
    from k - 1/2 to k + 1/2 TRs after the stimulus. Causal: what precedes it is 0.

    Parameters
    ----------
    tr : float
        Repetition time, seconds.
    trs : int
        Number of lags, from 0.

    Returns
    -------
    ndarray, shape (trs,)
    """
    fine = (np.arange(trs * 20) + 0.5) * tr / 20 - tr / 2
    response = gamma_density(fine, HRF_PEAK_SHAPE)
    response -= HRF_UNDERSHOOT_RATIO * gamma_density(fine, HRF_UNDERSHOOT_SHAPE)
    sampled = response.reshape(trs, 20).mean(axis=1)
    kernel: NDArray[np.float64] = sampled / sampled.sum()
    return kernel


def gamma_density(values: NDArray[np.float64], shape: float) -> NDArray[np.float64]:
    """Return the density of the gamma distribution of scale 1; 0 below 0.

    scipy.stats has it too and takes a second to import, which every process of a job would wait.

    Parameters
    ----------
    values : ndarray
    shape : float
        Above 1.

    Returns
    -------
    ndarray, as ``values``
    """
    positive = np.maximum(values, 0.0)
    density: NDArray[np.float64] = positive ** (shape - 1) * np.exp(-positive)
    return density / math.gamma(shape)


def convolve_causal(
    signal: NDArray[np.floating], kernel: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Convolve time courses with a causal kernel; time before the start counts as zero.

    Parameters
    ----------
    signal : ndarray, shape (trs, ...)
    kernel : ndarray, shape (lags,)

    Returns
    -------
    ndarray, shape (trs, ...)
        ``out[t] = sum_k kernel[k] * signal[t - k]``.
    """
    out = np.zeros(signal.shape, dtype=np.float64)
    for lag, value in enumerate(kernel[: len(signal)]):
        out[lag:] += value * signal[: len(signal) - lag]
    return out


def delayed(features: NDArray[np.floating], delays: Sequence[int]) -> NDArray[np.float32]:
    """Return features beside each other at several lags; time outside counts as zero.

    Parameters
    ----------
    features : ndarray, shape (trs, columns)
    delays : sequence of int
        Lags in TRs; column block i at row t holds ``features[t - delays[i]]``.

    Returns
    -------
    ndarray, shape (trs, len(delays) * columns)
    """
    trs, columns = features.shape
    out = np.zeros((trs, len(delays), columns), dtype=np.float32)
    for position, lag in enumerate(delays):
        if abs(lag) >= trs:
            continue
        if lag >= 0:
            out[lag:, position] = features[: trs - lag]
        else:
            out[:lag, position] = features[-lag:]
    return out.reshape(trs, -1)
