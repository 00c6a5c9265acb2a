"""What would stop a run, found before it is queued: a sentence and a remedy for each finding.

The checks of one machine: the login node's before a submission, each node's inside a job.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from giblet_hpc.errors import JobError
from giblet_hpc.files import TEMPORARY_MARK
from giblet_hpc.jobs import fabric, image, slurm
from giblet_hpc.jobs.cluster import Cluster

Level = Literal["ok", "warn", "fail", "skipped"]
MINIMUM_DRIVER = "580.65"
"""The oldest driver that the image's CUDA works with."""
SHARED_MEMORY_GIB = 1.0
FREE_GIB = 20.0
SLOW_SECONDS = 5.0
SKEW_SECONDS = 5.0
LOCKED_GIB = 1.0
ASK_SECONDS = 20.0
GIB = 2**30
GPU_FIELDS = (
    "driver_version,name,memory.total,ecc.errors.uncorrected.volatile.total,retired_pages.pending"
)


@dataclass(frozen=True)
class Finding:
    """What a check saw.

    Parameters
    ----------
    check : str
        Its name.
    level : str
        ``ok``, ``warn`` (slow or risky), ``fail`` (will not work) or ``skipped``.
    seen : str
        In a sentence.
    fix : str
        What to do about it.
    """

    check: str
    level: Level
    seen: str
    fix: str = ""


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
        found += [gpu_driver(gpus), shared_memory()]
        if nodes > 1 and gpus:
            found.append(locked_memory(network))
        found += networks(network, nodes=nodes, gpus=gpus)
    every = dict.fromkeys(_existing(folder) for folder in folders)
    found += [file_system(folder) for folder in every]
    if profile.scheduler == "slurm" and not on_node:
        found += list(scheduler(profile))
    found.append(container(profile, on_node=on_node))
    return found


def _existing(folder: Path) -> Path:
    return next(path for path in (folder.resolve(), *folder.resolve().parents) if path.is_dir())


def gpu_driver(gpus: int) -> Finding:
    """Compare the driver with what CUDA needs, and look for faults in the GPUs' memory."""
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={GPU_FIELDS}", "--format=csv,noheader,nounits"],  # noqa: S607 - the driver's, wherever it is
            capture_output=True,
            text=True,
            timeout=ASK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        done = None
    rows = [line.split(", ") for line in done.stdout.splitlines()] if done else []
    if done is None or done.returncode or not rows:
        if gpus:
            return Finding(
                "gpu",
                "fail",
                "nvidia-smi finds no GPU",
                "was the job given one? `giblet-hpc cluster detect` names the request",
            )
        return Finding("gpu", "skipped", "no GPU on this machine")
    return _judge_gpus(rows, gpus)


def _judge_gpus(rows: Sequence[Sequence[str]], gpus: int) -> Finding:
    driver, name, memory = rows[0][0], rows[0][1], rows[0][2]
    size = f", {int(memory) / 1024:.0f} GiB" if memory.isdigit() else ""
    seen = f"{len(rows)} x {name}{size}, driver {driver}"
    if _version(driver) < _version(MINIMUM_DRIVER):
        return Finding(
            "gpu",
            "fail",
            f"{seen}: CUDA 13 needs {MINIMUM_DRIVER} or newer",
            "ask the admin for a newer driver, or build the image on an older CUDA",
        )
    if gpus > len(rows):
        return Finding(
            "gpu",
            "fail",
            f"{seen}: {gpus} are asked for",
            "correct gpus_per_node in the profile, or --gpus",
        )
    bad = [
        number
        for number, row in enumerate(rows)
        if (row[3].isdigit() and int(row[3]) > 0) or row[4].strip().lower() == "yes"
    ]
    if bad:
        numbers = ", ".join(map(str, bad))
        return Finding(
            "gpu",
            "warn",
            f"{seen}: memory faults on GPU {numbers}",
            "tell the admin; sbatch's --exclude leaves the node out",
        )
    return Finding("gpu", "ok", seen)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2])


def shared_memory() -> Finding:
    """NCCL's ranks of one node exchange data through /dev/shm."""
    status = os.statvfs("/dev/shm")  # noqa: S108 - shared memory, not a temporary folder
    size, free = (status.f_blocks * status.f_frsize / GIB, status.f_bavail * status.f_frsize / GIB)
    seen = f"{free:.1f} of {size:.1f} GiB are free"
    if free < SHARED_MEMORY_GIB:
        return Finding(
            "shared memory",
            "fail",
            seen,
            "docker and podman want --ipc=host; on a node, remove what lies there",
        )
    return Finding("shared memory", "ok", seen)


def locked_memory(network: fabric.Fabric) -> Finding:
    """RDMA networks register memory, which has to be locked."""
    if network.network not in ("InfiniBand", "RoCE", "EFA"):
        return Finding("locked memory", "skipped", "no RDMA network on this machine")
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if limit == resource.RLIM_INFINITY or limit > LOCKED_GIB * GIB:
        return Finding("locked memory", "ok", "enough memory may be locked")
    return Finding(
        "locked memory",
        "fail",
        f"only {limit / 2**20:.1f} MiB of memory may be locked",
        "an admin sets `ulimit -l unlimited` for slurmd and PropagateResourceLimitsExcept=MEMLOCK",
    )


