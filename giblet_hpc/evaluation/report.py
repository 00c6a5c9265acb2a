"""The report: one HTML file that needs no other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2

from giblet_hpc import __version__
from giblet_hpc.config.io import dump
from giblet_hpc.config.run import RunConfig
from giblet_hpc.evaluation.maps import as_data_uri, new_figure
from giblet_hpc.files import write_text
from giblet_hpc.findings import Finding
from giblet_hpc.health import Health

COLUMNS = (
    ("voxels", "voxels", "d"),
    ("model_r", "model r", ".3f"),
    ("ridge_r", "ridge r", ".3f"),
    ("model_r2", "model R²", ".3f"),
    ("ridge_r2", "ridge R²", ".3f"),
    ("ceiling", "ceiling", ".3f"),
    ("normalised_r", "r / ceiling", ".2f"),
    ("best_r", "best r", ".3f"),
    ("share_of_best", "r / best r", ".2f"),
)


def table_cells(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return the headings and the formatted cells of a table of regions."""
    used = [column for column in COLUMNS if column[0] in rows[0]]
    body = [
        [row["region"], *("" if row[key] is None else format(row[key], form)
                          for key, _, form in used)]
        for row in rows
    ]  # fmt: skip
    return ["region", *(title for _, title, _ in used)], body


def training_figure(metrics: Path) -> str:
    """Draw the training curves of a metrics file as a data URI."""
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    figure = new_figure(10, 2.6)
    left, middle, right = figure.subplots(1, 3)
    train = [row for row in rows if row["kind"] == "train"]
    validation = [row for row in rows if row["kind"] == "validation"]
    for name in sorted({key for row in train for key in row if key.startswith("loss/")}):
        left.plot([row["step"] for row in train], [row[name] for row in train],
                  label=name.removeprefix("loss/"))  # fmt: skip
    left.set_title("training loss, weighted components", fontsize=8)
    for key in ("fmri_error", "r"):
        middle.plot([row["step"] for row in validation], [row[key] for row in validation],
                    label="error of scans" if key == "fmri_error" else "mean voxel r")  # fmt: skip
    middle.set_title("validation", fontsize=8)
    for name in sorted({k for row in train for k in row if k.startswith("gradient_share/")}):
        right.plot([row["step"] for row in train], [row[name] for row in train],
                   label=name.removeprefix("gradient_share/"))  # fmt: skip
    right.set_title("share of the gradient at the bottleneck", fontsize=8)
    for axis in (left, middle, right):
        axis.set_xlabel("step", fontsize=7)
        if axis.get_lines():
            # A run shorter than train.log_every has none.
            axis.legend(fontsize=6)
    return as_data_uri(figure)


def health_of(metrics: Path, config: RunConfig) -> list[Finding]:
    """Return what speaks for and against a training, from its figures."""
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps = max((row["step"] for row in rows), default=0)
    found = Health(config, rows, total_steps=steps).findings()
    return [one for one in found if one.level != "skipped"]


def histogram_figure(model_r: Any, ridge_r: Any) -> str:
    """Draw the distributions of voxel r as a data URI."""
    figure = new_figure(5, 2.4)
    axis = figure.subplots()
    for values, label in ((model_r, "model"), (ridge_r, "ridge")):
        axis.hist(values.ravel(), bins=60, histtype="step", label=label)
    axis.set_xlabel("r of a voxel over the test TRs")
    axis.legend(fontsize=7)
    return as_data_uri(figure)


def write_report(
    path: Path, *, name: str, config: RunConfig, folds: list[dict[str, Any]], notes: list[str]
) -> None:
    """Write the page.

    Parameters
    ----------
    path : Path
    name : str
        Of the run.
    config : RunConfig
    folds : list of dict
        For each fold: ``title``, ``verdict``, ``rows`` (regions), ``reconstruction``, and data
        URIs under ``training``, ``histogram``, ``maps`` and ``samples``; under ``profiles`` files
        beside the page, and under ``health`` findings.
    notes : list of str
        Sentences on method that a reader needs beside the numbers.
    """
    for fold in folds:
        fold["headings"], fold["cells"] = table_cells(fold["rows"])
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("giblet_hpc.evaluation", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("report.html.j2").render(
        name=name,
        study=config.study.name,
        folds=folds,
        notes=notes,
        config=dump(config),
        version=__version__,
    )
    write_text(path, page)
