"""`giblet-hpc init`: a study config from the files in a folder."""

from __future__ import annotations

import json
from pathlib import Path

import click

from giblet_hpc.errors import ConfigError
from giblet_hpc.files import create_text


@click.command("init")
@click.argument("folder", type=click.Path(path_type=Path), default=Path())
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("study.yaml"),
    show_default=True, help="The config to write; an existing file is never replaced.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="What was found, for programs.")
def init_command(folder: Path, output: Path, as_json: bool) -> None:
    """Look at the files in FOLDER and write a study config with comments."""
    from giblet_hpc.discovery.draft import draft_config

    if output.exists():
        raise ConfigError(f"{output} exists already", hint="name another file with --output")
    made = draft_config(folder)
    output.parent.mkdir(parents=True, exist_ok=True)
    if not create_text(output, made.text):
        raise ConfigError(f"{output} exists already", hint="name another file with --output")
    if as_json:
        click.echo(json.dumps({"config": str(output), "found": made.found,
                               "undecided": made.undecided}, indent=1))  # fmt: skip
        return
    for said in made.found:
        click.echo(f"found: {said}", err=True)
    for said in made.undecided:
        click.echo(f"not decided: {said}", err=True)
    click.echo(output)
    click.echo(f"next: giblet-hpc config check {output} --data", err=True)
