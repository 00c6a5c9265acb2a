"""What a stage's processes are started with: variables, command, and the image around both."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from giblet_hpc import beacon
from giblet_hpc.jobs import fabric, hardware, image
from giblet_hpc.jobs.attempts import Attempt, Place
from giblet_hpc.jobs.child import TOKEN, Child
from giblet_hpc.jobs.cluster import Cluster
from giblet_hpc.jobs.launch import PARALLEL_STAGES, Geometry, stage_command, stage_environment
from giblet_hpc.jobs.stagejob import StageJob
from giblet_hpc.runs import ATTEMPT, GPUS, IMAGE, RunPaths, Stage


@dataclass(frozen=True)
class Node:
    """A node's part of an attempt.

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


def child(
    node: Node,
    stage: Stage,
    job: StageJob,
    *,
    paths: RunPaths,
    profile: Cluster,
    log: IO[str] | None,
) -> Child:
    """Start a stage's processes on a node.

    Parameters
    ----------
    node : Node
    stage : str
    job : StageJob
    paths : RunPaths
    profile : Cluster
    log : file, optional
        Receives their output, after the reasons for what is set; by default this process's stderr.

    Raises
    ------
    GibletError
        When they cannot be started here.
    """
    facts, place = node.attempt.facts(), node.place
    geometry = Geometry(
        job.ranks,
        nodes=place.nodes,
        node=place.node,
        head=facts["head"] if place.nodes > 1 else "localhost",
        port=facts["port"],
        meeting=place.key,
        host=place.host,
    )
    token = hashlib.sha256(f"{node.attempt.folder}|{place}".encode()).hexdigest()[:24]
    chosen = _network_settings(node, stage, job, profile=profile, log=log)
    settings = variables(stage, profile, ranks=job.ranks, chosen=chosen) | {
        ATTEMPT: str(node.attempt.folder), beacon.FOLDER: str(node.local), TOKEN: token,
        IMAGE: facts["image"], GPUS: str(job.gpus), beacon.SUPERVISOR: str(os.getpid()),
    }  # fmt: skip
    make = partial(stage_command, stage, paths.root, geometry, part=job.part, rebuild=job.rebuild)
    command, environment = in_place(
        profile,
        lambda python: make(python=python),
        settings,
        binds=image.folders_of(paths, paths.load_config()) if profile.image else (),
        local=node.local,
        workdir=paths.root,
        gpus=job.gpus,
    )
    node.attempt.note_node(place.node, command=command)
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


def in_place(
    profile: Cluster,
    make: Callable[[str], list[str]],
    settings: Mapping[str, str],
    *,
    binds: Iterable[Path],
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
    binds, local, workdir, gpus
        See `image.command`.
    """
    if not profile.image:
        return make(image.HOST_PYTHON), {**os.environ, **settings}
    command, more = image.command(
        profile, make(image.PYTHON), binds=binds, local=local, workdir=workdir, settings=settings,
        gpus=gpus,
    )  # fmt: skip
    return command, {**os.environ, **settings, **more}


def _network_settings(
    node: Node, stage: Stage, job: StageJob, *, profile: Cluster, log: IO[str] | None
) -> dict[str, str]:
    """Return what this node's network needs to have set; say why in the log."""
    if stage not in PARALLEL_STAGES:
        return {}
    gpus = job.gpus or len(list(Path("/dev").glob("nvidia[0-9]*")))
    lines = []
    if (memory := hardware.shared_memory(gpus)).level == "fail":
        lines.append(f"# /dev/shm: {memory.seen}; NCCL may not find room: {memory.fix}")
    chosen: list[fabric.Setting] = []
    if profile.fabric == "auto":
        found = fabric.detect()
        chosen = fabric.choose(found, nodes=node.place.nodes, gpus=gpus)
        lines += fabric.told(chosen, os.environ)
        node.attempt.note_node(
            node.place.node, network=found.network, settings={s.name: s.value for s in chosen}
        )
    if log is not None and lines:
        log.write("\n".join(lines) + "\n")
        log.flush()
    return {setting.name: setting.value for setting in chosen}
