"""Commands on configs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from giblet_hpc.cli.common import runs_option, set_option
from giblet_hpc.cli.planned import require_torch
from giblet_hpc.config import io as config_io
from giblet_hpc.config.run import RunConfig
from giblet_hpc.jobs.submit import checks
from giblet_hpc.runs.paths import RunPaths


@click.group()
def config() -> None:
    """Show and check configs, and what they may hold."""


@config.command("show")
@click.argument("file", metavar="FILE|RUN", type=click.Path(path_type=Path))
@set_option
@runs_option
def config_show(file: Path, overrides: tuple[str, ...], runs: Path) -> None:
    """Print the config in a file, or of a run, with every default written out."""
    of_run = RunPaths(runs / file).config
    if not file.exists() and of_run.is_file():
        file = of_run
    click.echo(config_io.dump(config_io.load(file, overrides)), nl=False)


@config.command("check")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@set_option
@click.option("--data", "look", is_flag=True, help="Look at the headers of the study's files too.")
def config_check(files: tuple[Path, ...], overrides: tuple[str, ...], look: bool) -> None:
    """Check configs; exit 2 when one is wrong."""
    for file in files:
        loaded = config_io.load(file, overrides)
        if look:
            require_torch("config check --data")
            checks.require_sound_files(loaded)
        click.echo(f"{file}: good")


@config.command("schema")
def config_schema() -> None:
    """Print the schema of configs as JSON Schema."""
    click.echo(json.dumps(RunConfig.model_json_schema(), indent=1))
