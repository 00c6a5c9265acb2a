"""What is in a study's arrays, and what a training on them would start with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.config.batch import SMALLEST_DENSE_BATCH
from giblet_hpc.config.run import RunConfig
from giblet_hpc.findings import Finding
from giblet_hpc.modalities.base import Modality, Normalise, mean_and_variance, moments, scale
from giblet_hpc.splits import Fold
from giblet_hpc.training.feed import Rows, StudyArrays
from giblet_hpc.training.windows import epoch_windows

PART = 64
"""TRs that are read at a time."""
SPIKE = 8.0
"""Robust deviations of a TR's mean change that make it a spike."""
MANY_SPIKES = 0.01
"""Share of a run's TRs beyond which they are worth a remedy."""
BINS = 20


def summary(rows: Rows) -> dict[str, Any]:
    """Return what values rows have, in one pass over them.

    Parameters
    ----------
    rows : array of shape (trs, ...)

    Returns
    -------
    dict
        ``trs``, ``values`` of a row, ``low``, ``high``, ``mean``, ``sd``, ``variance`` over time
        (the mean over values), shares of ``zeros`` and ``nans``, numbers of ``constant`` rows and
        of ``repeated`` ones (equal to the one before), and ``histogram``: counts in `BINS` even
        steps from low to high, of every 16th row.
    """
    trs = rows.shape[0]
    total = squares = 0.0
    low, high, count, zeros, nans, constant, repeated = math.inf, -math.inf, 0, 0, 0, 0, 0
    last, some = None, []
    sums: dict[str, Any] = {}
    for start in range(0, trs, PART):
        part = np.asarray(rows[start : start + PART]).reshape(min(PART, trs - start), -1)
        values = part.astype(np.float64)
        bad = np.isnan(values)
        good = np.where(bad, 0.0, values)
        count += values.size
        nans += int(bad.sum())
        zeros += int((values == 0).sum())
        sums = {name: sums.get(name, 0) + value for name, value in moments(good).items()}
        total, squares = total + good.sum(), squares + np.square(good).sum()
        if not bad.all():
            low, high = min(low, np.nanmin(values)), max(high, np.nanmax(values))
        constant += int((values.max(1) == values.min(1)).sum())
        before = part if last is None else np.concatenate([last[None], part])
        repeated += int((before[1:] == before[:-1]).all(1).sum())
        last = part[-1]
        some.append(part[::16].ravel())
    there = max(1, count - nans)
    mean = total / there
    return {
        "trs": trs,
        "values": count // max(1, trs),
        "low": float(low),
        "high": float(high),
        "mean": mean,
        "sd": math.sqrt(max(0.0, squares / there - mean**2)),
        "variance": float(mean_and_variance(sums)[1].mean()),
        "zeros": zeros / count,
        "nans": nans / count,
        "constant": constant,
        "repeated": repeated,
        "histogram": _histogram(np.concatenate(some), float(low), float(high)),
    }


def _histogram(values: NDArray[Any], low: float, high: float) -> list[int]:
    finite = values[np.isfinite(values)].astype(np.float64)
    edges = (low, high) if high > low else (low - 0.5, low + 0.5)
    counts: list[int] = np.histogram(finite, BINS, edges)[0].tolist() if finite.size else []
    return counts


def spikes(study: StudyArrays, run: str, subject: int) -> list[int]:
    """Return the TRs at which a subject's scans jump, by the change since the TR before."""
    arrays, change, last = study.runs[run], [], None
    trs = arrays.bold.shape[1]
    for start in range(0, trs, PART):
        part = arrays.bold[subject, start : min(start + PART, trs)].astype(np.float64)
        joined = part if last is None else np.concatenate([last[None], part])
        steps = np.sqrt(np.square(np.diff(joined, axis=0)).mean(1))
        change.append(steps if last is not None else np.concatenate([[0.0], steps]))
        last = part[-1]
    every = np.concatenate(change)
    valid = np.asarray(arrays.valid[subject])
    inside = valid & np.concatenate([[False], valid[:-1]])
    if inside.sum() < PART // 4:
        return []
    middle = np.median(every[inside])
    spread = 1.4826 * np.median(np.abs(every[inside] - middle)) or 1.0
    return [int(tr) for tr in np.flatnonzero(inside & (every > middle + SPIKE * spread))]


