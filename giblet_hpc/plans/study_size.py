"""How large a study is, from its store's own metadata."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from giblet_hpc.config.run import RunConfig
from giblet_hpc.files import read_json

ITEM_BYTES = {"uint8": 1, "int16": 2, "float16": 2, "int32": 4, "float32": 4}


@dataclass(frozen=True)
class StudySize:
    """Sizes of a study's arrays.

    Parameters
    ----------
    rows : mapping of str to tuple of int
        Shape of a TR's row of each modality, as it is stored.
    voxels, subjects, trs : int
        ``trs`` of all runs together.
    bytes_in_memory : int
        Of features and scans, as training holds them once a node.
    assumed : mapping of str to object
        What is not known, and was assumed.
    """

    rows: Mapping[str, tuple[int, ...]]
    voxels: int
    subjects: int
    trs: int
    bytes_in_memory: int
    assumed: Mapping[str, object] = field(default_factory=dict)


def stored_bytes(config: RunConfig, inputs: Mapping[str, Any], *, per_subject: bool = False) -> int:
    """Return the bytes of features and scans that training holds, from the store's own metadata.

    Parameters
    ----------
    config : RunConfig
    inputs : mapping
        What preprocess settled for the run.
    per_subject : bool
        Whether scans of each subject are held, though their mean is what is predicted.
    """
    total = 0
    for name, array in _arrays(config, inputs).items():
        size = math.prod(array["shape"]) * ITEM_BYTES[array["data_type"]]
        mean = config.bold.mode == "cross_subject" and name.startswith("bold/")
        total += size // len(inputs["subjects"]) if mean and not per_subject else size
    return total


def of_store(config: RunConfig, inputs: Mapping[str, Any]) -> StudySize:
    """Return the sizes of a study that is preprocessed.

    Parameters
    ----------
    config : RunConfig
    inputs : mapping
        What preprocess settled for the run.
    """
    found = _arrays(config, inputs)
    rows = {
        name.rpartition("/")[2]: tuple(array["shape"][1:])
        for name, array in found.items()
        if name.startswith("stimulus/")
    }
    scans = {name: array["shape"] for name, array in found.items() if name.startswith("bold/")}
    runs = {name.rpartition("/")[2]: shape for name, shape in scans.items()}
    return StudySize(
        {name: rows[name] for name in config.features.modalities},
        next(iter(scans.values()))[1],
        1 if config.bold.mode == "cross_subject" else len(inputs["subjects"]),
        sum(shape[0] for shape in runs.values()),
        stored_bytes(config, inputs),
    )


def _arrays(config: RunConfig, inputs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the metadata of the arrays that training reads."""
    assert config.study.store is not None
    return {
        name: read_json(config.study.store / name / "zarr.json")
        for name in inputs["arrays"]
        if name.startswith(("stimulus/", "bold/"))
    }
