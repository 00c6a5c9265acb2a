"""How much of a cluster a stage gets: processes, nodes, GPUs, walltime."""

from __future__ import annotations

import re
from dataclasses import dataclass

from giblet_hpc.errors import ConfigError
from giblet_hpc.jobs.cluster import WALLTIME, Cluster, minutes_of


@dataclass(frozen=True)
class Size:
    """How much of the cluster a parallel stage gets.

    Parameters
    ----------
    ranks : int
        Processes on each node.
    nodes : int
    gpus : int
        GPUs on each node.
    """

    ranks: int
    nodes: int = 1
    gpus: int = 0

    @property
    def world(self) -> int:
        """Processes on all nodes."""
        return self.ranks * self.nodes


def size_of(
    profile: Cluster, *, gpus: int | None, ranks: int | None, nodes: int | None, default: int
) -> Size:
    """Return how a stage is spread over nodes.

    Parameters
    ----------
    profile : Cluster
    gpus, ranks : int, optional
        GPUs or processes in all.
    nodes : int, optional
        By default as few as hold the GPUs.
    default : int
        Processes when neither is given.

    Raises
    ------
    ConfigError
        When the nodes cannot be filled evenly, or have no GPUs.
    """
    if gpus and ranks and gpus != ranks:
        raise ConfigError("--gpus and --ranks differ: each GPU has a process of its own")
    if profile.scheduler == "local":
        if nodes and nodes > 1:
            raise ConfigError("--nodes needs a cluster; this is one machine")
        gpus = gpus or (profile.gpus_per_node if ranks is None else 0)
        return Size(ranks or gpus or default, gpus=gpus)
    if gpus and not profile.gpus_per_node:
        raise ConfigError(
            f"--gpus {gpus}: cluster {profile.name} has no GPUs, says its profile",
            hint="set gpus_per_node in the profile, or give --ranks",
        )
    total = gpus or ranks or profile.gpus_per_node or 1
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
    return Size(each, nodes, each if on_gpus else 0)


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
    minutes = minutes_of(time) if time else profile.minutes
    if 60 * minutes <= profile.lead_seconds:
        raise ConfigError(
            f"a walltime of {60 * minutes} s leaves nothing to work in: runs are asked to stop "
            f"{profile.lead_seconds} s before its end",
            hint="give a longer --time, or a smaller lead_seconds in the profile",
        )
    return minutes
