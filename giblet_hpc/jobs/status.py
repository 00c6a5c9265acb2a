"""How runs stand, for people and for scripts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from giblet_hpc.errors import ConfigError
from giblet_hpc.files import read_json
from giblet_hpc.jobs.submit import running
from giblet_hpc.runs import STAGES, RunPaths


def find_runs(folder: Path) -> list[RunPaths]:
    """Return all runs in a folder, by name."""
    return [RunPaths(path.parent) for path in sorted(folder.glob("*/run.yaml"))]


def choose_run(folder: Path, name: str | None) -> RunPaths:
    """Return the named run, or the one that changed last.

    Raises
    ------
    ConfigError
        When there is none.
    """
    if name:
        paths = RunPaths(folder / name)
        if not paths.config.is_file():
            known = ", ".join(run.name for run in find_runs(folder)) or "none"
            raise ConfigError(f"no run {name} in {folder}; there are: {known}")
        return paths
    runs = find_runs(folder)
    if not runs:
        raise ConfigError(
            f"no runs in {folder}", hint="start one: giblet-hpc submit pipeline --config FILE"
        )
    return max(
        runs, key=lambda run: (run.state if run.state.is_file() else run.config).stat().st_mtime
    )


def describe(paths: RunPaths) -> dict[str, Any]:
    """Return where a run stands: its stages, and what to type next."""
    live = running(paths)
    stages: dict[str, Any] = {}
    for stage in STAGES:
        state = dict(paths.stage_state(stage))
        if state.get("status") in ("queued", "running") and live is None:
            state["status"] = "interrupted"
        if state.get("heartbeat"):
            state["age_seconds"] = round(time.time() - state["heartbeat"])
        stages[stage] = {"status": "not started", **state}
    report = str(paths.report) if paths.report.is_file() else None
    return {
        "run": paths.name,
        "folder": str(paths.root),
        "stages": stages,
        "report": report,
        "next": next_command(paths, stages, running_now=live is not None),
    }


def next_command(paths: RunPaths, stages: dict[str, Any], *, running_now: bool) -> str:
    """Return the command that makes sense now; empty when the run is complete."""
    if running_now:
        return f"giblet-hpc logs {paths.name} -f"
    for stage in STAGES:
        status = stages[stage].get("status", "not started")
        if status == "failed" and stages[stage].get("exit_code") == 1:
            return f"giblet-hpc logs {paths.name}"
        if status != "complete":
            return f"giblet-hpc resubmit {paths.name}"
    return ""


def as_text(facts: dict[str, Any]) -> str:
    """Return a run's standing as a few lines."""
    lines = [f"{facts['run']}  ({facts['folder']})"]
    for stage, state in facts["stages"].items():
        detail = []
        if state["status"] == "running":
            detail.append(state.get("phase", ""))
            if state.get("total_steps"):
                detail.append(f"step {state.get('step', 0)} of {state['total_steps']}")
            detail.append(f"{state.get('age_seconds', 0)} s ago")
        if state.get("reason") and state["status"] == "failed":
            detail.append(state["reason"].splitlines()[0])
        lines.append(
            f"  {stage:<11}{state['status']:<13}{', '.join(filter(None, detail))}".rstrip()
        )
    if facts["report"]:
        lines.append(f"  report     {facts['report']}")
    if facts["next"]:
        lines.append(f"  next       {facts['next']}")
    return "\n".join(lines)


def scores_table(paths: RunPaths) -> str:
    """Return the scores of a run as text tables.

    Raises
    ------
    ConfigError
        When the run is not evaluated yet.
    """
    file = paths.evaluation / "scores.json"
    if not file.is_file():
        raise ConfigError(
            f"run {paths.name} has no scores yet",
            hint=f"giblet-hpc submit evaluate --name {paths.name}",
        )
    columns = [
        ("model_r", "model r"),
        ("ridge_r", "ridge r"),
        ("ceiling", "ceiling"),
        ("normalised_r", "r/ceiling"),
        ("best_r", "best r"),
        ("share_of_best", "r/best"),
    ]
    lines = []
    for fold in read_json(file):
        used = [column for column in columns if column[0] in fold["rows"][0]]
        lines.append(f"{fold['title']} ({fold['test_trs']} test TRs)")
        lines.append(f"  {'region':<14}{'voxels':>7}" + "".join(f"{t:>11}" for _, t in used))
        for row in fold["rows"]:
            cells = "".join(
                f"{'-':>11}" if row[key] is None else f"{row[key]:>11.3f}" for key, _ in used
            )
            lines.append(f"  {row['region']:<14}{row['voxels']:>7}{cells}")
        lines.append(f"  {fold['verdict']}")
    return "\n".join(lines)
