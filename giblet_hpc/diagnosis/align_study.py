"""What `giblet-hpc inspect alignment` says of a study: each finding with its number and remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.config.run import RunConfig
from giblet_hpc.diagnosis import alignment
from giblet_hpc.diagnosis.alignment import Array, LagCurve, ShownTwice
from giblet_hpc.findings import Finding
from giblet_hpc.log import progress
from giblet_hpc.modalities.base import Modality
from giblet_hpc.splits import Fold
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.statistics import in_parts

Scans = Mapping[str, Array]
Valid = Mapping[str, NDArray[np.bool_]]
USUAL = (3.5, 8.5)
"""Seconds by which scans follow the stimulus where nothing is shifted."""
LONGEST = 12.0
"""Seconds beyond which, as before 0, no blood flow answers."""
NULLS = 4
"""Rotations of the stimulus, by even parts of the run, that tell what r is by chance."""
MARGIN = 0.01
"""By how much r has to be higher than the highest of them."""
ALIKE, UNLIKE = 0.1, 0.25
"""A subject does not follow the others with less than this share of their median r, where that is
at least `ALIKE`."""
LATE_TRS, GAIN = 2, 0.03
"""A subject is shifted against the others by so many TRs, where r is higher by so much there."""
OWN = 0.5
"""Least likeness of subjects' mean scans over runs that tells subjects apart."""
COLUMNS = 600
MOST_COLUMNS = 20_000
"""Beyond so many, some of them are compared."""
"""Pixels of a frame that are looked at."""
EMPTY = 0.3
"""Share of a run's TRs without words."""


