"""What would stop a run, found before it is queued: a sentence and a remedy for each finding.

The checks of one machine: the login node's before a submission, each node's inside a job.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from giblet_hpc.config.cluster import Cluster
from giblet_hpc.findings import Finding, Level
from giblet_hpc.jobs.doctor import exposure, hardware, storage
from giblet_hpc.jobs.node import fabric, image
from giblet_hpc.jobs.record import excluded
from giblet_hpc.jobs.record.resources import is_queued
from giblet_hpc.jobs.schedulers import registry
from giblet_hpc.runs.paths import RunPaths


def examine(
    profile: Cluster, folders: Sequence[Path], *, nodes: int, gpus: int, on_node: bool
) -> list[Finding]:
    """Return what this machine's checks find; takes seconds.

    Parameters
    ----------
    profile : Cluster
    folders : sequence of Path
        Folders that all nodes have to share: runs and stores. Those that do not exist yet are
        looked at through the first parent that does.
    nodes, gpus : int
        Nodes of a job, and GPUs of each.
    on_node : bool
        Whether jobs run on this machine; a login node need not be like those they run on.
    """
    found = []
    if on_node:
        network = fabric.detect()
        found += [
            hardware.gpu_driver(gpus), hardware.gpu_peers(gpus), hardware.shared_memory(gpus)
        ]  # fmt: skip
        if nodes > 1 and gpus:
            found.append(hardware.locked_memory(network))
        found += hardware.networks(network, nodes=nodes, gpus=gpus)
    every = dict.fromkeys(_existing(folder) for folder in folders)
    for folder in every:
        found += [storage.file_system(folder), storage.quota(folder), storage.striping(folder)]
    if is_queued(profile) and not on_node:
        found += scheduler(profile)
        found += [line for folder in folders for line in exclusions(RunPaths(folder / "any"))]
    found += exposure.examine(profile, folders, nodes=nodes)
    found.append(container(profile, on_node=on_node))
    return found


def _existing(folder: Path) -> Path:
    return next(path for path in (folder.resolve(), *folder.resolve().parents) if path.is_dir())


def scheduler(profile: Cluster) -> list[Finding]:
    """Look whether the scheduler takes what the profile asks for."""
    asked = registry.of(profile.scheduler)
    return [
        Finding(asked.name, cast("Level", level), seen, remedy)
        for level, seen, remedy in asked.problems(profile.partition)
    ]


def exclusions(runs: RunPaths) -> list[Finding]:
    """Name the nodes that jobs are kept off."""
    return [
        Finding("excluded nodes", "warn", line,
                f"remove its file in {runs.excluded_nodes} when the node is well again")
        for line in excluded.in_words(runs)
    ]  # fmt: skip


def container(profile: Cluster, *, on_node: bool) -> Finding:
    """Look for the image and for what runs it."""
    if not profile.image:
        return Finding("image", "skipped", "the profile names no image; jobs use this Python")
    if profile.runtime == "apptainer" and not Path(profile.image).exists():
        return Finding(
            "image",
            "fail",
            f"there is no {profile.image}",
            "container/build.sh makes it; `image:` in the profile names it",
        )
    if shutil.which(profile.runtime) is None:
        level: Level = "fail" if on_node or not is_queued(profile) else "skipped"
        return Finding(
            "image",
            level,
            f"{profile.runtime} is not on the path here",
            "on nodes, a `module load` line under `setup:` may bring it",
        )
    return Finding("image", "ok", f"{profile.image}, by {image.runtime_version(profile)}")
