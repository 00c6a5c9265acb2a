"""A run's health: its training's figures, its checkpoints, its disk, as findings and a table."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from giblet_hpc.config import io as config_io
from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import ConfigError, DataError
from giblet_hpc.findings import Finding, Level, as_text, worst
from giblet_hpc.health import Health, epoch_table
from giblet_hpc.plans.hardware import GIB
from giblet_hpc.runs import checkpoints, figures
from giblet_hpc.runs.paths import RunPaths

ROOM = 3
"""Checkpoints that the disk should have room for."""
EPOCHS_SHOWN = 12


def examine(paths: RunPaths, overrides: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return each fold's health: ``fold``, ``verdict``, ``findings`` and ``epochs``.

    Parameters
    ----------
    paths : RunPaths
    overrides : sequence of str
        Of the config's section `health`.

    Raises
    ------
    ConfigError
        When nothing is recorded yet.
    """
    config = config_io.load(paths.config, overrides)
    files = figures.files(paths)
    if not files:
        raise ConfigError(
            f"run {paths.name} has no figures of training yet", hint=paths.command("status")
        )
    return [_fold(paths, config, fold, figures.rows(file)) for fold, file in files.items()]


def _fold(
    paths: RunPaths, config: RunConfig, fold: str, rows: list[dict[str, Any]]
) -> dict[str, Any]:
    state = paths.stage_state("train")
    epochs = max((row["epoch"] for row in rows), default=0.0)
    steps = max((row["step"] for row in rows), default=0)
    planned = round(steps / epochs * config.train.epochs) if epochs else 0
    health = Health(
        config, rows,
        total_steps=state.get("total_steps") or planned,
        step_seconds=state.get("step_seconds", 0.0),
        data_wait=state.get("data_wait", 0.0),
    )  # fmt: skip
    found = [*health.findings(), statistics(paths, fold), *_checkpoints(paths, fold)]
    return {"fold": fold, "verdict": worst(found), "findings": found, "epochs": epoch_table(rows)}


def statistics(paths: RunPaths, fold: str) -> Finding:
    """Look whether estimates of the training TRs are there, of the data that the run has now."""
    try:
        file = paths.statistics(fold, paths.data_digest())
    except DataError:
        return Finding("statistics", "skipped", "preprocess is not complete")
    if file.is_file():
        return Finding("statistics", "ok", file.name)
    others = sorted(one.name for one in file.parent.glob("*")) if file.parent.is_dir() else []
    seen = f"made of other data: {', '.join(others)}" if others else "not saved"
    return Finding("statistics", "fail", seen,
                   f"{paths.command('resubmit')} makes them from the data as they are")  # fmt: skip


def _checkpoints(paths: RunPaths, fold: str) -> list[Finding]:
    """Look whether the last checkpoint is whole, and whether there is room for more."""
    folder = paths.checkpoints(fold)
    every = checkpoints.committed(folder) if folder.is_dir() else []
    if not every:
        return [Finding("checkpoints", "skipped", "none yet")]
    damaged = [path.name for path in every if not _is_complete(path)]
    size = sum(file.stat().st_size for file in every[-1].iterdir())
    seen = f"{len(every)}, the last of step {checkpoints.step_of(every[-1])}, {size / GIB:.2f} GiB"
    level: Level = "fail" if every[-1].name in damaged else "warn" if damaged else "ok"
    free = shutil.disk_usage(folder).free
    room = f"{free / GIB:.1f} GiB free, a checkpoint takes {size / GIB:.2f}"
    return [
        Finding("checkpoints", level, f"{seen}; cut off: {', '.join(damaged)}" if damaged else seen,
                "the one before is used"),
        Finding("disk", "ok" if free > ROOM * size else "warn", room,
                "make room, or a smaller train.keep_last"),
    ]  # fmt: skip


def _is_complete(path: Path) -> bool:
    """Whether a checkpoint's files have the sizes of its manifest; their content is not read."""
    files = checkpoints.manifest_of(path)["files"]
    return all(
        (path / name).is_file() and (path / name).stat().st_size == entry["size"]
        for name, entry in files.items()
    )


def text(name: str, folds: Sequence[dict[str, Any]]) -> str:
    """Return the folds' health as a page."""
    words = {"ok": "healthy", "warn": "healthy, with remarks", "fail": "this cannot succeed",
             "skipped": "too early to say"}  # fmt: skip
    lines = []
    for fold in folds:
        title = f"run {name} {fold['fold']}".strip()
        lines += [f"{title}: {words[fold['verdict']]}", as_text(fold["findings"]), ""]
        table = fold["epochs"]
        step = max(1, -(-len(table) // EPOCHS_SHOWN))
        shown = [row for n, row in enumerate(table) if n % step == 0 or row is table[-1]]
        if shown:
            lines.append(f"{'epoch':>8}{'step':>9}{'loss':>10}{'error':>10}{'r':>8}{'lr':>11}")
        for row in shown:
            cells = [_cell(row.get("loss"), 10, ".4g"), _cell(row.get("fmri_error"), 10, ".4g"),
                     _cell(row.get("r"), 8, ".3f"), _cell(row.get("lr"), 11, ".2g")]  # fmt: skip
            lines.append(f"{row['epoch']:>8.3g}{row['step']:>9}" + "".join(cells))
        lines.append("")
    return "\n".join(lines).rstrip()


def _cell(value: float | None, width: int, form: str) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:>{width}{form}}"
