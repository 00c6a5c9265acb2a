"""The scans."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from giblet_hpc.config.section import Count, Fraction, NonNegative, Positive, Section


class Bold(Section):
    """Where the scans are and how they become standardised voxel time courses."""

    after_preprocess = frozenset({"mode", "shifted_trs"})

    files: str = "sub-{subject}_{run}.nii.gz"
    """Path pattern, absolute or relative to study.root, with {subject} and, where each run has a
    file of its own, {run}."""
    shifted_trs: int = Field(default=0, ge=0, le=20)
    """TRs by which the files are already moved earlier to undo the hemodynamic lag (the public
    Sherlock files: 3)."""
    mode: Literal["per_subject", "cross_subject"] = "per_subject"
    """`per_subject` predicts every subject; `cross_subject` predicts the mean over subjects of
    the z-scored scans."""
    mask: Path | Literal["vote"] = "vote"
    """`vote`, or a NIfTI mask on the grid of the scans, relative to study.root."""
    vote_percentile: float = Field(default=10.0, ge=0.0, le=100.0)
    """A voxel is in a subject's mask when its temporal SD exceeds this percentile of the
    non-zero SDs."""
    vote_trs: Count = 200
    """TRs from the start of each file that the vote looks at."""
    vote_threshold: Fraction = 0.5
    """Share of subjects that must agree on a voxel."""
    regions: Path | None = None
    """NIfTI of integer labels on the same grid; scores are also given per region."""
    region_names: Path | None = None
    """Tab-separated table with the columns `label` and `name`."""
    detrend: bool = False
    """Remove a linear trend per run."""
    high_pass: Positive | None = None
    """Cut-off in Hz of a cosine high-pass filter per run."""
    confounds: str | None = None
    """Path pattern of fMRIPrep confound tables (.tsv), with {subject} and {run}."""
    confound_columns: tuple[str, ...] = (
        "trans_x",
        "trans_y",
        "trans_z",
        "rot_x",
        "rot_y",
        "rot_z",
    )
    """Columns regressed out of every voxel."""
    max_missing_trs: NonNegative = 100
    """TRs that may be missing (cut off, or a constant fill) at the end of a subject's run. They
    are kept out of training and of every score."""

    @model_validator(mode="after")
    def _patterns_can_be_filled(self) -> Bold:
        for field, pattern in (("bold.files", self.files), ("bold.confounds", self.confounds)):
            unknown = set(re.findall(r"\{[^{}]*\}", pattern or "")) - {"{subject}", "{run}"}
            if unknown:
                raise ValueError(
                    f"{field} holds {', '.join(sorted(unknown))}; "
                    "{subject} and {run} are filled in"
                )
        if "{subject}" not in self.files:
            raise ValueError(f"bold.files must hold {{subject}}, got {self.files!r}")
        if self.confounds and "{run}" in self.files and "{run}" not in self.confounds:
            raise ValueError(
                "bold.confounds must hold {run} where bold.files does: a table for each file"
            )
        return self
