"""Which TRs train, validate and test."""

from __future__ import annotations

from typing import Literal

from giblet_hpc.config.section import Fraction, NonNegative, Section, Weight, whole_trs


class Split(Section):
    """Which TRs train, validate and test. Always whole runs or contiguous blocks."""

    scheme: Literal["leave-one-run-out", "runs", "blocks"] = "leave-one-run-out"
    """`leave-one-run-out`: one fold a run; `runs`: test on test_runs; `blocks`: test on the last
    part of every run."""
    test_runs: tuple[str, ...] = ()
    """Runs to test on, for the scheme `runs`."""
    test_fraction: Fraction = 0.2
    """Share of each run to test on, for the scheme `blocks`."""
    validation_fraction: Fraction = 0.15
    """Share at the end of each training part that chooses the best epoch."""
    inner_blocks: NonNegative = 0
    """Blocks of each fold's training TRs that networks are trained without, so that a gate between
    network and ridge can be chosen on predictions of all of them: so many more trainings. 0: it is
    chosen on the validation TRs."""
    purge_seconds: Weight = 15.0
    """Left out on both sides of a boundary inside a run, in whole TRs. At least the model's
    memory."""

    def purge_trs(self, tr: float) -> int:
        """Return how many TRs of ``tr`` seconds are left out."""
        return whole_trs(self.purge_seconds, tr)
