"""Do stimulus and scans fit in time? Lags, subjects against each other, what is shown twice.

Lags: a ridge regression of the scans on the stimulus a single lag before, at each of several lags,
scored on contiguous held-out blocks of the same run. Scans follow the stimulus by some seconds; a
film or a sheet that is shifted shows as a lag where no blood flow is.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.evaluation.metrics import pearson
from giblet_hpc.evaluation.penalised import purged_blocks
from giblet_hpc.training.feed import Rows

Array = NDArray[np.float64]
LAGS = tuple(range(-6, 13))
"""TRs by which scans are taken to be later than the stimulus."""
VOXELS, COMPONENTS = 250, 20
"""Of the scans, at even distances; and of each modality's features."""
ALPHA = 30.0
BLOCKS, GAP = 4, 8
"""Held-out blocks of a run, and TRs left out beside them."""
SHIFTS = tuple(range(-8, 9))
"""TRs by which a subject may be later than the others."""
ALIKE = 0.99
"""Cosine of two rows that show the same, their mean over the study taken away."""
TWICE_TRS = 8
"""Shown twice: at least so many TRs one after the other."""


@dataclass(frozen=True)
class LagCurve:
    """How well scans follow the stimulus, by lag.

    Parameters
    ----------
    run : str
    subject : str
        Or ``all``: of the mean over subjects.
    r : tuple of float
        Mean over voxels, for each of `LAGS`.
    """

    run: str
    subject: str
    r: tuple[float, ...]

    @property
    def best(self) -> int:
        """The lag of the highest r, in TRs."""
        return LAGS[int(np.argmax(self.r))]


def features_of(columns: Mapping[str, Array]) -> Array:
    """Return a run's features, standardised: each modality's principal components, (trs, k)."""
    parts = []
    for values in columns.values():
        centred = values - values.mean(0)
        left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
        kept = left[:, :COMPONENTS] * sizes[:COMPONENTS]
        parts.append(kept[:, sizes[:COMPONENTS] > 1e-6 * max(float(sizes[0]), 1e-12)])
    return _standard(np.concatenate(parts, 1)) if parts else np.zeros((0, 0))


