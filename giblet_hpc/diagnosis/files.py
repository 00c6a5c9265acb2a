"""What a study's files hold, before anything is preprocessed: headers, and a sample of each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc import splits
from giblet_hpc.config.run import RunConfig
from giblet_hpc.diagnosis.steps import scales, steps
from giblet_hpc.findings import Finding
from giblet_hpc.media import film
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.scans.recordings import Scans
from giblet_hpc.survey import Survey
from giblet_hpc.timing import Segment

FRAMES = 12
"""Of a film, evenly spread."""
VOLUMES = 24
"""Of a run's scans: evenly spread, or the first ones where the file is compressed."""
HEIGHT, WIDTH = 36, 64
DARK = 0.9
"""Share of frames without a picture that is worth a remedy."""


class FileCheck:
    """Looks at the files of a study.

    Parameters
    ----------
    survey : Survey
        With a config, and what all headers say.
    ranks : int
        That training would have.
    step_seconds : float
        Of a step of training; 0 where it is not known.
    """

    def __init__(self, survey: Survey, *, ranks: int, step_seconds: float) -> None:
        self._survey, self._ranks, self._pace = survey, ranks, step_seconds
        self._config: RunConfig = survey.config
        self.figures: dict[str, dict[str, Any]] = {}
        """Of each film and each run of scans."""

    def findings(self) -> Iterator[Finding]:
        """Yield what is seen: films, annotations, scans, scales, steps."""
        config, survey = self._config, self._survey
        for run in config.study.runs:
            if run.name in survey.films and survey.films[run.name].has_picture:
                assert run.film is not None
                yield self._film(run.name, config.study.root / run.film)
        for run_name, segments in survey.segments.items():
            yield self._annotations(run_name, segments)
        for subject in survey.subjects:
            scans = survey.scans.open(subject)
            for run_name in scans.recordings:
                yield self._scans(subject, run_name, scans)
        yield self._scales()
        folds = splits.make_folds(config.split, config.study, survey.lengths)
        yield from steps(
            config, folds, subjects=len(survey.subjects), ranks=self._ranks, step_seconds=self._pace
        )

    def facts(self) -> dict[str, Any]:
        """Return the figures behind the findings."""
        return {"files": self.figures, "trs": dict(self._survey.lengths)}

    def _film(self, run: str, path: Path) -> Finding:
        shown = self._survey.films[run]
        start = next(r.film_start for r in self._config.study.runs if r.name == run)
        end = start + self._survey.lengths[run] * self._config.study.tr
        times = np.linspace(start, max(start, end - 1 / shown.fps), FRAMES)
        frames = np.stack(list(film.frames_at(path, times, height=HEIGHT, width=WIDTH)))
        found = self.figures[f"film/{run}"] = _figures(frames)
        still = int((frames[1:] == frames[:-1]).all((1, 2, 3)).sum())
        dark = float((frames.std((1, 2, 3)) < 1).mean())
        found |= {"fps": shown.fps, "seconds": shown.seconds, "still": still, "dark": dark}
        seen = (
            f"{shown.seconds:.0f} s of {shown.fps:.4g} frames a second"
            f"{'' if shown.has_audio else ', without sound'}; pixels {found['low']:.0f} to "
            f"{found['high']:.0f}, mean {found['mean']:.0f}, SD {found['sd']:.0f}"
        )
        check = f"film of {run}"
        if still == FRAMES - 1:
            return Finding(check, "fail", f"{seen}; nothing moves",
                           "is it the film that was shown? study.runs.film")  # fmt: skip
        if dark > DARK:
            return Finding(check, "warn", f"{seen}; {100 * dark:.0f} % of frames are plain",
                           "does film_start point into the film?")  # fmt: skip
        return Finding(check, "ok", seen)

    def _annotations(self, run: str, segments: Sequence[Segment]) -> Finding:
        trs = self._survey.lengths[run]
        covered = np.zeros(trs, bool)
        for segment in segments:
            covered[max(0, math.floor(segment.start)) : math.ceil(segment.stop)] = True
        share = float(covered.mean())
        seen = f"{len(segments)} segments over {100 * share:.0f} % of {trs} TRs"
        self.figures[f"annotations/{run}"] = {"segments": len(segments), "covered": share}
        if not segments:
            return Finding(f"annotations of {run}", "fail", seen,
                           "do the sheet's times lie within this run?")  # fmt: skip
        return Finding(f"annotations of {run}", "ok", seen)

    def _scans(self, subject: str, run: str, scans: Scans) -> Finding:
        values = scans.sample(run, VOLUMES)
        head = values.reshape(len(values), -1).T
        found = self.figures[f"scans/{subject}/{run}"] = _figures(head)
        inside = np.nan_to_num(head).std(1) > 0
        moving = np.nan_to_num(head[inside])
        sd = float(moving.std(1).mean()) if len(moving) else 0.0
        level = float(np.abs(moving.mean(1)).mean()) if len(moving) else 0.0
        found |= {"changing_voxels": int(inside.sum()), "temporal_sd": sd}
        unit = self._survey.scans.space.unit
        seen = (
            f"{scans.trs(run)} TRs, {len(values)} looked at; {found['low']:.4g} to "
            f"{found['high']:.4g}; {int(inside.sum()):,} of {len(head):,} {unit} change, by "
            f"{sd:.3g} around {level:.4g}"
        )
        check = f"scans of {subject}, {run}"
        if found["nans"]:
            return Finding(check, "warn", f"{seen}; {100 * found['nans']:.2g} % are not numbers",
                           "bold.mask leaves out voxels without a signal")  # fmt: skip
        if not len(moving):
            return Finding(check, "fail", f"{seen}: there is no signal", "copy the file again")
        return Finding(check, "ok", seen)

    def _scales(self) -> Finding:
        """Say which share each component of the loss starts with, where files are not needed."""
        options, dense = self._config.loss, self._config.model.kind == "dense"
        if options.normalise != "variance":
            return Finding("scales", "skipped", f"loss.normalise {options.normalise}: known after "
                           "preprocess")  # fmt: skip
        losses = {"fmri": options.fmri_weight}
        for name, modality in modalities_of(self._config.features).items():
            if not modality.reconstructed:
                continue
            weight = options.reconstruction_weight * options.modality_weights.get(name, 1.0)
            losses[name] = weight * modality.cost_of_mean(1.0, "variance", dense=dense)
        return scales(self._config, losses)


def _figures(values: NDArray[Any]) -> dict[str, Any]:
    bad = np.isnan(values)
    good = values[~bad].astype(np.float64)
    if not good.size:
        good = np.zeros(1)
    return {
        "low": float(good.min()), "high": float(good.max()),
        "mean": float(good.mean()), "sd": float(good.std()),
        "zeros": float((good == 0).mean()), "nans": float(bad.mean()),
    }  # fmt: skip
