"""What a score is by chance: predictions that are shifted around in their run.

Shifting a prediction in time keeps its autocorrelation and undoes its fit to the scans. All voxels
and subjects are shifted alike, as they share one stimulus. Cf. Lancaster et al. 2018, Physics
Reports 748:1 (surrogates); Nichols & Holmes 2002, Human Brain Mapping 15:1 (the largest voxel).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.evaluation.blocks import over_ranks, scans_of, voxel_blocks, voxel_share
from giblet_hpc.evaluation.metrics import demeaned, fisher_z, run_rows
from giblet_hpc.splits import Block
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.world import World

SHORTEST = 0.02
"""Of a single run that a shift is, at least, in either direction: less is nearly no shift. Several
runs have a shift each, of any length: leaving out small ones would make chance look smaller."""
FEWEST_SHIFTS = 40
"""Different ones below which chance is not known."""
LEVEL = 0.05
"""Of the false discovery rate, and of the family-wise error."""


@dataclass(frozen=True)
class Chance:
    """A predictor's scores beside what they are by chance.

    Parameters
    ----------
    p : ndarray, shape (voxels,)
        Of the mean r over subjects, one-sided.
    largest : float
        Mean r that the largest of all voxels exceeds in 5 % of the shifts.
    regions : ndarray, shape (draws + 1, regions)
        Mean r of each region: first of the data, then of each shift.
    r : ndarray, shape (voxels,)
        Mean over subjects.
    """

    p: NDArray[np.float64]
    largest: float
    regions: NDArray[np.float64]
    r: NDArray[np.float64]

    def significant(self) -> NDArray[np.bool_]:
        """Return which voxels are above chance, at a false discovery rate of 5 %."""
        from scipy.stats import false_discovery_control

        passed: NDArray[np.bool_] = false_discovery_control(self.p) <= LEVEL
        return passed

    def of_region(self, number: int) -> tuple[float, float]:
        """Return a region's p, and the mean r that 5 % of the shifts exceed."""
        real, *shifted = self.regions[:, number]
        above = int(np.sum(np.array(shifted) >= real))
        return (1 + above) / (1 + len(shifted)), float(np.percentile(shifted, 100 * (1 - LEVEL)))


def shifts_of(runs: Sequence[slice], count: int) -> NDArray[np.int64]:
    """Return by how many TRs each run is shifted in each draw, (draws, runs).

    All different ones there are, where that is fewer than ``count``.
    """
    random = np.random.default_rng(0)
    lengths = [rows.stop - rows.start for rows in runs]
    if len(runs) == 1:
        least = max(1, round(SHORTEST * lengths[0]))
        every = np.arange(least, max(least, lengths[0] - least) + 1)
        chosen = random.permutation(every)[:count] if len(every) > count else every
        return chosen[:, None]
    return np.stack([random.integers(0, trs, count) for trs in lengths], axis=1)


def score_chance(
    study: StudyArrays,
    blocks: Sequence[Block],
    predictions: Mapping[str, NDArray[np.float32]],
    members: NDArray[np.bool_],
    *,
    count: int,
    world: World,
    scored: Sequence[int],
) -> dict[str, Chance]:
    """Return each predictor's scores by chance; ranks share the voxels.

    Parameters
    ----------
    study : StudyArrays
    blocks : sequence of Block
        Test TRs.
    predictions : mapping of str to ndarray, shape (subjects or 1, trs, voxels)
    members : ndarray of bool, shape (regions, voxels)
    count : int
        Shifts; 0 for none.
    world : World
    scored : sequence of int
        Subjects.

    Returns
    -------
    dict
        Empty where no shifts are asked for, or the test TRs allow too few.
    """
    runs = run_rows(blocks)
    shifts = shifts_of(runs, count)
    if not count or len(shifts) < FEWEST_SHIFTS:
        return {}
    sizes, found = np.maximum(1, members.sum(1)), {}
    for name, predicted in predictions.items():
        p, mean = np.zeros(study.voxels), np.zeros(study.voxels)
        regions = np.zeros((len(shifts) + 1, len(members)))
        largest = np.full(len(shifts), -np.inf)
        for chosen in voxel_blocks(voxel_share(study.voxels, world)):
            z = np.zeros((len(shifts) + 1, chosen.stop - chosen.start))
            for subject in scored:
                scans, valid = scans_of(study, subject, blocks, chosen)
                measured = demeaned(scans, valid, runs)
                made = np.asarray(predicted[min(subject, len(predicted) - 1), :, chosen])
                z += shifted_scores(made, measured, valid, runs, shifts)
            z /= len(scored)
            mean[chosen] = np.tanh(z[0])
            p[chosen] = (1 + (z[1:] >= z[0]).sum(0)) / (1 + len(shifts))
            largest = np.maximum(largest, z[1:].max(1))
            regions += z @ members[:, chosen].T
        every = np.max(world.gather(largest.tolist()), axis=0)
        found[name] = Chance(
            over_ranks(p, world),
            float(np.tanh(np.percentile(every, 100 * (1 - LEVEL)))),
            np.tanh(over_ranks(regions, world) / sizes),
            over_ranks(mean, world),
        )
    return found


def shifted_scores(
    made: NDArray[np.floating],
    measured: NDArray[np.float64],
    valid: NDArray[np.bool_],
    runs: Sequence[slice],
    shifts: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return Fisher z of the data and of each shift, (draws + 1, voxels).

    Whole runs are shifted, and correlated with the TRs that have a scan.

    Parameters
    ----------
    made : ndarray, shape (trs, voxels)
    measured : ndarray, shape (trs, voxels)
        From `metrics.demeaned`.
    valid : ndarray, shape (trs,)
    runs : sequence of slice
    shifts : ndarray of int, shape (draws, runs)
        TRs by which ``made`` is later.
    """
    every = np.concatenate([np.zeros((1, len(runs)), np.int64), shifts])
    total, spread = np.zeros((2, len(every), made.shape[1]))
    for number, rows in enumerate(runs):
        there, by = valid[rows].astype(np.float64)[:, None], every[:, number]
        if not there.any():
            continue
        own = made[rows] - made[rows].mean(0, dtype=np.float64)
        total += _at_shifts(own, measured[rows])[by]
        if there.all():
            spread += (own * own).sum(0)
        else:
            sums = _at_shifts(own, there)[by]
            spread += _at_shifts(own * own, there)[by] - sums * sums / there.sum()
    spread = np.sqrt(np.maximum(spread, 0) * (measured * measured).sum(0))
    r = np.divide(total, spread, out=np.zeros_like(total), where=spread > 1e-9)
    return fisher_z(r)


def _at_shifts(moved: NDArray[np.float64], fixed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of products at each shift of one of them around, (trs, voxels)."""
    from scipy import fft

    spectrum = np.conj(fft.rfft(moved, axis=0)) * fft.rfft(fixed, axis=0)
    return np.asarray(fft.irfft(spectrum, len(moved), axis=0))
