"""What a run has used of what it asked for, and what would have been enough."""

from __future__ import annotations

import logging
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from giblet_hpc.errors import GibletError
from giblet_hpc.jobs.inspect.status import duration
from giblet_hpc.jobs.record import attempts
from giblet_hpc.plans.hardware import GIB
from giblet_hpc.runs import figures
from giblet_hpc.runs.paths import STAGES, RunPaths

logger = logging.getLogger(__name__)
ENOUGH_MEMORY = 1.3
"""Of the most that was used: what is worth asking for."""
HALF = 0.5
FEW_GIB = 4.0
"""Less than this is not worth a change."""
SHORT_MINUTES = 30
ENOUGH_TIME = 1.5
LEAST_BUSY = 30.0
"""Percent of a GPU's time."""


def of_run(paths: RunPaths) -> dict[str, Any]:
    """Return what each stage used, and the changes that would have been enough.

    Parameters
    ----------
    paths : RunPaths

    Returns
    -------
    dict
        ``stages``: by name hours, ``gpu_hours``, ``gpu_hours_busy`` where GPUs were watched,
        ``core_hours``, ``waited_seconds`` in the queue, ``attempts``, ``lost_steps`` that were
        made twice, ``memory_gib`` asked and used (of the fullest node), ``minutes`` asked and used
        (of the longest attempt). ``suggestions``: fields of the cluster profile, options or
        settings, each with a value and why.
    """
    every = [(one, one.facts()) for one in attempts.all_attempts(paths)]
    busy = _percent_busy(paths)
    stages: dict[str, dict[str, Any]] = {}
    before = 0.0
    for stage in STAGES:
        own = [(one, facts) for one, facts in every if facts.get("stage") == stage]
        if own:
            stages[stage] = _of_stage(own, after=before)
            before = max(facts.get("ended", 0.0) for _, facts in own)
    if "train" in stages and busy is not None:
        stages["train"]["gpu_hours_busy"] = stages["train"]["gpu_hours"] * busy / 100
    return {"run": paths.name, "stages": stages, "suggestions": list(_suggestions(stages, busy))}


def of_run_safely(paths: RunPaths) -> dict[str, Any] | None:
    """Return what `of_run` does; None for a run that cannot be read."""
    try:
        return of_run(paths) if paths.is_current() else None
    except (GibletError, OSError, ValueError, LookupError, TypeError) as error:
        logger.warning("run %s cannot be read: %s", paths.name, error)
        return None


def _of_stage(
    own: Sequence[tuple[attempts.Attempt, dict[str, Any]]], *, after: float
) -> dict[str, Any]:
    """Add up a stage's attempts; none waits before the stage that it needs has ended."""
    facts = [fact for _, fact in own]
    nodes = [list(one.nodes().values()) for one, _ in own]
    ends = [_end(fact, records) for fact, records in zip(facts, nodes, strict=True)]
    seconds = [max(0.0, end - fact["started"]) for fact, end in zip(facts, ends, strict=True)]
    # A stage waits from when it was queued, or its earlier stage or attempt had ended.
    before = [after, *(end if not facts[0].get("part") else after for end in ends[:-1])]
    waited = [
        max(0.0, fact["started"] - max(fact["queued"], since))
        for fact, since in zip(facts, before, strict=True)
        if fact.get("queued")
    ]
    used = [record.get("peak_memory", 0) for records in nodes for record in records]
    asked = [fact["memory_gb"] for fact in facts if fact.get("memory_gb")]
    pairs = list(zip(facts, seconds, strict=True))
    return {
        "attempts": len(own),
        "hours": sum(seconds) / 3600,
        "gpu_hours": sum(f["nodes"] * f.get("gpus", 0) * s for f, s in pairs) / 3600,
        "core_hours": sum(f["nodes"] * f.get("cpus", 0) * s for f, s in pairs) / 3600,
        "waited_seconds": sum(waited),
        "lost_steps": _lost(facts),
        "memory_gib": {"asked": max(asked, default=None), "used": max(used, default=0) / GIB},
        "minutes": {
            "asked": max((f.get("minutes", 0) for f in facts), default=0) or None,
            "used": max(seconds, default=0.0) / 60,
        },
        "gpus": max((f["nodes"] * f.get("gpus", 0) for f in facts), default=0),
        "complete": facts[-1].get("outcome") == "complete",
    }


