"""The container image that a run's jobs work in: the command that enters it, its digest, its check.

The supervisor stays on the host, where Slurm's commands are; only a stage's processes are inside.
"""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
             "GIBLET_", "MPICH_", "CXI_", "SLINGSHOT_")  # fmt: skip
INFINIBAND = Path("/dev/infiniband")
NCCL_CONF = Path("/etc/nccl.conf")
ASK_SECONDS = 30.0
VERIFY_SECONDS = 1800.0
"""A signature covers all of the image, which is read for it."""


@dataclass(frozen=True)
class Folders:
    """Folders of the host that are needed inside an image.

    Parameters
    ----------
    written, read : sequence of Path
        Those that are written to, and those that are only read.
    """

    written: Sequence[Path] = ()
    read: Sequence[Path] = ()


def command(
    profile: Cluster,
    inner: Sequence[str],
    *,
    folders: Folders,
    local: Path,
    workdir: Path,
    settings: Mapping[str, str],
    gpus: int = 0,
) -> tuple[list[str], dict[str, str]]:
    """Return the command that runs another one in a profile's image, and variables it needs.

    Inside are the variables of the list and of the profile, and the folders that are named here:
    nothing else of the user's environment or home, and no token.

    Parameters
    ----------
    profile : Cluster
        With an image.
    inner : sequence of str
        The command inside.
    folders : Folders
        Those of the host that are needed inside under the same names.
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
    written = [local, *folders.written]
    mounts = [*mounts_of(Folders(written, folders.read)), *profile.binds]
    if NCCL_CONF.is_file() and not any(str(NCCL_CONF) in mount for mount in mounts):
        # What the admin wrote for all jobs; a variable still wins over it.
        mounts.append(f"{NCCL_CONF}:{NCCL_CONF}:ro")
    home, temporary = local / "home", local / "tmp"
    for folder in (home, temporary):
        folder.mkdir(exist_ok=True)
    # The user's own values of these travel too: what a site exports about its network has to.
    chosen = {n: v for n, v in os.environ.items() if n.startswith(FORWARDED)}
    chosen |= settings
    seen = bool(gpus or profile.gpus_per_node)
    if profile.runtime == "apptainer":
        flags = ["--nv"] if seen else []
        flags += ["--cleanenv", "--no-mount", "cwd"]
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


def mounts_of(folders: Folders) -> list[str]:
    """Return the binds of folders, outer ones first; what is only read cannot be written inside.

    Raises
    ------
    ConfigError
        When a name holds what separates a bind's sides.
    """
    written = _outermost(folders.written)
    read = [f for f in _outermost(folders.read) if not any(map(f.is_relative_to, written))]
    for folder in (*written, *read):
        if {":", ","} & set(str(folder)):
            raise ConfigError(f"{folder} cannot be bound into an image: it holds a colon or comma")
    binds = {folder: f"{folder}" for folder in written}
    binds |= {folder: f"{folder}:{folder}:ro" for folder in read}
    return [binds[folder] for folder in sorted(binds)]


def _outermost(folders: Iterable[Path]) -> list[Path]:
    """Return the folders without those inside others."""
    every = sorted({folder.resolve() for folder in folders})
    return [f for f in every if not any(f != other and f.is_relative_to(other) for other in every)]


def folders_of(paths: RunPaths, config: RunConfig) -> Folders:
    """Return the folders of the host that a run's stages write and read."""
    study = config.study
    assert study.store is not None
    # A store that is not there yet is made inside.
    store = study.store if study.store.exists() else study.store.parent
    weights = [Path(section.weights) for section in config.features.sections.values()]
    read = [study.root, *(folder for folder in weights if folder.is_absolute())]
    if config.train.start_from is not None:
        read.append(config.train.start_from.parent)
    return Folders(
        [folder for folder in (paths.root, store) if folder.exists()],
        [folder for folder in read if folder.exists()],
    )


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
        File in which the sha256 is kept, with the SIF file's size and time, as it takes a while;
        where the profile names an `image_sha256`, the file is read anew all the same.

    Raises
    ------
    JobError
        When the engine does not know the image.
    ConfigError
        When it is not the one that the profile's `image_sha256` names, or is not signed by its
        `image_key`.
    """
    if not profile.image:
        return ""
    check(profile)
    _require_signature(profile)
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
        return _require(profile, done.stdout.strip())
    image = Path(profile.image).resolve()
    if image.is_dir():
        return "unpacked"
    status = image.stat()
    key = {"path": str(image), "size": status.st_size, "time": status.st_mtime_ns}
    if remembered.is_file() and not profile.image_sha256:
        known = read_json(remembered)
        if {name: known.get(name) for name in key} == key:
            return str(known["digest"])
    value = f"sha256:{sha256_file(image)}"
    write_json(remembered, {**key, "digest": value})
    return _require(profile, value)


def _require(profile: Cluster, digest: str) -> str:
    """Return a digest when it is the one that the profile names, or the profile names none."""
    expected = profile.image_sha256
    if expected and digest.removeprefix("sha256:") != expected.removeprefix("sha256:"):
        raise ConfigError(
            f"the image {profile.image} is another one than the profile names: {digest}, "
            f"not {expected}",
            hint="if it was made anew on purpose, put its digest into the profile's image_sha256; "
            "`giblet-hpc image check` prints it",
        )
    return digest


def _require_signature(profile: Cluster) -> None:
    """Check that the profile's `image_key` has signed the image, where one is named."""
    if not profile.image_key:
        return
    if profile.runtime != "apptainer":
        raise ConfigError(
            f"cluster {profile.name}: image_key is for SIF files, and the runtime is "
            f"{profile.runtime}",
            hint="image_sha256 is for every runtime",
        )
    asked = ["apptainer", "verify", "--key", profile.image_key, str(profile.image)]
    try:
        done = subprocess.run(
            asked, capture_output=True, text=True, timeout=VERIFY_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise JobError(f"{shlex.join(asked)}: {error}") from error
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise ConfigError(
            f"the image {profile.image} is not signed by {profile.image_key}: {said[0]}",
            hint="see who made it; its maker signs it by: apptainer sign --key PRIVATE.pem IMAGE",
        )


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
