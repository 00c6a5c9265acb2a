"""Intervals of scores: a bootstrap over blocks of test TRs and over subjects.

Neighbouring TRs are not independent: blocks of some tens of seconds are drawn with replacement, and
r is computed again from the sums over the blocks drawn. The same draws serve the network and ridge,
so that their difference has an interval of its own (paired). Cf. Künsch 1989, Annals of Statistics
17:1217; for two levels, Davison & Hinkley 1997, chapter 3.8.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.evaluation.blocks import (
    over_ranks,
    scans_of,
    valid_rows,
    voxel_blocks,
    voxel_share,
)
from giblet_hpc.evaluation.metrics import demeaned, fisher_z, run_rows
from giblet_hpc.splits import Block
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.world import World

FEWEST_BLOCKS = 8
"""Blocks of TRs below which an interval would say nothing."""
LEVEL = (2.5, 97.5)
DIGITS = 5
"""Of an interval's ends: what the number of ranks may change lies beyond."""


@dataclass(frozen=True)
class Draws:
    """Scores of each draw.

    Parameters
    ----------
    z : mapping of str to ndarray, shape (subjects, draws, regions)
        Of each predictor, the mean over a region's voxels of Fisher z; the first draw is the data
        themselves.
    subjects : ndarray, shape (draws, subjects)
        How often each subject is drawn.
    """

    z: Mapping[str, NDArray[np.float64]]
    subjects: NDArray[np.float64]

    def over_all(self, predictor: str) -> NDArray[np.float64]:
        """Return the mean r of each draw, subjects drawn too, (draws, regions)."""
        weights = self.subjects / self.subjects.sum(1, keepdims=True)
        mean: NDArray[np.float64] = np.einsum("ds,sdr->dr", weights, self.z[predictor])
        return np.tanh(mean)

    def of_subject(self, predictor: str, subject: int) -> NDArray[np.float64]:
        """Return a subject's mean r of each draw, (draws, regions)."""
        return np.tanh(self.z[predictor][subject])


def tr_blocks(runs: Sequence[slice], length: int) -> list[slice]:
    """Return rows of blocks of about ``length`` TRs, none over the end of a run."""
    found = []
    for rows in runs:
        count = max(1, round((rows.stop - rows.start) / length))
        edges = np.linspace(rows.start, rows.stop, count + 1).round().astype(int)
        found += [slice(int(a), int(b)) for a, b in itertools.pairwise(edges)]
    return found


def draw_scores(
    study: StudyArrays,
    blocks: Sequence[Block],
    predictions: Mapping[str, NDArray[np.float32]],
    members: NDArray[np.bool_],
    *,
    length: int,
    count: int,
    world: World,
    scored: Sequence[int] | None = None,
) -> Draws | None:
    """Compute scores of each draw; ranks share the voxels.

    Parameters
    ----------
    study : StudyArrays
    blocks : sequence of Block
        Test TRs.
    predictions : mapping of str to ndarray, shape (subjects or 1, trs, voxels)
    members : ndarray of bool, shape (regions, voxels)
    length : int
        TRs of a block that is drawn.
    count : int
        Draws; 0 for none.
    world : World
    scored : sequence of int, optional
        Subjects that are scored; by default all.

    Returns
    -------
    Draws or None
        None where none are asked for, or there are too few blocks.
    """
    runs = run_rows(blocks)
    parts = tr_blocks(runs, length)
    everyone = range(len(study.subjects)) if scored is None else scored
    subjects, regions = len(everyone), len(members)
    if not count or len(parts) < FEWEST_BLOCKS or not subjects:
        return None
    random = np.random.default_rng(0)
    drawn = _times(random, len(parts), count)
    z = {name: np.zeros((subjects, count + 1, regions)) for name in predictions}
    for place, subject in enumerate(everyone):
        valid = valid_rows(study, subject, blocks)
        for chosen in voxel_blocks(voxel_share(study.voxels, world)):
            measured = demeaned(scans_of(study, subject, blocks, chosen)[0], valid, runs)
            inside = members[:, chosen].T.astype(np.float32)
            for name, predicted in predictions.items():
                made = np.asarray(predicted[min(subject, len(predicted) - 1), :, chosen])
                found = _fisher(demeaned(made, valid, runs), measured, parts, drawn)
                z[name][place] += found @ inside
    sizes = np.maximum(1, members.sum(1))
    for name in predictions:
        # In their place: of an atlas of a thousand regions each is large.
        z[name] = over_ranks(z[name], world)
        z[name] /= sizes
    return Draws(z, _times(random, subjects, count).astype(np.float64))


def _times(random: np.random.Generator, items: int, count: int) -> NDArray[np.float32]:
    """Return how often each item is drawn, (1 + count, items); at first each once."""
    drawn = random.multinomial(items, np.full(items, 1 / items), size=count)
    return np.concatenate([np.ones((1, items)), drawn]).astype(np.float32)


def _fisher(
    made: NDArray[np.float64],
    measured: NDArray[np.float64],
    parts: Sequence[slice],
    drawn: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return Fisher z of each draw and voxel, (draws, voxels), from sums over the blocks."""
    starts = [part.start for part in parts]

    def sums(values: NDArray[np.float64]) -> NDArray[np.float32]:
        added = np.add.reduceat(values, starts, axis=0).astype(np.float32)
        return np.asarray(drawn @ added)

    spread = np.sqrt(sums(made * made) * sums(measured * measured))
    r = np.divide(sums(made * measured), spread, out=np.zeros_like(spread), where=spread > 1e-9)
    return fisher_z(r)


def interval(values: NDArray[np.float64]) -> list[float]:
    """Return the ends of the 95 % percentile interval of draws, without the data themselves."""
    low, high = np.percentile(values[1:], LEVEL)
    return [round(float(low), DIGITS), round(float(high), DIGITS)]


def verdict(difference: Sequence[float]) -> str:
    """Say how the network stands against ridge, from the interval of their difference.

    Examples
    --------
    >>> verdict([0.01, 0.05]), verdict([-0.05, -0.01]), verdict([-0.01, 0.05])
    ('better', 'worse', 'undecided')
    """
    low, high = difference
    if low > 0:
        return "better"
    return "worse" if high < 0 else "undecided"
