"""Mean and variance over rows that come in parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALLEST_VARIANCE = 1e-8


def moments(rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return how many rows there are, their sum, and the sum of their squares."""
    precise = rows.astype(np.float64)
    return {
        "count": np.array(float(len(rows))),
        "total": precise.sum(axis=0),
        "squares": np.square(precise, out=precise).sum(axis=0),
    }


def mean_and_variance(
    sums: Mapping[str, NDArray[Any]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each feature's mean and variance from the moments of all rows."""
    mean = sums["total"] / sums["count"]
    return mean, np.maximum(sums["squares"] / sums["count"] - mean**2, 0.0)
