"""A cluster profile: where jobs run, and what the place needs to know."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from giblet_hpc.config.section import Count, Name, NonNegative, Positive, Section

WALLTIME = r"^\d+$|^\d+:\d{1,2}(:\d{1,2})?$|^\d+-\d{1,2}(:\d{1,2}){0,2}$"
"""Slurm's forms: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S."""
SCHEDULER_OPTION = r"^[a-z][a-z0-9-]*$"
LOCAL = "local"


def _in_quotes(time: object) -> object:
    """Refuse a number: YAML reads 8:00:00 without quotes as one, in seconds."""
    if isinstance(time, int):
        raise ValueError('put the time in quotes, such as "8:00:00", or "90" for minutes')
    return time


def _flag(value: object) -> object:
    """Take an option without a value for a flag."""
    return True if value is None or value == "" else value


Time = Annotated[str, BeforeValidator(_in_quotes), Field(pattern=WALLTIME)]
OptionName = Annotated[str, Field(pattern=SCHEDULER_OPTION)]
OptionValue = Annotated[Literal[True] | str | int, BeforeValidator(_flag)]


class StageResources(Section):
    """What one stage asks for instead of what the profile says for all."""

    partition: str | None = None
    """Partition of this stage's jobs."""
    gpus_per_node: NonNegative | None = None
    """GPUs to ask for on each node. For preprocess: of those parts that use one."""
    cpus_per_node: Count | None = None
    """CPU cores to ask for on each node."""
    memory_gb_per_node: Positive | None = None
    """Memory to ask for on each node, in GiB."""
    time: Time | None = None
    """Walltime, in quotes."""


class Stages(Section):
    """Resources by stage."""

    preprocess: StageResources = StageResources()
    """One process a job. By default 8 cores at most with their share of the memory; parts that a
    network computes also ask for a GPU, where nodes have any."""
    train: StageResources = StageResources()
    """By default all of a node's cores and memory, in proportion to the GPUs that are used."""
    evaluate: StageResources = StageResources()
    """By default what training gets."""


class Cluster(Section):
    """A place to run jobs at: a Slurm partition with its habits, or this machine."""

    name: Name
    """Name of the profile."""
    scheduler: Literal["slurm", "local"] = "slurm"
    """Slurm, or submitit's local executor on this machine."""
    partition: str | None = None
    """Slurm partition. Null: the site's default."""
    account: str | None = None
    """Account that is charged."""
    qos: str | None = None
    """Quality of service."""
    constraint: str | None = None
    """Features that nodes must have."""
    gpus_per_node: NonNegative = 0
    """GPUs of a node. 0: a partition without GPUs; use --ranks instead of --gpus."""
    gpu_request: Literal["gpus-per-node", "gres"] = "gpus-per-node"
    """How GPUs are asked for: `--gpus-per-node=N` or `--gres=gpu:N`."""
    gpu_type: str | None = None
    """Type of GPU to ask for, such as `a100`."""
    gpu_memory_gb: Positive | None = None
    """Memory of a GPU in GiB, for plans. Null: as `gpu_type` says."""
    gpu_link: Literal["nvlink", "pcie", "shm"] = "pcie"
    """What connects the GPUs of a node, for plans."""
    node_link: Literal["infiniband", "ethernet"] = "infiniband"
    """What connects nodes, for plans."""
    cpus_per_node: Count = 8
    """CPU cores to ask for on each node when all its GPUs are used; in proportion when fewer."""
    memory_gb_per_node: Positive | None = None
    """Memory to ask for on each node, in GiB, likewise. Null: the site's default."""
    time: Time = "4:00:00"
    """Walltime of a job, in quotes: "90" (minutes), "8:00:00" or "2-12:00". A run outlives it: it
    is queued again."""
    setup: tuple[str, ...] = ()
    """Shell lines that each job's script runs first, such as `module load cuda`."""
    environment: Mapping[str, str] = Field(default_factory=dict)
    """Variables for all jobs. A variable that is set already keeps its value."""
    options: Mapping[OptionName, OptionValue] = Field(default_factory=dict)
    """Further options of the scheduler, such as `reservation: movie`; one without a value is a
    flag (`exclusive:`)."""
    stages: Stages = Stages()
    """What a stage asks for instead, such as `preprocess: {memory_gb_per_node: 32}`."""
    requeue: Literal["same-job", "successor", "none"] = "same-job"
    """How an interrupted run gets back into the queue: its job is queued again by the job's own
    script (Slurm: `scontrol requeue`); a chain of jobs queued beforehand, where compute nodes
    cannot do that; or by hand."""
    successors: Count = 5
    """Length of that chain."""
    lead_seconds: Count = 180
    """How long before the walltime a run is asked to stop."""
    hang_factor: Annotated[float, Field(ge=2.0)] = 20.0
    """A run that makes no step for this many times its median step is taken for hung."""
    hang_seconds: Positive = 900.0
    """But not before this many seconds."""
    start_seconds: Positive = 3600.0
    """How long loading may take before the first step."""
    suspect_hours: Positive = 24.0
    """How long a node that lost a job is left out."""
    array_tasks: Count = 64
    """Tasks of a job array that may run at the same time."""
    group: str | None = None
    """Unix group that shares stores and may read run folders. Null: no group."""
    image: str | None = None
    """Container image that jobs run in: a SIF file (relative to the profile), or the name of an
    image of docker or podman. Null: the Python that submitted."""
    image_sha256: str | None = None
    """Digest that the image must have; jobs of another one stop. `giblet-hpc image check` prints
    it."""
    image_key: str | None = None
    """Public key (a PEM file, relative to the profile) that must have signed the SIF file; jobs of
    an image without its signature stop."""
    runtime: Literal["apptainer", "docker", "podman"] = "apptainer"
    """What runs the image."""
    binds: tuple[str, ...] = ()
    """Folders that jobs see in the image besides the run, the study and the store: `SOURCE` or
    `SOURCE:TARGET[:ro]`."""
    fabric: Literal["auto", "none"] = "auto"
    """`auto`: look at each node's network and set what NCCL needs to use it. A variable that is
    set already keeps its value. `none`: set nothing."""


def minutes_of(text: str) -> int:
    """Return a Slurm time in minutes, rounded up.

    Examples
    --------
    >>> minutes_of("90"), minutes_of("1:30:00"), minutes_of("2-00"), minutes_of("1:30")
    (90, 90, 2880, 2)
    """
    days, dash, rest = text.partition("-")
    if not dash:
        days, rest = "0", text
    parts = [int(part) for part in rest.split(":")]
    if dash:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    elif len(parts) == 1:
        hours, minutes, seconds = 0, parts[0], 0
    else:
        hours, minutes, seconds = ((0, *parts) if len(parts) == 2 else (*parts,))[:3]
    return math.ceil(int(days) * 1440 + hours * 60 + minutes + seconds / 60)
