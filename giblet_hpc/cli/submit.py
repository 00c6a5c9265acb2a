"""Commands that start runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from giblet_hpc.cli import target
from giblet_hpc.cli.common import (
    config_option,
    json_option,
    name_argument,
    run_name,
    runs_option,
    set_option,
)
from giblet_hpc.cli.start import (
    baseline_option,
    check_choices,
    check_place,
    checks_option,
    choose_option,
    raise_failure,
    ranks_option,
    size_options,
    start,
    time_option,
    wait_option,
    with_baseline,
    with_choices,
    without_skipped,
)
from giblet_hpc.cli.target import Target
from giblet_hpc.config.cluster import Cluster
from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import ConfigError
from giblet_hpc.jobs import profiles
from giblet_hpc.jobs.node.supervisor import run_stages
from giblet_hpc.jobs.record import lease
from giblet_hpc.jobs.record.resources import Resources, default_ranks, is_queued, spread
from giblet_hpc.jobs.record.task import StageTask
from giblet_hpc.jobs.schedulers.local import Local
from giblet_hpc.jobs.submit import checks, forks
from giblet_hpc.jobs.submit.plan import (
    missing_parts,
    plan,
    planned_parts,
    remaining,
    require_order,
    size_again,
    stages_of,
)
from giblet_hpc.jobs.submit.submission import Submission, submit_sweep
from giblet_hpc.runs.paths import STAGES, RunPaths, Stage


@click.command("submit")
@click.argument("what", type=click.Choice([*STAGES, "pipeline"]))
@config_option
@click.option(
    "--name",
    shell_complete=run_name,
    help="Name of the run. [default: that of the config's file; else the run that changed last]",
)
@set_option
@runs_option
@size_options
@time_option
@click.option("--partition", help="Partition instead of the profile's.")
@click.option("--after", default="", metavar="JOB", help="Wait for a job's success.")
@click.option(
    "--fork",
    metavar="NEW",
    help="A new run from this one, with --set's changes.",
)
@click.option("--force", is_flag=True, help="Start anew; a run of that name is moved aside.")
@click.option("--rebuild", is_flag=True, help="Replace parts made with other settings.")
@click.option(
    "--sweep",
    "axes",
    multiple=True,
    metavar="FIELD=A,B",
    help="A run for each value: train, evaluate.",
)
@choose_option
@baseline_option
@checks_option
@wait_option
@click.option("--dry-run", is_flag=True, help="Print the scripts and commands and do nothing.")
@json_option
def submit_command(what: str, **options: Any) -> None:
    """Queue a stage of a run, or all of them as a pipeline.

    A stage that is complete is not run again; one that was interrupted goes on where it was.
    """
    profile = profiles.choose(options["cluster_choice"])
    if options["partition"]:
        profile = profile.model_copy(update={"partition": options["partition"]})
    size = spread(profile, gpus=options["gpus"], ranks=options["ranks"], nodes=options["nodes"])
    check_choices(profile, options)
    stages = stages_of(what)
    options["overrides"] = with_choices(
        with_baseline(options["overrides"], options["baseline_only"]), options["choose"]
    )
    if options["axes"] and what != "train":
        raise ConfigError("--sweep is for `submit train`")
    if options["axes"] and options["dry_run"]:
        raise ConfigError("--dry-run shows one run's jobs: leave --sweep out")
    meant = _target(options, stages[0])
    config = meant.config or meant.paths.load_config()
    stages = without_skipped(stages, config)
    if not options["dry_run"]:
        _refuse_what_cannot_work(meant, config, stages, profile, size, options)
    if options["dry_run"]:
        click.echo(_planned(meant, stages, profile, size, options).text())
        left = _left(meant, stages, rebuild=options["rebuild"])
        _show_plan(meant, config, profile, size, options, left)
        return
    paths = meant.make()
    if options["axes"]:
        _sweep(paths, profile, size, options)
        return
    start(
        paths, stages, profile=profile, size=size, wait=options["wait"],
        as_json=options["as_json"], time=options["time"], after=options["after"],
        rebuild=options["rebuild"],
    )  # fmt: skip


def _refuse_what_cannot_work(
    meant: Target,
    config: RunConfig,
    stages: Sequence[Stage],
    profile: Cluster,
    size: Resources,
    options: dict[str, Any],
) -> None:
    left = _left(meant, stages)
    looked_at = "train" in left and not options["no_checks"]
    if looked_at and not options["axes"]:
        checks.require_fitting(config, profile, size, stored=_stored(meant, left))
    checks.require_possible(config, left, profile=profile, size=size)
    if left and not options["no_checks"]:
        checks.require_room(profile, size, time=options["time"])
    if "preprocess" in left and not options["no_checks"]:
        checks.require_sound_files(config, hint="--no-checks submits all the same")
    if looked_at:
        assert config.study.store is not None
        check_place([options["runs"], config.study.store], profile, size)


def _left(meant: Target, stages: Sequence[Stage], *, rebuild: bool = False) -> tuple[Stage, ...]:
    """Return the stages that a submission has to run."""
    if meant.config is None or meant.rescored:
        left = remaining(meant.paths, stages, rebuild=rebuild)
        again = meant.rescored and "evaluate" in stages and "evaluate" not in left
        return (*left, "evaluate") if again else left
    shared = meant.base is not None and forks.shares_preprocess(meant.base, meant.config)
    return tuple(stage for stage in stages if not (shared and stage == "preprocess"))


def _stored(meant: Target, left: Sequence[Stage]) -> RunPaths | None:
    """Return the run whose preprocess has made what training will read; None: it is not made."""
    if "preprocess" in left:
        return None
    if meant.config is None or meant.rescored:
        return meant.paths
    base = meant.base
    return base if base is not None and forks.shares_preprocess(base, meant.config) else None


def _show_plan(
    meant: Target,
    config: RunConfig,
    profile: Cluster,
    size: Resources,
    options: dict[str, Any],
    left: Sequence[Stage],
) -> None:
    """Show what training takes of the GPUs, where the profile says what they are."""
    place = checks.place_of(profile, size)
    if place is None or not checks.can_plan() or "train" not in left:
        return
    from giblet_hpc.cli import plan as plans
    from giblet_hpc.training import planner

    study = checks.size_of(config, _stored(meant, left))
    found = planner.estimates(config, study, place)
    text = plans.as_text(config, found, study=study, place=place)
    click.echo("\n".join(f"# {line}" for line in text.splitlines()))
    if not options["no_checks"]:
        # As `submit` would refuse it.
        checks.gpus_fit(config, study, place, most=profile.gpus_per_node)


def _target(options: dict[str, Any], first: Stage) -> Target:
    """Return the run that a submission from stage ``first`` is about."""
    runs, file, name = options["runs"], options["config_file"], options["name"]
    if options["fork"] and options["force"]:
        raise ConfigError("--fork makes a new run, --force replaces one: give one of them")
    if options["fork"]:
        base = name or (file.stem if file else None)
        return target.find_fork(
            runs, base, target.check_name(options["fork"]), options["overrides"]
        )
    if options["dry_run"] and file and not (runs / (name or file.stem)).exists():
        # Nothing is made, so nothing has to be there.
        first = "preprocess"
    overrides = () if options["axes"] else options["overrides"]
    find = target.find_forced if options["force"] else target.find
    return find(runs, file, name, overrides, first=first)


def _planned(
    meant: Target,
    stages: Sequence[Stage],
    profile: Cluster,
    size: Resources,
    options: dict[str, Any],
) -> Submission:
    """Return what a submission would send, before anything is made."""
    paths, config, rebuild = meant.paths, meant.config, options["rebuild"]
    left = _left(meant, stages, rebuild=rebuild)
    if config is None or meant.rescored:
        parts = missing_parts(paths, rebuild=rebuild) if "preprocess" in left else []
    else:
        parts = planned_parts(config)
    jobs = plan(
        paths, left, profile=profile, size=size, parts=parts, time=options["time"], rebuild=rebuild
    )
    return Submission(paths, profile, jobs, options["after"])


def _sweep(paths: RunPaths, profile: Cluster, size: Resources, options: dict[str, Any]) -> None:
    require_order(paths, ("train",))
    runs = forks.sweep(paths, options["overrides"], options["axes"])
    ids = submit_sweep(runs, profile=profile, size=size, time=options["time"])
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
@choose_option
@baseline_option
@click.option("--rebuild", is_flag=True, help="Replace parts made with other settings.")
def run_command(
    stage: Stage,
    name: str | None,
    config_file: Path | None,
    overrides: tuple[str, ...],
    runs: Path,
    ranks: int | None,
    choose: tuple[str, ...],
    baseline_only: bool,
    rebuild: bool,
) -> None:
    """Run a stage here and now, in the foreground."""
    overrides = with_choices(with_baseline(overrides, baseline_only), choose)
    meant = target.find(runs, config_file, name, overrides, first=stage)
    without_skipped((stage,), meant.config or meant.paths.load_config())
    if meant.config is None:
        require_order(meant.paths, (stage,))
    paths = meant.make()
    if stage == "train" and not remaining(paths, (stage,)):
        click.echo(f"run {paths.name}: train is complete already", err=True)
        return
    profile = profiles.local_cluster()
    here_before = not is_queued(profiles.of_run(paths))
    size = Resources(ranks or default_ranks(profile))
    if here_before and ranks is None:
        size = size_again(paths, profile, moved=False)
    found = lease.standing(paths)
    lease.require_answer(paths, found)
    if not found.alive:
        profiles.save(profile, paths.cluster)
    task = StageTask(str(paths.root), (stage,), size, rebuild=rebuild)
    if run_stages(task, Local().own_job(), output=sys.stderr):
        raise_failure(paths, (stage,))