def first_losses(
    config: RunConfig, variances: Mapping[str, float], modalities: Mapping[str, Modality]
) -> dict[str, dict[str, float]]:
    """Return what each component of the loss costs where the mean is predicted.

    Parameters
    ----------
    config : RunConfig
    variances : mapping of str to float
        Over time, of the scans (``fmri``), and of each modality.
    modalities : mapping of str to Modality

    Returns
    -------
    dict of str to dict of str to float
        For each ``loss.normalise`` the weighted components.
    """
    options, dense = config.loss, config.model.kind == "dense"
    kinds: tuple[Normalise, ...] = ("variance", "std", "none")
    found: dict[str, dict[str, float]] = {}
    for kind in kinds:
        scans = variances["fmri"]
        found[kind] = {"fmri": options.fmri_weight * scans / scale(scans or 1.0, kind)}
        for name, modality in modalities.items():
            weight = options.reconstruction_weight * options.modality_weights.get(name, 1.0)
            found[kind][name] = weight * modality.cost_of_mean(variances[name], kind, dense=dense)
    return found


class DataCheck:
    """Looks at a preprocessed study, array by array.

    Parameters
    ----------
    config : RunConfig
    study : StudyArrays
    modalities : mapping of str to Modality
    folds : sequence of Fold
    ranks : int
        That training would have.
    """

    def __init__(
        self,
        config: RunConfig,
        study: StudyArrays,
        modalities: Mapping[str, Modality],
        *,
        folds: Sequence[Fold],
        ranks: int,
    ) -> None:
        self.config, self.study, self.folds, self.ranks = config, study, folds, ranks
        self._modalities = modalities
        self.arrays: dict[str, dict[str, Any]] = {}
        """Each array's summary, by its name."""
        self._spread: dict[str, list[tuple[int, float]]] = {}

    def findings(self) -> Iterator[Finding]:
        """Yield what is seen: arrays, then scales, then steps."""
        for run, arrays in self.study.runs.items():
            for name, rows in arrays.stimulus.items():
                yield from self._stimulus(run, name, rows)
            for number, subject in enumerate(self.study.subjects):
                yield from self._scans(run, number, subject)
        yield self._scales()
        yield from self._steps()

    def facts(self) -> dict[str, Any]:
        """Return the figures behind the findings."""
        return {
            "arrays": self.arrays,
            "first_losses": first_losses(self.config, self._variances(), self._modalities),
        }

    def _stimulus(self, run: str, name: str, rows: Rows) -> Iterator[Finding]:
        found = self.arrays[f"stimulus/{run}/{name}"] = summary(rows)
        self._spread.setdefault(name, []).append((found["trs"], found["variance"]))
        check, sections = f"{name} of {run}", self.config.features.sections
        seen = (
            f"{found['trs']} TRs of {found['values']:,} values, {found['low']:.4g} to "
            f"{found['high']:.4g}, mean {found['mean']:.4g}, SD {found['sd']:.4g}, "
            f"{100 * found['zeros']:.2g} % zeros"
        )
        if found["nans"]:
            yield Finding(check, "fail", f"{seen}; {100 * found['nans']:.2g} % are not numbers",
                          "preprocess this modality again")  # fmt: skip
        elif found["sd"] == 0:
            yield Finding(check, "fail", f"{seen}: nothing changes",
                          "is the film, or the sheet, that of this run?")  # fmt: skip
        elif found["repeated"] > found["trs"] // 2 and sections[name].needs == "film":
            yield Finding(check, "warn", f"{seen}; {found['repeated']} TRs are those before",
                          "does the film stand still, or end early?")  # fmt: skip
        else:
            yield Finding(check, "ok", seen)

    def _scans(self, run: str, number: int, subject: str) -> Iterator[Finding]:
        arrays = self.study.runs[run]
        valid = np.asarray(arrays.valid[number])
        found = self.arrays[f"bold/{subject}/{run}"] = summary(_OfSubject(arrays.bold, number))
        self._spread.setdefault("fmri", []).append((int(valid.sum()), found["variance"]))
        jumps = found["spikes"] = spikes(self.study, run, number)
        check = f"scans of {subject}, {run}"
        seen = (
            f"{int(valid.sum())} of {found['trs']} TRs, {found['low']:.4g} to {found['high']:.4g}, "
            f"mean {found['mean']:.4g}, SD {found['sd']:.4g}"
        )
        if found["nans"]:
            yield Finding(check, "fail", f"{seen}; {100 * found['nans']:.2g} % are not numbers",
                          "bold.mask leaves out voxels without a signal")  # fmt: skip
        elif len(jumps) > MANY_SPIKES * found["trs"]:
            yield Finding(check, "warn", f"{seen}; it jumps at {len(jumps)} TRs",
                          "the head moved: bold.confounds")  # fmt: skip
        else:
            yield Finding(check, "ok", f"{seen}; it jumps at {len(jumps)} TRs" if jumps else seen)

    def _variances(self) -> dict[str, float]:
        return {
            name: sum(n * v for n, v in found) / max(1, sum(n for n, _ in found))
            for name, found in self._spread.items()
        }

    def _scales(self) -> Finding:
        """Judge the share that each component of the loss has at the start."""
        options = self.config.loss
        losses = first_losses(self.config, self._variances(), self._modalities)[options.normalise]
        total = sum(losses.values()) or 1.0
        shares = {name: value / total for name, value in losses.items()}
        largest = max(shares, key=shares.__getitem__)
        seen = ", ".join(f"{name} {100 * share:.3g} %" for name, share in shares.items())
        seen = f"loss.normalise {options.normalise}: {seen}"
        if len(shares) > 1 and shares[largest] > self.config.health.largest_share:
            return Finding(
                "scales", "fail", f"{seen}: {largest} outweighs all others",
                "loss.normalise: variance, or a lower weight of it",
            )  # fmt: skip
        return Finding("scales", "ok", seen)

    def _steps(self) -> Iterator[Finding]:
        """Judge how many steps there are, and the warm-up's share of them."""
        options = self.config.train
        fold = self.folds[0]
        windows = len(epoch_windows(fold.train, options.window_trs, seed=0, epoch=0))
        each = windows // options.batch_windows
        total = each * options.epochs
        warm = options.warmup_epochs * each
        seen = (
            f"{windows} windows of {options.window_trs} TRs, {each} steps an epoch, "
            f"{total} in all; warm-up {warm:.0f} ({100 * warm / max(1, total):.0f} %)"
        )
        if not each:
            yield Finding("steps", "fail", f"{seen}: a batch needs {options.batch_windows}",
                          f"--set train.batch_windows={max(1, windows // 8)}")  # fmt: skip
        elif total < self.config.health.fewest_steps:
            epochs = math.ceil(self.config.health.fewest_steps / each)
            yield Finding("steps", "warn", f"{seen}: networks seldom learn in so few",
                          f"--set train.epochs={epochs}")  # fmt: skip
        elif options.warmup_epochs / options.epochs > self.config.health.warmup_share:
            yield Finding("steps", "warn", f"{seen}: the rate is not up for long",
                          f"--set train.warmup_epochs={options.epochs / 20:g}")  # fmt: skip
        else:
            yield Finding("steps", "ok", seen)
        alone = options.batch_windows // (self.ranks * options.accumulation)
        dense = self.config.model.kind == "dense" and self.config.model.norm == "batch"
        together = alone * self.ranks
        if dense and together < SMALLEST_DENSE_BATCH:
            yield Finding(
                "batch", "fail", f"BatchNorm would see {together} TRs at a time: signs alone",
                f"--set train.batch_windows={SMALLEST_DENSE_BATCH}, or --set model.norm=layer",
            )  # fmt: skip


class _OfSubject:
    """One subject's scans as rows.

    Parameters
    ----------
    bold : Rows
    subject : int
    """

    def __init__(self, bold: Rows, subject: int) -> None:
        self._bold, self._subject = bold, subject
        self.shape, self.dtype = bold.shape[1:], bold.dtype

    def __getitem__(self, key: slice) -> Any:
        return self._bold[self._subject, key]
