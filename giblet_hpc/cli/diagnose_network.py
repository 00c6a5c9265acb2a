"""Commands that look at a run's network: its layers, its memory, its gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from giblet_hpc.cli.common import (
    cluster_option,
    config_option,
    json_option,
    name_argument,
    runs_option,
    set_option,
)
from giblet_hpc.cli.findings import preprocessed, show
from giblet_hpc.cli.planned import (
    fps_option,
    place_of,
    place_options,
    require_torch,
    study_of,
    voxels_option,
)
from giblet_hpc.cli.start import gpus_option, nodes_option
from giblet_hpc.errors import ConfigError
from giblet_hpc.jobs.inspect import measured
from giblet_hpc.jobs.inspect.status import choose_run
from giblet_hpc.plans.hardware import LINKS, Place, gpu_of

ONE_GPU = Place(gpu_of("h100", None), 1, 1, LINKS["pcie"], LINKS["infiniband"])
"""Stands in where no GPU is known: what is planned for it is no limit."""


@click.command("model")
@name_argument
@config_option
@set_option
@runs_option
@voxels_option
@fps_option
@json_option
def inspect_model(name: str | None, **options: Any) -> None:
    """Show a network's layers: shapes, parameters, operations; the largest tensors.

    Without its numbers: nothing is read but sizes.
    """
    require_torch("inspect")
    config, size = study_of(name, options)
    from giblet_hpc.diagnosis import network

    looked = network.NetworkCheck(config, size)
    if not options["as_json"]:
        click.echo(network.table(looked.facts()["layers"]))
        click.echo("")
    show(looked, as_json=options["as_json"])


@click.command("memory")
@name_argument
@config_option
@set_option
@runs_option
@cluster_option
@gpus_option
@nodes_option
@place_options
@voxels_option
@fps_option
@json_option
def inspect_memory(name: str | None, **options: Any) -> None:
    """Compare the memory that a plan expects with what a run has used so far."""
    require_torch("inspect")
    config, size = study_of(name, options)
    named = options["gpu"] or options["gpu_memory"] or options["gpus"]
    try:
        place: Place | None = place_of(options)
    except ConfigError:
        if named:
            raise
        place = None
    from giblet_hpc.diagnosis.memory import MemoryCheck
    from giblet_hpc.training import planner

    found = planner.estimates(config, size, place or ONE_GPU)
    best = planner.choose(found)
    mode = config.model.parallel
    estimate = found[mode] if mode != "auto" else best or found["ddp"]
    used = measured.Measured()
    if options["config_file"] is None:
        used = measured.of_training(choose_run(options["runs"], name))
    looked = MemoryCheck(estimate, place, used.gpu_bytes, used.node_bytes, used.asked_gib)
    show(looked, as_json=options["as_json"])


@click.command("gradients")
@name_argument
@runs_option
@click.option("--checkpoint", "step", type=click.IntRange(0),
              help="Of this step; 0: as drawn.  [default: the newest]")  # fmt: skip
@click.option("--batches", type=click.IntRange(1), default=10, show_default=True)
@click.option("--fold", default="", help="Of this fold, where there are several.")
@json_option
def inspect_gradients(
    name: str | None, runs: Path, *, step: int | None, batches: int, fold: str, as_json: bool
) -> None:
    """Measure each loss component's gradient: at the bottleneck, by layer, against the others.

    On some training batches, in this process, also while the run trains.
    """
    paths = preprocessed(runs, name)
    from giblet_hpc.stages.inspect_gradients import gradients_of

    looked = gradients_of(paths.load_config(), paths, step=step, batches=batches, fold=fold)
    show(looked, as_json=as_json)
