"""What training takes in each parallel mode, before anything is queued."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from giblet_hpc.cli.common import (
    cluster_option,
    config_option,
    json_option,
    name_argument,
    runs_option,
    set_option,
)
from giblet_hpc.cli.planned import (
    fps_option,
    place_of,
    place_options,
    require_torch,
    study_of,
    voxels_option,
)
from giblet_hpc.cli.start import gpus_option, nodes_option
from giblet_hpc.config.run import RunConfig
from giblet_hpc.plans.hardware import GIB, Place
from giblet_hpc.plans.study_size import StudySize

if TYPE_CHECKING:
    from giblet_hpc.training.planner import Estimate


@click.command("plan")
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
def plan_command(name: str | None, **options: Any) -> None:
    """Show memory, traffic and time of each parallel mode, and which is chosen."""
    require_torch("plan")
    config, study = study_of(name, options)
    place = place_of(options)
    from giblet_hpc.training import planner

    found = planner.estimates(config, study, place)
    if options["as_json"]:
        click.echo(json.dumps(as_json(found, study, place)))
        return
    click.echo(as_text(config, found, study=study, place=place))


def as_json(found: dict[str, Estimate], study: StudySize, place: Place) -> dict[str, Any]:
    """Return all figures, in bytes and seconds."""
    from giblet_hpc.training import planner

    best = planner.choose(found)
    modes = {
        mode: {**asdict(e), "gpu_bytes": e.gpu_bytes, "step_seconds": e.step_seconds}
        for mode, e in found.items()
    }
    return {
        "place": asdict(place),
        "study": asdict(study),
        "modes": modes,
        "chosen": best and best.mode,
    }


def as_text(
    config: RunConfig, found: dict[str, Estimate], *, study: StudySize, place: Place
) -> str:
    """Return a table of the modes, and what the chosen one is made of."""
    from giblet_hpc.training import planner

    best = planner.choose(found)
    some = next(iter(found.values()))
    nodes = f" on {place.nodes} nodes" if place.nodes > 1 else ""
    lines = [
        f"{config.model.kind} network of {some.weights:,} parameters, "
        f"{config.train.batch_windows * config.train.window_trs} TRs a step, "
        f"{place.ranks} x {place.gpu.name} ({place.gpu.memory:g} GiB){nodes}",
    ]
    if study.assumed:
        assumed = ", ".join(f"{what} {value:,}" for what, value in study.assumed.items())
        lines.append(f"assumed, as preprocess has not run: {assumed}")
    lines.append(f"  {'':<8}{'GiB a GPU':>10}{'GiB a node':>12}{'sent a step':>13}{'step':>10}")
    for mode, e in found.items():
        sign = "*" if best is not None and mode == best.mode else " "
        node = sum(e.node_memory.values()) / GIB
        lines.append(
            f"{sign} {mode:<8}{e.gpu_bytes / GIB:>10.1f}{node:>12.1f}{_bytes(e.sent):>13}"
            f"{_seconds(e.step_seconds):>10}  {e.obstacle}".rstrip()
        )
    lines.append(_verdict(config, best))
    if best is not None:
        parts = ", ".join(f"{n} {v / GIB:.1f}" for n, v in best.memory.items() if v > GIB / 20)
        lines.append(f"on each GPU, GiB: {parts}")
        write = _seconds(best.checkpoint / planner.DISK / place.nodes)
        lines.append(
            f"checkpoint: {_bytes(best.checkpoint)}, about {write} to write while training goes on"
        )
    return "\n".join(lines)


def _verdict(config: RunConfig, best: Estimate | None) -> str:
    """Say which mode is used, and which would be faster."""
    mode = config.model.parallel
    if best is None:
        return "nothing fits: more GPUs, more memory, or a narrower network (model.width)"
    if mode in ("auto", best.mode):
        return f"model.parallel {mode}: {best.mode} is used (*)"
    return f"model.parallel is {mode}; {best.mode} (*) is what auto would choose"


def _bytes(count: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.0f} kB"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms"