def networks(network: fabric.Fabric, *, nodes: int, gpus: int) -> Iterator[Finding]:
    """Say what connects this machine, what is set for it, and what of the user's is odd."""
    links = f", GPUs by {network.gpu_links}" if network.gpu_links else ""
    speed = f" at {network.gigabits:g} Gbit/s" if network.gigabits else ""
    yield Finding("network", "ok", f"{network.network}{speed}{links}")
    if network.odd_numa and gpus:
        yield Finding(
            "numa",
            "warn",
            "; ".join(network.odd_numa),
            "an admin can mend it; until then NCCL_CUMEM_HOST_ENABLE=0 is set for you",
        )
    for line in fabric.told(fabric.choose(network, nodes=nodes, gpus=gpus), os.environ):
        yield Finding("network", "ok", f"set for jobs here: {line}")
    for remark in fabric.remarks(os.environ):
        yield Finding("network", "warn", remark, "unset it, in ~/.bashrc or the profile")


def file_system(folder: Path) -> Finding:
    """Write, sync, rename and lock as runs and stores do; compare the clocks; look for room."""
    name = folder / f"{TEMPORARY_MARK}doctor-{uuid.uuid4().hex[:8]}"
    begin = time.monotonic()
    try:
        with name.open("wb") as handle:
            handle.write(b"giblet-hpc")
            handle.flush()
            os.fsync(handle.fileno())
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        renamed = name.with_suffix(".renamed")
        name.rename(renamed)
        skew = renamed.stat().st_mtime - time.time()
        renamed.unlink()
    except OSError as error:
        return Finding(
            "file system",
            "fail",
            f"{folder}: {error.strerror}",
            "runs and stores need a file system with write access, rename and flock",
        )
    finally:
        with contextlib.suppress(OSError):
            name.unlink(missing_ok=True)
    return _judge_folder(folder, seconds=time.monotonic() - begin, skew=skew)


def _judge_folder(folder: Path, *, seconds: float, skew: float) -> Finding:
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize / GIB
    seen = f"{folder}: {free:.0f} GiB free, a file is safe after {seconds:.2f} s"
    if abs(skew) > SKEW_SECONDS + seconds:
        return Finding(
            "file system",
            "warn",
            f"{seen}; its clock is {skew:+.0f} s off",
            "ask the admin about time synchronisation: heartbeats are judged by it",
        )
    if free < FREE_GIB:
        return Finding("file system", "warn", seen, "make room, or use another file system")
    if seconds > SLOW_SECONDS:
        return Finding("file system", "warn", seen, "runs belong on a faster file system")
    return Finding("file system", "ok", seen)


def scheduler(profile: Cluster) -> Iterator[Finding]:
    """Look whether Slurm takes what the profile asks for."""
    missing = [name for name in ("sbatch", "srun", "squeue", "scontrol") if not shutil.which(name)]
    if missing:
        yield Finding(
            "slurm",
            "fail",
            f"not found: {', '.join(missing)}",
            "submit from a login node, or load the site's Slurm module",
        )
        return
    if slurm.call("scontrol", "ping") is None:
        yield Finding("slurm", "fail", "the controller does not answer", "try again later")
        return
    nodes = slurm.node_count(profile.partition)
    if nodes is None or (nodes == 0 and profile.partition is None):
        yield Finding(
            "slurm",
            "warn",
            "sinfo names no nodes for this profile",
            "set `partition` in the profile where the site has no default one",
        )
        return
    if not nodes:
        yield Finding(
            "slurm",
            "fail",
            f"there is no partition {profile.partition}",
            "`sinfo -s` lists them; `giblet-hpc cluster detect` writes a profile",
        )
        return
    accounting = slurm.call("sacct", "--noheader", "--starttime=now") is not None
    said = "answers" if accounting else "does not answer; the run's own records are used"
    yield Finding("slurm", "ok", f"{nodes} nodes in the partition; accounting {said}")


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
        level: Level = "fail" if on_node or profile.scheduler == "local" else "skipped"
        return Finding(
            "image",
            level,
            f"{profile.runtime} is not on the path here",
            "on nodes, a `module load` line under `setup:` may bring it",
        )
    return Finding("image", "ok", f"{profile.image}, by {image.runtime_version(profile)}")


def worst(findings: Sequence[Finding]) -> Level:
    """Return the gravest level."""
    levels: tuple[Level, ...] = ("fail", "warn", "ok")
    return next((lev for lev in levels if any(f.level == lev for f in findings)), "skipped")


def as_text(findings: Sequence[Finding]) -> str:
    """Return the findings as lines, a remedy below what needs one."""
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:<8}{finding.check}: {finding.seen}")
        if finding.fix and finding.level in ("warn", "fail"):
            lines.append(f"{'':8}fix: {finding.fix}")
    return "\n".join(lines)


def require_good(findings: Sequence[Finding]) -> None:
    """Check that nothing was found that will not work.

    Raises
    ------
    JobError
        Listing what was found, with the remedies.
    """
    if worst(findings) == "fail":
        bad = [finding for finding in findings if finding.level == "fail"]
        raise JobError(
            f"this cannot work here:\n{as_text(bad)}",
            hint="`giblet-hpc doctor` shows all; --no-checks submits all the same",
        )
