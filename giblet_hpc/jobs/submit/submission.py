"""Handing a plan to a scheduler. The object that is printed is the object that is submitted."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from giblet_hpc.config.cluster import Cluster
from giblet_hpc.jobs import profiles
from giblet_hpc.jobs.node import image
from giblet_hpc.jobs.node.entry import RunStages
from giblet_hpc.jobs.node.launch import stage_command, stage_environment
from giblet_hpc.jobs.record import excluded, lease
from giblet_hpc.jobs.record.resources import Resources, for_parallel
from giblet_hpc.jobs.record.task import StageTask
from giblet_hpc.jobs.schedulers import registry
from giblet_hpc.jobs.schedulers.base import Order, Scheduler, Wait
from giblet_hpc.jobs.submit import sharing
from giblet_hpc.jobs.submit.plan import PARALLEL, PlannedJob, remaining
from giblet_hpc.runs.paths import RunPaths, Stage
from giblet_hpc.trust import GROUP_UMASK

SWEPT: tuple[Stage, ...] = ("train", "evaluate")
"""What a sweep does of each of its runs."""


@dataclass(frozen=True)
class Submission:
    """Some jobs of one run, for one place.

    Parameters
    ----------
    paths : RunPaths
    profile : Cluster
    jobs : tuple of PlannedJob
        From `plan.plan`.
    after : str
        A job that has to succeed first.
    """

    paths: RunPaths
    profile: Cluster
    jobs: tuple[PlannedJob, ...]
    after: str = ""

    @property
    def _scheduler(self) -> Scheduler:
        return registry.of(self.profile.scheduler)

    def order(self, job: PlannedJob, ids: Sequence[str]) -> Order:
        """Return what is asked of the scheduler for a job.

        Parameters
        ----------
        job : PlannedJob
        ids : sequence of str
            Of the jobs before it in the plan.
        """
        after: list[tuple[Wait, str]] = [(wait, ids[number]) for wait, number in job.after]
        if self.after and not job.after:
            after = [("success", self.after)]
        return order_of(self.paths, self.profile, job, after)

    def text(self) -> str:
        """Return what `submit` would do: each script, and the commands on each node."""
        if not self.jobs:
            return f"# run {self.paths.name}: nothing is left to do"
        if not self._scheduler.queues:
            (job,) = self.jobs
            return "\n".join(self._commands(job, stage) for stage in job.tasks[0].stages)
        ids = [f"JOB-{number}" for number in range(1, len(self.jobs) + 1)]
        texts = []
        for number, job in enumerate(self.jobs, start=1):
            (stage,) = job.tasks[0].stages
            what = ", ".join(filter(None, (task.part for task in job.tasks))) or stage
            script = self._scheduler.script(self.profile, self.order(job, ids))
            texts.append(f"### job {number} of {len(self.jobs)}: {stage} ({what})\n{script}")
            texts.append(f"# on each node:\n{self._commands(job, stage)}\n")
        if self.jobs[0].tasks[0].part == "plan" and not any(len(j.tasks) > 1 for j in self.jobs):
            texts.append(
                "# preprocess' array has a task for each part; the study's files are not here"
            )
        return "\n".join([*texts, stop_lead_summary(self.paths, self.profile)])

    def _commands(self, job: PlannedJob, stage: Stage) -> str:
        resources, profile = job.resources, self.profile
        settings = stage_environment(stage, ranks=resources.ranks)
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items())
        python = image.PYTHON if profile.image else sys.executable
        command = stage_command(
            stage, self.paths.root, ranks=resources.ranks, nodes=resources.nodes, python=python,
            part=job.tasks[0].part,
        )  # fmt: skip
        where = f", in {profile.image} by {profile.runtime}" if profile.image else ""
        return f"# {stage}{where}\n{variables} \\\n  {shlex.join(command)}"

    def submit(self) -> list[str]:
        """Queue the jobs, or start them on this machine, under one lease; return all their ids.

        Raises
        ------
        JobError
            When somebody else holds the run, or the scheduler refuses; jobs queued so far are
            cancelled then.
        """
        self._prepare()
        held = lease.take(self.paths, self.profile.scheduler)
        every: list[str] = []
        ids: list[str] = []
        noted: tuple[StageTask, ...] = ()
        try:
            for planned in self.jobs:
                tasks = tuple(replace(task, lease=held.token) for task in planned.tasks)
                job = replace(planned, tasks=tasks)
                if not self._scheduler.queues:
                    # It may begin before this process goes on.
                    note_queued(self.paths, tasks, [""])
                own = self._scheduler.submit(self.profile, self.order(job, ids))
                every += own
                ids.append(self._scheduler.group(own[-1]))
                # A successor is the same job once more; the run's state names the first.
                if self._scheduler.queues and tasks != noted:
                    note_queued(self.paths, tasks, own)
                noted = tasks
            lease.assign(self.paths, held, tuple(every))
        except BaseException:
            if every:
                self._scheduler.cancel(every)
            lease.release(self.paths, held)
            raise
        return every

    def _prepare(self) -> None:
        """Put what jobs need into the run's folder."""
        paths, profile = self.paths, self.profile
        image.check(profile)
        profiles.save(profile, paths.cluster)
        for task in (task for job in self.jobs for task in job.tasks):
            for stage in task.stages:
                if stage in PARALLEL:
                    paths.update_state(stage, **task.resources.record())
        if profile.group:
            os.umask(GROUP_UMASK)
            sharing.share(paths.root, paths.load_config().study.store, profile.group)


