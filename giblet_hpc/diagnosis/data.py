"""What is in a study's arrays, and what a training on them would start with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.config.features import FROM_FILMS
from giblet_hpc.config.run import RunConfig
from giblet_hpc.diagnosis.steps import scales, steps
from giblet_hpc.findings import Finding
from giblet_hpc.modalities.base import Modality, Normalise, scale
from giblet_hpc.modalities.moments import mean_and_variance, moments
from giblet_hpc.splits import Fold
from giblet_hpc.training.feed import Rows, StudyArrays

PART_VALUES = 2**22
"""Values that are read at a time, which bounds the memory."""
PART = 64
"""TRs that are read at a time, at most."""
SAMPLE = 2 * 10**8
"""Values of all arrays together that a sample has."""
FEWEST = 16
"""TRs in a row, of which a sample consists."""
SPIKE = 8.0
"""Robust deviations of a TR's mean change that make it a spike."""
MANY_SPIKES = 0.01
"""Share of a run's TRs beyond which they are worth a remedy."""
BINS = 20


def spans(trs: int, values: int, budget: float) -> list[tuple[int, int]]:
    """Return which TRs are looked at: all of them, or spans spread evenly from first to last.

    Parameters
    ----------
    trs, values : int
        Of an array: rows, and values of each.
    budget : float
        Values that may be read.

    Examples
    --------
    >>> spans(100, 10, 1000)
    [(0, 100)]
    >>> spans(100, 10, 330)
    [(0, 16), (84, 100)]
    """
    if budget >= trs * values:
        return [(0, trs)]
    wanted = int(budget // max(1, values))
    count = max(1, wanted // FEWEST)
    length = min(trs, FEWEST)
    last = trs - length
    starts = [round(last * number / max(1, count - 1)) for number in range(count)]
    return [(start, start + length) for start in starts]


class _Seen:
    """Figures of rows, gathered part by part."""

    def __init__(self) -> None:
        self.total = self.squares = 0.0
        self.low, self.high = math.inf, -math.inf
        self.count = self.zeros = self.nans = self.constant = self.repeated = self.trs = 0
        self.sums: dict[str, Any] = {}
        self.some: list[NDArray[Any]] = []
        self.change: list[tuple[int, NDArray[np.float64]]] = []
        self._last: NDArray[Any] | None = None

    def begin(self) -> None:
        """Begin a span: its first row follows no other."""
        self._last = None

    def add(self, part: NDArray[Any], start: int) -> None:
        """Take in rows that follow those before, from a TR on."""
        values = part.astype(np.float64)
        bad = np.isnan(values)
        good = np.where(bad, 0.0, values) if bad.any() else values
        self.trs += len(part)
        self.count += values.size
        self.nans += int(bad.sum())
        self.zeros += int((values == 0).sum())
        moved = moments(good)
        self.sums = {name: self.sums.get(name, 0) + value for name, value in moved.items()}
        self.total += good.sum()
        self.squares += np.square(good).sum()
        if not bad.all():
            self.low, self.high = (
                min(self.low, np.nanmin(values)),
                max(self.high, np.nanmax(values)),
            )
        self.constant += int((values.max(1) == values.min(1)).sum())
        before = part if self._last is None else np.concatenate([self._last[None], part])
        self.repeated += int((before[1:] == before[:-1]).all(1).sum())
        steps = np.sqrt(np.square(np.diff(before.astype(np.float64), axis=0)).mean(1))
        self.change.append((start + len(part) - len(steps), steps))
        self._last = part[-1]
        self.some.append(part[-start % 16 :: 16].ravel())


def look(
    rows: Rows, budget: float = math.inf
) -> tuple[dict[str, Any], NDArray[np.intp], NDArray[np.float64]]:
    """Return what values rows have, and how much each TR differs from the one before.

    Parameters
    ----------
    rows : array of shape (trs, ...)
    budget : float
        Values to read at most: of larger arrays a sample is read.

    Returns
    -------
    dict
        ``trs``, ``sampled`` (of them), ``values`` of a row, ``low``, ``high``, ``mean``, ``sd``,
        ``variance`` over time (the mean over values), shares of ``zeros`` and ``nans``, numbers of
        ``constant`` rows and of ``repeated`` ones (equal to the one before), and ``histogram``:
        counts in `BINS` even steps from low to high, of every 16th row.
    ndarray, shape (n,)
        TRs whose predecessor was read too.
    ndarray, shape (n,)
        The root mean square of their changes.
    """
    trs, seen = rows.shape[0], _Seen()
    values = math.prod(rows.shape[1:])
    step = max(1, min(PART, PART_VALUES // max(1, values)))
    for first, end in spans(trs, values, budget):
        seen.begin()
        for start in range(first, end, step):
            stop = min(start + step, end)
            seen.add(np.asarray(rows[start:stop]).reshape(stop - start, -1), start)
    there = max(1, seen.count - seen.nans)
    mean = seen.total / there
    low, high = float(seen.low), float(seen.high)
    found = {
        "trs": trs,
        "sampled": seen.trs,
        "values": values,
        "low": low,
        "high": high,
        "mean": mean,
        "sd": math.sqrt(max(0.0, seen.squares / there - mean**2)),
        "variance": float(mean_and_variance(seen.sums)[1].mean()),
        "zeros": seen.zeros / seen.count,
        "nans": seen.nans / seen.count,
        "constant": seen.constant,
        "repeated": seen.repeated,
        "histogram": _histogram(np.concatenate(seen.some), low, high),
    }
    where = [np.arange(start, start + len(change)) for start, change in seen.change]
    return found, np.concatenate(where), np.concatenate([change for _, change in seen.change])


def _histogram(values: NDArray[Any], low: float, high: float) -> list[int]:
    finite = values[np.isfinite(values)].astype(np.float64)
    edges = (low, high) if high > low else (low - 0.5, low + 0.5)
    counts: list[int] = np.histogram(finite, BINS, edges)[0].tolist() if finite.size else []
    return counts


def spikes(
    valid: NDArray[np.bool_], trs: NDArray[np.intp], change: NDArray[np.float64]
) -> list[int]:
    """Return the TRs at which a subject's scans jump, by the change since the TR before.

    Parameters
    ----------
    valid : ndarray, shape (trs,)
        Which TRs have a scan.
    trs : ndarray, shape (n,)
    change : ndarray, shape (n,)
        Of those TRs.
    """
    inside = valid[trs] & valid[trs - 1]
    if inside.sum() < FEWEST:
        return []
    middle = np.median(change[inside])
    spread = 1.4826 * np.median(np.abs(change[inside] - middle)) or 1.0
    return [int(tr) for tr in trs[inside & (change > middle + SPIKE * spread)]]


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
            if not modality.reconstructed:
                continue
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
    step_seconds : float
        Of a step of training; 0 where it is not known.
    whole : bool
        Read everything: by default a sample, where the study is large.
    """

    def __init__(
        self,
        config: RunConfig,
        study: StudyArrays,
        modalities: Mapping[str, Modality],
        *,
        folds: Sequence[Fold],
        ranks: int,
        step_seconds: float = 0.0,
        whole: bool = False,
    ) -> None:
        self.config, self.study, self.folds, self.ranks = config, study, folds, ranks
        self._pace = step_seconds
        arrays = sum(len(r.stimulus) + len(study.subjects) for r in study.runs.values())
        self._budget = math.inf if whole else SAMPLE / max(1, arrays)
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
        losses = first_losses(self.config, self._variances(), self._modalities)
        yield scales(self.config, losses[self.config.loss.normalise])
        yield from steps(
            self.config,
            self.folds,
            subjects=len(self.study.subjects),
            ranks=self.ranks,
            step_seconds=self._pace,
        )

    def facts(self) -> dict[str, Any]:
        """Return the figures behind the findings."""
        return {
            "arrays": self.arrays,
            "first_losses": first_losses(self.config, self._variances(), self._modalities),
        }

    def _stimulus(self, run: str, name: str, rows: Rows) -> Iterator[Finding]:
        found, _, _ = look(rows, self._budget)
        self.arrays[f"stimulus/{run}/{name}"] = found
        self._spread.setdefault(name, []).append((found["trs"], found["variance"]))
        check, sections = f"{name} of {run}", self.config.features.sections
        seen = (
            f"{found['trs']} TRs of {found['values']:,} values{_sampled(found)}, "
            f"{found['low']:.4g} to "
            f"{found['high']:.4g}, mean {found['mean']:.4g}, SD {found['sd']:.4g}, "
            f"{100 * found['zeros']:.2g} % zeros"
        )
        if found["nans"]:
            yield Finding(check, "fail", f"{seen}; {100 * found['nans']:.2g} % are not numbers",
                          "preprocess this modality again")  # fmt: skip
        elif found["sd"] == 0:
            yield Finding(check, "fail", f"{seen}: nothing changes",
                          "is the film, or the sheet, that of this run?")  # fmt: skip
        elif found["repeated"] > found["sampled"] // 2 and sections[name].needs in FROM_FILMS:
            yield Finding(check, "warn", f"{seen}; {found['repeated']} TRs are those before",
                          "does the film stand still, or end early?")  # fmt: skip
        else:
            yield Finding(check, "ok", seen)

    def _scans(self, run: str, number: int, subject: str) -> Iterator[Finding]:
        arrays = self.study.runs[run]
        valid = np.asarray(arrays.valid[number])
        if not valid.any():
            yield Finding(f"scans of {subject}, {run}", "skipped", "the subject lacks this run")
            return
        found, trs, change = look(_OfSubject(arrays.bold, number), self._budget)
        self.arrays[f"bold/{subject}/{run}"] = found
        self._spread.setdefault("fmri", []).append((int(valid.sum()), found["variance"]))
        jumps = found["spikes"] = spikes(valid, trs, change)
        check = f"scans of {subject}, {run}"
        seen = (
            f"{int(valid.sum())} of {found['trs']} TRs{_sampled(found)}, {found['low']:.4g} to "
            f"{found['high']:.4g}, "
            f"mean {found['mean']:.4g}, SD {found['sd']:.4g}"
        )
        if found["nans"]:
            yield Finding(check, "fail", f"{seen}; {100 * found['nans']:.2g} % are not numbers",
                          "bold.mask leaves out voxels without a signal")  # fmt: skip
        elif len(jumps) > MANY_SPIKES * found["sampled"]:
            yield Finding(check, "warn", f"{seen}; it jumps at {len(jumps)} TRs",
                          "the head moved: bold.confounds")  # fmt: skip
        else:
            yield Finding(check, "ok", f"{seen}; it jumps at {len(jumps)} TRs" if jumps else seen)

    def _variances(self) -> dict[str, float]:
        return {
            name: sum(n * v for n, v in found) / max(1, sum(n for n, _ in found))
            for name, found in self._spread.items()
        }


def _sampled(found: Mapping[str, Any]) -> str:
    """Say that a sample was read, and how large it is."""
    return f", {found['sampled']} looked at" if found["sampled"] < found["trs"] else ""


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
