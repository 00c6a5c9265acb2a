"""What this package asks of Slurm: a few commands, with and without accounting."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

SECONDS = 20.0
WAITING = {
    "Priority": "other jobs come first",
    "Resources": "waiting for free nodes",
    "BeginTime": "just requeued; Slurm waits a little before it starts a job again",
    "Dependency": "waiting for an earlier stage",
    "DependencyNeverSatisfied": "an earlier stage failed",
    "JobHeldUser": "held; `scontrol release` lets it go",
    "JobHeldAdmin": "held by the administrator",
    "QOSMaxJobsPerUserLimit": "your limit of running jobs is reached",
    "AssocGrpCPUMinutesLimit": "the account has used up its hours",
    "PartitionTimeLimit": "the walltime is longer than the partition allows",
    "PartitionNodeLimit": "more nodes than the partition allows",
    "ReqNodeNotAvail": "the nodes are down or reserved",
}


@dataclass(frozen=True)
class JobInfo:
    """What Slurm says of a job."""

    state: str
    """Such as PENDING, RUNNING, COMPLETING, COMPLETED, FAILED, TIMEOUT."""
    reason: str = ""
    """Why it is pending."""
    nodes: str = ""
    """The node list."""
    start: str = ""
    """When it started or is expected to."""
    restarts: int = 0
    """How often it was queued again."""

    @property
    def waiting_for(self) -> str:
        """The reason in words."""
        word = self.reason.strip("()").split(",")[0]
        return f"{WAITING[word]} ({word})" if word in WAITING else word


def call(*command: str) -> str | None:
    """Run a Slurm command; None when it is missing, fails or does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (FileNotFoundError, PermissionError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def queued(jobs: Sequence[str]) -> Mapping[str, JobInfo] | None:
    """Return those of the jobs that wait or run; None when Slurm does not answer.

    Parameters
    ----------
    jobs : sequence of str
        Ids; a task of an array is `ARRAY_TASK`.
    """
    text = call("squeue", "--noheader", "--array", "--all", "--format=%i|%T|%r|%N|%S")
    if text is None:
        return None
    wanted = set(jobs)
    found = {}
    for line in text.splitlines():
        job, state, reason, nodes, start = (part.strip() for part in line.split("|"))
        if job in wanted or job.split("_")[0] in wanted:
            found[job] = JobInfo(state, reason, nodes, start)
    return found


def ended(job: str) -> JobInfo | None:
    """Return how a job ended, from accounting or what the controller remembers; None: unknown."""
    text = call("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job}",
                "--format=State,NodeList")  # fmt: skip
    if text and text.strip():
        state, nodes = text.splitlines()[-1].split("|")[:2]
        return JobInfo(state.split()[0], nodes=nodes)
    return shown(job)


def shown(job: str) -> JobInfo | None:
    """Return what the controller says of a job; None when it says nothing."""
    text = call("scontrol", "show", "job", "--oneliner", job)
    if not text:
        return None
    fields = dict(re.findall(r"(\w+)=(\S*)", text.splitlines()[0]))
    return JobInfo(
        fields["JobState"],
        fields.get("Reason", ""),
        fields.get("NodeList", ""),
        restarts=int(fields.get("Restarts", "0")),
    )


def fate(job: str, restart: int) -> Literal["runs", "requeued", "cancelled", "unknown"]:
    """Return what Slurm is doing with a job whose processes are being ended.

    A job that scancel ends and one that Slurm queues again after a node's failure are both
    COMPLETING for a while; the latter's count of restarts is ahead already.

    Parameters
    ----------
    job : str
    restart : int
        How often this execution had been queued again when it began.
    """
    info = shown(job)
    if info is None:
        return "unknown"
    if info.restarts > restart:
        return "requeued"
    return "runs" if info.state == "RUNNING" else "cancelled"


def requeue(job: str) -> bool:
    """Put a running job back into the queue; return whether Slurm took it."""
    return call("scontrol", "requeue", job) is not None


def exclude(job: str, nodes: Sequence[str]) -> bool:
    """Keep a queued job off some nodes; return whether Slurm took it."""
    return call("scontrol", "update", f"JobId={job}", f"ExcNodeList={','.join(nodes)}") is not None


def cancel(jobs: Sequence[str]) -> bool:
    """Cancel jobs; return whether Slurm took it."""
    return call("scancel", *jobs) is not None


def node_count(partition: str | None) -> int | None:
    """Return how many nodes a partition has (None: the default); None when Slurm is silent."""
    chosen = [f"--partition={partition}"] if partition else []
    text = call("sinfo", "--noheader", "--format=%P|%D", *chosen)
    if text is None:
        return None
    rows = [line.split("|") for line in text.splitlines()]
    return sum(int(count) for name, count in rows if partition or name.endswith("*"))


def own_job_id(environment: Mapping[str, str] = os.environ) -> str:
    """Return this job's id; empty outside of one."""
    array = environment.get("SLURM_ARRAY_JOB_ID")
    if array:
        return f"{array}_{environment['SLURM_ARRAY_TASK_ID']}"
    return environment.get("SLURM_JOB_ID", "")


def first_host(nodes: str) -> str:
    """Return the first name of a Slurm node list.

    Examples
    --------
    >>> first_host("gpu[007-012,020]"), first_host("a,b"), first_host("rack[1-2]-n[03,05]")
    ('gpu007', 'a', 'rack1-n03')
    """
    first = re.match(r"(?:\[[^\]]*\]|[^,\[])+", nodes)
    assert first is not None, nodes
    return re.sub(r"\[([^\],-]+)[^\]]*\]", r"\1", first.group())
