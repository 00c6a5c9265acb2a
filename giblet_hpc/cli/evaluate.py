"""A look at a checkpoint, here and now, and the report of a run that is scored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import click

from giblet_hpc.cli.common import json_option, name_argument, runs_option
from giblet_hpc.cli.findings import preprocessed
from giblet_hpc.cli.planned import require_torch
from giblet_hpc.errors import JobError
from giblet_hpc.jobs.inspect.status import choose_run

PARTS = ("validation", "test", "train")


@click.command("evaluate")
@name_argument
@runs_option
@click.option("--checkpoint", "step", type=click.IntRange(1), help="Step.  [default: the newest]")
@click.option("--num-samples", type=click.IntRange(1, 99), default=4, show_default=True,
              help="Windows, spread evenly.")  # fmt: skip
@click.option("--output-dir", type=click.Path(file_okay=False, path_type=Path),
              help="[default: looks/ in the run's folder]")  # fmt: skip
@click.option("--device", type=click.Choice(("cpu", "cuda")), default="cpu", show_default=True)
@click.option("--on", "part", type=click.Choice(PARTS), default="validation", show_default=True,
              help="TRs to look at. Who looks at the test TRs and changes settings has no test any "
              "more.")  # fmt: skip
@click.option("--fold", default="", help="Of this fold, where there are several.")
@json_option
def evaluate_command(
    name: str | None,
    runs: Path,
    *,
    step: int | None,
    num_samples: int,
    output_dir: Path | None,
    device: str,
    part: str,
    fold: str,
    as_json: bool,
) -> None:
    """Look at what a checkpoint predicts and reconstructs: pictures, films, sounds, a page.

    Also while the run trains. For scores of the test TRs: giblet-hpc submit evaluate.
    """
    require_torch("evaluate")
    paths = preprocessed(runs, name)
    from giblet_hpc.stages.look import Part, look_at

    folder, figures = look_at(
        paths.load_config(), paths, step=step, fold=fold, part=cast(Part, part),
        samples=num_samples, device=device, folder=output_dir,
        note=lambda done: click.echo(f"sample {done} is written", err=True),
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps({"folder": str(folder), **figures}))
        return
    for sample in figures["samples"]:
        r = ", ".join(f"{subject} {value:.3f}" for subject, value in sample["r"].items())
        click.echo(f"{sample['run']}, TR {sample['tr']}: r {r}")
    click.echo(f"page: {folder / 'index.html'}")


@click.command("report")
@name_argument
@runs_option
def report_command(name: str | None, runs: Path) -> None:
    """Write an evaluated run's report.html anew, with CITATION.md and CITATION.bib beside it.

    From what its folder has: scores, figures, and what each stage says of its method.
    """
    paths = choose_run(runs, name)
    try:
        from giblet_hpc.evaluation.page import write_report
    except ImportError as error:
        raise JobError(
            f"a report needs {error.name}, which this Python does not have",
            hint="`giblet-hpc image exec -- giblet-hpc report ...`, or install giblet-hpc[run]",
        ) from None
    click.echo(write_report(paths, paths.load_config()))
