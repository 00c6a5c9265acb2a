"""Commands that look at runs and change nothing."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
from dataclasses import asdict
from pathlib import Path

import click

from giblet_hpc.cli.common import (
    json_option,
    name_argument,
    run_name,
    runs_option,
    set_option,
)
from giblet_hpc.errors import ConfigError
from giblet_hpc.jobs.inspect import efficiency as used
from giblet_hpc.jobs.inspect import logs, status
from giblet_hpc.printable import printable
from giblet_hpc.runs.paths import STAGES

ELSEWHERE = "--runs DIR or $GIBLET_RUNS looks elsewhere (`make demo`: demo/runs)"


@click.command("status")
@name_argument
@runs_option
@json_option
def status_command(name: str | None, runs: Path, as_json: bool) -> None:
    """Show where runs stand and what to type next."""
    found = [status.choose_run(runs, name)] if name else status.find_runs(runs)
    facts = [status.describe_safely(paths) for paths in found]
    if name and not facts[0].get("error") and not facts[0]["next"]:
        facts[0]["used"] = used.of_run(found[0])
    if as_json:
        click.echo(json.dumps(facts[0] if name else facts))
        return
    lines = [status.as_text(one) for one in facts]
    lines += [used.as_text(one["used"]) for one in facts if "used" in one]
    click.echo(printable("\n".join(lines)) if facts else f"no runs in {runs}; {ELSEWHERE}")


@click.command("runs")
@runs_option
@click.option(
    "--efficiency", is_flag=True, help="What each has used of what it asked for, and what would do."
)
@json_option
def runs_command(runs: Path, efficiency: bool, as_json: bool) -> None:
    """List runs, a line each."""
    rows = []
    if efficiency:
        every = [used.of_run_safely(paths) for paths in status.find_runs(runs)]
        rows = [row for row in every if row is not None]
        click.echo(json.dumps(rows) if as_json else printable(used.table(rows)))
        return
    for paths in status.find_runs(runs):
        stages = status.describe_safely(paths)["stages"]
        rows.append({"run": paths.name, **{name: s["status"] for name, s in stages.items()}})
    if as_json:
        click.echo(json.dumps(rows))
        return
    width = max([len(str(row["run"])) for row in rows], default=3)
    click.echo(f"{'run':<{width}}  {'preprocess':<13}{'train':<13}evaluate")
    for row in rows:
        line = f"{row['run']:<{width}}  {row['preprocess']:<13}{row['train']:<13}{row['evaluate']}"
        click.echo(printable(line))


@click.command("watch")
@click.argument("names", nargs=-1, shell_complete=run_name)
@runs_option
@click.option(
    "--every", type=click.FloatRange(0.2), default=5.0, show_default=True, help="Seconds."
)
def watch_command(names: tuple[str, ...], runs: Path, every: float) -> None:
    """Watch runs live: curves, pace, GPUs, last events; by default those not over.

    Ends when they are over. Lines as they change where this is no terminal.
    """
    from rich.console import Console

    from giblet_hpc.jobs.inspect import watch

    chosen = [status.choose_run(runs, name) for name in names]
    if not names:
        chosen = [paths for paths in status.find_runs(runs) if not watch.is_over(
            status.describe_safely(paths))]  # fmt: skip
    if not chosen:
        click.echo(f"no run in {runs} is running or queued; {ELSEWHERE}")
        return
    with contextlib.suppress(KeyboardInterrupt):
        watch.watch(chosen, every=every, console=Console())


@click.command("logs")
@name_argument
@runs_option
@click.option("-f", "--follow", is_flag=True, help="Go on while the run is running.")
@click.option("--stage", type=click.Choice(STAGES), help="Of this stage's last attempt.")
@click.option("--part", default="", help="Of this part of preprocess, such as run1/video.")
@click.option("--attempt", type=click.IntRange(1), help="Of this attempt.")
@click.option("--node", type=click.IntRange(0), default=0, show_default=True, help="Which node's.")
def logs_command(
    name: str | None,
    runs: Path,
    follow: bool,
    stage: str | None,
    part: str,
    attempt: int | None,
    node: int,
) -> None:
    """Print the log of a run's last attempt, or of another one."""
    paths = status.choose_run(runs, name)
    which = logs.Which(stage or "", part, attempt)
    ended = logs.Ended(paths)
    if not follow or ended():
        for text in logs.read_log(logs.latest_log(paths, node, which)):
            click.echo(text, nl=False)
        return
    files = logs.log_files(paths, node)
    for text in logs.follow(paths, known=set(files[:-1]), node=node, ended=ended):
        click.echo(text, nl=False)


@click.command("scores")
@name_argument
@runs_option
@json_option
def scores_command(name: str | None, runs: Path, as_json: bool) -> None:
    """Print the scores of an evaluated run."""
    from giblet_hpc.jobs.inspect import scores

    paths = status.choose_run(runs, name)
    if as_json:
        click.echo(json.dumps(scores.read(paths)))
        return
    click.echo(scores.table(paths))
    click.echo(f"report: {paths.report}")


@click.command("health")
@name_argument
@runs_option
@set_option
@json_option
def health_command(name: str | None, runs: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Say whether a run's training can succeed, and what speaks against it; exit 1 when it cannot.

    Thresholds are the config's section `health`; --set tries others.
    """
    from giblet_hpc.jobs.inspect import health

    paths = status.choose_run(runs, name)
    folds = health.examine(paths, overrides)
    if as_json:
        click.echo(json.dumps([
            {**fold, "findings": [asdict(one) for one in fold["findings"]]} for fold in folds
        ]))  # fmt: skip
    else:
        click.echo(printable(health.text(paths.name, folds)))
    raise SystemExit(1 if any(fold["verdict"] == "fail" for fold in folds) else 0)


@click.command("compare")
@click.argument("names", nargs=-1, required=True, shell_complete=run_name)
@runs_option
@json_option
def compare_command(names: tuple[str, ...], runs: Path, as_json: bool) -> None:
    """Show runs side by side: the settings in which they differ, and their scores."""
    from giblet_hpc.jobs.inspect import scores

    rows = scores.compare([status.choose_run(runs, name) for name in names])
    click.echo(json.dumps(rows) if as_json else scores.compare_table(rows))


@click.command("tensorboard")
@click.argument("names", nargs=-1, shell_complete=run_name)
@runs_option
@click.option("--port", type=click.IntRange(1024, 65535), help="[default: a free one]")
@click.option("--login", metavar="USER@HOST", help="How you reach this machine by ssh.")
@click.option("--dry-run", is_flag=True, help="Print the commands and do nothing.")
def tensorboard_command(
    names: tuple[str, ...], runs: Path, port: int | None, login: str | None, dry_run: bool
) -> None:
    """Serve training curves on loopback and print the ssh line that reaches them.

    In a job of its own (`srun giblet-hpc tensorboard RUN`), the line goes through the login node.
    """
    from giblet_hpc.jobs.inspect import tensorboard

    chosen = [status.choose_run(runs, name) for name in names] or status.find_runs(runs)
    if not chosen:
        raise ConfigError(f"no runs in {runs}", hint=ELSEWHERE)
    number = port or tensorboard.free_port()
    prefix = tensorboard.new_prefix()
    click.echo(f"on your own computer:  {tensorboard.tunnel(number, login)}")
    click.echo(f"then open:             http://localhost:{number}{prefix}/")
    command = tensorboard.command(chosen, number)
    if dry_run:
        click.echo(shlex.join(command))
        return
    os.execve(command[0], command, {**os.environ, tensorboard.PREFIX: prefix})  # noqa: S606
