"""Cluster profiles: where jobs run, and what the place needs to know."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BeforeValidator, Field

from giblet_hpc import config_io
from giblet_hpc.config_study import Count, Name, NonNegative, Positive, Section
from giblet_hpc.errors import ConfigError
from giblet_hpc.files import write_text
from giblet_hpc.runs import RunPaths

WALLTIME = r"^(\d+-)?\d{1,3}(:\d{2}){1,2}$|^\d+$"
SLURM_OPTION = r"^[a-z][a-z0-9-]*$"
LOCAL = "local"


def _in_quotes(time: object) -> object:
    """Refuse a number: YAML reads 8:00:00 without quotes as one, in seconds."""
    if isinstance(time, int):
        raise ValueError('put the time in quotes, such as "8:00:00", or "90" for minutes')
    return time


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
    cpus_per_node: Count = 8
    """CPU cores to ask for on each node when all its GPUs are used; in proportion when fewer."""
    memory_gb_per_node: Positive | None = None
    """Memory to ask for on each node, in GiB, likewise. Null: the site's default."""
    time: Annotated[str, BeforeValidator(_in_quotes), Field(pattern=WALLTIME)] = "4:00:00"
    """Walltime of a job, in quotes: "90" (minutes), "8:00:00" or "2-12:00". A run outlives it: it
    is queued again."""
    setup: tuple[str, ...] = ()
    """Shell lines that each job's script runs first, such as `module load cuda`."""
    environment: Mapping[str, str] = Field(default_factory=dict)
    """Variables for all jobs. A variable that is set already keeps its value."""
    options: Mapping[Annotated[str, Field(pattern=SLURM_OPTION)], str] = Field(default_factory=dict)
    """Further sbatch options, such as `reservation: movie`."""
    requeue: Literal["scontrol", "successor", "none"] = "scontrol"
    """How an interrupted run gets back into the queue: `scontrol requeue` in the job's script; a
    chain of jobs queued beforehand, where compute nodes have no scontrol; or by hand."""
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
    runtime: Literal["apptainer", "docker", "podman"] = "apptainer"
    """What runs the image."""
    binds: tuple[str, ...] = ()
    """Folders that jobs see in the image besides the run, the study and the store: `SOURCE` or
    `SOURCE:TARGET[:ro]`."""
    fabric: Literal["auto", "none"] = "auto"
    """`auto`: look at each node's network and set what NCCL needs to use it. A variable that is
    set already keeps its value. `none`: set nothing."""

    @property
    def minutes(self) -> int:
        """Walltime in minutes, rounded up."""
        return minutes_of(self.time)


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


def local_cluster() -> Cluster:
    """Return the profile of this machine."""
    return Cluster(name=LOCAL, scheduler="local", requeue="none", cpus_per_node=os.cpu_count() or 1)


def profile_folders() -> list[Path]:
    """Return the folders that profiles are looked for in, the user's first."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return [home / "giblet-hpc" / "clusters", Path("slurm") / "clusters"]


def known_profiles() -> dict[str, Path]:
    """Return the profiles that can be chosen by name."""
    found: dict[str, Path] = {}
    for folder in profile_folders():
        for file in sorted(folder.glob("*.yaml")):
            found.setdefault(file.stem, file)
    return found


def load(file: Path) -> Cluster:
    """Read a profile.

    Raises
    ------
    ConfigError
        When it cannot be read, or a field is wrong.
    """
    if not file.is_file():
        raise ConfigError(
            f"no cluster profile {file}",
            hint="`giblet-hpc cluster detect` writes one; slurm/clusters/ has examples",
        )
    tree = config_io.read_tree(file)
    image = tree.get("image")
    if isinstance(image, str) and tree.get("runtime", "apptainer") == "apptainer":
        tree["image"] = str(file.resolve().parent / Path(image).expanduser())
    return config_io.validate_section(
        {"name": file.stem, **tree},
        Cluster,
        source=str(file),
        hint="`giblet-hpc cluster schema` lists all fields",
    )


def save(cluster: Cluster, file: Path) -> None:
    """Write a profile, atomically."""
    write_text(file, yaml.safe_dump(config_io.plain(cluster), sort_keys=False, width=96))


def of_run(paths: RunPaths) -> Cluster:
    """Return the profile that a run was submitted with; this machine's before that."""
    return load(paths.cluster) if paths.cluster.is_file() else local_cluster()


def choose(name: str | None = None) -> Cluster:
    """Return the profile to use.

    Parameters
    ----------
    name : str, optional
        A profile's name, or a file. By default $GIBLET_CLUSTER; else the user's only profile;
        else this machine, where it has no Slurm.

    Raises
    ------
    ConfigError
        When there is no such profile, or none can be chosen.
    """
    name = name or os.environ.get("GIBLET_CLUSTER")
    profiles = known_profiles()
    if name == LOCAL:
        return local_cluster()
    if name and re.search(r"[/.]", name):
        return load(Path(name))
    if name:
        if name not in profiles:
            raise ConfigError(
                f"no cluster profile {name}; there are: {', '.join([LOCAL, *profiles])}",
                hint=f"giblet-hpc cluster detect --name {name}",
            )
        return load(profiles[name])
    if not shutil.which("sbatch"):
        return local_cluster()
    own = {n: file for n, file in profiles.items() if file.parent == profile_folders()[0]}
    if len(own) == 1:
        return load(next(iter(own.values())))
    if not own:
        raise ConfigError(
            "this machine has Slurm, and there is no profile of the cluster yet",
            hint="`giblet-hpc cluster detect` writes one; `--cluster local` runs on this machine",
        )
    raise ConfigError(
        f"which cluster? there are: {', '.join([LOCAL, *own])}",
        hint="name one with --cluster, or in $GIBLET_CLUSTER",
    )
