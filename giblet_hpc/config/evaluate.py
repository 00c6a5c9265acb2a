"""How it is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from giblet_hpc.config.section import Count, Fraction, NonNegative, Positive, Section, Weight

DECODED_SECONDS = 10.0
"""After a TR, in which scans say what was shown in it: the response's rise and fall."""
SEGMENT_SECONDS = 15.0
"""Of the stretches of TRs that are told apart."""


class Ridge(Section):
    """The linear baseline that every report shows beside the network."""

    delays: tuple[NonNegative, ...] | None = None
    """Stimulus lags in TRs. Null: from 1 TR to 16 s."""
    smooth_seconds: tuple[Weight, ...] = (0.0, 2.0, 4.0, 7.5, 15.0)
    """Length scales of the prior that makes neighbouring lags alike, to choose from by nested
    cross-validation inside the training TRs; 0: lags are free."""
    penalties: Literal["auto", "voxel", "one"] = "auto"
    """A penalty for each voxel, or one for all; `auto`: chosen likewise."""
    bands: Literal["auto", "equal", "one", "voxel"] = "auto"
    """Weights of the modalities (banded ridge): equal, the same for all voxels, or each voxel's
    own; `auto`: chosen likewise."""
    draws: Count = 20
    """Weights of the modalities to choose from: equal, each alone, and drawn ones."""
    partition: bool = True
    """Also fit ridge without each of the modalities: what each explains that no other does."""
    components: Count = 100
    """Principal components kept of each modality."""
    alphas: tuple[Positive, ...] = tuple(10.0**k for k in range(-1, 8))
    """Penalties to choose from, by cross-validation inside the training TRs."""
    folds: int = Field(default=5, ge=2)
    """Contiguous blocks of that cross-validation."""

    @model_validator(mode="after")
    def _bands_of_voxels(self) -> Self:
        if self.bands == "voxel" and self.penalties == "one":
            raise ValueError("bands: voxel has a penalty for each voxel: penalties: voxel or auto")
        return self


class Evaluate(Section):
    """How it is scored."""

    ridge: Ridge = Ridge()
    """The linear baseline."""
    network: bool = True
    """Score a network. False, or `submit --baseline-only`: ridge alone, and nothing is trained."""
    controls: bool = True
    """Also score what knows nothing of the stimulus, or of when it was shown."""
    random_trs: bool = False
    """Also score ridge where a fifth of all TRs, drawn at random, are the test TRs. Neighbours in
    time are alike, so that this leaks: it is shown to be seen, not to be reported."""
    decode: bool = True
    """Also decode the stimulus from scans: a linear map to the network's bottleneck, and from there
    its decoders. `giblet-hpc lesion` needs it."""
    calibration_minutes: tuple[Positive, ...] = ()
    """Also score each subject as a new one: ridge on the others' scans, and on so many minutes of
    its own, such as [5, 10, 20]."""
    samples: Count = 4
    """Test TRs whose reconstruction is drawn."""
    min_ceiling: Fraction = 0.1
    """Voxels with a lower noise ceiling get no normalised r."""
    bootstrap_draws: NonNegative = 1000
    """Draws of the bootstrap that gives scores their intervals; 0: none."""
    bootstrap_seconds: Positive = 30.0
    """Length of the blocks of test TRs that it draws."""
    chance_shifts: NonNegative = 1000
    """Shifts of predictions in time, by which is told what scores are by chance; 0: none."""
    write_scans: bool = False
    """Write each subject's predicted test TRs as NIfTI, in the units of the scans."""
    best_r: Path | None = None
    """NIfTI with the best r that any model can reach, a volume a subject, where the truth is
    known (`giblet-hpc synthesize` writes one)."""
