"""Commands that look for what is wrong with a study or a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from giblet_hpc.cli.diagnose_network import inspect_gradients, inspect_memory, inspect_model
from giblet_hpc.cli.findings import Looked, preprocessed, show
from giblet_hpc.cli.planned import planned_seconds, require_torch
from giblet_hpc.config import io as config_io
from giblet_hpc.findings import Finding
from giblet_hpc.jobs.inspect import health
from giblet_hpc.runs import figures


@click.group()
def inspect() -> None:
    """Look for what is wrong with a study or a network: each finding has a number and a remedy."""


ranks_option = click.option(
    "--ranks", type=click.IntRange(1), default=1, show_default=True, help="That training has."
)


@inspect.command("data")
@name_argument
@config_option
@set_option
@runs_option
@cluster_option
@ranks_option
@click.option("--whole", is_flag=True, help="Read everything, of a large study too.")
@json_option
def inspect_data(name: str | None, *, ranks: int, whole: bool, **options: Any) -> None:
    """Look at a study's arrays, and at what training on them would start with.

    Ranges, gaps and jumps; the share of each component in the first loss; steps and warm-up. Of a
    run whose preprocess is complete, from its store; with --config, from a sample of the files
    themselves. Exit 1 when something will not work.
    """
    require_torch("inspect")
    looked: Looked
    more: list[Finding] = []
    if options["config_file"] is not None:
        from giblet_hpc.stages.inspect import files_of

        config = config_io.load(options["config_file"], options["overrides"])
        looked = files_of(config, ranks=ranks)
    else:
        paths = preprocessed(options["runs"], name)
        from giblet_hpc.stages.inspect import data_of

        config = paths.load_config()
        seconds = paths.stage_state("train").get("step_seconds") or planned_seconds(paths, options)
        looked = data_of(config, paths, ranks=ranks, step_seconds=seconds, whole=whole)
        more = [health.statistics(paths, fold) for fold in figures.files(paths)]
    show(looked, as_json=options["as_json"], more=more)


@inspect.command("alignment")
@name_argument
@runs_option
@json_option
def inspect_alignment(name: str | None, runs: Path, as_json: bool) -> None:
    """Do stimulus and scans of a run's study fit in time? Exit 1 when they do not.

    Lags, subjects against each other, scans that are missing, what is shown twice.
    """
    paths = preprocessed(runs, name)
    from giblet_hpc.stages.inspect import alignment_of

    show(alignment_of(paths.load_config(), paths), as_json=as_json)


@inspect.command("checkpoint")
@name_argument
@runs_option
@click.option("--step", type=click.IntRange(1), help="Of this step.  [default: the newest]")
@click.option(
    "--against", type=click.IntRange(1), help="Beside this one.  [default: the one before]"
)
@click.option("--fold", default="", help="Of this fold, where there are several.")
@json_option
def inspect_checkpoint(
    name: str | None,
    runs: Path,
    step: int | None,
    against: int | None,
    fold: str,
    as_json: bool,
) -> None:
    """Look at a checkpoint's tensors: not finite, without a gradient, not moved, dead.

    A few rows at a time, however large it is.
    """
    paths = preprocessed(runs, name)
    from giblet_hpc.stages.inspect import checkpoint_of

    looked = checkpoint_of(paths.load_config(), paths, step=step, against=against, fold=fold)
    if not as_json:
        click.echo(tensor_table(looked.rows))
        click.echo("")
    show(looked, as_json=as_json)


def tensor_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a line for each tensor."""
    width = max(len(row["name"]) for row in rows)
    head = f"{'tensor':<{width}}  {'shape':<18}{'low':>10}{'high':>10}{'mean':>10}{'SD':>10}"
    lines = [f"{head}{'gradient':>10}{'moved':>9}"]
    for row in rows:
        shape = " x ".join(map(str, row["shape"])) or "-"
        figures = "".join(f"{row[key]:>10.2g}" for key in ("low", "high", "mean", "sd"))
        gradient = f"{row['gradient']:>10.2g}" if "gradient" in row else f"{'-':>10}"
        moved = f"{100 * row['moved']:>7.2g} %" if "moved" in row else f"{'-':>9}"
        lines.append(f"{row['name']:<{width}}  {shape:<18}{figures}{gradient}{moved}")
    return "\n".join(lines)


inspect.add_command(inspect_model)
inspect.add_command(inspect_memory)
inspect.add_command(inspect_gradients)
