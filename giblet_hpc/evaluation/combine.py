"""Network and ridge together: their mean, weighted by a gate for each region.

A region's gate, between 0 (ridge alone) and 1 (the network alone), is chosen by the mean r on
predictions of TRs that neither was fitted to (stacking, Breiman 1996, Machine Learning 24:49): the
least one that is not worse than the best by more than a standard error over stretches of time
(Breiman et al. 1984, Classification and Regression Trees, chapter 3), since the network has to earn
its place.
Predictions count by their shape: each is brought to unit deviation over a run, since how far models
fitted to parts of the TRs are shrunk says nothing of which is right.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.evaluation.blocks import (
    Joined,
    joined_runs,
    over_ranks,
    scans_of,
    voxel_blocks,
    voxel_share,
    write_rows,
)
from giblet_hpc.evaluation.metrics import demeaned
from giblet_hpc.evaluation.scores import ALL
from giblet_hpc.splits import Block
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.world import World

Predictions = NDArray[np.float32]
GATES = np.linspace(0, 1, 21)
DIGITS = 6
"""Of a sum of scores: what the order of adding may change lies beyond."""


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
    stretch: int,
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
    stretch : int
        TRs, over which the standard error is taken.
    scored : sequence of int
        Subjects.
    world : World
        Its ranks share the voxels.

    Returns
    -------
    ndarray, shape (voxels,)
    """
    labelled = np.zeros(study.voxels, np.int32) if labels is None else np.maximum(labels, 0)
    region = np.unique(labelled, return_inverse=True)[1]
    blocks = [block for part in held_out for block in part.blocks]
    pair = Joined([part.model for part in held_out]), Joined([part.ridge for part in held_out])
    starts = _stretches(blocks, stretch)
    found = np.zeros((len(GATES), len(starts), region.max() + 1))
    for chosen in voxel_blocks(voxel_share(study.voxels, world)):
        for subject in scored:
            own = _scores(study, blocks, pair, subject=subject, voxels=chosen, starts=starts)
            order = np.argsort(region[chosen], kind="stable")
            there, first = np.unique(region[chosen][order], return_index=True)
            found[..., there] += np.add.reduceat(own[..., order], first, axis=-1)
    # Rounded, so that the order in which ranks are added up does not decide between equal ones.
    every = over_ranks(found, world).round(DIGITS)
    return GATES[[_least(one) for one in np.moveaxis(every, 2, 0)]][region]


def _stretches(blocks: Sequence[Block], length: int) -> list[int]:
    """Return the first rows of stretches of some blocks; a short rest joins the one before."""
    starts, row = [], 0
    for block in blocks:
        starts += [row + number * length for number in range(max(1, block.trs // length))]
        row += block.trs
    return starts


def _least(scores: NDArray[np.float64]) -> int:
    """Return the least gate that is within a standard error of the best.

    Parameters
    ----------
    scores : ndarray, shape (gates, stretches)
        What each stretch adds to r.
    """
    best = int(np.argmax(scores.sum(axis=1)))
    lost = scores[best] - scores
    error = lost.std(axis=1, ddof=1) * np.sqrt(lost.shape[1]) if lost.shape[1] > 1 else 0.0
    return int(np.flatnonzero(lost.sum(axis=1) <= error)[0])


def _scores(
    study: StudyArrays,
    blocks: Sequence[Block],
    pair: tuple[Joined, Joined],
    *,
    subject: int,
    voxels: slice,
    starts: Sequence[int],
) -> NDArray[np.float64]:
    """Return what stretches add to r by each gate, (gates, stretches, voxels).

    A run's mean is taken out over all its blocks, as of test TRs: what is slow counts there too.
    """
    runs = joined_runs(blocks)
    scans, valid = scans_of(study, subject, blocks, voxels)
    unit = _unit(demeaned(scans, valid, runs))
    model, ridge = (
        _unit(demeaned(made[min(subject, len(made) - 1), slice(None), voxels], valid, runs))
        for made in pair
    )
    if not np.isfinite(ridge).all():
        # A subject without scans in this part to fit ridge to.
        return np.zeros((len(GATES), len(starts), unit.shape[1]))
    of_model, of_ridge = (np.add.reduceat(made * unit, starts) for made in (model, ridge))
    gate, alike = GATES[:, None, None], (model * ridge).sum(0)
    norm = np.sqrt((1 - gate) ** 2 + gate**2 + 2 * gate * (1 - gate) * alike)
    r = (1 - gate) * of_ridge + gate * of_model
    return np.asarray(np.divide(r, norm, out=np.zeros_like(r), where=norm > 1e-6))


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return courses of length 1; those that are constant stay 0."""
    length = np.sqrt((values * values).sum(0))
    return values / np.where(length > 0, length, 1)


def by_region(
    gate: NDArray[np.float64], labels: NDArray[np.int32] | None, names: Mapping[str, str]
) -> dict[str, float]:
    """Return each region's gate by its name; of all voxels where there are no regions."""
    if labels is None:
        return {ALL: float(gate[0])}
    found = {}
    for label in np.unique(np.maximum(labels, 0)):
        name = names.get(str(label), str(label)) if label else "no region"
        key = f"{name} ({label})" if name in found else name
        found[key] = float(gate[np.maximum(labels, 0) == label][0])
    return found


def write_combined(
    path: Path,
    model: Predictions,
    ridge: Predictions,
    gate: NDArray[np.float64],
    runs: Sequence[slice],
) -> None:
    """Write both together as a .npy file, (subjects, trs, voxels).

    In each run, ridge and network are brought to a common deviation, the mean of theirs weighted by
    the gate: a gate of 0 is ridge as it is, a gate of 1 the network.
    """

    def rows() -> Iterator[NDArray[np.float64]]:
        for subject, own in enumerate(ridge):
            of_network = model[min(subject, len(model) - 1)]
            for run in runs:
                (mean, size), (mean_2, size_2) = _moments(own[run]), _moments(of_network[run])
                shared = (1 - gate) * size + gate * size_2
                scale, scale_2 = (np.divide(shared, one, out=np.zeros_like(one), where=one > 0)
                                  for one in (size, size_2))  # fmt: skip
                middle = (1 - gate) * mean + gate * mean_2
                for linear, network in zip(own[run], of_network[run], strict=True):
                    made = (1 - gate) * scale * (linear - mean)
                    yield made + gate * scale_2 * (network - mean_2) + middle

    write_rows(path, ridge.shape, rows())


def _moments(values: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and deviation over TRs, (voxels,)."""
    return values.mean(0, dtype=np.float64), values.std(0, dtype=np.float64)
