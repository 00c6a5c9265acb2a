"""The part of the schema that describes a study: its files, its time, its scans."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0.0)]


class Section(BaseModel):
    """A part of the config: unknown fields are refused, values cannot be changed."""

    # Checks are built when something is checked: most commands only look.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Describe the fields by their docstrings, which pydantic itself would read at import."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema)["properties"]
        for name, text in _field_docstrings(cls).items():
            properties[name]["description"] = text
        return schema


def _field_docstrings(section: type[Section]) -> dict[str, str]:
    """Return the string below each field."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, below in itertools.pairwise(definition.body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
            assert isinstance(field.target, ast.Name)
            assert isinstance(below.value, ast.Constant)
            found[field.target.id] = inspect.cleandoc(str(below.value.value))
    return found


class ScanRun(Section):
    """One scan run: what was shown and for how long."""

    name: Name
    """Name of the run, as used in file names and in the store."""
    trs: Count | None = None
    """Length of the run in TRs. Needed when one BOLD file holds all runs one after the other."""
    film: Path | None = None
    """Film with the picture and the sound of this run, relative to study.root."""
    film_start: float = 0.0
    """Position in the film, in seconds, at which the run's first TR begins. Negative when the
    film starts after the scan: the TRs before it are black and silent."""
    annotations: Path | None = None
    """Annotation sheet of this run alone (seconds count from the run's start)."""
    skip_trs: NonNegative = 0
    """Leading TRs that stay out of every split, such as a cartoon shown before each run."""


class Annotations(Section):
    """The sheet that says in words what happens when (.xlsx, .csv or .tsv)."""

    file: Path | None = None
    """Sheet of the whole study, relative to study.root."""
    text: tuple[str, ...] = ("Scene Details - A Level", "Name - All", "Location")
    """Columns whose words describe a segment; joined by '; '."""
    start_seconds: str = "Start Time (s)"
    """Column of a segment's start in seconds within its run (may restart at each run)."""
    end_seconds: str = "End Time (s)"
    """Column of a segment's end in seconds within its run."""
    start_tr: str | None = "Start Time (TRs, 1.5s)"
    """Column of the first TR, 1-based, counted through all runs. Null: use seconds only."""
    end_tr: str | None = "End Time (TRs, 1.5s)"
    """Column of the last TR, 1-based and included, counted through all runs."""
    run: str | None = None
    """Column that names a segment's run. Null: a new run begins where the seconds restart."""


class Study(Section):
    """Which files belong to the study and how its time runs."""

    name: Name
    """Name of the study."""
    root: Path = Path()
    """Folder that the study's files are relative to; itself relative to the working folder."""
    store: Path | None = None
    """Feature store. Null: `stores/<study.name>.zarr` in the working folder."""
    tr: Positive
    """Repetition time in seconds: one sample of the scans and of every feature."""
    runs: Annotated[tuple[ScanRun, ...], Field(min_length=1)]
    """Scan runs in the order in which they were shown."""
    subjects: Literal["all"] | Count | tuple[str, ...] = "all"
    """`all` subjects found on disk, the first N of them, or a list of their names."""
    annotations: Annotations = Annotations()
    """The annotation sheet."""
    max_trim_trs: NonNegative = 10
    """How many TRs film and scans may differ in length; the longer is cut, never stretched."""


class Bold(Section):
    """Where the scans are and how they become standardised voxel time courses."""

    files: str = "sub-{subject}_{run}.nii.gz"
    """Path pattern relative to study.root, with {subject} and, where each run has a file of its
    own, {run}."""
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
