"""What a stage's processes are started with: variables, command, and the image around both."""

from __future__ import annotations

import hashlib
import os
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from giblet_hpc.config.cluster import Cluster
from giblet_hpc.errors import NodeError
from giblet_hpc.jobs.node import fabric, image
from giblet_hpc.jobs.node.image import Folders
from giblet_hpc.jobs.node.launch import PARALLEL_STAGES, stage_command, stage_environment
from giblet_hpc.jobs.node.processes import Child
from giblet_hpc.jobs.record.attempts import Attempt
from giblet_hpc.jobs.record.task import StageTask
from giblet_hpc.jobs.schedulers.base import Place
from giblet_hpc.runs import environment as env
from giblet_hpc.runs.paths import RunPaths, Stage

LEAST_ADDRESS_SPACE = 2 * 2**30
"""Bytes without which torch and its libraries end in ways that no message tells."""


@dataclass(frozen=True)
class NodeShare:
    """A node's share of an attempt.

    Parameters
    ----------
    attempt : Attempt
    place : Place
    local : Path
        Folder on the node's disk that ends with the attempt.
    """

    attempt: Attempt
    place: Place
    local: Path


def require_address_space() -> None:
    """Check that processes may have the memory that libraries need before any data.

    Raises
    ------
    NodeError
        When `ulimit -v` leaves them less.
    """
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESS_SPACE:
        raise NodeError(
            f"a limit of this machine: processes may have {limit / 2**30:.1f} GiB of memory "
            "(ulimit -v)",
            hint="login nodes often have such limits: submit a job, or run on a compute node",
        )


def start_stage(
    share: NodeShare,
    stage: Stage,
    task: StageTask,
    *,
    paths: RunPaths,
    profile: Cluster,
    log: IO[str] | None,
) -> Child:
    """Start a stage's processes on a node.

    Parameters
    ----------
    share : NodeShare
    stage : str
    task : StageTask
    paths : RunPaths
    profile : Cluster
    log : file, optional
        Receives their output, after the reasons for what is set; by default this process's stderr.

    Raises
    ------
    GibletError
        When they cannot be started here.
    """
    require_address_space()
    facts, place, resources = share.attempt.facts(), share.place, task.resources
    token = hashlib.sha256(f"{share.attempt.folder}|{place}".encode()).hexdigest()[:24]
    chosen = _network_settings(share, stage, resources.gpus, profile=profile, log=log)
    settings = variables(stage, profile, ranks=resources.ranks, chosen=chosen) | {
        env.ATTEMPT: str(share.attempt.folder), env.LOCAL: str(share.local), env.TOKEN: token,
        env.IMAGE: facts["image"], env.GPUS: str(resources.gpus), env.NODE: str(place.node),
        env.HOST: place.host,
        env.SUPERVISOR: str(os.getpid()),
        # By default a folder that stays on the node.
        "TORCHINDUCTOR_CACHE_DIR": str(share.local / "inductor"),
        **meeting(place, resources.ranks, share.attempt.files.rendezvous),
    }  # fmt: skip
    make = partial(
        stage_command, stage, paths.root, ranks=resources.ranks, nodes=place.nodes,
        part=task.part, rebuild=task.rebuild,
    )  # fmt: skip
    command, environment = container_command(
        profile,
        lambda python: make(python=python),
        settings,
        folders=image.folders_of(paths, paths.load_config()) if profile.image else Folders(),
        local=share.local,
        workdir=paths.root,
        gpus=resources.gpus,
    )
    share.attempt.note_node(place.node, command=command)
    return Child(command, environment, token=token, output=log)


def variables(
    stage: Stage, profile: Cluster, *, ranks: int, chosen: Mapping[str, str]
) -> dict[str, str]:
    """Return a stage's variables: ours, the network's, the profile's; what is set already stays.

    Parameters
    ----------
    stage : str
    profile : Cluster
    ranks : int
        Processes on this node.
    chosen : mapping
        What this node's network needs.
    """
    wanted = {**stage_environment(stage, ranks=ranks), **chosen, **profile.environment}
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


def meeting(place: Place, ranks: int, file: Path) -> dict[str, str]:
    """Return by which variables ranks know their numbers, and where they find each other.

    Parameters
    ----------
    place : Place
    ranks : int
        Processes on each node.
    file : Path
        On a file system that all nodes share.
    """
    return {
        env.FIRST_RANK: str(place.node * ranks),
        env.WORLD_SIZE: str(place.nodes * ranks),
        env.RENDEZVOUS: str(file),
    }


def container_command(
    profile: Cluster,
    make: Callable[[str], list[str]],
    settings: Mapping[str, str],
    *,
    folders: Folders,
    local: Path,
    workdir: Path,
    gpus: int,
) -> tuple[list[str], dict[str, str]]:
    """Return a command and its whole environment, in the profile's image where it has one.

    Parameters
    ----------
    profile : Cluster
    make : callable
        Returns the command for a Python.
    settings : mapping
        Variables of the command.
    folders, local, workdir, gpus
        See `image.command`.
    """
    if not profile.image:
        return make(image.HOST_PYTHON), {**os.environ, **settings}
    command, more = image.command(
        profile, make(image.PYTHON), folders=folders, local=local, workdir=workdir,
        settings=settings,
        gpus=gpus,
    )  # fmt: skip
    return command, {**os.environ, **settings, **more}


def _network_settings(
    share: NodeShare, stage: Stage, gpus: int, *, profile: Cluster, log: IO[str] | None
) -> dict[str, str]:
    """Return what this node's network needs to have set; say why in the log."""
    if stage not in PARALLEL_STAGES:
        return {}
    gpus = gpus or len(list(Path("/dev").glob("nvidia[0-9]*")))
    lines = []
    if gpus > 1 and (free := fabric.free_shared_memory()[0]) < fabric.SHARED_MEMORY_GIB:
        lines.append(f"# /dev/shm: {free:.1f} GiB are free; NCCL may not find room")
    chosen: list[fabric.Setting] = []
    if profile.fabric == "auto":
        found = fabric.detect()
        chosen = fabric.choose(found, nodes=share.place.nodes, gpus=gpus)
        lines += fabric.explain(chosen, os.environ)
        share.attempt.note_node(
            share.place.node, network=found.network, settings={s.name: s.value for s in chosen}
        )
    if log is not None and lines:
        log.write("\n".join(lines) + "\n")
        log.flush()
    return {setting.name: setting.value for setting in chosen}
