"""The study and the GPUs that a plan is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from giblet_hpc.config import io as config_io
from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import ConfigError, JobError
from giblet_hpc.jobs import profiles
from giblet_hpc.jobs.inspect.status import choose_run
from giblet_hpc.jobs.record.resources import spread
from giblet_hpc.jobs.submit import checks
from giblet_hpc.plans.hardware import GPUS, LINKS, Place, gpu_of, link_of
from giblet_hpc.plans.study_size import StudySize
from giblet_hpc.runs.paths import RunPaths

LINK_HELP = f"{', '.join(LINKS)}, or GB/s."
voxels_option = click.option(
    "--voxels", type=click.IntRange(1), help="Before preprocess: of the mask."
)
fps_option = click.option(
    "--fps", type=float, help="Before preprocess: frames a second of the films."
)


def place_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name GPUs and the links between them."""
    options = (
        click.option("--gpu", metavar="KIND", help=f"{', '.join(GPUS)}. [default: the profile's]"),
        click.option("--gpu-memory", type=float, metavar="GIB", help="Memory of a GPU."),
        click.option("--fabric", metavar="LINK", help=f"Between GPUs of a node: {LINK_HELP}"),
        click.option("--network", metavar="LINK", help=f"Between nodes: {LINK_HELP}"),
    )
    for option in reversed(options):
        command = option(command)
    return command


def require_torch(what: str) -> None:
    """Refuse what needs torch where there is none.

    Raises
    ------
    JobError
        With the way into the image.
    """
    if not checks.can_plan():
        raise JobError(
            f"giblet-hpc {what} needs torch, which this Python does not have",
            hint=f"`giblet-hpc image exec -- giblet-hpc {what} ...`, or install giblet-hpc[run]",
        )


def study_of(name: str | None, options: dict[str, Any]) -> tuple[RunConfig, StudySize]:
    """Return a run's config and sizes, or those that a config leads one to expect."""
    file: Path | None = options["config_file"]
    if file is None:
        if options["overrides"]:
            raise ConfigError("--set needs --config: a run's config stays as it is")
        paths = choose_run(options["runs"], name)
        config = paths.load_config()
        if paths.inputs.is_file():
            return config, checks.size_of(config, paths)
    else:
        config = config_io.load(file, options["overrides"])
    from giblet_hpc.training.expected_size import expected_size

    return config, expected_size(config, voxels=options["voxels"], fps=options["fps"])


def place_of(options: dict[str, Any]) -> Place:
    """Return the GPUs that are named, or those of the cluster's profile."""
    gpus, nodes = options["gpus"], options["nodes"]
    if options["gpu"] or options["gpu_memory"]:
        nodes = nodes or 1
        if (gpus := gpus or nodes) % nodes:
            raise ConfigError(f"{gpus} GPUs do not spread evenly over {nodes} nodes")
        gpu = gpu_of(options["gpu"], options["gpu_memory"])
        place: Place | None = Place(gpu, gpus // nodes, nodes, LINKS["pcie"], LINKS["infiniband"])
    else:
        try:
            profile = profiles.choose(options["cluster_choice"])
        except ConfigError as error:
            hint = "--gpu KIND --gpus N plans for any place; " + (error.hint or "")
            raise ConfigError(str(error), hint=hint) from None
        size = spread(profile, gpus=gpus, ranks=None, nodes=nodes)
        place = checks.place_of(profile, size)
    if place is None:
        gpu_of(None, None)
        raise AssertionError
    if options["fabric"]:
        place = replace(place, link=link_of(options["fabric"]))
    if options["network"]:
        place = replace(place, network=link_of(options["network"]))
    return place


def planned_seconds(paths: RunPaths, options: dict[str, Any]) -> float:
    """Return the seconds that a plan gives a step on the profile's GPUs; 0 where it has none."""
    config = paths.load_config()
    try:
        profile = profiles.choose(options["cluster_choice"])
        size = spread(profile, gpus=None, ranks=None, nodes=None)
        place = checks.place_of(profile, size)
    except ConfigError:
        return 0.0
    if place is None:
        return 0.0
    from giblet_hpc.training import planner

    best = planner.choose(planner.estimates(config, checks.size_of(config, paths), place))
    return best.step_seconds if best is not None else 0.0
