"""Lesions of a run that is scored, here and now."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from giblet_hpc.cli.common import json_option, name_argument, runs_option
from giblet_hpc.cli.planned import require_torch
from giblet_hpc.errors import ConfigError
from giblet_hpc.jobs.inspect.status import choose_run
from giblet_hpc.printable import in_columns, printable


@click.command("lesion")
@name_argument
@runs_option
@click.option("--region", "regions", multiple=True, metavar="REGION",
              help="Silence this region; may be repeated.  [default: each]")  # fmt: skip
@click.option("--voxels", type=click.Path(path_type=Path),
              help="Silence what is above 0 in this file, or files with {hemi}.")  # fmt: skip
@click.option("--units", default="", metavar="NUMBERS",
              help="Silence units of the bottleneck, such as 0,5,8-20.")  # fmt: skip
@click.option("--random", type=click.IntRange(0), default=50, show_default=True,
              help="Random lesions of the same size, to compare with.")  # fmt: skip
@click.option("--num-samples", type=click.IntRange(1), default=8, show_default=True,
              help="Windows of the test TRs, spread evenly.")  # fmt: skip
@click.option("--shown", type=click.IntRange(0), default=2, show_default=True,
              help="How many of these are written as films, sounds and words.")  # fmt: skip
@click.option("--output-dir", type=click.Path(file_okay=False, path_type=Path),
              help="[default: lesions/ in the run's folder]")  # fmt: skip
@click.option("--device", type=click.Choice(("cpu", "cuda")), default="cpu", show_default=True)
@click.option("--fold", default="", help="Of this fold, where there are several.")
@json_option
def lesion_command(
    name: str | None,
    runs: Path,
    *,
    regions: tuple[str, ...],
    voxels: Path | None,
    units: str,
    random: int,
    num_samples: int,
    shown: int,
    output_dir: Path | None,
    device: str,
    fold: str,
    as_json: bool,
) -> None:
    """Silence regions, voxels or units of an evaluated run, and show what becomes of the decoded
    stimulus.

    Voxels are silenced in the measured scans of the test TRs, which are then decoded; units in the
    bottleneck. Each lesion is held against random ones of the same size.
    """
    require_torch("lesion")
    if sum(map(bool, (regions, voxels, units))) > 1:
        raise ConfigError("one of --region, --voxels and --units, not several")
    paths = choose_run(runs, name)
    from giblet_hpc.stages.lesion import Wanted, lesion_run

    folder, record = lesion_run(
        paths.load_config(), paths,
        Wanted(regions, voxels, units, random=random, windows=num_samples, shown=shown),
        fold=fold, device=device, folder=output_dir,
        note=lambda done: click.echo(f"{printable(done)} is done", err=True),
    )  # fmt: skip
    if as_json:
        click.echo(json.dumps({"folder": str(folder), **record}))
        return
    for line in _lines(record["lesions"]):
        click.echo(printable(line))
    click.echo(f"page: {folder / 'index.html'}")


def _lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a table of what moves, in columns."""
    cells = [["silent", "size", "of", "moves", "random ones", "p"]]
    for row in rows:
        numbers = (row["moved"], row["moved_random"], row["moved_p"])
        shown = ["" if number is None else f"{number:.3f}" for number in numbers]
        cells.append([row["lesion"], str(row["size"]), row["modality"], *shown])
    return in_columns(cells)
