"""The report: one HTML file that needs no other, from what an evaluated run has in its folder."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from giblet_hpc import __version__
from giblet_hpc.config.choices import in_words
from giblet_hpc.config.io import dump
from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import ConfigError
from giblet_hpc.evaluation import citations, methods
from giblet_hpc.evaluation.tables import PRODUCT
from giblet_hpc.files import read_json, write_text
from giblet_hpc.findings import Finding, worst
from giblet_hpc.health import Health
from giblet_hpc.runs import figures
from giblet_hpc.runs.paths import RunPaths

COLUMNS = (
    ("voxels", "voxels", "d"),
    ("model_r", "network r", ".3f"),
    ("ridge_r", "ridge r", ".3f"),
    ("difference", "difference", "+.3f"),
    ("verdict", "network is", "s"),
    ("combined_r", "both together r", ".3f"),
    ("gain", "both - ridge", "+.3f"),
    ("model_r2", "network R²", ".3f"),
    ("ridge_r2", "ridge R²", ".3f"),
    ("ceiling", "ceiling", ".3f"),
    ("normalised_r", "r / ceiling", ".2f"),
    ("best_r", "best r", ".3f"),
    ("share_of_best", "r / best r", ".2f"),
)
CONTROLS = (
    ("time_r", "r of time alone", ".3f"),
    ("previous_r", "r of the scan before", ".3f"),
    ("random_r", "r with random TRs: leaks", ".3f"),
    *(
        (f"{name}_{key}", f"{label} {title}", form)
        for name, label in (("model", "network"), ("ridge", "ridge"))
        for key, title, form in (
            ("chance", "r by chance", ".3f"),
            ("p", "p", ".3f"),
            ("significant", "above chance", ".0%"),
            ("above_largest", "above the largest", ".0%"),
        )
    ),
)
RECONSTRUCTION = (
    ("model", "network", ".3f"),
    ("scans", "decoded from scans", ".3f"),
    ("mean", "training mean", ".3f"),
    ("previous", "the TR before", ".3f"),
)
MATCHING = (
    ("top1", "found", ".1%"),
    ("chance1", "by chance", ".1%"),
    ("top5", "among the five most similar", ".1%"),
    ("chance5", "by chance", ".1%"),
    ("segments", "stretches", ".0f"),
)
CALIBRATION = (
    ("subjects", "subjects", "d"),
    ("own", "own scans alone", ".3f"),
    ("others", "others' scans alone", ".3f"),
    ("both", "both", ".3f"),
)
PREDICTORS = {"model": "network", "ridge": "ridge", "combined": "both together"}
ALT = {
    "training": "Three panels over steps: components of the training loss; error of the scans and "
    "mean r on validation TRs; each component's share of the gradient at the bottleneck",
    "histogram": "Histogram of r over voxels and subjects, of the network and of ridge",
    "subjects": "Mean r over voxels of each subject with its 95 % interval, of the network and of "
    "ridge",
    "map-1-network": "Axial slices from bottom to top: mean r of the network in each voxel",
    "map-2-ridge": "Axial slices from bottom to top: mean r of ridge, in the network's colours",
    "map-3-difference": "Axial slices from bottom to top: r of the network minus r of ridge",
    "map-4-network-and-ridge": "Axial slices from bottom to top: mean r of network and ridge "
    "together, in the network's colours",
    "map-5-ceiling": "Axial slices from bottom to top: noise ceiling of each voxel",
}
SAMPLE = (
    "A test TR ({0}): each modality as it was shown and as it is reconstructed, and one subject's "
    "scan against the prediction"
)
AT_CHANCE = 0.99
"""Error beside that of the training mean, from which nothing is reconstructed."""
WORDS = {"ok": "healthy", "warn": "healthy, with remarks", "fail": "this could not succeed",
         "skipped": "too early to say"}  # fmt: skip


Table = tuple[list[str], list[list[str]]]
"""Headings, and the cells of each row."""


def table_cells(
    rows: Sequence[Mapping[str, Any]], first: str, columns: Sequence[tuple[str, str, str]] = COLUMNS
) -> Table:
    """Return the headings and the formatted cells of a table, its first column's name given."""
    used = [column for column in columns if column[0] in rows[0]]
    body = [[str(row[first]), *(_cell(row, key, form) for key, _, form in used)] for row in rows]
    return [first, *(title for _, title, _ in used)], body


