"""How it is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from giblet_hpc.config.section import Count, Fraction, NonNegative, Positive, Section, Weight


class Ridge(Section):
    """The linear baseline that every report shows beside the network."""

    delays: tuple[NonNegative, ...] | None = None
    """Stimulus lags in TRs. Null: from 1 TR to 16 s."""
    smooth_seconds: tuple[Weight, ...] = (0.0, 2.0, 4.0, 7.5, 15.0)
    """Length scales of the prior that makes neighbouring lags alike, to choose from by nested
    cross-validation inside the training TRs; 0: lags are free."""
    penalties: Literal["auto", "voxel", "one"] = "auto"
    """A penalty for each voxel, or one for all; `auto`: chosen likewise."""
    components: Count = 100
    """Principal components kept of each modality."""
    alphas: tuple[Positive, ...] = tuple(10.0**k for k in range(-1, 8))
    """Penalties to choose from, by cross-validation inside the training TRs."""
    folds: int = Field(default=5, ge=2)
    """Contiguous blocks of that cross-validation."""


class Evaluate(Section):
    """How it is scored."""

    ridge: Ridge = Ridge()
    """The linear baseline."""
    samples: Count = 4
    """Test TRs whose reconstruction is drawn."""
    min_ceiling: Fraction = 0.1
    """Voxels with a lower noise ceiling get no normalised r."""
    bootstrap_draws: NonNegative = 1000
    """Draws of the bootstrap that gives scores their intervals; 0: none."""
    bootstrap_seconds: Positive = 30.0
    """Length of the blocks of test TRs that it draws."""
    write_scans: bool = False
    """Write each subject's predicted test TRs as NIfTI, in the units of the scans."""
    best_r: Path | None = None
    """NIfTI with the best r that any model can reach, a volume a subject, where the truth is
    known (`giblet-hpc synthesize` writes one)."""
