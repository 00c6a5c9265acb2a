"""What cannot work is refused before it waits in a queue."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from giblet_hpc.config.batch import ranks_of_a_team, require_shared_batch
from giblet_hpc.config.cluster import Cluster
from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import DataError, JobError
from giblet_hpc.files import read_json
from giblet_hpc.jobs.record.resources import Resources, for_parallel
from giblet_hpc.runs.paths import RunPaths, Stage

ITEM_BYTES = {"uint8": 1, "int16": 2, "int32": 4, "float32": 4}
GIB = 2**30


def require_possible(
    config: RunConfig,
    stages: Sequence[Stage],
    *,
    profile: Cluster,
    size: Resources,
    paths: RunPaths | None = None,
) -> None:
    """Check what a config asks of a place, as far as that can be told beforehand.

    Parameters
    ----------
    config : RunConfig
    stages : sequence of str
        Those that are about to be submitted.
    profile : Cluster
    size : Resources
        How training is spread.
    paths : RunPaths, optional
        Of a run that exists, whose store tells how large the study is.

    Raises
    ------
    ConfigError
        When the batch cannot be divided among the ranks.
    DataError
        When trained weights are not there.
    JobError
        When a node's memory cannot hold the study.
    """
    if "train" in stages:
        require_shared_batch(config, size.world // ranks_of_a_team(config, size.ranks))
        if paths is not None and "preprocess" not in stages:
            memory_fits(config, paths, profile, size)
    if "preprocess" in stages and not profile.image:
        weights_are_there(config)


def weights_are_there(config: RunConfig) -> None:
    """Check that trained weights are in their folder, or in the cache of the hub."""
    for name, section in config.features.sections.items():
        weights = section.weights
        if not weights or Path(weights).is_dir() or _in_cache(weights):
            continue
        raise DataError(
            f"features.{name}: weights not found on this machine: {weights}",
            hint=f"on a machine with internet: hf download {weights}; or name a folder; the jobs "
            "themselves never go online",
        )


def _in_cache(name: str) -> bool:
    """Whether the hub's cache holds a model of a name."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    return (cache / f"models--{name.replace('/', '--')}").is_dir()


def memory_fits(config: RunConfig, paths: RunPaths, profile: Cluster, size: Resources) -> None:
    """Check that a node's memory holds the study once: its ranks share one copy."""
    asked = for_parallel(profile, "train", size).memory_gb if profile.memory_gb_per_node else None
    if asked is None or not paths.inputs.is_file():
        return
    needed = study_bytes(config, paths) / GIB
    if needed > asked:
        raise JobError(
            f"the study takes {needed:.1f} GiB on each node; {asked:.1f} GiB are asked for",
            hint="raise memory_gb_per_node in the cluster profile (stages: {train: ...}), or use "
            "fewer subjects or smaller frames",
        )


def study_bytes(config: RunConfig, paths: RunPaths) -> int:
    """Return the size of what training reads, from the store's own metadata."""
    assert config.study.store is not None
    total = 0
    for name in read_json(paths.inputs)["arrays"]:
        if name.startswith(("stimulus/", "bold/")):
            array = read_json(config.study.store / name / "zarr.json")
            total += math.prod(array["shape"]) * ITEM_BYTES[array["data_type"]]
    return total
