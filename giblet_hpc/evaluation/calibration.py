"""How much of a new subject's own data is needed: r by minutes of training scans.

Each subject in turn is the new one. The others' mean scans are what a first model is fitted to; it
predicts the new subject without any of its scans. With some minutes of them, ridge is fitted to
these alone, and to what the first model, scaled to them, leaves of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.config.evaluate import Ridge
from giblet_hpc.errors import DataError
from giblet_hpc.evaluation.baselines import Baselines
from giblet_hpc.evaluation.blocks import over_ranks, scans_of, voxel_share
from giblet_hpc.evaluation.metrics import fisher_z, pearson, run_rows
from giblet_hpc.evaluation.penalised import Bands, Fitted, Prior, fit_ridge
from giblet_hpc.splits import Block
from giblet_hpc.training.feed import StudyArrays
from giblet_hpc.training.world import World

OTHERS, OWN, BOTH = "others", "own", "both"


class Calibration:
    """Scores of new subjects by minutes of their data; ranks share the voxels.

    Parameters
    ----------
    study : StudyArrays
    linear : Baselines
        With its prior chosen.
    options : Ridge
    tr : float
        Seconds.
    world : World
    """

    def __init__(
        self,
        study: StudyArrays,
        linear: Baselines,
        options: Ridge,
        *,
        tr: float,
        world: World,
    ) -> None:
        self._study, self._options, self._tr, self._world = study, options, tr, world
        self._linear, self._prior = linear, linear.prior
        self._mine = voxel_share(study.voxels, world)
        self._used: Sequence[Block] = linear.used
        self._train, self._test = linear.mixed()

    def rows(
        self, tests: Sequence[Block], minutes: Sequence[float], *, scored: Sequence[int]
    ) -> list[dict[str, Any]]:
        """Return r of each subject by minutes, without and with what others' scans say.

        Parameters
        ----------
        tests : sequence of Block
        minutes : sequence of float
            The first so many of a subject's training scans; what is too little for ridge, or more
            than there is, is left out.
        scored : sequence of int
            Subjects.

        Returns
        -------
        list of dict
            ``subject``, ``minutes`` (0: none of its own), ``trs``, and r, averaged over voxels as
            Fisher z: ``others``, ``own``, ``both``, where they are known.
        """
        found = []
        for subject in scored:
            found += [
                {"subject": self._study.subjects[subject], **row}
                for row in self._of(subject, tests, minutes, scored)
            ]
        return found

    def _of(
        self, subject: int, tests: Sequence[Block], minutes: Sequence[float], scored: Sequence[int]
    ) -> Iterator[dict[str, Any]]:
        measured, valid = scans_of(self._study, subject, tests, self._mine)
        runs = run_rows(tests)

        def r(predicted: NDArray[np.float32]) -> float:
            z = np.zeros(self._study.voxels)
            z[self._mine] = fisher_z(pearson(predicted, measured, valid, runs))
            return float(np.tanh(over_ranks(z, self._world).mean()))

        group = self._group([one for one in scored if one != subject])
        first = group.predict(self._test)
        alone = r(first)
        yield {"minutes": 0.0, "trs": 0, OTHERS: alone}
        scans, there = scans_of(self._study, subject, self._used, self._mine)
        shared = group.predict(self._train)
        known = np.flatnonzero(there)
        for some in minutes:
            rows = known[: round(60 * some / self._tr)]
            if len(rows) < round(60 * some / self._tr):
                continue
            try:
                own = self._fit(scans, rows).predict(self._test)
                size = self._slope(shared[rows], scans[rows])
                left = self._fit(scans - size * shared, rows)
                both = size * first + left.predict(self._test)
            except DataError:
                # Too few for ridge's cross-validation.
                continue
            yield {"minutes": float(some), "trs": len(rows), OTHERS: alone, OWN: r(own),
                   BOTH: r(both)}  # fmt: skip

    def _slope(self, predicted: NDArray[np.float32], scans: NDArray[np.float32]) -> float:
        """Return how much of a prediction is in scans, over all voxels: none, where it misleads."""
        sums = np.array([(predicted * scans).sum(), np.square(predicted).sum()], np.float64)
        along, size = over_ranks(sums, self._world)
        return float(max(along / size, 0.0)) if size > 0 else 0.0

    def _group(self, others: Sequence[int]) -> Fitted:
        """Return ridge that is fitted to the mean of some subjects' scans."""
        total = np.zeros((len(self._train[0]), self._mine.stop - self._mine.start), np.float32)
        count = np.zeros(len(total))
        for other in others:
            scans, valid = scans_of(self._study, other, self._used, self._mine)
            total += np.where(valid[:, None], scans, np.float32(0))
            count += valid
        mean = total / np.maximum(count, 1)[:, None]
        return self._fit(mean.astype(np.float32), np.flatnonzero(count))

    def _fit(self, scans: NDArray[np.float32], rows: NDArray[np.int64]) -> Fitted:
        bands: Bands = [band[rows] for band in self._train]
        # Of few TRs neither weights nor penalties of single voxels can be told.
        prior = Prior(self._prior.smooth_seconds, "one")
        sample = self._everywhere(scans[rows])
        return fit_ridge(
            bands, scans[rows], self._options, purge=self._linear.purge, prior=prior, sample=sample
        )

    def _everywhere(self, scans: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the scans of some voxels of all ranks, the same on each."""
        step = self._linear.sampled.step
        every = np.zeros((len(scans), len(range(0, self._study.voxels, step))))
        at = np.arange(0, self._study.voxels, step)
        inside = (at >= self._mine.start) & (at < self._mine.stop)
        every[:, inside] = scans[:, at[inside] - self._mine.start]
        return over_ranks(every, self._world).astype(np.float32)


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean over subjects for each number of minutes, and how many subjects it is of."""
    found = []
    for minutes in sorted({row["minutes"] for row in rows}):
        some = [row for row in rows if row["minutes"] == minutes]
        means = {
            key: float(np.mean([row[key] for row in some if key in row]))
            for key in (OTHERS, OWN, BOTH)
            if any(key in row for row in some)
        }
        found.append({"minutes": minutes, "subjects": len(some), **means})
    return found
