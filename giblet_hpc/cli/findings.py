"""How commands that look for what is wrong print what they find."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

import click

from giblet_hpc.cli.planned import require_torch
from giblet_hpc.findings import Finding, as_text, worst
from giblet_hpc.jobs.inspect.status import choose_run
from giblet_hpc.printable import printable
from giblet_hpc.runs.paths import RunPaths


class Looked(Protocol):
    """What a command of this group prints."""

    def findings(self) -> Iterator[Finding]:
        """Yield what is seen."""

    def facts(self) -> dict[str, Any]:
        """Return the figures behind it."""


def preprocessed(runs: Path, name: str | None) -> RunPaths:
    """Return the run, whose preprocess has to be complete."""
    require_torch("inspect")
    paths = choose_run(runs, name)
    paths.require_complete("preprocess")
    return paths


def show(looked: Looked, *, as_json: bool, more: Sequence[Finding] = ()) -> None:
    """Print the findings, or with the figures behind them as JSON; exit 1 when one is a failure.

    Parameters
    ----------
    looked : Looked
    as_json : bool
    more : sequence of Finding
        To be shown after its own.
    """
    found = [*looked.findings(), *more]
    if as_json:
        click.echo(json.dumps({"findings": [asdict(one) for one in found], **looked.facts()}))
    else:
        click.echo(printable(as_text(found)))
    raise SystemExit(1 if worst(found) == "fail" else 0)
