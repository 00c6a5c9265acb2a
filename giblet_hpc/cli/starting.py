"""What the commands that start runs share: their options, the run they mean, starting it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from giblet_hpc.cli.common import cluster_option
from giblet_hpc.errors import ConfigError, JobError
from giblet_hpc.jobs import doctor, findings, lease, logs, status, submit
from giblet_hpc.jobs.cluster import Cluster
from giblet_hpc.jobs.size import Size, walltime
from giblet_hpc.runs import RunPaths, Stage

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
    if profile.scheduler == "slurm":
        walltime(profile, options["time"])
    for name, option in (("time", "time"), ("partition", "partition"), ("after", "after"),
                         ("axes", "sweep")):  # fmt: skip
        if profile.scheduler == "local" and options.get(name):
            raise ConfigError(
                f"--{option} needs a cluster; this is one machine",
                hint="--cluster NAME chooses one; `giblet-hpc cluster detect` writes a profile",
            )


def check_place(folder: Path, profile: Cluster, size: Size) -> None:
    """Refuse what is bound to fail before it waits in a queue."""
    found = doctor.examine(
        profile, [folder], nodes=size.nodes, gpus=size.gpus,
        on_node=profile.scheduler == "local",
    )  # fmt: skip
    findings.require_good(found)


def start(
    paths: RunPaths,
    stages: Sequence[Stage],
    *,
    profile: Cluster,
    size: Size,
    wait: bool,
    as_json: bool,
    **choices: Any,
) -> None:
    """Submit what is left of ``stages``; a live run is shown instead."""
    held = lease.holder(paths)
    left = submit.remaining(paths, stages, rebuild=choices.get("rebuild", False))
    shown = set(logs.log_files(paths))
    if held is not None:
        click.echo(f"run {paths.name} is taken: {held}", err=True)
    elif left:
        submit.check_order(paths, left)
        ids = submit.submit(paths, left, profile=profile, size=size, **choices)
        where = f" as {profile.scheduler} job {', '.join(ids)}"
        click.echo(f"submitted {', '.join(left)} of run {paths.name}{where}", err=True)
    else:
        click.echo(f"run {paths.name}: {', '.join(stages)} already complete", err=True)
    if wait:
        for text in logs.follow(paths, known=shown, ended=lambda: lease.holder(paths) is None):
            click.echo(text, nl=False, err=True)
    facts = status.describe(paths)
    click.echo(json.dumps(facts) if as_json else status.as_text(facts))
    if wait:
        raise_failure(paths, stages)


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
