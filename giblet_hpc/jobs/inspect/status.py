"""How runs stand, for people and for scripts."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from giblet_hpc.errors import ConfigError, GibletError
from giblet_hpc.jobs.record import attempts, excluded, lease
from giblet_hpc.jobs.schedulers import registry
from giblet_hpc.jobs.schedulers.base import NoAnswer
from giblet_hpc.patience import answer_within
from giblet_hpc.runs import checkpoints
from giblet_hpc.runs.paths import STAGES, RunPaths, Stage
from giblet_hpc.trust import is_mine, owner

PROBE_SECONDS = 5.0
"""How long a run's file system may take to say whether a file is there."""
DESCRIBE_SECONDS = 90.0
"""How long describing one run may take; the scheduler alone may take several times 20 s."""


SILENT = "its file system does not answer"


def find_runs(folder: Path) -> list[RunPaths]:
    """Return all runs in a folder, by name; also those that do not answer whether they are runs.

    Those of others that this user may not enter are left out.
    """
    found = [RunPaths(path) for path in sorted(folder.glob("*"))]
    return [run for run in found if answer_within(PROBE_SECONDS, run.exists, True)]


def choose_run(folder: Path, name: str | None) -> RunPaths:
    """Return the named run, or that of this user which changed last.

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
    # A command without a name must not take up what somebody else has put there.
    runs = [run for run in find_runs(folder) if is_mine(run.root)]
    if not runs:
        raise ConfigError(
            f"no runs of yours in {folder}",
            hint="start one: giblet-hpc submit pipeline --config FILE",
        )
    return max(runs, key=lambda run: answer_within(PROBE_SECONDS, run.last_change, 0.0))


def describe_safely(paths: RunPaths) -> dict[str, Any]:
    """Return where a run stands, or why that cannot be said: a bad run says nothing of others."""
    silent = _unreadable(paths, SILENT)
    try:
        if answer_within(PROBE_SECONDS, paths.config.stat, None) is None:
            return silent
        return answer_within(DESCRIBE_SECONDS, lambda: describe(paths), silent)
    except (GibletError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        return _unreadable(paths, f"cannot be read ({owner(paths.root)}'s): {error}")


def describe(paths: RunPaths) -> dict[str, Any]:
    """Return where a run stands: its stages, its jobs, and what to type next."""
    if not paths.is_current():
        return _unreadable(paths, "made by another version of giblet-hpc: make it anew")
    found = lease.standing(paths)
    silent = _silent(found)
    stages: dict[str, Any] = {stage: _stage(paths, stage, found) for stage in STAGES}
    if parts := paths.parts():
        if found.alive is False:
            for part in parts.values():
                # A plan that failed leaves the jobs that waited for it without a word of theirs.
                ended = {"queued": "not started", "running": "interrupted"}
                part["status"] = ended.get(part["status"], part["status"])
        stages["preprocess"]["parts"] = parts
        _sum_up(stages["preprocess"], parts)
    newest = sorted(
        path for folder in checkpoints.folds(paths.checkpoints())
        for path in checkpoints.committed(folder)
    )  # fmt: skip
    every = attempts.all_attempts(paths)
    for stage in STAGES:
        # Numbers of attempts count through all stages.
        stages[stage]["attempts"] = sum(one.facts().get("stage") == stage for one in every)
    stuck = any(state.get("unsatisfiable") for state in stages.values())
    return {
        "run": paths.name,
        "folder": str(paths.root),
        "holder": str(found.lease) if found.taken else None,
        "silent": silent,
        "excluded": excluded.in_words(paths) if found.taken else [],
        "stages": stages,
        "attempts": len(every),
        "last_checkpoint": newest[-1].name if newest else None,
        "report": str(paths.report) if paths.report.is_file() else None,
        "next": next_command(paths, stages, running_now=found.taken and not stuck),
    }


def _unreadable(paths: RunPaths, why: str) -> dict[str, Any]:
    return {
        "run": paths.name,
        "folder": str(paths.root),
        "error": why,
        "stages": {stage: {"status": "unknown"} for stage in STAGES},
        "next": "",
    }


def _silent(found: lease.Standing) -> str:
    """Say that the run's scheduler does not answer; empty when it does, or is not needed."""
    if found.lease is None or not found.lease.jobs or found.alive is False or found.jobs:
        return ""
    return lease.silence(found.lease) if registry.of(found.lease.scheduler).queues else ""


def _stage(paths: RunPaths, stage: Stage, found: lease.Standing) -> dict[str, Any]:
    state = {"status": "not started", **paths.stage_state(stage)}
    job = found.jobs.get(str(state.get("job", "")))
    if job is not None and job.waits:
        state["waiting_for"] = job.waiting_for
        state["expected_start"] = job.start
        state["unsatisfiable"] = job.unsatisfiable
    if state["status"] in ("queued", "running", "stopping") and found.alive is False:
        state["status"] = "interrupted"
        number = str(state.get("job", ""))
        held = found.lease
        if held is not None and registry.of(held.scheduler).queues and number:
            known = registry.of(held.scheduler).ended(number)
            if known is not None and not isinstance(known, NoAnswer):
                state["job_state"] = known.state
    if state.get("heartbeat"):
        state["age_seconds"] = round(time.time() - state["heartbeat"])
    if state["status"] == "running" and state.get("total_steps") and state.get("step_seconds"):
        left = state["total_steps"] - state.get("step", 0)
        state["eta_seconds"] = round(left * state["step_seconds"])
    return state


