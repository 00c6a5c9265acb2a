"""Commands that start, stop and repeat runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from giblet_hpc import config_io
from giblet_hpc.cli.common import (
    cluster_option,
    config_option,
    json_option,
    keep_umask,
    name_argument,
    run_name,
    runs_option,
    set_option,
)
from giblet_hpc.errors import ConfigError, JobError
from giblet_hpc.jobs import (
    attempts,
    cluster,
    doctor,
    drill,
    findings,
    forks,
    lease,
    logs,
    status,
    submit,
)
from giblet_hpc.jobs.cluster import Cluster
from giblet_hpc.jobs.size import Size, size_of
from giblet_hpc.jobs.stagejob import StageJob
from giblet_hpc.jobs.supervisor import run_stages
from giblet_hpc.runs import STAGES, RunPaths, Stage

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
wait_option = click.option("--wait", is_flag=True, help="Show the log and wait for the end.")


def prepare(
    runs: Path, config_file: Path | None, name: str | None, overrides: tuple[str, ...]
) -> RunPaths:
    """Return the run to work on, made from the config when one is given."""
    keep_umask()
    if config_file is None:
        if overrides:
            raise ConfigError(
                "--set without --config would change a run's config",
                hint="--fork NEW makes a new run with the changed settings",
            )
        return RunPaths(status.choose_run(runs, name).root.resolve())
    paths = RunPaths((runs / (name or config_file.stem)).resolve())
    paths.create(config_io.load(config_file, overrides))
    return paths


@click.command("submit")
@click.argument("what", type=click.Choice([*STAGES, "pipeline"]))
@config_option
@click.option("--name", shell_complete=run_name, help="Name of the run. [default: the config's]")
@set_option
@runs_option
@cluster_option
@gpus_option
@ranks_option
@nodes_option
@time_option
@click.option("--partition", help="Partition instead of the profile's.")
@click.option("--after", default="", metavar="JOB", help="Wait for a Slurm job's success.")
@click.option("--fork", metavar="NEW", help="A new run from this one, with --set's changes.")
@click.option("--force", is_flag=True, help="Start anew; a run of that name is moved aside.")
@click.option("--rebuild", is_flag=True, help="Replace parts made with other settings.")
@click.option(
    "--sweep", "axes", multiple=True, metavar="FIELD=A,B", help="A run for each value (train)."
)
@click.option("--no-checks", is_flag=True, help="Do not look first whether it can work here.")
@wait_option
@click.option("--dry-run", is_flag=True, help="Print the scripts and commands and do nothing.")
@json_option
def submit_command(what: str, **options: Any) -> None:
    """Queue a stage of a run, or all of them as a pipeline.

    A stage that is complete is not run again; one that was interrupted goes on where it was.
    """
    profile = cluster.choose(options["cluster_choice"])
    if options["partition"]:
        profile = profile.model_copy(update={"partition": options["partition"]})
    size = size_of(
        profile, gpus=options["gpus"], ranks=options["ranks"], nodes=options["nodes"],
        default=submit.default_size(profile),
    )  # fmt: skip
    stages = submit.stages_of(what)
    if options["dry_run"]:
        click.echo(_dry_run(stages, profile, size, options))
        return
    paths = _target(options)
    if "train" in stages and not options["no_checks"]:
        _check_place(paths, profile, size)
    if options["axes"]:
        _sweep(paths, what, profile, size, options)
        return
    start = {key: options[key] for key in ("time", "after", "rebuild")}
    _start(
        paths, stages, profile=profile, size=size, wait=options["wait"],
        as_json=options["as_json"], **start,
    )  # fmt: skip


def _check_place(paths: RunPaths, profile: Cluster, size: Size) -> None:
    """Refuse what is bound to fail before it waits in a queue."""
    found = doctor.examine(
        profile, [paths.root], nodes=size.nodes, gpus=size.gpus,
        on_node=profile.scheduler == "local",
    )  # fmt: skip
    findings.require_good(found)


def _target(options: dict[str, Any]) -> RunPaths:
    """Return the run that a submission is about; make it where it is new."""
    runs, file, name = options["runs"], options["config_file"], options["name"]
    keep_umask()
    if options["force"]:
        if file is None:
            raise ConfigError("--force needs --config: what should the new run be like?")
        aside = forks.replace(RunPaths((runs / (name or file.stem)).resolve()))
        if aside:
            click.echo(f"the run of that name is now {aside}", err=True)
    if options["fork"]:
        base = status.choose_run(runs, name or (file.stem if file else None))
        base = RunPaths(base.root.resolve())
        return forks.fork(base, options["fork"], forks.changed(base, options["overrides"]))
    if options["axes"] and file is None:
        return RunPaths(status.choose_run(runs, name).root.resolve())
    return prepare(runs, file, name, () if options["axes"] else options["overrides"])


def _dry_run(
    stages: tuple[Stage, ...], profile: Cluster, size: Size, options: dict[str, Any]
) -> str:
    file, runs = options["config_file"], options["runs"]
    if file is None:
        paths = status.choose_run(runs, options["name"])
        paths = RunPaths(paths.root.resolve())
        parts = submit.missing_parts(paths) if profile.scheduler == "slurm" else []
    else:
        config = config_io.load(file, options["overrides"])
        paths = RunPaths((runs / (options["name"] or file.stem)).resolve())
        parts = submit.planned_parts(config)
    return submit.dry_run(
        paths, stages, profile=profile, size=size, parts=parts, time=options["time"],
        after=options["after"],
    )  # fmt: skip


def _sweep(
    paths: RunPaths, what: str, profile: Cluster, size: Size, options: dict[str, Any]
) -> None:
    if what != "train" or profile.scheduler != "slurm":
        raise ConfigError("--sweep is for `submit train` on a cluster")
    submit.check_order(paths, ("train",))
    runs = forks.sweep(paths, options["overrides"], options["axes"])
    ids = submit.submit_sweep(runs, profile=profile, size=size, time=options["time"])
    rows = [{"run": run.name, "job": job} for run, job in ids]
    if options["as_json"]:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        click.echo(f"{row['job']:<12}{row['run']}")
    click.echo(f"next: giblet-hpc compare {' '.join(str(row['run']) for row in rows)}", err=True)


def _start(
    paths: RunPaths,
    stages: Sequence[Stage],
    *,
    profile: Cluster,
    size: Size,
    wait: bool,
    as_json: bool,
    **start: Any,
) -> None:
    """Submit what is left of ``stages``; a live run is shown instead."""
    held = lease.holder(paths)
    left = submit.remaining(paths, stages, rebuild=start.get("rebuild", False))
    known = set(logs.log_files(paths))
    if held is not None:
        click.echo(f"run {paths.name} is taken: {held}", err=True)
    elif left:
        submit.check_order(paths, left)
        ids = submit.submit(paths, left, profile=profile, size=size, **start)
        where = f" as {profile.scheduler} job {', '.join(ids)}"
        click.echo(f"submitted {', '.join(left)} of run {paths.name}{where}", err=True)
    else:
        click.echo(f"run {paths.name}: {', '.join(stages)} already complete", err=True)
    if wait:
        for text in logs.follow(paths, known=known, ended=lambda: lease.holder(paths) is None):
            click.echo(text, nl=False, err=True)
    facts = status.describe(paths)
    click.echo(json.dumps(facts) if as_json else status.as_text(facts))
    if wait:
        _raise_failure(paths, stages)


def _raise_failure(paths: RunPaths, stages: Sequence[Stage]) -> None:
    """Turn a failed stage's recorded reason into an error of this command."""
    for stage in stages:
        state = paths.stage_state(stage)
        if state.get("status") == "complete":
            continue
        if state.get("status") == "stopped":
            raise JobError(f"{stage} was stopped", hint=f"giblet-hpc resubmit {paths.name}")
        kind = ConfigError if state.get("exit_code") == 2 else JobError
        reason = state.get("reason") or f"{stage} was interrupted"
        default = f"the log has more: giblet-hpc logs {paths.name}"
        raise kind(reason, hint=state.get("hint") or default)