def _end(facts: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> float:
    """Return when an attempt ended; one that was killed with its script, when it was seen last.

    Such an attempt is closed when the next one begins, which may be hours later.
    """
    seen = [record["heartbeat"] for record in nodes]
    end = float(facts.get("ended", facts["started"]))
    killed = facts.get("outcome") == "interrupted" and facts.get("step_to") is None
    return min(end, max(seen)) if killed and seen else end


def _lost(facts: Sequence[Mapping[str, Any]]) -> int:
    """Return the steps that attempts had made and later ones made again."""
    lost, reached = 0, 0
    for fact in facts:
        if fact.get("step_from") is not None:
            lost += max(0, reached - fact["step_from"])
            reached = fact["step_from"]
        reached = max(reached, fact.get("step_to") or 0)
    return lost


def _percent_busy(paths: RunPaths) -> float | None:
    """Return the mean share of time that training's GPUs were busy, in percent; None: unknown."""
    rows = (row for file in figures.files(paths).values() for row in figures.rows(file))
    found = [v for row in rows for k, v in row.items() if k.endswith("/percent_busy")]
    return statistics.mean(found) if found else None


def _suggestions(
    stages: Mapping[str, Mapping[str, Any]], busy: float | None
) -> Iterator[dict[str, Any]]:
    """Yield changes to the cluster profile, or to options, that would have been enough."""
    needed = {
        name: ENOUGH_MEMORY * stage["memory_gib"]["used"]
        for name, stage in stages.items()
        if stage["memory_gib"]["asked"] and stage["memory_gib"]["used"]
    }
    for name, enough in needed.items():
        asked = stages[name]["memory_gib"]["asked"]
        if enough < HALF * asked and asked - enough > FEW_GIB:
            yield {
                "where": "cluster profile", "field": f"stages.{name}.memory_gb_per_node",
                "value": max(1, math.ceil(enough)),
                "why": f"{stages[name]['memory_gib']['used']:.1f} of {asked:g} GiB were used",
            }  # fmt: skip
    for name, stage in stages.items():
        asked, used = stage["minutes"]["asked"], stage["minutes"]["used"]
        if stage["complete"] and asked and asked > SHORT_MINUTES and used < HALF * asked:
            minutes = max(SHORT_MINUTES, math.ceil(ENOUGH_TIME * used))
            if minutes < asked:
                yield {
                    "where": "cluster profile", "field": f"stages.{name}.time",
                    "value": f"{minutes // 60}:{minutes % 60:02d}:00",
                    "why": f"the longest attempt took {used:.0f} of {asked} min; short jobs start "
                    "earlier",
                }  # fmt: skip
    train = stages.get("train")
    if train and busy is not None and busy < LEAST_BUSY and train["gpus"] > 1:
        yield {
            "where": "command line", "field": "--gpus", "value": train["gpus"] // 2,
            "why": f"{train['gpus']} GPUs were busy {busy:.0f} % of the time",
        }  # fmt: skip


def as_text(facts: Mapping[str, Any]) -> str:
    """Return a few lines: a line for each stage, then what would have been enough."""
    lines = []
    for name, stage in facts["stages"].items():
        details = [duration(3600 * stage["hours"])]
        if stage["gpu_hours"]:
            idle = stage.get("gpu_hours_busy")
            known = f", {idle:.1f} of them busy" if idle is not None else ""
            details.append(f"{stage['gpu_hours']:.1f} GPU hours{known}")
        elif stage["core_hours"]:
            details.append(f"{stage['core_hours']:.1f} core hours")
        if stage["waited_seconds"] >= 1:
            details.append(f"{duration(stage['waited_seconds'])} in the queue")
        if stage["attempts"] > 1:
            details.append(f"{stage['attempts']} attempts")
        if name == "train":
            details.append(f"{stage['lost_steps']} steps lost")
        memory = stage["memory_gib"]
        if memory["used"]:
            asked = f" of {memory['asked']:g}" if memory["asked"] else ""
            details.append(f"{memory['used']:.1f}{asked} GiB of memory")
        lines.append(f"  {'used':<11}{name:<13}{'; '.join(details)}")
    for one in facts["suggestions"]:
        lines.append(
            f"  {'enough':<11}{one['field']}: {one['value']} ({one['where']}): {one['why']}"
        )
    return "\n".join(lines)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a line for each run: hours, waiting, lost steps, memory, and what to change."""
    width = max([len(str(row["run"])) for row in rows], default=3)
    lines = [f"{'run':<{width}}  {'hours':>7}{'GPU h':>8}{'busy':>7}{'queue':>9}{'lost':>6}"
             f"{'GiB':>9}{'asked':>7}  change"]  # fmt: skip
    for row in rows:
        stages = row["stages"].values()
        busy = sum(stage.get("gpu_hours_busy", 0.0) for stage in stages)
        gpu = sum(stage["gpu_hours"] for stage in stages)
        asked = max((s["memory_gib"]["asked"] or 0 for s in stages), default=0)
        change = "; ".join(f"{one['field']}: {one['value']}" for one in row["suggestions"])
        lines.append(
            f"{row['run']:<{width}}  {sum(s['hours'] for s in stages):>7.2f}{gpu:>8.1f}"
            f"{f'{100 * busy / gpu:.0f} %' if gpu and busy else '-':>7}"
            f"{duration(sum(s['waited_seconds'] for s in stages)):>9}"
            f"{sum(s['lost_steps'] for s in stages):>6}"
            f"{max((s['memory_gib']['used'] for s in stages), default=0):>9.1f}"
            f"{f'{asked:g}' if asked else '-':>7}  {change}".rstrip()
        )
    return "\n".join(lines)
