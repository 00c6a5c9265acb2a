"""Commands on cluster profiles."""

from __future__ import annotations

import json
from pathlib import Path

import click
import yaml

from giblet_hpc.cli.common import cluster_name, json_option
from giblet_hpc.config import io as config_io
from giblet_hpc.config.cluster import LOCAL, Cluster
from giblet_hpc.errors import ConfigError, JobError
from giblet_hpc.files import write_text
from giblet_hpc.jobs import profiles
from giblet_hpc.jobs.schedulers import registry


@click.group()
def cluster() -> None:
    """Describe the cluster that jobs are queued on."""


@cluster.command("list")
def cluster_list() -> None:
    """List the profiles that --cluster can name."""
    click.echo(f"{LOCAL:<20}this machine")
    for name, file in profiles.known_profiles().items():
        click.echo(f"{name:<20}{file}")


@cluster.command("show")
@click.argument("name", required=False, shell_complete=cluster_name)
@json_option
def cluster_show(name: str | None, as_json: bool) -> None:
    """Print a profile with every default written out."""
    values = config_io.plain(profiles.choose(name))
    click.echo(json.dumps(values) if as_json else yaml.safe_dump(values, sort_keys=False), nl=False)


@cluster.command("schema")
def cluster_schema() -> None:
    """Print the schema of profiles as JSON Schema."""
    click.echo(json.dumps(Cluster.model_json_schema(), indent=1))


@cluster.command("detect")
@click.option("--name", default="default", show_default=True, help="Name of the profile.")
@click.option("--partition", help="Partition to describe. [default: the site's default]")
@click.option("--output", type=click.Path(path_type=Path), help="File to write; - prints it.")
@click.option("--force", is_flag=True, help="Replace a profile of that name.")
@click.option("--probe", is_flag=True, help="Ask a compute node too, by a job of a few seconds.")
def cluster_detect(
    name: str, partition: str | None, output: Path | None, force: bool, probe: bool
) -> None:
    """Ask the scheduler what this cluster is like and write a commented profile."""
    scheduler = registry.installed()
    if scheduler is None:
        raise JobError(
            "this machine has no scheduler that is known",
            hint="is this a login node of a cluster? A `module load` may be missing",
        )
    text = scheduler.profile_text(name, partition, probe=probe)
    if output == Path("-"):
        click.echo(text, nl=False)
        return
    file = output or profiles.profile_folders()[0] / f"{name}.yaml"
    if file.exists() and not force:
        raise ConfigError(f"{file} exists", hint="--force replaces it; --output - only prints")
    write_text(file, text)
    profiles.load(file)
    click.echo(file)
