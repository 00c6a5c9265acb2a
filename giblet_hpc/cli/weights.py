"""`giblet-hpc weights`: the trained weights that a config needs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from giblet_hpc.cli.common import set_option
from giblet_hpc.cli.planned import require_torch
from giblet_hpc.config import io


@click.command("weights")
@click.argument("file", metavar="CONFIG", type=click.Path(path_type=Path))
@set_option
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def weights_command(file: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """List the trained weights that a config needs, and whether they are here; exit 1 if not."""
    require_torch("weights")
    from giblet_hpc.weights import needed_weights

    found = needed_weights(io.load(file, overrides))
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=1))
    elif not found:
        click.echo("none are needed")
    for one in found if not as_json else []:
        size = f"{one.bytes / 1e9:.2f} GB" if one.here else "not on this machine"
        click.echo(
            f"features.{one.section}: {one.name}: {size}; licence {one.licence or 'not said'}"
        )
        click.echo(f"  {one.folder or one.source}")
    if not all(one.here for one in found):
        raise SystemExit(1)