def order_of(
    paths: RunPaths, profile: Cluster, job: PlannedJob, after: Sequence[tuple[Wait, str]]
) -> Order:
    """Return what is asked of a scheduler for a job of one run, or of several."""
    scheduler, resources = registry.of(profile.scheduler), job.resources
    folders = list(dict.fromkeys(task.run_folder for task in job.tasks))
    exclude: list[str] = []
    if scheduler.queues:
        exclude = excluded.to_exclude(
            paths, scheduler, partition=resources.partition, needed=resources.nodes
        )
    return Order(
        [RunStages(task) for task in job.tasks],
        nodes=resources.nodes,
        cpus=resources.cpus,
        gpus=resources.gpus,
        memory_gb=resources.memory_gb,
        minutes=resources.minutes,
        partition=resources.partition,
        submissions=paths.jobs,
        exclude=exclude,
        after=after,
        epilogue=[sys.executable, "-P", "-m", "giblet_hpc.jobs.node.epilogue", *folders],
    )


def note_queued(paths: RunPaths, tasks: Sequence[StageTask], ids: Sequence[str]) -> None:
    """Record that tasks wait, and under which ids."""
    for task, job in zip(tasks, ids, strict=True):
        for stage in task.stages:
            paths.update_state(
                stage, part=task.part, status="queued", job=job, reason="", hint="", phase=""
            )


def submit_sweep(
    runs: Sequence[RunPaths], *, profile: Cluster, size: Resources, time: str | None
) -> list[tuple[RunPaths, str]]:
    """Queue training and evaluation of several runs, an array each; each run has its own lease.

    A run is evaluated when its own training is complete. Runs that are complete, queued or running
    already are left alone.

    Returns
    -------
    list of (RunPaths, str)
        Each run that was queued, with its training's job id.

    Raises
    ------
    JobError
        When somebody takes a run meanwhile, or the scheduler refuses; what is queued by then is
        cancelled.
    """
    todo = [run for run in runs if remaining(run, ("train",)) and lease.holder(run) is None]
    if not todo:
        return []
    scheduler = registry.of(profile.scheduler)
    held: list[lease.Lease] = []
    arrays: list[list[str]] = []
    try:
        for paths in todo:
            held.append(lease.take(paths, profile.scheduler))
            profiles.save(profile, paths.cluster)
        for stage in SWEPT:
            resources = for_parallel(profile, stage, size, time=time)
            for paths in todo:
                paths.update_state(stage, **resources.record())
            tasks = tuple(
                StageTask(str(paths.root), (stage,), resources, lease=own.token)
                for paths, own in zip(todo, held, strict=True)
            )
            # Each task waits for that of its own number.
            after: list[tuple[Wait, str]] = [("task", scheduler.group(a[-1])) for a in arrays]
            order = order_of(todo[0], profile, PlannedJob(tasks, resources), after)
            arrays.append(scheduler.submit(profile, order))
            for paths, task, job in zip(todo, tasks, arrays[-1], strict=True):
                note_queued(paths, [task], [job])
    except BaseException:
        if arrays:
            scheduler.cancel([job for ids in arrays for job in ids])
        for paths, own in zip(todo, held, strict=False):
            lease.release(paths, own)
        raise
    for number, (paths, own) in enumerate(zip(todo, held, strict=True)):
        lease.assign(paths, own, tuple(ids[number] for ids in arrays))
    return list(zip(todo, arrays[0], strict=True))


def stop_lead_summary(paths: RunPaths, profile: Cluster) -> str:
    """Say how the time between the request to stop and the walltime adds up."""
    state = paths.stage_state("train")
    step, save = state.get("step_seconds"), state.get("save_seconds")
    said = f"# asked to stop {profile.lead_seconds} s before the walltime (lead_seconds)"
    if step is None or save is None:
        return f"{said}; needed: 60 s + a step + twice a checkpoint, not measured yet"
    needed = 60 + step + 2 * save
    verdict = "enough" if needed <= profile.lead_seconds else "TOO SHORT: raise it in the profile"
    return f"{said}; needed: 60 + {step:.1f} + 2 x {save:.1f} = {needed:.0f} s: {verdict}"
