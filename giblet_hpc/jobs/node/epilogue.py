"""The last lines of a job's script: what follows from how the attempt ended.

Runs on the host, where the scheduler's commands are; and also when the supervisors themselves
were killed. Requeuing from here, rather than from inside submitit's signal handler, needs no
signal to arrive and no supervisor to live. submitit finds its own files again, as the job keeps its
number.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from giblet_hpc.causes import search
from giblet_hpc.config.cluster import Cluster
from giblet_hpc.jobs import profiles
from giblet_hpc.jobs.node import evidence
from giblet_hpc.jobs.record import attempts, excluded, lease
from giblet_hpc.jobs.record.attempts import Attempt
from giblet_hpc.jobs.schedulers import registry
from giblet_hpc.jobs.schedulers.base import Place, Scheduler
from giblet_hpc.runs.paths import STAGES, RunPaths, Stage

SAME_CAUSE_LIMIT = 2
ANY_CAUSE_LIMIT = 4
"""Attempts without progress, so that failures that take turns come to an end too."""
UNSATISFIABLE_SECONDS = 2.0


def conclude(paths: RunPaths, place: Place, scheduler: Scheduler) -> int:
    """Act on the end of a job; return the exit code of its script.

    Parameters
    ----------
    paths : RunPaths
    place : Place
        Of the job's script: only its job and restart count.
    scheduler : Scheduler

    Returns
    -------
    int
        0 when the stage is complete, so that jobs which wait for it start.
    """
    attempt = attempts.find(paths, place)
    if attempt is None:
        return _never_began(paths, place)
    facts = attempt.facts()
    stage, part = facts["stage"], facts["part"]
    if "ended" not in facts:
        _close_lost(paths, attempt, stage, part)
        facts = attempt.facts()
    if facts["outcome"] == "complete":
        lease.return_share(paths, place.job, all_jobs=False)
        return 0
    if facts["outcome"] in ("stopped", "failed"):
        _give_up(paths, place, stage, part)
        return 1
    _try_again(paths, attempt, place, scheduler)
    return 1


def _never_began(paths: RunPaths, place: Place) -> int:
    held = lease.read(paths)
    if held is None or place.job not in held.jobs:
        return 1
    states = {stage: paths.stage_state(stage) for stage in STAGES}
    mine = [
        stage
        for stage, state in states.items()
        if state.get("status") == "queued" and state.get("job") == place.job
    ]
    if not mine and states["train"].get("status") == "complete":
        # A successor that was not needed; what comes after training waits for it all the same.
        lease.return_share(paths, place.job, all_jobs=False)
        return 0
    for stage in mine:
        paths.update_state(
            stage,
            status="failed",
            reason="the job ended before its supervisor began",
            hint=f"its own log: {paths.jobs}/{place.job}_0_log.out",
            exit_code=1,
        )
    # A task of an array leaves the run to the others.
    lease.return_share(paths, place.job, all_jobs="_" not in place.job)
    return 1


def _close_lost(paths: RunPaths, attempt: Attempt, stage: Stage, part: str) -> None:
    """Close an attempt whose supervisors were killed."""
    lost = attempt.unfinished_hosts()
    reason, more = f"the supervisor on {', '.join(lost) or 'every node'} was killed", {}
    seen = [one for one in evidence.gather(attempt) if one.match.cause.role == "root"]
    if seen:
        cause = seen[0].match.cause
        reason = f"{cause.reason}: {reason}"
        more = {"root": cause.name, "evidence": [str(one) for one in seen[:1]]}
    attempt.note(checkpoint_to=paths.checkpoint_step(), lost_hosts=lost)
    progress = paths.read_progress(attempt.number)
    attempt.note(step_from=progress.get("resumed_from"))
    attempt.close("lost", reason=reason, step=progress.get("step"), **more)
    progress.pop("status", None)
    paths.update_state(
        stage, part=part, **{**progress, "status": "interrupted"}, reason=reason, exit_code=1,
        hint=seen[0].match.cause.remedy if seen else "",
    )  # fmt: skip


def _try_again(paths: RunPaths, attempt: Attempt, place: Place, scheduler: Scheduler) -> None:
    """Queue the job again, or say why not."""
    facts, profile = attempt.facts(), profiles.of_run(paths)
    stage, part, reason = facts["stage"], facts["part"], facts["reason"] or facts["outcome"]
    disposition = scheduler.disposition(place.job, place.restart)
    refused = _refusal(paths, attempt, disposition)
    if refused:
        status, text = refused
        paths.update_state(stage, part=part, status=status, reason=text, exit_code=1)
        _give_up(paths, place, stage, part)
        return
    hosts = facts.get("lost_hosts") or attempt.silent_hosts(time.time())
    if len(hosts) == facts["nodes"]:
        # What strikes all nodes at once is not a node's fault.
        hosts = []
    hosts = list(dict.fromkeys([*hosts, *facts.get("suspects", ())]))
    excluded.remember(paths, hosts, reason=reason, hours=profile.suspect_hours)
    paths.update_state(stage, part=part, status="queued", reason=f"queued again: {reason}", hint="")
    if profile.requeue == "successor":
        lease.return_share(paths, place.job, all_jobs=False)
        return
    if disposition == "requeued":
        # The scheduler does so by itself where a node has failed.
        return
    if profile.requeue == "none" or not scheduler.requeue(place.job):
        paths.update_state(
            stage,
            part=part,
            status="interrupted",
            reason=f"{reason}; the job could not be queued again from its node",
            hint=paths.command("resubmit"),
        )
        _give_up(paths, place, stage, part)
        return
    _exclude(paths, place, scheduler, profile, stage, needed=facts["nodes"])


def _exclude(
    paths: RunPaths,
    place: Place,
    scheduler: Scheduler,
    profile: Cluster,
    stage: Stage,
    *,
    needed: int,
) -> None:
    """Keep the job off nodes that lost one lately, unless it could never start then."""
    partition = profile.partition
    if stage != "preprocess":
        partition = getattr(profile.stages, stage).partition or partition
    nodes = excluded.to_exclude(paths, scheduler, partition=partition, needed=needed)
    if not nodes or not scheduler.exclude(place.job, nodes):
        return
    time.sleep(UNSATISFIABLE_SECONDS)
    held = lease.read(paths)
    found = scheduler.jobs([place.job], held.user) if held is not None else {}
    if isinstance(found, dict) and any(info.unsatisfiable for info in found.values()):
        scheduler.exclude(place.job, ())


def _give_up(paths: RunPaths, place: Place, stage: Stage, part: str) -> None:
    """Let go of the run; a part of preprocess leaves that to the job after it."""
    if not part:
        paths.unqueue_later_stages(stage)
    lease.return_share(paths, place.job, all_jobs=not part)


def _refusal(paths: RunPaths, attempt: Attempt, disposition: object) -> tuple[str, str] | None:
    """Return the status and the reason for not trying again; None when there is none."""
    facts = attempt.facts()
    if paths.stop.exists():
        return "stopped", "asked to stop"
    if disposition == "cancelled":
        # Requeuing a job that is cancelled would bring it back.
        return "stopped", "cancelled"
    spent = attempts.without_progress(attempts.history(paths, facts["stage"], facts["part"]))
    if spent.hopeless:
        return "failed", f"{facts['reason']} (another attempt would end in the same way)"
    known = search.named(spent.causes[0]) if spent.causes else None
    if spent.same >= (known.attempts if known and known.attempts > 1 else SAME_CAUSE_LIMIT):
        return "failed", f"{facts['reason']} ({spent.same} attempts without progress)"
    if spent.every >= ANY_CAUSE_LIMIT:
        return "failed", (
            f"{facts['reason']} ({spent.every} attempts without progress, of several causes: "
            f"{', '.join(spent.causes)})"
        )
    return None


def main() -> int:
    """Conclude the run of this job or, in an array of runs, of this task."""
    parser = argparse.ArgumentParser(prog="python -m giblet_hpc.jobs.node.epilogue")
    parser.add_argument("runs", nargs="+", type=Path)
    folders = parser.parse_args().runs
    scheduler = registry.of_script()
    place, number = scheduler.script_job()
    paths = RunPaths(folders[number] if len(folders) > 1 else folders[0])
    return conclude(paths, place, scheduler)


if __name__ == "__main__":
    sys.exit(main())
