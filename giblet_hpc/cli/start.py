"""What the commands that start runs share: their options, the run they mean, starting it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import click

from giblet_hpc import findings
from giblet_hpc.cli.common import cluster_option
from giblet_hpc.config.cluster import Cluster
from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import ConfigError, JobError
from giblet_hpc.jobs.doctor import examine
from giblet_hpc.jobs.inspect import logs, status
from giblet_hpc.jobs.record import lease
from giblet_hpc.jobs.record.resources import Resources, is_queued, walltime
from giblet_hpc.jobs.submit import forks
from giblet_hpc.jobs.submit.plan import (
    PlannedJob,
    missing_parts,
    plan,
    remaining,
    require_order,
)
from giblet_hpc.jobs.submit.submission import Submission
from giblet_hpc.printable import printable
from giblet_hpc.runs.paths import STAGES, RunPaths, Stage

Command = TypeVar("Command", bound=Callable[..., Any])

ranks_option = click.option(
    "--ranks", type=click.IntRange(1), help="Processes in all. [default: one per GPU, or 1]"
)
gpus_option = click.option(
    "--gpus", type=click.IntRange(1), help="GPUs in all, each with a process of its own."
)
nodes_option = click.option(
    "--nodes", type=click.IntRange(1), help="Nodes. [default: as few as hold the GPUs]"
)
time_option = click.option("--time", help="Walltime of a job, such as 8:00:00.")
checks_option = click.option(
    "--no-checks", is_flag=True, help="Do not look first whether it can work here."
)
wait_option = click.option("--wait", is_flag=True, help="Show the log and wait for the end.")


def size_options(command: Command) -> Command:
    """Add the options that say where something runs, and on how much of it."""
    for option in (nodes_option, ranks_option, gpus_option, cluster_option):
        command = option(command)
    return command


def check_choices(profile: Cluster, options: Mapping[str, Any]) -> None:
    """Check that what is asked of the scheduler is possible; one machine has none to ask.

    Raises
    ------
    ConfigError
        Naming the first option that is not.
    """
    if is_queued(profile):
        walltime(profile, options["time"])
        return
    for name, option in (("time", "time"), ("partition", "partition"), ("after", "after"),
                         ("axes", "sweep")):  # fmt: skip
        if options.get(name):
            raise ConfigError(
                f"--{option} needs a cluster; this is one machine",
                hint="--cluster NAME chooses one; `giblet-hpc cluster detect` writes a profile",
            )


baseline_option = click.option(
    "--baseline-only", is_flag=True,
    help="Ridge alone, without a network: as --set evaluate.network=false.",
)  # fmt: skip


def with_baseline(overrides: Sequence[str], baseline_only: bool) -> tuple[str, ...]:
    """Return the overrides, with that of ``--baseline-only``."""
    return (*overrides, *(("evaluate.network=false",) if baseline_only else ()))


choose_option = click.option(
    "--choose", "choose", multiple=True, metavar="FIELD=A,B",
    help="Choose by split.inner_blocks inside the training TRs: as --set train.choose.",
)  # fmt: skip


def with_choices(overrides: Sequence[str], axes: Sequence[str]) -> tuple[str, ...]:
    """Return the overrides, with that of ``--choose``.

    Raises
    ------
    ConfigError
        When one is not `field=value,value`.
    """
    if not axes:
        return tuple(overrides)
    pairs = [forks.axis(text, option="--choose") for text in axes]
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ConfigError("--choose names a field twice", hint="--choose train.lr=1e-4,3e-4,1e-3")
    text = ", ".join(f"{field}: [{', '.join(values)}]" for field, values in found.items())
    return (*overrides, f"train.choose={{{text}}}")


def without_skipped(stages: Sequence[Stage], config: RunConfig) -> tuple[Stage, ...]:
    """Return the stages that a config needs.

    Raises
    ------
    ConfigError
        When none of them is.
    """
    left = tuple(stage for stage in stages if stage != "train" or config.evaluate.network)
    if not left:
        raise ConfigError(
            "evaluate.network is false: there is no network to train",
            hint="giblet-hpc submit evaluate scores ridge alone",
        )
    return left


def check_place(folders: Sequence[Path], profile: Cluster, size: Resources) -> None:
    """Refuse what is bound to fail before it waits in a queue."""
    found = examine.examine(
        profile, folders, nodes=size.nodes, gpus=size.gpus, on_node=not is_queued(profile)
    )
    findings.require_good(found)


def start(
    paths: RunPaths,
    stages: Sequence[Stage],
    *,
    profile: Cluster,
    size: Resources,
    wait: bool,
    as_json: bool,
    time: str | None = None,
    after: str = "",
    rebuild: bool = False,
) -> None:
    """Submit what is left of ``stages``; a live run is shown instead."""
    found = lease.standing(paths)
    lease.require_answer(paths, found)
    left = remaining(paths, stages, rebuild=rebuild)
    shown = set(logs.log_files(paths))
    if found.alive:
        click.echo(f"run {paths.name} is in use: {found.lease}", err=True)
    elif left:
        require_order(paths, left)
        queued = is_queued(profile) and "preprocess" in left
        parts = missing_parts(paths, rebuild=rebuild) if queued else []
        jobs = plan(
            paths, left, profile=profile, size=size, parts=parts, time=time, rebuild=rebuild
        )
        if not is_queued(profile):
            jobs = tuple(_with_devices(job) for job in jobs)
        ids = Submission(paths, profile, jobs, after).submit()
        where = f" as {profile.scheduler} job {', '.join(ids)}"
        click.echo(f"submitted {', '.join(left)} of run {paths.name}{where}", err=True)
        click.echo(in_words(jobs), err=True)
    else:
        click.echo(f"run {paths.name}: {', '.join(stages)} already complete", err=True)
    if wait:
        _show_until_the_end(paths, shown)
    facts = status.describe(paths)
    click.echo(json.dumps(facts) if as_json else printable(status.as_text(facts)))
    if wait:
        raise_failure(paths, stages)


def _show_until_the_end(paths: RunPaths, shown: set[Path]) -> None:
    try:
        for text in logs.follow(paths, known=shown, ended=logs.Ended(paths)):
            click.echo(text, nl=False, err=True)
    except KeyboardInterrupt:
        raise JobError(
            f"no longer waiting; run {paths.name} goes on",
            hint=f"{paths.command('logs', '-f')} shows it again; {paths.command('cancel')} stops "
            "it",
        ) from None


def in_words(jobs: Sequence[PlannedJob]) -> str:
    """Say on how much each stage of a submission runs, a line each."""
    lines: dict[str, str] = {}
    # Of a stage's jobs the one with the most tasks; a successor is the same once more.
    for job in sorted(jobs, key=lambda job: -len(job.tasks)):
        resources, tasks = job.resources, job.tasks
        each = f" on each of {resources.nodes} nodes" if resources.nodes > 1 else ""
        what = [
            _count(len(tasks), "task") if len(tasks) > 1 else "",
            f"{_count(resources.ranks, 'rank')}{each}",
            f"{_count(resources.gpus, 'GPU')}{' a node' if each else ''}"
            if resources.gpus
            else "no GPU",
            f"at most {resources.minutes / 60:.1f} h" if resources.minutes else "",
        ]
        for stage in tasks[0].stages:
            lines.setdefault(stage, f"  {stage:<11}{', '.join(filter(None, what))}")
    return "\n".join(lines[stage] for stage in STAGES if stage in lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _with_devices(job: PlannedJob) -> PlannedJob:
    """Remember the GPUs that this process sees, which submitit's local executor hides."""
    devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    return replace(job, tasks=tuple(replace(task, cuda_devices=devices) for task in job.tasks))


def raise_failure(paths: RunPaths, stages: Sequence[Stage]) -> None:
    """Turn a failed stage's recorded reason into an error of this command."""
    for stage in stages:
        state = paths.stage_state(stage)
        if state.get("status") == "complete":
            continue
        if state.get("status") == "stopped":
            raise JobError(f"{stage} was stopped", hint=paths.command("resubmit"))
        kind = ConfigError if state.get("exit_code") == 2 else JobError
        reason = state.get("reason") or f"{stage} was interrupted"
        default = f"the log has more: {paths.command('logs')}"
        raise kind(reason, hint=state.get("hint") or default)
