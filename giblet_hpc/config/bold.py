"""The scans."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from giblet_hpc.config.section import Count, Fraction, NonNegative, Positive, Section

FIELDS = ("subject", "session", "run", "task", "hemi")
"""What the patterns of files may hold in braces."""
RUN_FIELDS = ("{run}", "{task}")
VOTES = ("auto", "vote", "varying")
"""What `mask` may say instead of a file."""


MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")


class Bold(Section):
    """Where the scans are and how they become standardised voxel time courses."""

    after_preprocess = frozenset({"mode", "shifted_trs"})

    files: str = "sub-{subject}_{run}.nii.gz"
    """Path pattern, absolute or relative to study.root. {subject} is found by listing; {run} and
    {task}, where each run has a file of its own, are those of study.runs; {session} and `*` stand
    for any text; {hemi} for L and R of a surface. Volumes (.nii, .nii.gz, .hdr and .img of NIfTI),
    surfaces (.gii), CIFTI (.dtseries.nii) and arrays of TRs by targets (.h5, .npy, .npz, .tsv,
    .csv)."""
    dataset: str | None = None
    """Which array of an .h5 or .npz file is a run's, as a pattern with the same fields. Null: the
    only one."""
    missing_runs: Literal["refuse", "allow"] = "refuse"
    """Whether a subject may lack the file of a run. `allow`: everything is computed from those
    who have it."""
    resample: bool = False
    """Whether scans of another TR than study.tr are brought to it, by linear interpolation after
    cleaning. By default they are refused."""
    shifted_trs: int = Field(default=0, ge=0, le=20)
    """TRs by which the files are already moved earlier to undo the hemodynamic lag (the public
    Sherlock files: 3)."""
    mode: Literal["per_subject", "cross_subject"] = "per_subject"
    """`per_subject` predicts every subject; `cross_subject` predicts the mean over subjects of
    the z-scored scans."""
    mask: str = "auto"
    """Which targets are used. `vote`: voxels that vary enough, see below. `varying`: all that vary
    in enough subjects. `auto`: `vote` for volumes, `varying` for other kinds. Else a mask in the
    space of the scans, relative to study.root; with {subject} or {run}, masks that vote."""
    vote_percentile: float = Field(default=10.0, ge=0.0, le=100.0)
    """A voxel is in a subject's mask when its temporal SD exceeds this percentile of the
    non-zero SDs."""
    vote_trs: Count = 200
    """TRs from the start of each file that the vote looks at."""
    vote_threshold: Fraction = 0.5
    """Share of subjects that must agree on a target; of masks by run, the share of masks."""
    regions: str | None = None
    """Labels in the space of the scans (NIfTI, GIFTI with {hemi}, .dlabel.nii, or a table with a
    label for each target), relative to study.root; scores are also given per region."""
    region_names: Path | None = None
    """Tab-separated table with the columns `label` (or BIDS's `index`) and `name`."""
    detrend: bool = False
    """Remove a linear trend per run."""
    high_pass: Positive | None = None
    """Cut-off in Hz of a cosine high-pass filter per run."""
    confounds: str | None = None
    """Path pattern of confound tables, with {subject}, {run} and the other fields of bold.files:
    .tsv with a header (fMRIPrep), or .txt, .1D and .par without one, whose columns are 1, 2 and so
    on. Scans before the steady state, by its columns non_steady_state_outlier, are left out."""
    confound_columns: tuple[str, ...] | None = None
    """Columns regressed out of every target; `[all]` for every column of the table. Null: the six
    motion parameters of fMRIPrep, or all columns of a table without a header, unless a strategy is
    given."""
    confound_strategy: tuple[
        Literal["motion", "wm_csf", "global_signal", "compcor", "high_pass"], ...
    ] = ()
    """Noise components by nilearn's `load_confounds`, for tables and scans with fMRIPrep's
    names."""
    confound_motion: Literal["basic", "power2", "derivatives", "full"] = "full"
    """Of the strategy `motion`: 6, 12, 12 or 24 columns."""
    confound_compcor: Count = 5
    """Of the strategy `compcor`: components of the combined anatomical mask."""
    scrub_fd: Positive | None = None
    """Scans with more framewise displacement than this, in millimetres, are left out; from the
    tables of confounds."""
    max_missing_trs: NonNegative = 100
    """TRs of a subject's run that may hold no scan (cut off, or one value everywhere). They are
    kept out of training and of every score, as are those that bold.confounds rules out."""

    @property
    def regressed_columns(self) -> tuple[str, ...]:
        """The columns of confound tables to regress out; `all` for every one."""
        if self.confound_columns is None:
            return () if self.confound_strategy else MOTION
        return self.confound_columns

    @property
    def one_file_a_run(self) -> bool:
        """Whether each run has a file, or an array, of its own."""
        return any(name in text for name in RUN_FIELDS for text in (self.files, self.dataset or ""))

    @property
    def confounds_by_run(self) -> bool:
        """Whether each run has a table of confounds of its own."""
        return any(name in (self.confounds or "") for name in RUN_FIELDS)

    @property
    def one_mask_file(self) -> bool:
        """Whether `mask` names one mask, rather than votes or masks by subject or run."""
        return self.mask not in VOTES and not re.search(r"[{*]", self.mask.replace("{hemi}", ""))

    @model_validator(mode="after")
    def _patterns_can_be_filled(self) -> Bold:
        tables = self.confounds or ""
        for field, pattern in (
            ("bold.files", self.files),
            ("bold.dataset", self.dataset or ""),
            ("bold.confounds", tables),
            ("bold.mask", self.mask),
        ):
            unknown = set(re.findall(r"\{[^{}]*\}", pattern)) - {f"{{{name}}}" for name in FIELDS}
            if unknown:
                raise ValueError(
                    f"{field} holds {', '.join(sorted(unknown))}; "
                    + ", ".join(f"{{{name}}}" for name in FIELDS)
                    + " are filled in"
                )
        if self.resample and not self.one_file_a_run:
            raise ValueError("bold.resample needs a file, or an array, for each run")
        if self.scrub_fd is not None and not tables:
            raise ValueError("bold.scrub_fd needs bold.confounds: the tables with displacement")
        if "{subject}" not in self.files:
            raise ValueError(f"bold.files must hold {{subject}}, got {self.files!r}")
        own = [name in self.files for name in RUN_FIELDS]
        if tables and any(own) and not any(name in tables for name in RUN_FIELDS):
            raise ValueError(
                "bold.confounds must hold {run} or {task} where bold.files does: a table for "
                "each file"
            )
        return self
