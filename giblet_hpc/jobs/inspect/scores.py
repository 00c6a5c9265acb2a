"""Scores and settings of evaluated runs, as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from giblet_hpc.config import io as config_io
from giblet_hpc.errors import ConfigError
from giblet_hpc.files import read_json
from giblet_hpc.printable import in_columns
from giblet_hpc.runs.paths import RunPaths

COLUMNS = [
    ("model_r", "model r"),
    ("ridge_r", "ridge r"),
    ("combined_r", "both r"),
    ("ceiling", "ceiling"),
    ("normalised_r", "r/ceiling"),
    ("best_r", "best r"),
    ("share_of_best", "r/best"),
]


def read(paths: RunPaths) -> list[dict[str, Any]]:
    """Return the scores of a run's folds.

    Raises
    ------
    ConfigError
        When the run is not evaluated yet.
    """
    file = paths.scores
    if not file.is_file():
        raise ConfigError(
            f"run {paths.name} has no scores yet",
            hint=f"it gets them when it is complete: {paths.command('resubmit')}",
        )
    folds: list[dict[str, Any]] = read_json(file)
    return folds


def table(paths: RunPaths) -> str:
    """Return the scores of a run, a table for each fold."""
    lines = []
    for fold in read(paths):
        used = [column for column in COLUMNS if column[0] in fold["rows"][0]]
        lines.append(f"{fold['title']} ({fold['test_trs']} test TRs)")
        lines.append(f"  {'region':<14}{'voxels':>7}" + "".join(f"{t:>11}" for _, t in used))
        for row in fold["rows"]:
            cells = "".join(
                f"{'-':>11}" if row[key] is None else f"{row[key]:>11.3f}" for key, _ in used
            )
            lines.append(f"  {row['region']:<14}{row['voxels']:>7}{cells}")
        lines.append(f"  {fold['verdict']}")
    return "\n".join(lines)


def compare(runs: Sequence[RunPaths]) -> list[dict[str, Any]]:
    """Return a row for each run: the settings in which the runs differ, and its scores.

    Scores are those of all voxels, averaged over folds; None where a run has none yet.
    """
    configs = [config_io.plain(paths.load_config()) for paths in runs]
    fields = sorted(
        {
            line.partition(":")[0]
            for other in configs[1:]
            for line in config_io.differences(configs[0], other)
        }
    )
    rows = []
    for paths, config in zip(runs, configs, strict=True):
        row: dict[str, Any] = {"run": paths.name}
        row.update({field: _value(config, field) for field in fields})
        status = paths.stage_state("train").get("status", "not started")
        row["train"] = status
        row["step"] = paths.stage_state("train").get("step")
        file = paths.scores
        folds = read_json(file) if file.is_file() else []
        for key in ("model_r", "ridge_r", "combined_r", "ceiling"):
            values = [fold["rows"][0].get(key) for fold in folds]
            known = [value for value in values if value is not None]
            row[key] = sum(known) / len(known) if known else None
        rows.append(row)
    return rows


def _value(config: Any, field: str) -> Any:
    for part in field.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def compare_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows of `compare` as text: a column for each run."""
    cells = [[key, *(_cell(row[key]) for row in rows)] for key in rows[0]]
    return "\n".join(in_columns(cells))


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict | list):
        return yaml.safe_dump(value, default_flow_style=True, width=10**6).strip()
    return f"{value:.4g}" if isinstance(value, float) else str(value)
