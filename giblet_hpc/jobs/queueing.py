"""Queueing a run's stages on Slurm, through submitit."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from giblet_hpc.errors import JobError
from giblet_hpc.jobs import lease, slurm, suspects
from giblet_hpc.jobs.cluster import Cluster
from giblet_hpc.jobs.size import Size, walltime
from giblet_hpc.jobs.stagejob import StageJob
from giblet_hpc.runs import RunPaths, Stage

UNLIMITED = 10**6


class Job(Protocol):
    """What is queued: a callable that submitit pickles, with a folder of its own."""

    @property
    def run_folder(self) -> str:
        """Folder that the job belongs to."""

    @property
    def stages(self) -> tuple[str, ...]:
        """What it does, for its name."""

    def __call__(self) -> int:
        """Do it, on each node."""


@dataclass(frozen=True)
class Order:
    """What is asked of Slurm: a job, or an array with a task for each of several.

    Parameters
    ----------
    jobs : sequence of Job
    size : Size
    minutes : int
        Walltime.
    after : str
        sbatch's --dependency; empty for none.
    settled : bool
        Whether the job's script ends with what follows for the run: a requeue, or letting go.
    """

    jobs: Sequence[Job]
    size: Size
    minutes: int
    after: str = ""
    settled: bool = True


def parameters(profile: Cluster, order: Order) -> dict[str, Any]:
    """Return submitit's parameters of an order."""
    jobs, size = order.jobs, order.size
    run = RunPaths(_folder(jobs[0]))
    share = size.gpus / profile.gpus_per_node if profile.gpus_per_node and size.gpus else 1.0
    cores = max(1, int(profile.cpus_per_node * share))
    folders = list(dict.fromkeys(job.run_folder for job in jobs))
    settle = shlex.join([sys.executable, "-m", "giblet_hpc.jobs.settle", *folders])
    wanted: dict[str, Any] = {
        "job_name": safe_name(f"giblet-{run.name}-{jobs[0].stages[0]}"),
        "time": order.minutes,
        "nodes": size.nodes,
        "ntasks_per_node": 1,
        "cpus_per_task": cores,
        "signal_delay_s": profile.lead_seconds,
        "stderr_to_stdout": True,
        "array_parallelism": profile.array_tasks,
        "setup": list(profile.setup),
        "teardown": [settle] if order.settled else None,
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "dependency": order.after or None,
        "exclude": ",".join(suspects.to_leave_out(run, profile, size.nodes)) or None,
        # Supervisors end each other themselves, and need a while to say why.
        "srun_args": [f"--cpus-per-task={cores}", "--kill-on-bad-exit=0", "--wait=0"],
        "additional_parameters": {
            "requeue" if order.settled else "no-requeue": True,
            "kill-on-invalid-dep": "yes",
            **profile.options,
        },
    }
    if profile.memory_gb_per_node:
        wanted["mem"] = f"{int(profile.memory_gb_per_node * share * 1024)}M"
    if size.gpus:
        amount = f"{profile.gpu_type}:{size.gpus}" if profile.gpu_type else str(size.gpus)
        key = "gres" if profile.gpu_request == "gres" else "gpus_per_node"
        wanted[key] = f"gpu:{amount}" if key == "gres" else amount
    # Sites that check wckeys refuse submitit's default one.
    return {key: value for key, value in wanted.items() if value is not None} | {"wckey": None}


def safe_name(text: str) -> str:
    """Return a job name that needs no quoting anywhere."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text)[:64]


def _folder(job: Job) -> Path:
    return Path(job.run_folder)


def _executor(jobs: Sequence[Job]) -> Any:
    """Return submitit's executor; it can also write a script where there is no Slurm."""
    import submitit

    class Executor(submitit.SlurmExecutor):  # type: ignore[misc]
        """Slurm's executor, without the check for srun and the default wckey."""

        @classmethod
        def affinity(cls) -> int:
            return 2

    return Executor(folder=RunPaths(_folder(jobs[0])).jobs, max_num_timeout=UNLIMITED)


def script(profile: Cluster, order: Order) -> str:
    """Return the sbatch script of an order, as it would be submitted."""
    executor = _executor(order.jobs)
    executor.update_parameters(**parameters(profile, order))
    if len(order.jobs) > 1:
        executor.parameters["map_count"] = len(order.jobs)
    text: str = executor._make_submission_file_text(executor._submitit_command_str, "")
    return text.rstrip() + "\n"


def submit(profile: Cluster, order: Order) -> list[str]:
    """Queue an order.

    Returns
    -------
    list of str
        Job ids.

    Raises
    ------
    JobError
        With what sbatch says, when it refuses.
    """
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    RunPaths(_folder(order.jobs[0])).jobs.mkdir(parents=True, exist_ok=True)
    executor = _executor(order.jobs)
    executor.update_parameters(**parameters(profile, order))
    try:
        with _outside_of_jobs(), executor.batch(allow_implicit_submissions=False):
            queued = [executor.submit(job) for job in order.jobs]
        return [str(job.job_id) for job in queued]
    except (FailedJobError, FailedSubmissionError, FileNotFoundError) as error:
        lines = [line for line in str(error).splitlines() if "sbatch" in line]
        said = lines[-1] if lines else str(error)
        raise JobError(
            f"Slurm did not take the job: {said}", hint="`--dry-run` shows the script"
        ) from None