def _sum_up(state: dict[str, Any], parts: Mapping[str, Mapping[str, Any]]) -> None:
    """Say of preprocess that it runs while parts of it do, though its last job still waits."""
    running = [part for part in parts.values() if part["status"] == "running"]
    if state["status"] != "queued" or not running:
        return
    done = [part for part in parts.values() if part["status"] == "complete"]
    state.update(status="running", phase=f"{len(done)} of {len(parts)} parts complete")
    latest = max(part.get("heartbeat", part["time"]) for part in running)
    state["age_seconds"] = round(time.time() - latest)
    for key in ("waiting_for", "expected_start"):
        state.pop(key, None)


def next_command(paths: RunPaths, stages: dict[str, Any], *, running_now: bool) -> str:
    """Return the command that makes sense now; empty when the run is complete."""
    if running_now:
        return paths.command("logs", "-f")
    name = shlex.quote(paths.name)
    for stage in STAGES:
        status = stages[stage].get("status", "not started")
        if status == "failed" and stages[stage].get("exit_code") == 1:
            return paths.command("logs")
        if status == "failed" and stages[stage].get("of_config"):
            # The run holds its config as it was: going on would fail in the same way.
            if stage == "preprocess":
                return f"mend FILE, then: giblet-hpc submit pipeline --config FILE --name {name}"
            return f"giblet-hpc submit pipeline --name {name} --fork NEW --set FIELD=VALUE"
        if status != "complete":
            return paths.command("resubmit")
    return ""


def as_text(facts: dict[str, Any]) -> str:
    """Return a run's standing as a few lines."""
    lines = [f"{facts['run']}  ({facts['folder']})"]
    if "error" in facts:
        return f"{lines[0]}\n  {facts['error']}"
    for stage, state in facts["stages"].items():
        detail = "; ".join(filter(None, details(state)))
        lines.append(f"  {stage:<11}{state['status']:<13}{detail}".rstrip())
        if state["status"] == "failed" and state.get("hint"):
            lines.append(f"  {'':<11}{'':<13}hint: {state['hint']}")
        if state["status"] not in ("complete", "running") and state.get("evidence"):
            lines.append(f"  {'':<11}{'':<13}read in: {state['evidence'][0]}")
        lines += [f"  {'':<11}{'unhealthy':<13}{one}" for one in state.get("health") or ()]
        lines += _parts_as_text(state)
    if facts["silent"]:
        lines.append(f"  {facts['silent']}: what is shown is what the run itself has recorded")
    for node in facts["excluded"]:
        lines.append(f"  {'excluded':<11}{node}")
    for key, label in (("holder", "held by"), ("last_checkpoint", "checkpoint"),
                       ("report", "report"), ("next", "next")):  # fmt: skip
        if facts[key]:
            lines.append(f"  {label:<11}{facts[key]}")
    return "\n".join(lines)


def _parts_as_text(state: Mapping[str, Any]) -> list[str]:
    """Return a line for each part of preprocess that is not done."""
    lines = []
    for part, its in state.get("parts", {}).items():
        unfinished = its["status"] != "complete" and state["status"] != "complete"
        if its["status"] == "failed" or unfinished:
            reason = str(its.get("reason", "")).partition("\n")[0]
            lines.append(f"    {part:<20}{its['status']:<13}{reason}".rstrip())
    return lines


def details(state: Mapping[str, Any]) -> list[str]:
    """Return what there is to say of a stage beside its status."""
    found = []
    if state["status"] == "running":
        found.append(state.get("phase", ""))
        if state.get("total_steps"):
            found.append(f"step {state.get('step', 0)} of {state['total_steps']}")
            found.append(f"epoch {state.get('epoch', 0)}")
        if "eta_seconds" in state:
            found.append(f"{duration(state['eta_seconds'])} to go")
        if state.get("attempts"):
            found.append(f"attempt {state['attempts']}")
        found.append(f"seen {duration(state.get('age_seconds', 0))} ago")
    if state.get("waiting_for"):
        never = "can never start as it is: " if state.get("unsatisfiable") else ""
        expected = state.get("expected_start", "")
        start = f", expected to start {expected}" if expected[:4].isdigit() else ""
        found.append(f"job {state['job']}: {never}{state['waiting_for']}{start}")
    if state.get("job_state"):
        found.append(f"job {state['job']}: {state['job_state']}")
    if state.get("reason") and state["status"] != "complete":
        found.append(str(state["reason"]).partition("\n")[0])
    return found


def duration(seconds: float) -> str:
    """Return a time in the unit that suits it.

    Examples
    --------
    >>> duration(42), duration(600), duration(90000)
    ('42 s', '10 min', '25.0 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
