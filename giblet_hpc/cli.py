"""The command line: parse, call, print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from giblet_hpc import __version__, config_io, log
from giblet_hpc.config import RunConfig
from giblet_hpc.errors import ConfigError, GibletError, JobError
from giblet_hpc.jobs import launch, logs, status, submit, tensorboard
from giblet_hpc.jobs.supervisor import StageJob, supervise
from giblet_hpc.runs import STAGES, RunPaths, Stage, default_runs_folder

Command = TypeVar("Command", bound=Callable[..., Any])


class Group(click.Group):
    """Shows our own errors as one screen of text with the right exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except GibletError as error:
            click.echo(error.render(), err=True)
            ctx.exit(error.exit_code)


runs_option = click.option(
    "--runs",
    type=click.Path(file_okay=False, path_type=Path),
    default=default_runs_folder,
    show_default="$GIBLET_RUNS or ./runs",
    help="Folder that runs live in.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="FIELD=VALUE", help="Override a config field."
)
config_option = click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="Config of a new run."
)


def run_name(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Complete names of runs."""
    folder = ctx.params.get("runs") or default_runs_folder()
    return [run.name for run in status.find_runs(folder) if run.name.startswith(incomplete)]


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="giblet-hpc")
def main() -> None:
    """Naturalistic-movie fMRI: from a film and scans to a scored model.

    Tab completion for bash: eval "$(_GIBLET_HPC_COMPLETE=bash_source giblet-hpc)"
    """


@main.group()
def config() -> None:
    """Show, check and explain configs."""


@config.command("show")
@click.argument("file", type=click.Path(path_type=Path))
@set_option
def config_show(file: Path, overrides: tuple[str, ...]) -> None:
    """Print a config with every default written out."""
    click.echo(config_io.dump(config_io.load(file, overrides)), nl=False)


@config.command("check")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@set_option
def config_check(files: tuple[Path, ...], overrides: tuple[str, ...]) -> None:
    """Check configs; exit 2 when one is wrong."""
    for file in files:
        config_io.load(file, overrides)
        click.echo(f"{file}: good")


@config.command("schema")
def config_schema() -> None:
    """Print the schema of configs as JSON Schema."""
    click.echo(json.dumps(RunConfig.model_json_schema(), indent=1))


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--trs", default="360,160", show_default=True, help="TRs of each scan run.")
@click.option("--subjects", default=4, show_default=True, type=click.IntRange(2, 50))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
def synthesize(folder: Path, trs: str, subjects: int, seed: int) -> None:
    """Write a synthetic study with a known answer into FOLDER."""
    from giblet_hpc.synthetic import StudySpec
    from giblet_hpc.synthetic import synthesize as write_study

    log.setup()
    try:
        lengths = tuple(int(part) for part in trs.split(","))
    except ValueError:
        raise ConfigError(f"--trs {trs!r} is not a list of numbers", hint="280,160") from None
    write_study(folder, StudySpec(runs=lengths, subjects=subjects, seed=seed))
    click.echo(folder)


def prepare(
    runs: Path, config_file: Path | None, name: str | None, overrides: tuple[str, ...]
) -> RunPaths:
    """Return the run to work on, made from the config when one is given."""
    if config_file is None:
        if overrides:
            raise ConfigError("--set needs --config: a run's config does not change")
        return status.choose_run(runs, name)
    paths = RunPaths((runs / (name or config_file.stem)).resolve())
    paths.create(config_io.load(config_file, overrides))
    return paths


@main.command("submit")
@click.argument("what", type=click.Choice([*STAGES, "pipeline"]))
@config_option
@click.option("--name", shell_complete=run_name, help="Name of the run. [default: the config's]")
@set_option
@runs_option
@click.option("--ranks", type=click.IntRange(1), help="Processes. [default: one per GPU, or 1]")
@click.option("--gpus", type=click.IntRange(1), help="GPUs, each with a process of its own.")
@click.option("--wait", is_flag=True, help="Show the log and wait for the end.")
@click.option("--dry-run", is_flag=True, help="Print the commands and do nothing.")
@json_option
def submit_command(
    what: str,
    config_file: Path | None,
    name: str | None,
    overrides: tuple[str, ...],
    runs: Path,
    ranks: int | None,
    gpus: int | None,
    wait: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Queue a stage of a run, or all of them as a pipeline.

    A stage that is complete is not run again; one that was interrupted goes on where it was.
    """
    if dry_run and config_file is not None:
        config_io.load(config_file, overrides)
        paths = RunPaths((runs / (name or config_file.stem)).resolve())
    else:
        paths = prepare(runs, config_file, name, overrides)
    stages = submit.stages_of(what)
    count = ranks or gpus or launch.default_ranks()
    if dry_run:
        click.echo(submit.dry_run(StageJob(str(paths.root), stages, count)))
        return
    _start(paths, stages, ranks=count, wait=wait, as_json=as_json)


def _start(
    paths: RunPaths,
    stages: tuple[Stage, ...],
    *,
    ranks: int,
    wait: bool,
    as_json: bool,
) -> None:
    """Submit what is left of ``stages``; a live run is shown instead."""
    live = submit.running(paths)
    left = submit.remaining(paths, stages)
    known = set(logs.log_files(paths))
    if live is None and left:
        submit.check_order(paths, left)
        devices = os.environ.get("CUDA_VISIBLE_DEVICES")
        submit.submit_local(StageJob(str(paths.root), left, ranks, cuda_devices=devices))
        click.echo(f"submitted {', '.join(left)} of run {paths.name}", err=True)
    elif live is None:
        click.echo(f"run {paths.name}: {', '.join(stages)} already complete", err=True)
    if wait:
        _watch(paths, known)
    facts = status.describe(paths)
    click.echo(json.dumps(facts) if as_json else status.as_text(facts))
    if wait:
        _raise_failure(paths, stages)


def _watch(paths: RunPaths, known: set[Path]) -> None:
    for text in logs.follow(paths, known=known, ended=lambda: submit.running(paths) is None):
        click.echo(text, nl=False, err=True)


def _raise_failure(paths: RunPaths, stages: tuple[Stage, ...]) -> None:
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


@main.command("run")
@click.argument("stage", type=click.Choice(STAGES))
@click.argument("name", required=False, shell_complete=run_name)
@config_option
@set_option
@runs_option
@click.option("--ranks", type=click.IntRange(1), help="Processes. [default: one per GPU, or 1]")
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
    live = submit.running(paths)
    if live is not None:
        raise JobError(f"run {paths.name}: {live} is running", hint="giblet-hpc status")
    submit.check_order(paths, (stage,))
    code = supervise(stage, paths, ranks=ranks or launch.default_ranks(), rebuild=rebuild)
    if code or paths.stage_state(stage).get("status") != "complete":
        _raise_failure(paths, (stage,))


@main.command("status")
@click.argument("name", required=False, shell_complete=run_name)
@runs_option
@json_option
def status_command(name: str | None, runs: Path, as_json: bool) -> None:
    """Show where runs stand and what to type next."""
    found = [status.choose_run(runs, name)] if name else status.find_runs(runs)
    facts = [status.describe(paths) for paths in found]
    if as_json:
        click.echo(json.dumps(facts[0] if name else facts))
        return
    click.echo("\n".join(map(status.as_text, facts)) if facts else f"no runs in {runs}")


@main.command("logs")
@click.argument("name", required=False, shell_complete=run_name)
@runs_option
@click.option("-f", "--follow", is_flag=True, help="Go on while the run is running.")
def logs_command(name: str | None, runs: Path, follow: bool) -> None:
    """Print the log of a run's last attempt."""
    paths = status.choose_run(runs, name)
    latest = logs.latest_log(paths)
    if not follow:
        click.echo(latest.read_text(), nl=False)
        return
    known = set(logs.log_files(paths)) - {latest}
    for text in logs.follow(paths, known=known, ended=lambda: submit.running(paths) is None):
        click.echo(text, nl=False)


@main.command("resubmit")
@click.argument("name", required=False, shell_complete=run_name)
@runs_option
@click.option("--ranks", type=click.IntRange(1), help="Processes. [default: one per GPU, or 1]")
@click.option("--wait", is_flag=True, help="Show the log and wait for the end.")
@json_option
def resubmit_command(
    name: str | None, runs: Path, ranks: int | None, wait: bool, as_json: bool
) -> None:
    """Queue what is left of a run, from its last checkpoint."""
    paths = status.choose_run(runs, name)
    before = [paths.stage_state(stage).get("ranks") for stage in ("train", "evaluate")]
    count = ranks or next(filter(None, before), None) or launch.default_ranks()
    _start(paths, STAGES, ranks=count, wait=wait, as_json=as_json)


@main.command("cancel")
@click.argument("name", shell_complete=run_name)
@runs_option
def cancel_command(name: str, runs: Path) -> None:
    """Ask a run to stop at its next step boundary, with a checkpoint."""
    submit.cancel_local(status.choose_run(runs, name))
    click.echo(f"asked run {name} to stop", err=True)


@main.command("scores")
@click.argument("name", required=False, shell_complete=run_name)
@runs_option
@json_option
def scores_command(name: str | None, runs: Path, as_json: bool) -> None:
    """Print the scores of an evaluated run."""
    paths = status.choose_run(runs, name)
    table = status.scores_table(paths)
    if as_json:
        click.echo((paths.evaluation / "scores.json").read_text(), nl=False)
        return
    click.echo(table)
    click.echo(f"report: {paths.report}")


@main.command("tensorboard")
@click.argument("names", nargs=-1, shell_complete=run_name)
@runs_option
@click.option("--port", type=click.IntRange(1024, 65535), help="[default: a free one]")
@click.option("--dry-run", is_flag=True, help="Print the commands and do nothing.")
def tensorboard_command(
    names: tuple[str, ...], runs: Path, port: int | None, dry_run: bool
) -> None:
    """Serve training curves on loopback and print the ssh line that reaches them."""
    chosen = [status.choose_run(runs, name) for name in names] or status.find_runs(runs)
    number = port or tensorboard.free_port()
    click.echo(f"on your own computer:  {tensorboard.tunnel(number)}")
    click.echo(f"then open:             http://localhost:{number}")
    command = tensorboard.command(chosen, number)
    if dry_run:
        click.echo(" ".join(command))
        return
    sys.exit(subprocess.call(command))


@main.group()
def store() -> None:
    """Look at, verify and tidy a feature store."""


def _store(path: Path) -> Any:
    from giblet_hpc.store import FeatureStore

    if not (path / "zarr.json").is_file():
        raise ConfigError(f"{path} is not a feature store", hint="name the .zarr folder")
    return FeatureStore(path)


store_argument = click.argument("path", type=click.Path(path_type=Path))


@store.command("info")
@store_argument
@json_option
def store_info(path: Path, as_json: bool) -> None:
    """List a store's parts and how much of each is committed."""
    rows = _store(path).summary()
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        shape = " x ".join(map(str, row["shape"]))
        done = f"{row['committed']}/{row['shards']} shards"
        click.echo(f"{row['part']:<34}{shape:<26}{row['dtype']:<9}{row['bytes']:>13,}  {done}")


@store.command("verify")
@store_argument
@json_option
def store_verify(path: Path, as_json: bool) -> None:
    """Check every shard against its commit record; exit 1 when one is not good."""
    problems = _store(path).verify()
    click.echo(json.dumps(problems) if as_json else "\n".join(problems) or "all shards are good")
    if problems:
        raise JobError(
            f"{len(problems)} shards are missing or damaged",
            hint="`giblet-hpc submit preprocess` writes them again",
        )


@store.command("gc")
@store_argument
@click.option(
    "--older-than", default=48.0, show_default=True, help="Hours; younger files may be in use."
)
def store_gc(path: Path, older_than: float) -> None:
    """Remove temporary files that killed writers left."""
    for removed in _store(path).collect_garbage(older_than=older_than * 3600):
        click.echo(removed)


if __name__ == "__main__":
    main()