@contextlib.contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """Hide what Slurm sets inside jobs, which sbatch would take for options."""
    inside = "SLURM_JOB_ID" in os.environ
    hidden = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if inside and name.startswith(("SLURM_", "SBATCH_")) and name != "SLURM_CONF"
    }
    try:
        yield
    finally:
        os.environ.update(hidden)


@dataclass(frozen=True)
class Step:
    """Jobs that are queued together: one, or an array."""

    jobs: tuple[StageJob, ...]
    size: Size
    wait: str
    """How it waits for the step before: `afterok` or `afterany`."""
    minutes: int

    def order(self, after: str) -> Order:
        """Return what to ask of Slurm, with sbatch's --dependency."""
        return Order(self.jobs, self.size, self.minutes, after=after)


def steps_of(
    paths: RunPaths,
    stages: Sequence[Stage],
    *,
    profile: Cluster,
    size: Size,
    parts: Sequence[str],
    time: str | None,
    rebuild: bool = False,
) -> list[Step]:
    """Return the jobs that carry out some stages of a run, in order.

    Preprocess becomes three steps: the store's layout, an array with a task for each part, and
    the end, which also makes what a failed task has left out.

    Parameters
    ----------
    paths : RunPaths
    stages : sequence of str
    profile : Cluster
    size : Size
        Of train and evaluate.
    parts : sequence of str
        Parts of preprocess to make.
    time : str, optional
        Walltime instead of the profile's.
    rebuild : bool
        Replace parts that were made with other settings.
    """
    minutes = walltime(profile, time)
    base = StageJob(str(paths.root), (), 1, minutes=minutes, rebuild=rebuild)
    steps = []
    for stage in stages:
        if stage == "preprocess":
            one = replace(base, stages=("preprocess",))
            array = tuple(replace(one, part=part, rebuild=False) for part in parts)
            steps.append(Step((replace(one, part="plan"),), Size(1), "afterok", minutes))
            if array:
                steps.append(Step(array, Size(1), "afterok", minutes))
            steps.append(Step((replace(one, rebuild=False),), Size(1), "afterany", minutes))
            continue
        job = replace(base, stages=(stage,), ranks=size.ranks, nodes=size.nodes, gpus=size.gpus)
        steps.append(Step((job,), size, "afterok", minutes))
        if profile.requeue == "successor" and stage == "train":
            steps += [Step((job,), size, "afterany", minutes)] * profile.successors
    return steps


def submit_steps(
    paths: RunPaths, steps: Sequence[Step], *, profile: Cluster, after: str = ""
) -> list[str]:
    """Queue a run's steps, each waiting for the one before, under one lease.

    Returns
    -------
    list of str
        All job ids.

    Raises
    ------
    JobError
        When somebody else holds the run, or Slurm refuses; jobs queued so far are cancelled.
    """
    held = lease.take(paths, "slurm")
    every: list[str] = []
    dependency = after
    noted: tuple[StageJob, ...] = ()
    try:
        for planned in steps:
            jobs = tuple(replace(job, lease=held.token) for job in planned.jobs)
            step = replace(planned, jobs=jobs)
            if every:
                dependency = f"{step.wait}:{_first(every[-1])}"
            ids = submit(profile, step.order(dependency))
            every += ids
            # A successor is the same job once more; the run's state names the first.
            if jobs != noted:
                _note_queued(paths, jobs, ids)
            noted = jobs
        lease.assign(paths, held, tuple(every))
    except BaseException:
        if every:
            slurm.cancel(every)
        lease.release(paths, held)
        raise
    return every


def _first(job: str) -> str:
    """Return the id that a dependency on a job, or on its whole array, names."""
    return job.split("_")[0]


def _note_queued(paths: RunPaths, jobs: Sequence[StageJob], ids: Sequence[str]) -> None:
    for job, number in zip(jobs, ids, strict=True):
        paths.update_state(
            job.stages[0], part=job.part, status="queued", job=number, reason="", hint="", phase=""
        )


def submit_runs(
    runs: Sequence[RunPaths], *, profile: Cluster, size: Size, time: str | None
) -> list[tuple[RunPaths, str]]:
    """Queue the training of several runs as one array, each under a lease of its own.

    Raises
    ------
    JobError
        When somebody else holds a run, or Slurm refuses.
    """
    minutes = walltime(profile, time)
    held: list[lease.Lease] = []
    try:
        for paths in runs:
            held.append(lease.take(paths, "slurm"))
        jobs = [
            StageJob(
                str(paths.root), ("train",), size.ranks, size.nodes, lease=own.token,
                minutes=minutes, gpus=size.gpus,
            )
            for paths, own in zip(runs, held, strict=True)
        ]  # fmt: skip
        ids = submit(profile, Order(jobs, size, minutes))
    except BaseException:
        for paths, own in zip(runs, held, strict=False):
            lease.release(paths, own)
        raise
    for paths, own, job, number in zip(runs, held, jobs, ids, strict=True):
        _note_queued(paths, [job], [number])
        lease.assign(paths, own, (number,))
    return list(zip(runs, ids, strict=True))
