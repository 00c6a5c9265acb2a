"""Motion energy of the picture: a pyramid of spatiotemporal Gabor filters (pymoten).

Adelson & Bergen 1985, JOSA A 2:284; Nishimoto et al. 2011, Current Biology 21:1641.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from giblet_hpc.arrays import ArraySpec
from giblet_hpc.config.features import MotionFeatures
from giblet_hpc.config.io import own_fields
from giblet_hpc.config.study import ScanRun
from giblet_hpc.digests import Digests, code_digest
from giblet_hpc.media import film
from giblet_hpc.modalities.base import Note
from giblet_hpc.modalities.rows import film_inputs, write_in_order
from giblet_hpc.modalities.vectors import Vectors
from giblet_hpc.store import FeatureStore
from giblet_hpc.survey import Survey

SHARD_TRS = 128
AT_ONCE = 16
"""TRs whose frames are filtered together."""
USUAL_FILTERS = 2530


class Motion(Vectors):
    """Rows of the mean energy of each filter over a TR, (filters,) float32."""

    options: MotionFeatures

    def expected_shape(self, *, tr: float, fps: float) -> tuple[int, ...]:
        """Return (filters,): so many as a film of 16 by 9 has."""
        del tr, fps
        return (USUAL_FILTERS,)

    def _pyramid(self) -> Any:
        import moten

        size = (self.options.height, self.options.width)
        return moten.get_default_pyramid(vhsize=size, fps=self.options.fps)

    def array(self, survey: Survey, run: ScanRun, digests: Digests) -> ArraySpec:
        """Return a run's array of energies."""
        return ArraySpec(
            self.array_name(run.name),
            (survey.lengths[run.name], int(self._pyramid().nfilters)),
            "float32",
            {
                **film_inputs(survey, run, digests),
                f"features.{self.name}": own_fields(self.options),
                "code": code_digest(film, Motion, _filtered, _luminance),
            },
            max_shard_rows=SHARD_TRS,
        )

    def write(
        self, survey: Survey, run: ScanRun, *, spec: ArraySpec, store: FeatureStore, note: Note
    ) -> None:
        """Write the missing shards of a run's energies, in one pass over the film."""
        write_in_order(
            lambda trs: self._rows(survey, run, trs.start, trs.stop), spec, store,
            label=f"{self.name} {run.name}", note=note,
        )  # fmt: skip

    def _rows(
        self, survey: Survey, run: ScanRun, first: int, last: int
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the energies of some TRs, one after the other."""
        assert run.film is not None
        study, options, pyramid = survey.config.study, self.options, self._pyramid()
        around = int(pyramid.definition.filter_temporal_width)
        # Frames of the whole run, numbered: the same ones wherever the work begins.
        every = np.round(np.arange(first, last + 1) * study.tr * options.fps).astype(int)
        times = (np.arange(every[0] - around, every[-1] + around) + 0.5) / options.fps
        frames = film.sample_frames(
            study.root / run.film, times + run.film_start,
            height=options.height, width=options.width,
        )  # fmt: skip
        edges = every - every[0]
        held: list[NDArray[np.float32]] = []
        taken = 0
        for start in range(0, last - first, AT_ONCE):
            stop = min(start + AT_ONCE, last - first)
            wanted = edges[stop] + 2 * around - taken
            held += [_luminance(frame) for frame in itertools.islice(frames, wanted - len(held))]
            energy = _filtered(pyramid, np.stack(held))[around : len(held) - around]
            for a, b in itertools.pairwise(edges[start : stop + 1] - edges[start]):
                yield energy[a:b].mean(axis=0)
            held, taken = held[edges[stop] - taken :], edges[stop]

    def remarks(self) -> list[str]:
        """Say what was computed."""
        return ["Motion energy of the picture by the default pyramid of pymoten at "
                f"{self.options.fps} frames a second [@nishimoto2011]."]  # fmt: skip


def _luminance(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the lightness of a frame, (height, width), from 0 to 100 (CIE L*)."""
    from moten.colorspace import rgb2lab

    return np.asarray(rgb2lab(frame / 255.0)[..., 0], dtype=np.float32)


def _filtered(pyramid: Any, frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the log energy of each filter at each frame, (frames, filters)."""
    import contextlib
    import io

    # It draws a bar of its own.
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        return np.asarray(pyramid.project_stimulus(frames), dtype=np.float32)
