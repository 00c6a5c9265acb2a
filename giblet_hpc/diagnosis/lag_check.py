"""Refuses to train on scans that follow the stimulus by a time that blood flow cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from giblet_hpc.config.run import RunConfig
from giblet_hpc.diagnosis import alignment
from giblet_hpc.diagnosis.align_study import LONGEST, NULLS, USUAL, flat_rows
from giblet_hpc.diagnosis.alignment import LagCurve
from giblet_hpc.errors import DataError
from giblet_hpc.modalities.base import Modality
from giblet_hpc.training.feed import StudyArrays

SUBJECTS = 3
"""Whose mean is looked at."""
FEWEST_TRS = 100
"""Of a run that is long enough to tell."""
CLEAR = 0.03
"""By how much r at the best lag has to be above chance, and above r at any usual lag."""


def require_possible_lags(
    config: RunConfig, study: StudyArrays, modalities: Mapping[str, Modality]
) -> None:
    """Check that no run's scans come before their stimulus, or long after it.

    Parameters
    ----------
    config : RunConfig
    study : StudyArrays
    modalities : mapping of str to Modality

    Raises
    ------
    DataError
        When a lag at which no blood flow answers is clearly the best.
    """
    found = list(_impossible(config, study, modalities))
    if found:
        raise DataError(
            "stimulus and scans do not fit in time: " + "; ".join(found),
            hint="`giblet-hpc inspect alignment` shows all lags; film_start, start times of the "
            f"annotations, bold.shifted_trs ({config.bold.shifted_trs} now). Where it is meant: "
            "--set train.check_lag=false",
        )


def _impossible(
    config: RunConfig, study: StudyArrays, modalities: Mapping[str, Modality]
) -> Iterator[str]:
    tr = config.study.tr
    usual = [USUAL[0] <= lag * tr <= USUAL[1] for lag in alignment.LAGS]
    for run, arrays in study.runs.items():
        if arrays.bold.shape[1] < FEWEST_TRS or not any(usual):
            continue
        subjects = range(min(SUBJECTS, len(study.subjects)))
        valid = [np.asarray(arrays.valid[n]) for n in subjects]
        scans = [
            alignment.standardised(alignment.scans_of(arrays.bold, n), valid[n]) for n in subjects
        ]
        together, anyone = np.mean(scans, axis=0), np.any(valid, axis=0)
        features = alignment.features_of(
            {name: flat_rows(study, run, modality) for name, modality in modalities.items()}
        )
        curve = LagCurve(run, "all", alignment.lag_curve(features, together, anyone))
        seconds = curve.best * tr
        expected = max(r for r, known in zip(curve.r, usual, strict=True) if known)
        if (curve.best > 0 and seconds <= LONGEST) or max(curve.r) < expected + CLEAR:
            continue
        chance = alignment.chance(features, together, anyone, rotations=NULLS)
        if max(curve.r) > chance + CLEAR:
            yield (
                f"the scans of {run} follow the stimulus by {curve.best} TRs ({seconds:.1f} s) "
                f"best, r {max(curve.r):.3f}; at {USUAL[0]:g} to {USUAL[1]:g} s {expected:.3f}"
            )
