"""The container image that a run's jobs work in: the command that enters it, its digest, its check.

The supervisor stays on the host, where Slurm's commands are; only a stage's processes are inside.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from giblet_hpc.config.cluster import Cluster
from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import ConfigError, JobError
from giblet_hpc.files import read_json, sha256_file, write_json
from giblet_hpc.runs.paths import RunPaths

PYTHON = "/opt/giblet/bin/python"
HOST_PYTHON = sys.executable
HOME = "/opt/giblet-home"
"""Where HOME is inside: not under /tmp, over which the host's is mounted."""
FORWARDED = ("NCCL_", "TORCH_", "GLOO_", "FI_", "UCX_", "CUDA_", "NVIDIA_", "OMP_",
             "GIBLET_", "MPICH_", "CXI_")  # fmt: skip
INFINIBAND = Path("/dev/infiniband")
NCCL_CONF = Path("/etc/nccl.conf")
ASK_SECONDS = 30.0


def command(
    profile: Cluster,
    inner: Sequence[str],
    *,
    binds: Iterable[Path],
    local: Path,
    workdir: Path,
    settings: Mapping[str, str],
    gpus: int = 0,
) -> tuple[list[str], dict[str, str]]:
    """Return the command that runs another one in a profile's image, and variables it needs.

    Parameters
    ----------
    profile : Cluster
        With an image.
    inner : sequence of str
        The command inside.
    binds : iterable of Path
        Folders of the host that are needed inside under the same names.
    local : Path
        Folder on this node's disk; the image's HOME and TMPDIR are made in it, so that nothing of
        the user's own leaks in and nothing is written there.
    workdir : Path
        Working folder inside.
    settings : mapping
        Variables that count inside, whatever the image itself sets.
    gpus : int
        GPUs that the command is to see; also those of the profile's nodes, without a number.

    Raises
    ------
    JobError
        When the runtime is not installed on this machine.
    """
    assert profile.image is not None
    program = shutil.which(profile.runtime)
    if program is None:
        raise JobError(
            f"{profile.runtime} is not installed on {os.uname().nodename}",
            hint="a `module load` line in the profile's setup may be missing",
        )
    mounts = [*mounts_of([local, *binds]), *profile.binds]
    if NCCL_CONF.is_file() and not any(str(NCCL_CONF) in mount for mount in mounts):
        # What the admin wrote for all jobs; a variable still wins over it.
        mounts.append(f"{NCCL_CONF}:{NCCL_CONF}:ro")
    home, temporary = local / "home", local / "tmp"
    for folder in (home, temporary):
        folder.mkdir(exist_ok=True)
    # The user's own values travel too: what a site exports about its network has to get in.
    chosen = {n: v for n, v in os.environ.items() if n.startswith(FORWARDED)}
    chosen |= settings
    seen = bool(gpus or profile.gpus_per_node)
    if profile.runtime == "apptainer":
        flags = ["--nv"] if seen else []
        flags += ["--home", f"{home}:{HOME}", "--pwd", str(workdir)]
        flags += [part for mount in mounts for part in ("--bind", mount)]
        entered = [program, "--silent", "exec", *flags, profile.image, *inner]
        chosen["TMPDIR"] = str(temporary)
        return entered, {f"APPTAINERENV_{name}": value for name, value in chosen.items()}
    flags = [*_engine_flags(profile.runtime, gpus=seen), f"--workdir={workdir}"]
    flags += [f"--volume={m if ':' in m else f'{m}:{m}'}" for m in (*mounts, f"{home}:{HOME}")]
    # By name alone: values stay out of the process list. But for those that the engine's own
    # command needs as they are, to find its settings.
    flags += [f"--env={name}" for name in sorted(chosen)]
    flags += [f"--env=HOME={HOME}", f"--env=TMPDIR={temporary}"]
    entered = [program, "run", *flags, f"--entrypoint={inner[0]}", profile.image, *inner[1:]]
    return entered, chosen


