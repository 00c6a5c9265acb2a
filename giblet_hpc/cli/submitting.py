"""Commands that start, stop and repeat runs."""

from __future__ import annotations

import json
import sys
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
from giblet_hpc.cli.starting import (
    check_choices,
    check_place,
    gpus_option,
    known,
    new_name,
    nodes_option,
    prepare,
    raise_failure,
    ranks_option,
    start,
    time_option,
    wait_option,
)
from giblet_hpc.errors import ConfigError
from giblet_hpc.jobs import attempts, cluster, forks, lease, status, submit
from giblet_hpc.jobs.cluster import Cluster
from giblet_hpc.jobs.size import Size, size_of
from giblet_hpc.jobs.stagejob import StageJob
from giblet_hpc.jobs.supervisor import run_stages
from giblet_hpc.runs import STAGES, RunPaths, Stage


@click.command("submit")
@click.argument("what", type=click.Choice([*STAGES, "pipeline"]))
@config_option
@click.option(
    "--name",
    shell_complete=run_name,
    callback=new_name,
    help="Name of the run. [default: that of the config's file; else the run that changed last]",
)
@set_option
@runs_option
@cluster_option
@gpus_option
@ranks_option
@nodes_option
@time_option
@click.option("--partition", help="Partition instead of the profile's.")
@click.option("--after", default="", metavar="JOB", help="Wait for a Slurm job's success.")
@click.option(
    "--fork",
    metavar="NEW",
    callback=new_name,
    help="A new run from this one, with --set's changes.",
)
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
    check_choices(profile, options)
    stages = submit.stages_of(what)
    if options["axes"] and what != "train":
        raise ConfigError("--sweep is for `submit train`")
    if options["dry_run"]:
        click.echo(_dry_run(stages, profile, size, options))
        return
    paths = _target(options, stages[0])
    if options["axes"]:
        _sweep(paths, profile, size, options)
        return
    start(
        paths, stages, profile=profile, size=size, wait=options["wait"],
        as_json=options["as_json"], time=options["time"], after=options["after"],
        rebuild=options["rebuild"], checks=not options["no_checks"],
    )  # fmt: skip


def _target(options: dict[str, Any], first: Stage) -> RunPaths:
    """Return the run that a submission from a stage on is about; make it where it is new."""
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
    overrides = () if options["axes"] else options["overrides"]
    return prepare(runs, file, name, overrides, first=first)


def _dry_run(
    stages: tuple[Stage, ...], profile: Cluster, size: Size, options: dict[str, Any]
) -> str:
    file, runs, rebuild = options["config_file"], options["runs"], options["rebuild"]
    if options["axes"]:
        raise ConfigError("--dry-run shows one run's jobs: leave --sweep out")
    if options["fork"]:
        base = status.choose_run(runs, options["name"] or (file.stem if file else None))
        config = forks.changed(base, options["overrides"])
        paths = RunPaths((base.root.parent / options["fork"]).resolve())
        shared = forks.shares_preprocess(base, config)
        left = tuple(stage for stage in stages if not (shared and stage == "preprocess"))
        parts = submit.planned_parts(config)
    elif file is None:
        paths = known(runs, options["name"], options["overrides"])
        left = submit.remaining(paths, stages, rebuild=rebuild)
        parts = submit.missing_parts(paths, rebuild=rebuild) if "preprocess" in left else []
    else:
        config = config_io.load(file, options["overrides"])
        paths = RunPaths((runs / (options["name"] or file.stem)).resolve())
        left = submit.remaining(paths, stages, rebuild=rebuild)
        parts = submit.planned_parts(config)
    return submit.dry_run(
        paths, left, profile=profile, size=size, parts=parts, time=options["time"],
        after=options["after"],
    )  # fmt: skip


def _sweep(paths: RunPaths, profile: Cluster, size: Size, options: dict[str, Any]) -> None:
    submit.check_order(paths, ("train",))
    if not options["no_checks"]:
        check_place(paths, profile, size)
    runs = forks.sweep(paths, options["overrides"], options["axes"])
    ids = submit.submit_sweep(runs, profile=profile, size=size, time=options["time"])
    rows = [{"run": run.name, "job": job} for run, job in ids]
    if options["as_json"]:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        click.echo(f"{row['job']:<12}{row['run']}")
    others = [run.name for run, _ in ids[1:]]
    if ids:
        click.echo(f"next: {ids[0][0].command('compare', *others)}", err=True)


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
    paths = prepare(runs, config_file, name, overrides, first=stage)
    submit.check_order(paths, (stage,))
    if stage == "train" and not submit.remaining(paths, (stage,)):
        click.echo(f"run {paths.name}: train is complete already", err=True)
        return
    profile = cluster.local_cluster()
    moved = cluster.of_run(paths).scheduler != "local"
    count = ranks or submit.size_again(paths, profile, moved=moved).ranks
    if lease.holder(paths) is None:
        cluster.save(profile, paths.cluster)
    job = StageJob(str(paths.root), (stage,), count, rebuild=rebuild)
    if run_stages(job, attempts.local_place(), output=sys.stderr):
        raise_failure(paths, (stage,))
