"""A picture of values without a place: by position."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_POINTS = 4000


def strip_figure(parts: Mapping[str, NDArray[np.floating]], *, limit: float, label: str) -> Any:
    """Return a figure of values by their position, a panel for each part.

    Of very many values every so many is drawn.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.2), layout="constrained")
    axes = figure.subplots(1, len(parts), squeeze=False, sharey=True)[0]
    for axis, (name, values) in zip(axes, parts.items(), strict=True):
        every = max(1, len(values) // MOST_POINTS)
        axis.scatter(
            np.arange(len(values))[::every], values[::every], c=values[::every], s=4,
            cmap="RdBu_r", vmin=-limit, vmax=limit, edgecolors="0.6", linewidths=0.2,
        )  # fmt: skip
        axis.axhline(0, color="0.6", lw=0.6)
        axis.set_ylim(-limit, limit)
        axis.set_title(name + (f" (every {every}th)" if every > 1 else ""), fontsize=7)
    axes[0].set_ylabel(label, fontsize=8)
    return figure