def _cell(row: Mapping[str, Any], key: str, form: str) -> str:
    if row[key] is None:
        return ""
    text = format(row[key], form)
    if ends := row.get(f"{key}_interval"):
        text += f" [{ends[0]:{form}}, {ends[1]:{form}}]"
    return text


def figures_of(folder: Path) -> list[dict[str, str]]:
    """Return the pictures of a folder, by name: ``name``, ``alt`` and a data URI."""
    found = []
    for file in sorted(folder.glob("*.png")):
        name = file.stem
        text = ALT.get(name) or SAMPLE.format(name.partition("-")[2].replace("-", " "))
        data = base64.b64encode(file.read_bytes()).decode()
        found.append({"name": name, "alt": text, "uri": f"data:image/png;base64,{data}"})
    return found


def health_of(metrics: Path, config: RunConfig) -> list[Finding]:
    """Return what speaks for and against a training, from its figures."""
    rows = figures.rows(metrics)
    steps = max((row["step"] for row in rows), default=0)
    found = Health(config, rows, total_steps=steps).findings()
    return [one for one in found if one.level != "skipped"]


def remarks_of(fold: Mapping[str, Any]) -> list[str]:
    """Return what a reader of the figures would ask about."""
    said = []
    for row in fold["reconstruction"]:
        name, _, what = row["figure"].partition(": ")
        if what.startswith("error") and row["model"] >= AT_CHANCE:
            said.append(f"{name}: the reconstruction is no better than the training mean, whatever "
                        "is predicted of the brain.")  # fmt: skip
    if "ridge_r_interval" not in fold["rows"][0]:
        said.append("Too few test TRs for intervals: differences may be chance.")
    return said


def _parts(rows: Sequence[Mapping[str, Any]]) -> Table | None:
    """Return the table of what each modality explains in ridge; None of a single modality."""
    names = [key.removeprefix(PRODUCT) for key in rows[0] if key.startswith(PRODUCT)]
    columns = [("ridge_r", "ridge r", ".3f"), ("ridge_r2", "ridge R²", ".3f")]
    columns += [(f"unique-{name}", f"r that only {name} adds", "+.3f") for name in names]
    columns += [(f"{PRODUCT}{name}", f"{name}'s part of R²", ".3f") for name in names]
    return table_cells(rows, "region", columns) if names else None


def _controls(rows: Sequence[Mapping[str, Any]]) -> Table | None:
    """Return the table of scores by chance and of controls; None where there are none."""
    known = {"model_p", "ridge_p", "time_r", "previous_r"} & set(rows[0])
    return table_cells(rows, "region", CONTROLS) if known else None


def _matching(fold: Mapping[str, Any]) -> Table | None:
    """Return the table of how often the right stretch of TRs is found; None without it."""
    found = {
        f"scans, by the prediction of {PREDICTORS[name]}": row
        for name, row in fold.get("matching", {}).items()
    }
    if fold["decoded"]:
        found["stimulus, by what is decoded from scans"] = fold["decoded"]
    rows = [{"what is looked for": name, **row} for name, row in found.items()]
    return table_cells(rows, "what is looked for", MATCHING) if rows else None


def _choice(found: Mapping[str, Any]) -> str:
    """Say which settings are chosen, and what each of the candidates reached."""
    if not found:
        return ""
    each = "; ".join(f"{in_words(one['settings'])}: {one['r']:.3f}" for one in found["candidates"])
    chosen = in_words(found["candidates"][found["chosen"] - 1]["settings"])
    return f"Chosen inside the training TRs: {chosen} (mean r of blocks held out there: {each})."


