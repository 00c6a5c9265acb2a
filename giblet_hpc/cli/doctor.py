"""`giblet-hpc doctor`: will it work here?"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from pathlib import Path

import click

from giblet_hpc import findings
from giblet_hpc.cli.common import json_option, restrict_umask, runs_option
from giblet_hpc.cli.start import size_options
from giblet_hpc.errors import GibletError
from giblet_hpc.jobs import profiles
from giblet_hpc.jobs.doctor import examine
from giblet_hpc.jobs.doctor import job as check_job
from giblet_hpc.jobs.inspect.status import find_runs
from giblet_hpc.jobs.record.resources import is_queued, spread


def _stores(runs: Path) -> list[Path]:
    """Return the folders of the stores that the runs use."""
    stores = []
    for run in find_runs(runs):
        # A run that cannot be read, which `status` says, has no say here.
        with contextlib.suppress(GibletError, OSError):
            if run.is_current():
                stores.append(run.load_config().study.store)
    return list(dict.fromkeys(store for store in stores if store is not None))


@click.command("doctor")
@size_options
@runs_option
@click.option(
    "--job", is_flag=True, help="Also look at nodes and measure between them, by a short job."
)
@click.option("--node", "on_node", is_flag=True, help="This is a node of a job, not a login node.")
@json_option
def doctor_command(
    cluster_choice: str | None,
    runs: Path,
    gpus: int | None,
    ranks: int | None,
    nodes: int | None,
    job: bool,
    on_node: bool,
    as_json: bool,
) -> None:
    """Look for what would stop a run; each finding has a remedy.

    On this machine within seconds; with --job on nodes of the cluster too, in the geometry of a run
    to come. Exit code 1 when something will not work.
    """
    profile = profiles.choose(cluster_choice)
    size = spread(profile, gpus=gpus, ranks=ranks, nodes=nodes)
    here = on_node or not is_queued(profile)
    found: list[findings.Finding] = []
    if not (job and here):
        found = examine.examine(
            profile, [runs, *_stores(runs)], nodes=size.nodes, gpus=size.gpus, on_node=here
        )
    if job and findings.worst(found) != "fail":
        restrict_umask()
        found += check_job.carry_out(
            profile, size, runs, tell=lambda line: click.echo(line, err=True)
        )
    click.echo(json.dumps([asdict(f) for f in found]) if as_json else findings.as_text(found))
    raise SystemExit(1 if findings.worst(found) == "fail" else 0)
