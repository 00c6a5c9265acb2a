"""`giblet-hpc doctor`: will it work here?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from giblet_hpc.cli.common import cluster_option, json_option, runs_option
from giblet_hpc.jobs import cluster, doctor


@click.command("doctor")
@cluster_option
@runs_option
@click.option(
    "--gpus", type=click.IntRange(0), help="GPUs of each node of a job. [default: the profile's]"
)
@click.option(
    "--nodes", type=click.IntRange(1), default=1, show_default=True, help="Nodes of a job."
)
@click.option("--node", "on_node", is_flag=True, help="This is a node of a job, not a login node.")
@json_option
def doctor_command(
    cluster_choice: str | None,
    runs: Path,
    gpus: int | None,
    nodes: int,
    on_node: bool,
    as_json: bool,
) -> None:
    """Look for what would stop a run on this machine; each finding has a remedy.

    Exit code 1 when something will not work. On compute nodes: `srun giblet-hpc doctor --node`.
    """
    profile = cluster.choose(cluster_choice)
    wanted = profile.gpus_per_node if gpus is None else gpus
    here = on_node or profile.scheduler == "local"
    found = doctor.examine(profile, [runs], nodes=nodes, gpus=wanted, on_node=here)
    click.echo(json.dumps([asdict(f) for f in found]) if as_json else doctor.as_text(found))
    raise SystemExit(1 if doctor.worst(found) == "fail" else 0)
