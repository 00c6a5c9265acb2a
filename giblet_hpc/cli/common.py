"""What all commands share: how errors are shown, options, completion."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from giblet_hpc.errors import GibletError
from giblet_hpc.trust import PRIVATE_UMASK


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
        except (OSError, MemoryError, RuntimeError) as error:
            # What a file system or a limit refuses: no traceback says it better.
            from giblet_hpc.files import explain

            known = explain(error)
            if known is not None:
                click.echo(known.render(), err=True)
                ctx.exit(known.exit_code)
            if not isinstance(error, OSError) or error.filename is None:
                raise
            click.echo(f"error: {error.filename}: {error.strerror}", err=True)
            ctx.exit(1)


def default_runs() -> Path:
    """Return the folder that runs live in."""
    from giblet_hpc.runs.paths import default_runs_folder

    return default_runs_folder()


def run_name(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Complete names of runs."""
    from giblet_hpc.jobs.inspect.status import find_runs

    folder = ctx.params.get("runs") or default_runs()
    return [run.name for run in find_runs(folder) if run.name.startswith(incomplete)]


def cluster_name(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Complete names of cluster profiles."""
    from giblet_hpc.config.cluster import LOCAL
    from giblet_hpc.jobs.profiles import known_profiles

    return [name for name in (LOCAL, *known_profiles()) if name.startswith(incomplete)]


runs_option = click.option(
    "--runs",
    type=click.Path(file_okay=False, path_type=Path),
    default=default_runs,
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
    help="Cluster profile. [default: $GIBLET_CLUSTER, your only one, or local without a scheduler]",
)


def restrict_umask() -> None:
    """Keep what runs make for this user; a profile's `group:` shares it."""
    os.umask(PRIVATE_UMASK)
