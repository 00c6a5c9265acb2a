"""The pictures of a fold: files in its folder, which the report finds by their names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.evaluation.canvas import new_figure
from giblet_hpc.files import write_with
from giblet_hpc.runs.figures import rows as rows_of
from giblet_hpc.scans.base import Space

DPI = 110
SHARED_PERCENTILE = 99.0
"""Of |r| of both predictors: where the colours of their maps end."""
ALIKE = 1e-12
LABELS = {"model": "network", "ridge": "ridge", "combined": "network and ridge"}
OFFSETS = (-0.2, 0.0, 0.2)
MAPS = {"model": "1-network", "ridge": "2-ridge", "combined": "4-network-and-ridge"}


def _there(scores: Mapping[str, Any]) -> dict[str, str]:
    """Return the labels of the predictors that have an r."""
    return {name: label for name, label in LABELS.items() if f"{name}_r" in scores}


def save_figure(folder: Path, name: str, figure: Any) -> None:
    """Write a figure as a PNG of its name."""
    folder.mkdir(parents=True, exist_ok=True)
    write_with(folder / f"{name}.png", lambda handle: figure.savefig(handle, dpi=DPI, format="png"))


def training_figure(metrics: Path) -> Any:
    """Draw the training curves of a metrics file."""
    rows = rows_of(metrics)
    figure = new_figure(10, 2.6)
    left, middle, right = figure.subplots(1, 3)
    train = [row for row in rows if row["kind"] == "train"]
    validation = [row for row in rows if row["kind"] == "validation"]
    for name in sorted({key for row in train for key in row if key.startswith("loss/")}):
        left.plot([row["step"] for row in train], [row[name] for row in train],
                  label=name.removeprefix("loss/"))  # fmt: skip
    left.set_title("training loss, weighted components", fontsize=8)
    left.set_ylabel("loss", fontsize=7)
    for key in ("fmri_error", "r"):
        middle.plot([row["step"] for row in validation], [row[key] for row in validation],
                    label="error of scans" if key == "fmri_error" else "mean voxel r")  # fmt: skip
    middle.set_title("validation", fontsize=8)
    middle.set_ylabel("error (1 = mean), r", fontsize=7)
    for name in sorted({k for row in train for k in row if k.startswith("gradient_share/")}):
        right.plot([row["step"] for row in train], [row[name] for row in train],
                   label=name.removeprefix("gradient_share/"))  # fmt: skip
    right.set_title("gradient at the bottleneck", fontsize=8)
    right.set_ylabel("share", fontsize=7)
    for axis in (left, middle, right):
        axis.set_xlabel("step", fontsize=7)
        if axis.get_lines():
            # A run shorter than train.log_every has none.
            axis.legend(fontsize=6)
    return figure


def histogram_figure(arrays: Mapping[str, NDArray[Any]]) -> Any:
    """Draw the distributions of voxel r of the predictors that there are."""
    figure = new_figure(5, 2.4)
    axis = figure.subplots()
    for name, label in _there(arrays).items():
        values = arrays[f"{name}_r"]
        flat = values[np.isfinite(values)]
        if np.ptp(flat) < ALIKE:
            # A histogram of one value would divide by its width.
            axis.axvline(flat[0], label=label)
        else:
            axis.hist(flat, bins=60, histtype="step", label=label)
    axis.set_xlabel("r of a voxel over the test TRs")
    axis.set_ylabel("voxels x subjects")
    axis.legend(fontsize=7)
    return figure


def subjects_figure(rows: list[dict[str, Any]]) -> Any:
    """Draw each subject's score with its interval, of the predictors beside each other."""
    figure = new_figure(max(4.0, 0.45 * len(rows) + 1.5), 2.6)
    axis = figure.subplots()
    used = _there(rows[0])
    for offset, (key, label) in zip(OFFSETS[-len(used) :], used.items(), strict=True):
        middle = np.array([row[f"{key}_r"] for row in rows])
        ends = np.array([row[f"{key}_r_interval"] for row in rows]).T
        axis.errorbar(np.arange(len(rows)) + offset, middle, yerr=np.abs(ends - middle),
                      fmt="o", ms=3, lw=1, label=label)  # fmt: skip
    axis.axhline(0, color="0.7", lw=0.8)
    axis.set_xticks(range(len(rows)), [row["subject"] for row in rows], fontsize=7, rotation=45)
    axis.set_xlabel("subject")
    axis.set_ylabel("mean r over voxels")
    axis.legend(fontsize=7)
    return figure


def save_maps(
    folder: Path, arrays: Mapping[str, NDArray[Any]], mask: NDArray[np.bool_], space: Space
) -> None:
    """Draw maps of r, of the difference, and of the ceiling; those of r share their colours.

    Parameters
    ----------
    folder : Path
    arrays : mapping of str to ndarray, shape (subjects, voxels) or (voxels,)
        ``NAME_r`` of the predictors that there are; ``ceiling`` where there is one.
    mask : ndarray of bool, in the shape of the space
    space : Space
    """
    means = {name: np.nanmean(arrays[f"{name}_r"], axis=0) for name in _there(arrays)}
    limit = float(np.percentile(np.abs(list(means.values())), SHARED_PERCENTILE))
    drawn = [
        (f"map-{MAPS[name]}", mean, f"{LABELS[name]}: mean r", "r", limit)
        for name, mean in means.items()
    ]
    if "model" in means:
        apart = means["model"] - means["ridge"]
        drawn.append(("map-3-difference", apart, "network minus ridge", "difference of r", 0.0))
    if "ceiling" in arrays:
        drawn.append(("map-5-ceiling", arrays["ceiling"], "noise ceiling", "r", 0.0))
    for name, values, title, label, shared in drawn:
        ends = shared or float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
        figure = space.draw(values, mask, limit=ends, label=label)
        figure.suptitle(title, fontsize=9)
        save_figure(folder, name, figure)
