"""Slurm: through submitit for what is queued, by its own commands for the rest."""

from __future__ import annotations

import getpass
import os
import re
import shlex
import shutil
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from giblet_hpc.config.cluster import minutes_of
from giblet_hpc.errors import JobError
from giblet_hpc.jobs.schedulers import slurm_submit, slurm_survey
from giblet_hpc.jobs.schedulers.base import (
    NO_ANSWER,
    Disposition,
    Fault,
    JobInfo,
    NoAnswer,
    Order,
    Place,
)
from giblet_hpc.jobs.schedulers.slurm_commands import ask, own_job_id

if TYPE_CHECKING:
    from giblet_hpc.config.cluster import Cluster

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
    "BadConstraints": "no nodes fit what is asked for",
}
UNSATISFIABLE = ("BadConstraints", "DependencyNeverSatisfied", "PartitionNodeLimit",
                 "PartitionTimeLimit")  # fmt: skip
SCRIPT_KILLED = ("JobLaunchFailure", "NonZeroExitCode", "RaisedSignal")
"""How the reasons begin of a job that ends because its script was killed."""
OUT_OF_SERVICE = ("down", "drain", "drng", "fail", "maint", "inval", "unk", "boot", "power")
"""How the states of nodes begin that run no jobs now."""
RECORDED = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT",
            "SLURM_JOB_NODELIST", "SLURM_JOB_PARTITION", "SLURM_CLUSTER_NAME")  # fmt: skip


