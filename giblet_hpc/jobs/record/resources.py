"""How much of a place a job gets: processes, nodes, GPUs, cores, memory, walltime."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from giblet_hpc.config.cluster import WALLTIME, Cluster, StageResources, minutes_of
from giblet_hpc.errors import ConfigError
from giblet_hpc.jobs.schedulers import registry
from giblet_hpc.runs.paths import Stage

PREPROCESS_CPUS = 8
"""Cores of a part of preprocess, where the profile says nothing."""


@dataclass(frozen=True)
class Resources:
    """What a job gets.

    Parameters
    ----------
    ranks : int
        Processes on each node.
    nodes : int
    gpus : int
        GPUs on each node.
    cpus : int
        Cores on each node; 0: whatever there is.
    memory_gb : float, optional
        Memory of each node, in GiB. None: the site's default.
    minutes : int
        Walltime; 0 for no end.
    partition : str, optional
        Where it waits. None: the site's default.
    """

    ranks: int
    nodes: int = 1
    gpus: int = 0
    cpus: int = 0
    memory_gb: float | None = None
    minutes: int = 0
    partition: str | None = None

    @property
    def world(self) -> int:
        """Processes on all nodes."""
        return self.ranks * self.nodes

    def record(self) -> dict[str, Any]:
        """Return what a run's record keeps, so that it can be spread likewise again."""
        return {"ranks": self.ranks, "nodes": self.nodes, "gpus": self.gpus}


def is_queued(profile: Cluster) -> bool:
    """Whether a profile's jobs wait in a queue."""
    return registry.of(profile.scheduler).queues


def spread(
    profile: Cluster,
    *,
    gpus: int | None,
    ranks: int | None,
    nodes: int | None,
    default: int | None = None,
) -> Resources:
    """Return how processes are spread over nodes.

    Parameters
    ----------
    profile : Cluster
    gpus, ranks : int, optional
        GPUs or processes in all.
    nodes : int, optional
        By default as few as hold the GPUs.
    default : int, optional
        Processes when neither is given; by default what the place has GPUs for.

    Raises
    ------
    ConfigError
        When the nodes cannot be filled evenly, or have no GPUs.
    """
    default = default or default_ranks(profile)
    if gpus and ranks and gpus != ranks:
        raise ConfigError("--gpus and --ranks differ: each GPU has a process of its own")
    if not is_queued(profile):
        if nodes and nodes > 1:
            raise ConfigError("--nodes needs a cluster; this is one machine")
        gpus = gpus or (profile.gpus_per_node if ranks is None else 0)
        return Resources(ranks or gpus or default, gpus=gpus)
    if gpus and not profile.gpus_per_node:
        raise ConfigError(
            f"--gpus {gpus}: cluster {profile.name} has no GPUs, says its profile",
            hint="set gpus_per_node in the profile, or give --ranks",
        )
    total = gpus or ranks or default
    on_gpus = bool(profile.gpus_per_node) and (gpus is not None or ranks is None)
    if nodes is None:
        nodes = -(-total // profile.gpus_per_node) if on_gpus else 1
    if total % nodes:
        raise ConfigError(
            f"{total} processes do not spread evenly over {nodes} nodes",
            hint=f"ask for a multiple of {nodes}",
        )
    each = total // nodes
    if on_gpus and each > profile.gpus_per_node:
        raise ConfigError(
            f"{each} GPUs a node: the nodes of {profile.name} have {profile.gpus_per_node}"
        )
    return Resources(each, nodes, each if on_gpus else 0)


def default_ranks(profile: Cluster) -> int:
    """Return the processes of a stage when nobody says how many: one a GPU, or one."""
    if is_queued(profile):
        return profile.gpus_per_node or 1
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return max(1, len([name for name in visible.split(",") if name.strip()]))
    return max(1, len(list(Path("/dev").glob("nvidia[0-9]*"))))


def for_parallel(
    profile: Cluster, stage: Stage, size: Resources, *, time: str | None = None
) -> Resources:
    """Return what a job of training or evaluation asks for: a share of its nodes, by their GPUs.

    Parameters
    ----------
    profile : Cluster
    stage : str
    size : Resources
        From `spread`.
    time : str, optional
        Walltime instead of the profile's.
    """
    own: StageResources = getattr(profile.stages, stage)
    share = size.gpus / profile.gpus_per_node if profile.gpus_per_node and size.gpus else 1.0
    memory = own.memory_gb_per_node or profile.memory_gb_per_node
    return replace(
        size,
        cpus=max(1, int((own.cpus_per_node or profile.cpus_per_node) * share)),
        memory_gb=memory * share if memory else None,
        minutes=walltime(profile, time or own.time),
        partition=own.partition or profile.partition,
    )


def for_preprocess(profile: Cluster, *, wants_gpu: bool, time: str | None = None) -> Resources:
    """Return what a job of preprocess asks for: one process with a few cores, and a GPU to use.

    Parameters
    ----------
    profile : Cluster
    wants_gpu : bool
        Whether a network computes this part.
    time : str, optional
        Walltime instead of the profile's.
    """
    own = profile.stages.preprocess
    available = profile.gpus_per_node if own.gpus_per_node is None else own.gpus_per_node
    cpus = own.cpus_per_node or min(PREPROCESS_CPUS, profile.cpus_per_node)
    memory = own.memory_gb_per_node
    if memory is None and profile.memory_gb_per_node:
        memory = profile.memory_gb_per_node * min(1.0, cpus / profile.cpus_per_node)
    return Resources(
        1,
        gpus=min(1, available) if wants_gpu else 0,
        cpus=cpus,
        memory_gb=memory,
        minutes=walltime(profile, time or own.time),
        partition=own.partition or profile.partition,
    )


def walltime(profile: Cluster, time: str | None) -> int:
    """Return the walltime of a job in minutes: the profile's, or one that was given.

    Raises
    ------
    ConfigError
        When a job would be asked to stop as soon as it starts.
    """
    if time and not re.match(WALLTIME, time):
        raise ConfigError(
            f"--time {time} is no walltime", hint="minutes, H:MM:SS or D-HH:MM, such as 8:00:00"
        )
    minutes = minutes_of(time or profile.time)
    if 60 * minutes <= profile.lead_seconds:
        raise ConfigError(
            f"a walltime of {60 * minutes} s leaves nothing to work in: runs are asked to stop "
            f"{profile.lead_seconds} s before its end",
            hint="give a longer --time, or a smaller lead_seconds in the profile",
        )
    return minutes
