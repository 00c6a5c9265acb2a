"""Scores in space: NIfTI files, and pictures of slices."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from giblet_hpc.files import atomic_path
from giblet_hpc.scans.volumes import Grid, to_image

SLICES = 8


def save_map(
    path: Path,
    values: NDArray[np.floating],
    mask: NDArray[np.bool_],
    affine: NDArray[np.floating],
    *,
    tr: float | None = None,
) -> None:
    """Write voxel values as NIfTI, atomically.

    Parameters
    ----------
    path : Path
    values : ndarray, shape (voxels,) or (volumes, voxels)
    mask : ndarray, shape (x, y, z)
    affine : ndarray, shape (4, 4)
    tr : float, optional
        Seconds between volumes.
    """
    grid = Grid(mask.shape, tuple(tuple(float(v) for v in row) for row in affine))
    with atomic_path(path) as temporary:
        image = to_image(values, mask, grid)
        if tr is not None:
            image.header.set_zooms((*image.header.get_zooms()[:3], tr))
        nibabel.save(image, temporary)


def slices_figure(
    values: NDArray[np.floating],
    mask: NDArray[np.bool_],
    affine: NDArray[np.floating],
    *,
    title: str,
    label: str,
    limit: float | None = None,
) -> Any:
    """Draw axial slices of a map, from bottom to top, grey outside the mask.

    Parameters
    ----------
    values : ndarray, shape (voxels,)
    mask : ndarray of bool, shape (x, y, z)
    affine : ndarray, shape (4, 4)
        Tells left from right, and heights in millimetres.
    title : str
    label : str
        Of the colour bar.
    limit : float, optional
        Colours go from its negative to it; by default as far as the map does. Maps that are
        compared share one.
    """
    figure = new_figure(10, 1.9)
    volume = np.full(mask.shape, np.nan)
    volume[mask] = values
    filled = np.flatnonzero(mask.any(axis=(0, 1)))
    chosen = filled[np.linspace(0, len(filled) - 1, min(SLICES, len(filled))).astype(int)]
    limit = limit or float(np.nanmax(np.abs(volume))) or 1.0
    axes = figure.subplots(1, len(chosen), squeeze=False)[0]
    shown = None
    for axis, z in zip(axes, chosen, strict=True):
        axis.set_facecolor("0.9")
        shown = axis.imshow(
            volume[:, :, z].T, origin="lower", cmap="RdBu_r", vmin=-limit, vmax=limit
        )
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_title(f"z = {affine[2, 2] * z + affine[2, 3]:.0f} mm", fontsize=7)
    # Images are drawn by index: where x grows to the right of the subject, left is on the left.
    sides = ("L", "R") if affine[0, 0] > 0 else ("R", "L")
    for side, place, where in zip(sides, (0.03, 0.97), ("left", "right"), strict=True):
        axes[0].text(place, 0.03, side, transform=axes[0].transAxes, fontsize=8, ha=where)
    figure.colorbar(shown, ax=list(axes), fraction=0.02, label=label)
    figure.suptitle(title, fontsize=9)
    return figure


def new_figure(width: float, height: float) -> Any:
    """Return a figure that belongs to no window system."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def as_data_uri(figure: Any) -> str:
    """Return a figure as a PNG data URI, for a page without further files."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