def scans_of(bold: Rows, subject: int) -> Array:
    """Return some of a subject's voxels, (trs, v)."""
    trs, voxels = bold.shape[1:]
    step = max(1, voxels // VOXELS)
    rows = [bold[subject, start : min(start + 64, trs)] for start in range(0, trs, 64)]
    return np.concatenate([part[:, ::step] for part in rows]).astype(np.float64)


def lag_curve(features: Array, scans: Array, valid: NDArray[np.bool_]) -> tuple[float, ...]:
    """Return the mean over voxels of r of a held-out regression, for each lag.

    Parameters
    ----------
    features : ndarray, shape (trs, k)
    scans : ndarray, shape (trs, v)
    valid : ndarray of bool, shape (trs,)
    """
    return tuple(_score(*_shifted(features, scans, valid, lag)) for lag in LAGS)


def _shifted(
    features: Array, scans: Array, valid: NDArray[np.bool_], lag: int
) -> tuple[Array, Array]:
    """Return rows of stimulus and scans, the scans ``lag`` TRs later."""
    trs = len(scans)
    taken = np.arange(max(0, lag), min(trs, trs + lag))
    taken = taken[valid[taken]]
    return features[taken - lag], scans[taken]


def _score(features: Array, scans: Array) -> float:
    predicted, blocks = np.zeros_like(scans), []
    for fit, held_out in purged_blocks(len(scans), BLOCKS, GAP):
        if len(fit) < 2 * GAP:
            return 0.0
        x, y = features[fit], scans[fit] - scans[fit].mean(0)
        weights = np.linalg.solve(x.T @ x + ALPHA * np.eye(x.shape[1]), x.T @ y)
        predicted[held_out] = features[held_out] @ weights
        blocks.append(slice(int(held_out[0]), int(held_out[-1]) + 1))
    # Within blocks: the mean of a block is not predicted.
    return float(np.mean(pearson(predicted, scans, np.ones(len(scans), bool), blocks)))


def chance(features: Array, scans: Array, valid: NDArray[np.bool_], *, rotations: int) -> float:
    """Return the highest r at any lag when the stimulus is that of another part of the run."""
    every = range(1, rotations + 1)
    turned = [np.roll(features, k * len(features) // (rotations + 1), axis=0) for k in every]
    return max(max(lag_curve(one, scans, valid)) for one in turned)


def between_subjects(
    scans: Mapping[str, Array], valid: Mapping[str, NDArray[np.bool_]]
) -> tuple[dict[str, float], dict[str, int], dict[str, float]]:
    """Return each subject's r with the mean of the others, and where it is highest.

    Parameters
    ----------
    scans : mapping of subject to ndarray, shape (trs, v)
        Standardised: `standardised`.
    valid : mapping of subject to ndarray of bool, shape (trs,)

    Returns
    -------
    dict of str to float
        Leave-one-out correlation over valid TRs, the mean over voxels.
    dict of str to int
        TRs by which the subject is later than the others where r is highest.
    dict of str to float
        The r there.
    """
    together = np.sum(list(scans.values()), axis=0)
    r, shift, highest = {}, {}, {}
    for name, own in scans.items():
        found = {s: _shifted_r(own, together - own, valid[name], s) for s in SHIFTS}
        r[name], shift[name] = found[0], max(found, key=found.__getitem__)
        highest[name] = found[shift[name]]
    return r, shift, highest


def _shifted_r(own: Array, others: Array, valid: NDArray[np.bool_], shift: int) -> float:
    trs = len(own)
    taken = np.arange(max(0, shift), min(trs, trs + shift))
    taken = taken[valid[taken]]
    if len(taken) < 2 * GAP:
        return 0.0
    whole = [slice(0, len(taken))]
    there = np.ones(len(taken), bool)
    return float(np.mean(pearson(own[taken], others[taken - shift], there, whole)))


@dataclass(frozen=True)
class ShownTwice:
    """Two stretches of the study that show the same.

    Parameters
    ----------
    modality : str
    first, second : tuple of (str, int)
        Run and first TR of each.
    trs : int
        How long.
    """

    modality: str
    first: tuple[str, int]
    second: tuple[str, int]
    trs: int


def shown_twice(modality: str, rows: Mapping[str, Array]) -> list[ShownTwice]:
    """Find stretches that are shown twice, in one run or in two.

    Rows that stay the same for long, such as a black screen, do not count: within a stretch the
    rows have to change.

    Parameters
    ----------
    modality : str
    rows : mapping of str to ndarray, shape (trs, k)
        By run, in order.
    """
    middle = np.concatenate(list(rows.values())).mean(0)
    unit = {name: _unit(values - middle) for name, values in rows.items()}
    names, found = list(unit), []
    for a, one in enumerate(names):
        for two in names[a:]:
            same = unit[one] @ unit[two].T > ALIKE
            least = 1 if one == two else -len(unit[one]) + 1
            for offset in range(least, len(unit[two])):
                diagonal = np.diagonal(same, offset)
                start = max(0, -offset)
                for begin, stop in _stretches(diagonal):
                    part = unit[one][start + begin : start + stop]
                    if one == two and offset < stop - begin:
                        continue
                    if _changes(part):
                        found.append(ShownTwice(
                            modality, (one, start + begin), (two, start + begin + offset),
                            stop - begin,
                        ))  # fmt: skip
    return found


def _stretches(flags: NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [(int(a), int(b)) for a, b in pairs if b - a >= TWICE_TRS]


def _changes(rows: Array) -> bool:
    """Whether rows differ often enough to tell one place in a film from another."""
    steps = np.einsum("ij,ij->i", rows[1:], rows[:-1]) < ALIKE
    return bool(steps.sum() >= max(2, len(rows) // 10))


def own_likeness(means: Mapping[str, Mapping[str, Array]]) -> float:
    """Return the median correlation of subjects' mean scans between runs; -1 for one run."""
    found = [
        float(np.corrcoef(means[a][name], means[b][name])[0, 1])
        for a, b in itertools.combinations(means, 2)
        for name in means[a].keys() & means[b].keys()
    ]
    return float(np.median(found)) if found else -1.0


def exchanged_subjects(means: Mapping[str, Mapping[str, Array]]) -> list[tuple[str, str, str]]:
    """Find subjects whose mean scan in a run is another subject's.

    Parameters
    ----------
    means : mapping of run to mapping of subject to ndarray, shape (voxels,)
        Mean scans before scaling.

    Returns
    -------
    list of (run, subject, whose mean scans it has in the other runs)
    """
    found = []
    for run, own in means.items():
        for subject, scan in own.items():
            likeness = {}
            for other in own:
                rest = [m[other] for name, m in means.items() if name != run and other in m]
                if rest:
                    likeness[other] = float(np.corrcoef(scan, np.mean(rest, 0))[0, 1])
            if len(likeness) > 1 and subject in likeness:
                best = max(likeness, key=likeness.__getitem__)
                if best != subject and likeness[best] > likeness[subject] + 0.02:
                    found.append((run, subject, best))
    return found


def constant_voxels(scans: Array, valid: NDArray[np.bool_]) -> int:
    """Return how many voxels, of (trs, v), do not change over valid TRs."""
    kept = scans[valid]
    return int((kept.std(0) < 1e-6).sum()) if len(kept) else 0


def standardised(scans: Array, valid: NDArray[np.bool_]) -> Array:
    """Return scans, (trs, v), with mean 0 and deviation 1; at TRs without a scan the mean."""
    mean = scans[valid].mean(0) if valid.any() else 0.0
    return _standard(np.where(valid[:, None], scans, mean))


def _standard(values: Array) -> Array:
    spread = values.std(0)
    return np.asarray((values - values.mean(0)) / np.where(spread > 0, spread, 1))


def _unit(values: Array) -> Array:
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.where(length > 0, length, 1))