class Slurm:
    """A cluster's Slurm, with and without accounting."""

    name: ClassVar[str] = "slurm"
    title: ClassVar[str] = "Slurm"
    queues: ClassVar[bool] = True

    def installed(self) -> bool:
        """Whether there is sbatch."""
        return shutil.which("sbatch") is not None

    def submit(self, profile: Cluster, order: Order) -> list[str]:
        """Queue an order; raise JobError with what sbatch says when it refuses."""
        return slurm_submit.submit(profile, order)

    def script(self, profile: Cluster, order: Order) -> str:
        """Return the sbatch script of an order, as `submit` sends it."""
        return slurm_submit.script(profile, order)

    def group(self, job: str) -> str:
        """Return the id of a job, or of the whole array of a task."""
        return job.split("_")[0]

    def jobs(self, ids: Sequence[str], user: str) -> Mapping[str, JobInfo] | NoAnswer:
        """Return those of the jobs that wait or run."""
        if not ids:
            return {}
        groups = sorted({self.group(job) for job in ids})
        text = ask("squeue", "--noheader", "--array", "--all", f"--user={user}",
                   f"--jobs={','.join(groups)}", "--format=%i|%T|%r|%S")  # fmt: skip
        if text is None:
            return NO_ANSWER
        wanted, found = set(ids), {}
        for line in text.splitlines():
            job, state, *words, start = (field.strip() for field in line.split("|"))
            reason = "|".join(words)
            if job in wanted or self.group(job) in wanted:
                found[job] = _info(state, reason, start)
        if not found and user != getpass.getuser():
            # Some sites show nobody the jobs of others.
            return NO_ANSWER
        return found

    def ended(self, job: str) -> JobInfo | NoAnswer | None:
        """Return how a job ended, from accounting or what the controller remembers."""
        text = ask("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job}",
                   "--format=State")  # fmt: skip
        if text and text.strip():
            return JobInfo(text.splitlines()[-1].split()[0])
        shown = _shown(job)
        if isinstance(shown, NoAnswer):
            return NO_ANSWER
        return JobInfo(shown["JobState"]) if shown else None

    def disposition(self, job: str, restart: int) -> Disposition | NoAnswer:
        """Return what Slurm does with a job.

        Jobs that scancel ends, that Slurm queues again after a node's failure, whose walltime is
        over or whose script was killed are all COMPLETING for a while. A count of restarts that is
        ahead, or the reason, tells them apart.
        """
        shown = _shown(job)
        if isinstance(shown, NoAnswer):
            return NO_ANSWER
        if int(shown.get("Restarts", "0")) > restart:
            return "requeued"
        if shown.get("JobState") == "RUNNING":
            return "runs"
        if shown.get("Reason") == "TimeLimit" or shown.get("JobState") == "TIMEOUT":
            return "out of time"
        if shown.get("Reason", "").startswith(SCRIPT_KILLED):
            return "script killed"
        return "cancelled"

    def requeue(self, job: str) -> bool:
        """Put a running job back into the queue."""
        return ask("scontrol", "requeue", job) is not None

    def exclude(self, job: str, nodes: Sequence[str]) -> bool:
        """Keep a queued job off some nodes, and off no others."""
        names = f"ExcNodeList={','.join(nodes)}"
        return ask("scontrol", "update", f"JobId={job}", names) is not None

    def cancel(self, jobs: Sequence[str]) -> bool:
        """Cancel jobs."""
        return ask("scancel", *jobs) is not None

    def end_step(self, job: str) -> None:
        """Kill the job's step, on all its nodes."""
        ask("scancel", "--signal=KILL", f"{job}.0")

    def inject(
        self, fault: Fault, job: str, *, host: str, minutes: int, kill: Sequence[str]
    ) -> bool:
        """Signal the job as a preemption does, shorten its time limit, or kill all on a node."""
        on_node = ["--overlap", f"--nodelist={host}", "--nodes=1", "--ntasks=1"]
        commands = {
            "preempt": ["scancel", "--signal=TERM", job],
            "walltime": ["scontrol", "update", f"JobId={job}", f"TimeLimit={minutes}"],
            "kill-node": ["srun", f"--jobid={job}", *on_node, *kill],
        }
        return ask(*commands[fault]) is not None

    def usable_nodes(self, partition: str | None) -> int | NoAnswer:
        """Return how many nodes of a partition (None: the default) can run jobs."""
        chosen = [f"--partition={partition}"] if partition else []
        text = ask("sinfo", "--noheader", "--format=%P|%D|%t", *chosen)
        if text is None:
            return NO_ANSWER
        rows = [line.strip().split("|") for line in text.splitlines()]
        return sum(
            int(count)
            for name, count, state in rows
            if (partition or name.endswith("*")) and not state.startswith(OUT_OF_SERVICE)
        )

    def limits(self, partition: str | None) -> tuple[int, int] | NoAnswer:
        """Return the nodes of a partition (None: the default), and its longest walltime."""
        try:
            found = slurm_survey.partitions()
        except JobError:
            return NO_ANSWER
        names = partition.split(",") if partition else []
        chosen = [p for p in found if (p.name in names if names else p.is_default)]
        if not chosen:
            return NO_ANSWER
        # Of several, Slurm takes the one that starts first.
        ends = [p.time_limit for p in chosen]
        times = [minutes_of(end) if end[:1].isdigit() else 0 for end in ends]
        return max(p.nodes for p in chosen), 0 if 0 in times else max(times)

    def own_job(self) -> Place | None:
        """Return this process's place, from the environment that Slurm and submitit set."""
        job = own_job_id(os.environ)
        if not job or os.environ.get("SUBMITIT_EXECUTOR") != "slurm":
            return None
        nodes = os.environ.get("SLURM_STEP_NUM_NODES", os.environ["SLURM_JOB_NUM_NODES"])
        return Place(
            self.name,
            job,
            restart=_restart_count(),
            node=int(os.environ["SLURM_NODEID"]),
            nodes=int(nodes),
            head=first_host(os.environ["SLURM_JOB_NODELIST"]),
            host=os.environ.get("SLURMD_NODENAME", socket.gethostname()),
        )

    def script_job(self) -> tuple[Place, int]:
        """Return the place of the job whose script this is, and its number in an array."""
        place = Place(self.name, own_job_id(os.environ), _restart_count())
        return place, int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))

    def end_time(self) -> float | None:
        """Return when this job's walltime ends, which newer versions of Slurm say."""
        end = os.environ.get("SLURM_JOB_END_TIME", "")
        return float(end) if end else None

    def facts(self) -> dict[str, str]:
        """Return what identifies this job."""
        return {name: os.environ[name] for name in RECORDED if name in os.environ}

    def submit_host(self) -> str:
        """Return the host that this job was submitted from; empty outside of one."""
        return os.environ.get("SLURM_SUBMIT_HOST", "") if own_job_id(os.environ) else ""

    def problems(self, partition: str | None) -> list[tuple[str, str, str]]:
        """Look whether Slurm takes jobs for a partition."""
        return slurm_survey.problems(self, partition)

    def profile_text(self, name: str, partition: str | None, *, probe: bool) -> str:
        """Return a commented profile of what this cluster is like."""
        return slurm_survey.profile_text(name, slurm_survey.survey(partition, probe=probe))

    def cancel_command(self, jobs: Sequence[str]) -> str:
        """Return the scancel command."""
        return shlex.join(["scancel", *dict.fromkeys(self.group(job) for job in jobs)])


def _info(state: str, reason: str, start: str) -> JobInfo:
    word = reason.strip("()").split(",")[0]
    word = "" if word == "None" else word
    waiting_for = f"{WAITING[word]} ({word})" if word in WAITING else word
    return JobInfo(
        state,
        waits=state == "PENDING",
        waiting_for=waiting_for,
        unsatisfiable=state == "PENDING" and word in UNSATISFIABLE,
        start=start,
    )


def _shown(job: str) -> Mapping[str, str] | NoAnswer:
    """Return what the controller says of a job, field by field; empty when it knows none."""
    text = ask("scontrol", "show", "job", "--oneliner", job)
    if text is None:
        return NO_ANSWER
    lines = text.splitlines()
    return dict(re.findall(r"(\w+)=(\S*)", lines[0])) if lines else {}


def _restart_count() -> int:
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


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