def _calibration(rows: Sequence[Mapping[str, Any]]) -> Table | None:
    """Return the table of r by minutes of a new subject's scans; None where it is not asked for."""
    empty = {key: None for key, _, _ in CALIBRATION}
    every = [{**empty, **row, "minutes": f"{row['minutes']:g}"} for row in rows]
    return table_cells(every, "minutes", CALIBRATION) if every else None


def _fold(paths: RunPaths, config: RunConfig, fold: Mapping[str, Any]) -> dict[str, Any]:
    headings, cells = table_cells(fold["rows"], "region")
    rebuilt = fold["reconstruction"]
    shown = figures_of(paths.figures(fold["fold"]))
    metrics = paths.metrics(fold["fold"])
    found = health_of(metrics, config) if metrics.is_file() else []
    subjects = table_cells(fold["subjects"], "subject") if fold.get("subjects") else None
    profiles = sorted(paths.profile(fold["fold"]).glob("steps-*"))
    return {
        **fold,
        "anchor": f"fold-{fold['fold'] or 'all'}",
        "headings": headings, "cells": cells, "subject_table": subjects,
        "reconstruction": table_cells(rebuilt, "figure", RECONSTRUCTION) if rebuilt else None,
        "matching": _matching(fold),
        "choice": _choice(fold.get("choice", {})),
        "calibration": _calibration(fold.get("calibration", [])),
        "controls": _controls(fold["rows"]), "parts": _parts(fold["rows"]),
        "health": found, "health_word": WORDS[worst(found)] if found else "",
        "remarks": remarks_of(fold),
        "scores": [one for one in shown if one["name"] in ("subjects", "histogram")],
        "maps": [one for one in shown if one["name"].startswith("map-")],
        "training": [one for one in shown if one["name"] == "training"],
        "samples": [one for one in shown if one["name"].startswith("sample-")],
        "profiles": [f"{file.parent.name}/{file.name}" for file in profiles],
    }  # fmt: skip


def _origin(paths: RunPaths) -> str:
    """Say which code made the results, from the run's record."""
    record = read_json(paths.provenance) if paths.provenance.is_file() else {}
    last = (record.get("attempts") or [{}])[-1]
    code = last.get("code", {})
    commit = f", commit {code['commit'][:12]}" if code.get("commit") else ""
    changed = " with local changes" if code.get("diff_sha256") else ""
    return f"giblet-hpc {code.get('version', __version__)}{commit}{changed}"


def write_report(paths: RunPaths, config: RunConfig) -> Path:
    """Write the page, and beside it CITATION.md and CITATION.bib; return the page.

    Parameters
    ----------
    paths : RunPaths
        Of an evaluated run.
    config : RunConfig

    Raises
    ------
    ConfigError
        When it has no scores.
    """
    if not paths.scores.is_file():
        raise ConfigError(f"run {paths.name} has no scores yet", hint=paths.command("status"))
    scored = read_json(paths.scores)
    folds = [_fold(paths, config, fold) for fold in scored]
    said = " ".join(methods.read(paths))
    keys = citations.cited(said)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("giblet_hpc.evaluation", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("report.html.j2").render(
        name=paths.name,
        study=config.study.name,
        folds=folds,
        methods=citations.in_words(said),
        works=[citations.WORKS[key] for key in sorted(keys)],
        config=dump(config),
        origin=_origin(paths),
        made=datetime.fromtimestamp(paths.scores.stat().st_mtime, UTC).strftime("%Y-%m-%d %H:%M"),
        style=Markup(STYLE.read_text()),  # noqa: S704 - a file of this package
    )
    write_text(paths.report, page)
    write_text(paths.root / "CITATION.md", f"{said}\n")
    write_text(paths.root / "CITATION.bib", citations.bibtex(keys))
    return paths.report


STYLE = Path(__file__).with_name("report.css")
