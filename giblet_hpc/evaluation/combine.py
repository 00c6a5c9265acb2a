"""Network and ridge together: ridge plus what the network adds, times a gate for each region.

The gate, between 0 and 1, is fitted by least squares on predictions of TRs that neither was fitted
to (stacked regression, Breiman 1996, Machine Learning 24:49). Where it is 0, ridge stands alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.evaluation.blocks import over_ranks, scans_of, voxel_blocks, voxel_share, write_rows
from giblet_hpc.evaluation.metrics import demeaned, run_rows
from giblet_hpc.evaluation.scores import ALL
from giblet_hpc.splits import Block
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.world import World

Predictions = NDArray[np.float32]


@dataclass(frozen=True)
class HeldOut:
    """Predictions of TRs that no model was fitted to.

    Parameters
    ----------
    blocks : sequence of Block
    model, ridge : ndarray, shape (subjects or 1, trs, voxels)
    """

    blocks: Sequence[Block]
    model: Predictions
    ridge: Predictions


def gates(
    study: StudyArrays,
    held_out: Sequence[HeldOut],
    labels: NDArray[np.int32] | None,
    *,
    scored: Sequence[int],
    world: World,
) -> NDArray[np.float64]:
    """Return each voxel's gate, the same for all voxels of a region and for all subjects.

    Parameters
    ----------
    study : StudyArrays
    held_out : sequence of HeldOut
    labels : ndarray, shape (voxels,), optional
        Region of each voxel; 0 for none, who share a gate too.
    scored : sequence of int
        Subjects.
    world : World
        Its ranks share the voxels.

    Returns
    -------
    ndarray, shape (voxels,)
        0 where the network does not differ from ridge.
    """
    sums = np.zeros((2, study.voxels))
    for part in held_out:
        for chosen in voxel_blocks(voxel_share(study.voxels, world)):
            for subject in scored:
                sums[:, chosen] += _sums(study, part, subject, chosen)
    sums = over_ranks(sums, world)
    region = np.zeros(study.voxels, np.int64) if labels is None else labels.astype(np.int64)
    gain, spread = (np.bincount(region, weights=values) for values in sums)
    gate = np.divide(gain, spread, out=np.zeros_like(gain), where=spread > 1e-9)
    return np.clip(gate, 0, 1)[region]


def _sums(study: StudyArrays, part: HeldOut, subject: int, voxels: slice) -> NDArray[np.float64]:
    """Return sum (y - ridge)(network - ridge) and sum (network - ridge)^2, (2, voxels)."""
    runs = run_rows(part.blocks)
    scans, valid = scans_of(study, subject, part.blocks, voxels)
    y = demeaned(scans, valid, runs)
    model, ridge = (
        demeaned(np.asarray(made[min(subject, len(made) - 1), :, voxels]), valid, runs)
        for made in (part.model, part.ridge)
    )
    if not np.isfinite(ridge).all():
        # A subject without scans in this part to fit ridge to.
        return np.zeros((2, y.shape[1]))
    added = model - ridge
    return np.stack([((y - ridge) * added).sum(0), (added * added).sum(0)])


def by_region(
    gate: NDArray[np.float64], labels: NDArray[np.int32] | None, names: Mapping[str, str]
) -> dict[str, float]:
    """Return each region's gate by its name; of all voxels where there are no regions."""
    if labels is None:
        return {ALL: float(gate[0])}
    found = {}
    for label in np.unique(labels):
        name = names.get(str(label), str(label)) if label else "no region"
        found[name] = float(gate[labels == label][0])
    return found


def write_combined(
    path: Path, model: Predictions, ridge: Predictions, gate: NDArray[np.float64]
) -> None:
    """Write ridge + gate (network - ridge) as a .npy file, (subjects, trs, voxels)."""

    def rows() -> Iterator[NDArray[np.float32]]:
        for subject, own in enumerate(ridge):
            of_network = model[min(subject, len(model) - 1)]
            for linear, network in zip(own, of_network, strict=True):
                yield (linear + gate * (network - linear)).astype(np.float32)

    write_rows(path, ridge.shape, rows())
