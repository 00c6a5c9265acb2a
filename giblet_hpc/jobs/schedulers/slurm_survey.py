"""Finding out what a Slurm cluster is like, and writing it down as a commented profile."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field

from giblet_hpc.errors import JobError
from giblet_hpc.jobs.schedulers.base import NoAnswer, Scheduler
from giblet_hpc.jobs.schedulers.slurm_commands import ask


@dataclass(frozen=True)
class Partition:
    """What sinfo says of a partition, over all its nodes."""

    name: str
    is_default: bool
    time_limit: str
    nodes: int
    cpus: int
    memory_mb: int
    gpu_type: str
    gpus: int


@dataclass(frozen=True)
class Survey:
    """What a cluster is like."""

    partition: Partition
    others: tuple[Partition, ...]
    settings: dict[str, str]
    """Of slurm.conf, as `scontrol show config` prints it."""
    grace_seconds: int
    """GraceTime of the partition."""
    accounting: bool
    """Whether sacct answers."""
    probe: dict[str, str] = field(default_factory=dict)
    """What a compute node said."""


PROBE = (
    "command -v scontrol >/dev/null && scontrol ping >/dev/null 2>&1 && echo scontrol=yes"
    " || echo scontrol=no; echo shm=$(df -BM --output=size /dev/shm | tail -1)"
)


def survey(partition: str | None, *, probe: bool) -> Survey:
    """Ask Slurm.

    Parameters
    ----------
    partition : str, optional
        By default the site's default.
    probe : bool
        Also ask a compute node, by a short job.

    Raises
    ------
    JobError
        When Slurm does not answer, or has no such partition.
    """
    found = partitions()
    chosen = [p for p in found if (p.name == partition if partition else p.is_default)]
    if not chosen:
        names = ", ".join(p.name for p in found)
        raise JobError(
            f"no partition {partition}" if partition else "the site has no default partition",
            hint=f"name one with --partition: {names}",
        )
    text = ask("scontrol", "show", "config") or ""
    settings = dict(re.findall(r"^(\w+)\s*= (.*?)\s*$", text, re.MULTILINE))
    shown = ask("scontrol", "show", "partition", "--oneliner", chosen[0].name) or ""
    grace = re.search(r"GraceTime=(\d+)", shown)
    answers = {}
    if probe:
        said = ask("srun", f"--partition={chosen[0].name}", "-n1", "-t1", "sh", "-c", PROBE)
        answers = dict(line.split("=", 1) for line in (said or "").splitlines() if "=" in line)
    return Survey(
        chosen[0],
        tuple(p for p in found if p is not chosen[0]),
        settings,
        int(grace[1]) if grace else 0,
        ask("sacct", "--noheader", "--starttime=now") is not None,
        answers,
    )


def partitions() -> list[Partition]:
    """Return all partitions.

    Raises
    ------
    JobError
        When sinfo does not answer.
    """
    text = ask("sinfo", "--noheader", "--format=%P|%l|%D|%c|%m|%G")
    if text is None:
        raise JobError(
            "Slurm does not answer (sinfo)", hint="is this a login node of a cluster with Slurm?"
        )
    merged: dict[str, Partition] = {}
    for line in text.splitlines():
        name, limit, nodes, cpus, memory, gres = line.strip().split("|")
        kind, gpus = _gpus(gres)
        one = Partition(
            name.rstrip("*"),
            name.endswith("*"),
            limit,
            int(nodes),
            int(cpus.rstrip("+")),
            int(memory.rstrip("+")),
            kind,
            gpus,
        )
        known = merged.get(one.name)
        if known is None or one.gpus > known.gpus:
            merged[one.name] = one
    return list(merged.values())


def _gpus(gres: str) -> tuple[str, int]:
    """Return type and count of the GPUs in text such as `gpu:a100:4(S:0-1),nvme:1`."""
    for item in re.sub(r"\([^)]*\)", "", gres).split(","):
        parts = item.split(":")
        if parts[0] == "gpu":
            count = parts[-1] if parts[-1].isdigit() else "1"
            kind = parts[1] if len(parts) == 3 else ""
            return kind, int(count)
    return "", 0


def profile_text(name: str, found: Survey) -> str:
    """Return a profile as YAML, with a comment on each finding."""
    chosen, settings = found.partition, found.settings
    kill_wait = _seconds(settings.get("KillWait", "30"))
    has_scontrol = found.probe.get("scontrol", "yes") == "yes"
    mode = settings.get("PreemptMode", "OFF")
    limit = "4:00:00" if chosen.time_limit in ("infinite", "UNLIMITED") else chosen.time_limit
    others = ", ".join(
        f"{p.name} ({p.nodes} nodes, {p.gpus} GPUs each, {p.time_limit})" for p in found.others
    )
    probed = "" if found.probe else " (not probed: --probe asks a compute node)"
    lines = [
        f"# Cluster profile of {settings.get('ClusterName', name)}, "
        f"Slurm {settings.get('SLURM_VERSION', 'of unknown version')}.",
        f"# Other partitions: {others or 'none'}.",
        f"name: {name}",
        "scheduler: slurm",
        f"partition: {chosen.name}  # {chosen.nodes} nodes",
        "account: null  # fill in where the site charges accounts",
        f"gpus_per_node: {chosen.gpus}",
        "gpu_request: gpus-per-node",
        f"gpu_type: {chosen.gpu_type or 'null'}",
        f"cpus_per_node: {chosen.cpus}",
        f"memory_gb_per_node: {max(1, int(chosen.memory_mb / 1024 * 0.95))}  "
        "# of a node; a little is left for the system",
        f"time: '{limit}'  # the partition's limit; shorter jobs start sooner",
        f"requeue: {'same-job' if has_scontrol else 'successor'}  "
        f"# scontrol on compute nodes: {'yes' if has_scontrol else 'no'}{probed}",
        f"lead_seconds: 180  # KillWait is {kill_wait} s",
        f"# Preemption: {mode}; GraceTime of the partition: {found.grace_seconds} s."
        + _grace_note(mode, found.grace_seconds),
        f"# Accounting (sacct): {'yes' if found.accounting else 'no; status uses squeue instead'}.",
    ]
    if settings.get("JobRequeue") == "0":
        lines.append("# JobRequeue is 0: jobs ask for --requeue themselves.")
    return "\n".join(lines) + "\n"


def _grace_note(mode: str, seconds: int) -> str:
    if mode == "OFF" or seconds >= 60:
        return ""
    return (
        "\n# With so little grace a preempted run may lose the steps since its last checkpoint:"
        "\n# choose train.checkpoint_every accordingly."
    )


def _seconds(text: str) -> int:
    found = re.match(r"\d+", text)
    return int(found.group()) if found else 0


def problems(scheduler: Scheduler, partition: str | None) -> list[tuple[str, str, str]]:
    """Look whether Slurm takes jobs for a partition: level, what was seen, what to do."""
    missing = [name for name in ("sbatch", "srun", "squeue", "scontrol") if not shutil.which(name)]
    if missing:
        remedy = "submit from a login node, or load the site's Slurm module"
        return [("fail", f"not found: {', '.join(missing)}", remedy)]
    if ask("scontrol", "ping") is None:
        return [("fail", "the controller does not answer", "try again later")]
    nodes = scheduler.usable_nodes(partition)
    if isinstance(nodes, NoAnswer) or (nodes == 0 and partition is None):
        remedy = "set `partition` in the profile where the site has no default one"
        return [("warn", "sinfo names no usable nodes for this profile", remedy)]
    if not nodes:
        remedy = "`sinfo -s` lists them; `giblet-hpc cluster detect` writes a profile"
        return [
            ("fail", f"partition {partition} does not exist, or all its nodes are down", remedy)
        ]
    accounting = ask("sacct", "--noheader", "--starttime=now") is not None
    said = "answers" if accounting else "does not answer; the run's own records are used"
    return [("ok", f"{nodes} usable nodes in the partition; accounting {said}", "")]
