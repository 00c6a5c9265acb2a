"""Commands that change runs which exist: go on, stop, repeat, drill."""

from __future__ import annotations

import json
from pathlib import Path

import click

from giblet_hpc.cli.common import (
    cluster_option,
    json_option,
    name_argument,
    restrict_umask,
    run_name,
    runs_option,
)
from giblet_hpc.cli.start import (
    check_choices,
    check_place,
    checks_option,
    size_options,
    start,
    time_option,
    wait_option,
)
from giblet_hpc.jobs import profiles
from giblet_hpc.jobs.inspect import drill, status
from giblet_hpc.jobs.record.resources import spread
from giblet_hpc.jobs.schedulers.base import Fault
from giblet_hpc.jobs.submit import checks, control, forks
from giblet_hpc.jobs.submit.plan import remaining, size_again
from giblet_hpc.runs.paths import STAGES, RunPaths, Stage
from giblet_hpc.trust import require_mine


@click.command("resubmit")
@name_argument
@runs_option
@size_options
@time_option
@click.option("--from", "step", type=click.IntRange(1), help="Go back to this step's checkpoint.")
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(STAGES),
    help="Of what is left, only this stage; may be given more than once.",
)
@checks_option
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
    only: tuple[Stage, ...],
    no_checks: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Queue what is left of a run, from its last checkpoint."""
    restrict_umask()
    paths = RunPaths(status.choose_run(runs, name).root.resolve())
    require_mine(paths.root, what=f"run {paths.name}")
    if freed := control.lift_exclusions(paths):
        click.echo(f"job {', '.join(freed)} may use all nodes again", err=True)
        return
    profile = profiles.choose(cluster_choice) if cluster_choice else profiles.of_run(paths)
    check_choices(profile, {"time": time})
    if gpus or ranks or nodes:
        size = spread(profile, gpus=gpus, ranks=ranks, nodes=nodes)
    else:
        size = size_again(paths, profile, moved=cluster_choice is not None)
    stages = tuple(stage for stage in STAGES if stage in (only or STAGES))
    config, left = paths.load_config(), remaining(paths, stages)
    checks.require_possible(config, left, profile=profile, size=size)
    if "train" in left and not no_checks:
        stored = None if "preprocess" in left else paths
        checks.require_fitting(config, profile, size, stored=stored)
        check_place([paths.root, config.study.store or paths.root], profile, size)
    if step:
        control.go_back(paths, step)
    start(paths, stages, profile=profile, size=size, wait=wait, as_json=as_json, time=time)


@click.command("cancel")
@click.argument("name", shell_complete=run_name)
@runs_option
def cancel_command(name: str, runs: Path) -> None:
    """Ask a run to stop at its next step boundary, with a checkpoint."""
    click.echo(control.cancel(status.choose_run(runs, name)), err=True)


@click.command("remove")
@click.argument("name", shell_complete=run_name)
@runs_option
@click.option("--yes", is_flag=True, help="Delete it; without, say what would be deleted.")
def remove_command(name: str, runs: Path, yes: bool) -> None:
    """Delete a run that nobody works on.

    Its config, checkpoints, curves and scores go; features stay in the store.
    """
    paths = RunPaths(status.choose_run(runs, name).root.resolve())
    require_mine(paths.root, what=f"run {paths.name}")
    size = f"{paths.root} ({control.size_of(paths) / 1e6:.1f} MB)"
    if not yes:
        click.echo(f"would delete {size}; `{paths.command('remove', '--yes')}` does", err=True)
        return
    control.remove(paths)
    click.echo(f"deleted {size}", err=True)


@click.command("export")
@click.argument("name", shell_complete=run_name)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@runs_option
@click.option("--step", type=click.IntRange(1), help="Of this step's checkpoint.  [default: best]")
@click.option("--fold", default="", help="Of this fold, where there are several.")
def export_command(name: str, file: Path, runs: Path, step: int | None, fold: str) -> None:
    """Write a run's weights into FILE (safetensors), for other programs."""
    from giblet_hpc.training.export import export_weights

    paths = status.choose_run(runs, name)
    taken = export_weights(paths.checkpoints(fold), file, step=step)
    click.echo(f"{file}: weights of run {paths.name} at step {taken}", err=True)


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
    restrict_umask()
    first = RunPaths(status.choose_run(runs, name).root.resolve())
    second = forks.repetition(first)
    if remaining(second, STAGES):
        profile = profiles.choose(cluster_choice) if cluster_choice else profiles.of_run(first)
        size = size_again(first, profile, moved=cluster_choice is not None)
        start(second, STAGES, profile=profile, size=size, wait=wait, as_json=as_json)
        if not wait:
            return
    facts = forks.comparison(first, second)
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
@click.option("--timeout", default=900, show_default=True, help="Seconds to wait for the resume.")
@json_option
def drill_command(fault: Fault, name: str, runs: Path, timeout: int, as_json: bool) -> None:
    """Cause a fault on a live run, and report how many steps it cost."""
    paths = status.choose_run(runs, name)
    attempt = drill.inject_fault(paths, fault)
    click.echo(f"{fault}: caused on attempt {attempt.number} of run {name}", err=True)
    cost = drill.observe(
        paths, attempt, fault, timeout=timeout, tell=lambda text: click.echo(text, err=True)
    )
    if as_json:
        click.echo(json.dumps(drill.as_facts(cost)))
        return
    click.echo(
        f"{cost.outcome}; went on from step {cost.step_after} of {cost.step_before} after "
        f"{cost.seconds:.0f} s: {cost.steps_lost} steps lost"
    )
