"""What is estimated of sound: codes and what they stand for, bands of a spectrum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.modalities.moments import SMALLEST_VARIANCE, mean_and_variance, moments

CODES = 1024


def code_counts(rows: NDArray[np.int16]) -> NDArray[np.float64]:
    """Return how often each code occurs in each codebook, (Q, codes)."""
    return np.stack(
        [np.bincount(rows[:, q].ravel(), minlength=CODES) for q in range(rows.shape[1])]
    ).astype(np.float64)


def code_frequencies(counts: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """Return logarithms of codes' frequencies, (Q, codes), and the cost of guessing, in nats."""
    # Half a count more, so that a code not seen in training is unlikely but possible.
    probability = (counts + 0.5) / (counts + 0.5).sum(axis=1, keepdims=True)
    logarithm = np.log(probability)
    observed = counts / counts.sum(axis=1, keepdims=True)
    cost = -(observed * logarithm).sum(axis=1).mean()
    return {
        "log_probability": logarithm.astype(np.float32),
        "entropy": np.maximum(cost, SMALLEST_VARIANCE),
    }


def code_vectors(codes: NDArray[np.int16], codebooks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what codes (trs, Q, C) stand for: the sum of their vectors, (trs, C, 128)."""
    total = np.zeros((codes.shape[0], codes.shape[2], codebooks.shape[2]), dtype=np.float32)
    for number, book in enumerate(codebooks):
        total += book[codes[:, number]]
    return total


def vector_sums(rows: NDArray[np.int16], codebooks: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """Return the moments of what codes stand for, (128,) each."""
    total: dict[str, NDArray[Any]] = {}
    for row in rows:
        found = moments(code_vectors(row[None], codebooks)[0])
        total = {name: total.get(name, 0) + value for name, value in found.items()}
    return {f"vector_{name}": value for name, value in total.items()}


def band_estimates(sums: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """Return mean and deviation of each band, (bands,), from the moments of (bands, columns)."""
    columns = sums["total"].shape[1]
    mean, spread = mean_and_variance({
        "count": sums["count"] * columns,
        **{key: sums[key].sum(axis=1) for key in ("total", "squares")},
    })  # fmt: skip
    deviation = np.sqrt(np.maximum(spread, SMALLEST_VARIANCE))
    return {
        "band_mean": mean.astype(np.float32), "band_deviation": deviation.astype(np.float32),
    }  # fmt: skip
