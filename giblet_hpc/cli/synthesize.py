"""`giblet-hpc synthesize`: a study whose answer is known."""

from __future__ import annotations

from pathlib import Path

import click

from giblet_hpc import log
from giblet_hpc.errors import ConfigError


@click.command("synthesize")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--trs", default="360,160", show_default=True, help="TRs of each scan run.")
@click.option("--subjects", default=4, show_default=True, type=click.IntRange(2, 50))
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
def synthesize_command(folder: Path, trs: str, subjects: int, seed: int) -> None:
    """Write a synthetic study with a known answer into FOLDER."""
    from giblet_hpc.synthetic import StudySpec, synthesize

    log.setup()
    try:
        lengths = tuple(int(number) for number in trs.split(","))
    except ValueError:
        raise ConfigError(f"--trs {trs!r} is not a list of numbers", hint="280,160") from None
    synthesize(folder, StudySpec(runs=lengths, subjects=subjects, seed=seed))
    click.echo(folder)
