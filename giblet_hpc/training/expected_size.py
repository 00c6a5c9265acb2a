"""How large a study will be, as its settings and some assumptions say."""

from __future__ import annotations

import math

from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import DataError
from giblet_hpc.modalities.registry import modalities_of
from giblet_hpc.plans.study_size import ITEM_BYTES, StudySize
from giblet_hpc.subjects import find_subjects

VOXELS, TRS, FPS = 85_000, 1000, 25.0
ROW_TYPES = {4: "uint8", 3: "float16", 2: "int16", 1: "float32"}
"""Of a TR's row, by its dimensions: frames, hidden states, codes, vectors."""


def expected_size(
    config: RunConfig, *, voxels: int | None = None, fps: float | None = None
) -> StudySize:
    """Return the sizes of a study before it is preprocessed.

    Parameters
    ----------
    config : RunConfig
    voxels : int, optional
        Of the mask that preprocess will make.
    fps : float, optional
        Frames a second of the films.
    """
    assumed: dict[str, object] = {}
    section = config.features.video
    if fps is None and section is not None and section.fps is None:
        assumed["frames a second"] = FPS
    if voxels is None:
        assumed["voxels"] = VOXELS
    lengths = [run.trs or TRS for run in config.study.runs]
    if not all(run.trs for run in config.study.runs):
        assumed["TRs a run"] = TRS
    count = _subjects(config)
    if count is None:
        assumed["subjects"] = count = 1
    rows = {
        name: modality.expected_shape(tr=config.study.tr, fps=fps or FPS)
        for name, modality in modalities_of(config.features).items()
    }
    each = sum(math.prod(row) * ITEM_BYTES[ROW_TYPES.get(len(row), "float32")]
               for row in rows.values())  # fmt: skip
    subjects = 1 if config.bold.mode == "cross_subject" else count
    voxels = voxels or VOXELS
    total = sum(lengths) * (each + 4 * voxels * subjects)
    return StudySize(rows, voxels, subjects, sum(lengths), total, assumed)


def _subjects(config: RunConfig) -> int | None:
    """Return how many subjects there are; None where their files are elsewhere."""
    known = config.study.subjects
    if isinstance(known, int):
        return known
    if known != "all":
        return len(known)
    try:
        return len(find_subjects(config.study, config.bold))
    except DataError:
        return None