def _engine_flags(runtime: str, *, gpus: bool) -> list[str]:
    """Return what makes docker or podman as open to the host as Apptainer is."""
    flags = ["--rm", "--network=host", "--ipc=host", "--pid=host"]
    # Folders of the user's must not get labels that only this container may read.
    flags += ["--security-opt=label=disable", f"--user={os.getuid()}:{os.getgid()}"]
    if runtime == "docker":
        flags += [f"--group-add={group}" for group in sorted(set(os.getgroups()) - {os.getgid()})]
    elif os.getuid():
        flags += ["--userns=keep-id", "--group-add=keep-groups"]
    if gpus:
        flags.append("--gpus=all" if runtime == "docker" else "--device=nvidia.com/gpu=all")
    if INFINIBAND.exists():
        flags.append(f"--device={INFINIBAND}")
        unlimited = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1] == resource.RLIM_INFINITY
        if runtime == "docker" or not os.getuid() or unlimited:
            # RDMA registers memory, for which it has to be locked; who may not, cannot ask for it.
            flags.append("--ulimit=memlock=-1")
    return flags


def mounts_of(folders: Iterable[Path]) -> list[str]:
    """Return the folders without those inside others, sorted.

    Raises
    ------
    ConfigError
        When a name holds what separates a bind's two sides.
    """
    every = sorted({folder.resolve() for folder in folders})
    kept = [f for f in every if not any(f != other and f.is_relative_to(other) for other in every)]
    for folder in kept:
        if {":", ","} & set(str(folder)):
            raise ConfigError(f"{folder} cannot be bound into an image: it holds a colon or comma")
    return [str(folder) for folder in kept]


def folders_of(paths: RunPaths, config: RunConfig) -> list[Path]:
    """Return the folders of the host that a run's stages read and write."""
    study = config.study
    assert study.store is not None
    found = [paths.root, study.root, study.store.parent]
    for section in config.features.sections.values():
        if Path(section.weights).is_absolute():
            found.append(Path(section.weights))
    return [folder for folder in found if folder.exists()]


def check(profile: Cluster) -> None:
    """Check that a profile's image is there.

    Raises
    ------
    ConfigError
        When its file does not exist.
    """
    if profile.image and profile.runtime == "apptainer" and not Path(profile.image).exists():
        raise ConfigError(
            f"cluster {profile.name}: no image {profile.image}",
            hint="container/build.sh makes one; `image:` in the profile names it",
        )


def digest(profile: Cluster, remembered: Path) -> str:
    """Return what identifies an image: a SIF file's sha256, or the engine's id; empty without one.

    Parameters
    ----------
    profile : Cluster
    remembered : Path
        File in which the sha256 is kept, with the SIF file's size and time, as it takes a while.

    Raises
    ------
    JobError
        When the engine does not know the image.
    """
    if not profile.image:
        return ""
    if profile.runtime != "apptainer":
        asked = [profile.runtime, "image", "inspect", "--format", "{{.Id}}", profile.image]
        try:
            done = subprocess.run(
                asked, capture_output=True, text=True, timeout=ASK_SECONDS, check=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise JobError(
                f"{profile.runtime} does not know image {profile.image}",
                hint="container/build.sh makes it",
            ) from error
        return done.stdout.strip()
    check(profile)
    image = Path(profile.image).resolve()
    if image.is_dir():
        return "unpacked"
    status = image.stat()
    key = {"path": str(image), "size": status.st_size, "time": status.st_mtime_ns}
    if remembered.is_file():
        known = read_json(remembered)
        if {name: known.get(name) for name in key} == key:
            return str(known["digest"])
    value = f"sha256:{sha256_file(image)}"
    write_json(remembered, {**key, "digest": value})
    return value


def runtime_version(profile: Cluster) -> str:
    """Return what runs the image, with its version."""
    try:
        done = subprocess.run(
            [profile.runtime, "--version"], capture_output=True, text=True, timeout=ASK_SECONDS,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return profile.runtime
    return done.stdout.strip() or profile.runtime
