"""What would stop a run, found before it is queued: a sentence and a remedy for each finding.

The checks of one machine: the login node's before a submission, each node's inside a job.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from giblet_hpc.jobs import fabric, hardware, image, slurm, storage
from giblet_hpc.jobs.cluster import Cluster
from giblet_hpc.jobs.findings import Finding, Level


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
        found += [storage.file_system(folder), storage.quota(folder)]
    if profile.scheduler == "slurm" and not on_node:
        found += list(scheduler(profile))
    found.append(container(profile, on_node=on_node))
    return found


def _existing(folder: Path) -> Path:
    return next(path for path in (folder.resolve(), *folder.resolve().parents) if path.is_dir())


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
