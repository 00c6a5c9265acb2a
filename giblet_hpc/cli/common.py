"""What all commands share: options, completion, and how errors are shown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from giblet_hpc.errors import GibletError
from giblet_hpc.jobs import cluster, status
from giblet_hpc.runs import default_runs_folder


class Group(click.Group):
    """Shows our own errors as one screen of text with the right exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except GibletError as error:
            click.echo(error.render(), err=True)
            ctx.exit(error.exit_code)
        except BrokenPipeError:
            raise
        except OSError as error:
            # A full disk, a folder that may not be written: no traceback says it better.
            if error.filename is None:
                raise
            click.echo(f"error: {error.filename}: {error.strerror}", err=True)
            ctx.exit(1)


def run_name(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Complete names of runs."""
    folder = ctx.params.get("runs") or default_runs_folder()
    return [run.name for run in status.find_runs(folder) if run.name.startswith(incomplete)]


def cluster_name(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Complete names of cluster profiles."""
    names = [cluster.LOCAL, *cluster.known_profiles()]
    return [name for name in names if name.startswith(incomplete)]


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
name_argument = click.argument("name", required=False, shell_complete=run_name)
cluster_option = click.option(
    "--cluster",
    "cluster_choice",
    shell_complete=cluster_name,
    metavar="NAME|FILE",
    help="Cluster profile. [default: $GIBLET_CLUSTER, your only one, or local without Slurm]",
)


def keep_umask() -> None:
    """Make run folders readable, not writable, for the group, unless the user is stricter."""
    before = os.umask(0o027)
    os.umask(before | 0o022)