class Alignment:
    """Looks at a preprocessed study.

    Parameters
    ----------
    config : RunConfig
    study : StudyArrays
        With subjects apart.
    modalities : mapping of str to Modality
    means : mapping of run to mapping of subject to ndarray
        Mean scans before scaling, (voxels,).
    folds : sequence of Fold
    """

    def __init__(
        self,
        config: RunConfig,
        study: StudyArrays,
        modalities: Mapping[str, Modality],
        *,
        means: Mapping[str, Mapping[str, Array]],
        folds: Sequence[Fold],
    ) -> None:
        self.config, self.study, self.folds = config, study, folds
        self._means = means
        self._rows = {
            name: {run: flat_rows(study, run, modality) for run in study.runs}
            for name, modality in modalities.items()
        }
        self.curves: list[LagCurve] = []
        self.r: dict[str, dict[str, float]] = {}
        """Leave-one-out r of each run and subject, the mean over voxels."""

    def findings(self) -> Iterator[Finding]:
        """Yield what is seen, run by run, then over runs."""
        for run in progress(self.study.runs, label="inspecting", total=len(self.study.runs)):
            arrays = self.study.runs[run]
            valid = {
                name: np.asarray(arrays.valid[n])
                for n, name in enumerate(self.study.subjects)
                if np.any(arrays.valid[n])
            }
            names = [(n, name) for n, name in enumerate(self.study.subjects) if name in valid]
            # Read once: most of the time is reading.
            scans = {name: alignment.scans_of(arrays.bold, n) for n, name in names}
            alike = {name: alignment.standardised(scans[name], valid[name]) for _, name in names}
            yield self._lag(run, scans, valid, alike)
            yield from self._subjects(run, alike, valid)
            yield from self._missing(run, scans, valid)
            yield from self._words(run)
        yield from self._exchanged()
        yield from self._twice()

    def facts(self) -> dict[str, Any]:
        """Return the figures behind the findings."""
        return {
            "lags_trs": alignment.LAGS,
            "curves": [
                {"run": c.run, "subject": c.subject, "best_trs": c.best, "r": c.r}
                for c in self.curves
            ],
            "between_subjects": self.r,
        }

    def _lag(self, run: str, scans: Scans, valid: Valid, alike: Scans) -> Finding:
        tr = self.config.study.tr
        features = alignment.features_of({n: rows[run] for n, rows in self._rows.items()})
        own = [
            LagCurve(run, name, alignment.lag_curve(features, values, valid[name]))
            for name, values in scans.items()
        ]
        together = np.mean(list(alike.values()), axis=0)
        anyone = np.any(list(valid.values()), axis=0)
        curve = LagCurve(run, "all", alignment.lag_curve(features, together, anyone))
        self.curves += [curve, *own]
        chance = alignment.chance(features, together, anyone, rotations=NULLS)
        check, seconds = f"lag of {run}", curve.best * tr
        seen = (
            f"scans follow the stimulus by {curve.best} TRs ({seconds:.1f} s), r {max(curve.r):.3f}"
            f", by chance {chance:.3f}"
        )
        if max(curve.r) < chance + MARGIN:
            return Finding(check, "skipped", f"{seen}: too little to tell")
        if USUAL[0] <= seconds <= USUAL[1]:
            return Finding(check, "ok", seen)
        off = round((seconds - 5.5) / tr)
        never = curve.best <= 0 or seconds > LONGEST
        return Finding(
            check, "fail" if never else "warn",
            f"{seen}; blood flow takes 4 to 7 s: off by about {off:+d} TRs",
            f"study.runs[{run}].film_start, start times of its annotations, or "
            f"bold.shifted_trs ({self.config.bold.shifted_trs} now)",
        )  # fmt: skip

    def _subjects(self, run: str, alike: Scans, valid: Valid) -> Iterator[Finding]:
        if len(valid) < 3:
            return
        r, shift, shifted = alignment.between_subjects(alike, valid)
        self.r[run] = r
        middle = float(np.median(list(r.values())))
        check = f"subjects of {run}"
        bad = False
        for name, value in r.items():
            if abs(shift[name]) >= LATE_TRS and shifted[name] > value + GAIN:
                bad = True
                yield Finding(
                    check, "fail",
                    f"subject {name} is {shift[name]:+d} TRs later than the others "
                    f"(r {value:.2f}, {shifted[name]:.2f} there)",
                    "its first TRs were cut off, or were not: files have to begin together",
                )  # fmt: skip
            elif middle >= ALIKE and value < UNLIKE * middle:
                bad = True
                yield Finding(
                    check, "fail",
                    f"subject {name} does not follow the others: r {value:.2f}, they {middle:.2f}",
                    "is it the file of another run, or of another film?",
                )  # fmt: skip
        if not bad:
            low, high, mean = min(r.values()), max(r.values()), np.mean(list(r.values()))
            courses = {
                name: alignment.standardised(values.mean(1, keepdims=True), valid[name])
                for name, values in alike.items()
            }
            whole = np.mean(list(alignment.between_subjects(courses, valid)[0].values()))
            yield Finding(
                check, "ok",
                f"r with the others, voxel by voxel, {low:.2f} to {high:.2f}, mean {mean:.2f}; of "
                f"the mean over voxels {whole:.2f}",
            )  # fmt: skip

    def _missing(self, run: str, scans: Scans, valid: Valid) -> Iterator[Finding]:
        most = max(int(there.sum()) for there in valid.values())
        for name, there in valid.items():
            check = f"scans of {name}, {run}"
            if lost := most - int(there.sum()):
                yield Finding(check, "warn", f"{lost} TRs fewer than others have",
                              "they are left out of its scores; is the file whole?")  # fmt: skip
            if still := alignment.constant_voxels(scans[name], there):
                count = scans[name].shape[1]
                yield Finding(check, "warn", f"{still} of {count} voxels do not change",
                              "a mask of voxels that all subjects have: bold.mask")  # fmt: skip

    def _words(self, run: str) -> Iterator[Finding]:
        for name, rows in self._rows.items():
            empty = float((np.abs(rows[run]).sum(1) == 0).mean())
            if empty > EMPTY:
                yield Finding(f"{name} of {run}", "warn", f"{100 * empty:.0f} % of TRs are empty",
                              "is the sheet whole; are its seconds those of this run?")  # fmt: skip

    def _exchanged(self) -> Iterator[Finding]:
        if len(self.study.runs) < 2 or alignment.own_likeness(self._means) < OWN:
            yield Finding("subjects over runs", "skipped", "mean scans do not tell subjects apart")
            return
        found = alignment.exchanged_subjects(self._means)
        for run, subject, other in found:
            yield Finding("subjects over runs", "fail",
                          f"{run} of subject {subject} looks like subject {other}'s other runs",
                          "were their files exchanged?")  # fmt: skip
        if not found:
            yield Finding("subjects over runs", "ok", "each subject's mean scans are its own")

    def _twice(self) -> Iterator[Finding]:
        found = [one for name, rows in self._rows.items()
                 for one in alignment.shown_twice(name, rows)]  # fmt: skip
        for one in found:
            yield self._judge(one)
        if not found:
            yield Finding("shown twice", "ok", "nothing")

    def _judge(self, one: ShownTwice) -> Finding:
        (run, start), (other, again) = one.first, one.second
        minutes = one.trs * self.config.study.tr / 60
        seen = (
            f"{one.modality}: TRs {start} to {start + one.trs - 1} of {run} are those from {again} "
            f"on of {other} ({minutes:.1f} min)"
        )
        for fold in self.folds:
            for a, b in ((one.first, one.second), (one.second, one.first)):
                trained = [
                    n for n in range(one.trs)
                    if _inside(fold.train, a, n) and _inside(fold.test, b, n)
                ]  # fmt: skip
                if trained:
                    return Finding(
                        "shown twice", "fail", f"{seen}; {len(trained)} TRs are trained on and "
                        "tested", "study.runs[...].skip_trs leaves them out, or split.scheme runs "
                        "keeps both on one side",
                    )  # fmt: skip
        return Finding("shown twice", "ok", f"{seen}; on one side of every split, or left out")


def _inside(blocks: Sequence[Any], place: tuple[str, int], number: int) -> bool:
    run, start = place
    return any(b.run == run and b.start <= start + number < b.stop for b in blocks)


def flat_rows(study: StudyArrays, run: str, modality: Modality) -> Array:
    """Return a modality's rows of a run as vectors of moderate length, (trs, k)."""
    shared = study.shared.get(modality.name)

    def some(rows: Any) -> Any:
        # Counted words are compared as they are: what they are projected on is not fitted yet.
        seen = rows if modality.projects else modality.baseline_features(rows, shared)
        flat = np.asarray(seen, dtype=np.float64).reshape(len(seen), -1)
        many = modality.spanned or flat.shape[1] > MOST_COLUMNS
        return flat[:, :: max(1, flat.shape[1] // COLUMNS)] if many else flat

    return in_parts(study.runs[run].stimulus[modality.name], some)
