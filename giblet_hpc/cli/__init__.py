"""The command line: parse, call, print."""

from __future__ import annotations

from pathlib import Path

import click

from giblet_hpc import __version__, log
from giblet_hpc.cli.checking import doctor_command
from giblet_hpc.cli.clusters import cluster
from giblet_hpc.cli.common import Group
from giblet_hpc.cli.configs import config
from giblet_hpc.cli.images import image
from giblet_hpc.cli.looking import (
    compare_command,
    logs_command,
    runs_command,
    scores_command,
    status_command,
    tensorboard_command,
)
from giblet_hpc.cli.repeating import (
    cancel_command,
    drill_command,
    reproduce_command,
    resubmit_command,
)
from giblet_hpc.cli.stores import store
from giblet_hpc.cli.submitting import run_command, submit_command
from giblet_hpc.errors import ConfigError


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="giblet-hpc")
def main() -> None:
    """Naturalistic-movie fMRI: from a film and scans to a scored model.

    Tab completion for bash: eval "$(_GIBLET_HPC_COMPLETE=bash_source giblet-hpc)"
    """


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


for command in (
    config, submit_command, run_command, status_command, runs_command, logs_command,
    resubmit_command, cancel_command, scores_command, compare_command, reproduce_command,
    tensorboard_command, drill_command, cluster, image, doctor_command, store,
):  # fmt: skip
    main.add_command(command)