@click.command("run")
@click.argument("stage", type=click.Choice(STAGES))
@name_argument
@config_option
@set_option
@runs_option
@ranks_option
@click.option("--rebuild", is_flag=True, help="Replace parts made with other settings.")
def run_command(
    stage: Stage,
    name: str | None,
    config_file: Path | None,
    overrides: tuple[str, ...],
    runs: Path,
    ranks: int | None,
    rebuild: bool,
) -> None:
    """Run a stage here and now, in the foreground."""
    paths = prepare(runs, config_file, name, overrides)
    submit.check_order(paths, (stage,))
    profile = cluster.local_cluster()
    if lease.holder(paths) is None:
        cluster.save(profile, paths.cluster)
    count = ranks or submit.default_size(profile)
    job = StageJob(str(paths.root), (stage,), count, rebuild=rebuild)
    if run_stages(job, attempts.local_place(), output=sys.stderr):
        _raise_failure(paths, (stage,))


@click.command("resubmit")
@name_argument
@runs_option
@cluster_option
@gpus_option
@ranks_option
@nodes_option
@time_option
@click.option("--from", "step", type=click.IntRange(1), help="Go back to this step's checkpoint.")
@wait_option
@json_option
def resubmit_command(
    name: str | None,
    runs: Path,
    cluster_choice: str | None,
    gpus: int | None,
    ranks: int | None,
    nodes: int | None,
    time: str | None,
    step: int | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Queue what is left of a run, from its last checkpoint."""
    keep_umask()
    paths = RunPaths(status.choose_run(runs, name).root.resolve())
    profile = cluster.choose(cluster_choice) if cluster_choice else cluster.of_run(paths)
    size = submit.size_again(paths, profile, moved=cluster_choice is not None)
    if gpus or ranks or nodes:
        size = size_of(
            profile, gpus=gpus, ranks=ranks, nodes=nodes, default=submit.default_size(profile)
        )
    if step:
        submit.go_back(paths, step)
    _start(paths, STAGES, profile=profile, size=size, wait=wait, as_json=as_json, time=time)


@click.command("cancel")
@click.argument("name", shell_complete=run_name)
@runs_option
def cancel_command(name: str, runs: Path) -> None:
    """Ask a run to stop at its next step boundary, with a checkpoint."""
    click.echo(submit.cancel(status.choose_run(runs, name)), err=True)


@click.command("reproduce")
@click.argument("name", shell_complete=run_name)
@runs_option
@cluster_option
@wait_option
@json_option
def reproduce_command(
    name: str, runs: Path, cluster_choice: str | None, wait: bool, as_json: bool
) -> None:
    """Train and evaluate a finished run again under a new name; say whether it comes out the same.

    Given again once the repetition is complete, it prints the verdict.
    """
    keep_umask()
    first = RunPaths(status.choose_run(runs, name).root.resolve())
    second = forks.repetition(first)
    if submit.remaining(second, STAGES):
        profile = cluster.choose(cluster_choice) if cluster_choice else cluster.of_run(first)
        size = submit.size_again(first, profile, moved=cluster_choice is not None)
        _start(second, STAGES, profile=profile, size=size, wait=wait, as_json=as_json)
        if not wait:
            return
    facts = forks.verdict(first, second)
    if as_json:
        click.echo(json.dumps(facts))
        return
    said = "the same, bit for bit" if facts["same"] else (
        f"not the same: scores differ by {facts['score_difference']:.2g} at most, "
        f"weights are {'equal' if facts['weights'] else 'different'}"
    )  # fmt: skip
    click.echo(f"{second.name} against {first.name}: {said}")
    for line in facts["differences"]:
        click.echo(f"  {line}")


@click.command("drill")
@click.argument("fault", type=click.Choice(drill.FAULTS))
@click.argument("name", shell_complete=run_name)
@runs_option
@click.option("--patience", default=900, show_default=True, help="Seconds to wait for the resume.")
@json_option
def drill_command(fault: drill.Fault, name: str, runs: Path, patience: int, as_json: bool) -> None:
    """Cause a fault on a live run, and report how many steps it cost."""
    paths = status.choose_run(runs, name)
    struck = drill.strike(paths, fault)
    click.echo(f"{fault}: struck attempt {struck.number} of run {name}", err=True)
    cost = drill.observe(
        paths, struck, fault, patience=patience, tell=lambda text: click.echo(text, err=True)
    )
    if as_json:
        click.echo(json.dumps(drill.as_facts(cost)))
        return
    click.echo(
        f"{cost.outcome}; went on from step {cost.step_after} of {cost.step_before} after "
        f"{cost.seconds:.0f} s: {cost.steps_lost} steps lost"
    )
