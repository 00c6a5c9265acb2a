"""Commands that look for what is wrong with a study or a training."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import click

from giblet_hpc.cli.common import json_option, name_argument, runs_option
from giblet_hpc.errors import JobError
from giblet_hpc.findings import Finding, as_text, worst
from giblet_hpc.jobs.inspect.status import choose_run
from giblet_hpc.jobs.submit import checks
from giblet_hpc.printable import printable
from giblet_hpc.runs.paths import RunPaths


class Looked(Protocol):
    """What a command of this group prints."""

    def findings(self) -> Iterator[Finding]:
        """Yield what is seen."""

    def facts(self) -> dict[str, Any]:
        """Return the figures behind it."""


@click.group()
def inspect() -> None:
    """Look for what is wrong with a study or a network: each finding has a number and a remedy."""


ranks_option = click.option(
    "--ranks", type=click.IntRange(1), default=1, show_default=True, help="That training has."
)


@inspect.command("data")
@name_argument
@runs_option
@ranks_option
@json_option
def inspect_data(name: str | None, runs: Path, ranks: int, as_json: bool) -> None:
    """Look at the arrays of a run's study, and at what training on them would start with.

    Ranges, gaps and jumps; the share of each component in the first loss; steps and warm-up. Exit
    1 when something will not work.
    """
    paths = _preprocessed(runs, name)
    from giblet_hpc.stages.inspect import data_of

    _show(data_of(paths.load_config(), paths, ranks=ranks), as_json=as_json)


@inspect.command("alignment")
@name_argument
@runs_option
@json_option
def inspect_alignment(name: str | None, runs: Path, as_json: bool) -> None:
    """Do stimulus and scans of a run's study fit in time? Exit 1 when they do not.

    Lags, subjects against each other, scans that are missing, what is shown twice.
    """
    paths = _preprocessed(runs, name)
    from giblet_hpc.stages.inspect import alignment_of

    _show(alignment_of(paths.load_config(), paths), as_json=as_json)


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
    paths = _preprocessed(runs, name)
    from giblet_hpc.stages.inspect import checkpoint_of

    looked = checkpoint_of(paths.load_config(), paths, step=step, against=against, fold=fold)
    if not as_json:
        click.echo(tensor_table(looked.rows))
        click.echo("")
    _show(looked, as_json=as_json)


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


def _preprocessed(runs: Path, name: str | None) -> RunPaths:
    """Return the run, whose preprocess has to be complete."""
    if not checks.can_plan():
        raise JobError(
            "this needs torch, which this Python does not have",
            hint="`giblet-hpc image exec -- giblet-hpc inspect ...`, or install giblet-hpc[run]",
        )
    paths = choose_run(runs, name)
    paths.require_complete("preprocess")
    return paths


def _show(looked: Looked, *, as_json: bool) -> None:
    found = list(looked.findings())
    if as_json:
        click.echo(json.dumps({"findings": [asdict(one) for one in found], **looked.facts()}))
    else:
        click.echo(printable(as_text(found)))
    raise SystemExit(1 if worst(found) == "fail" else 0)
