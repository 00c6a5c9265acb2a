"""The last lines of a Slurm job's script: what follows from how the attempt ended.

Runs in the batch shell, on the host, where scontrol is; and also when the supervisors themselves
were killed. Requeuing from here, rather than from inside submitit's signal handler, needs no
signal to arrive and no supervisor to live. submitit finds its own files again, as the job keeps its
number.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from giblet_hpc.jobs import attempts, cluster, lease, slurm, suspects
from giblet_hpc.jobs.attempts import Attempt, Place
from giblet_hpc.jobs.cluster import Cluster
from giblet_hpc.runs import RunPaths, Stage

NO_PROGRESS_LIMIT = 2


def settle(paths: RunPaths, place: Place) -> int:
    """Act on the end of a job; return the exit code of its script.

    Parameters
    ----------
    paths : RunPaths
    place : Place
        Of the batch shell: only its job and restart count.

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
        lease.give_back(paths, place.job, all_jobs=False)
        return 0
    if facts["outcome"] in ("stopped", "failed"):
        _give_up(paths, place, stage, part)
        return 1
    _try_again(paths, attempt, place, cluster.of_run(paths))
    return 1


def _never_began(paths: RunPaths, place: Place) -> int:
    held = lease.read(paths)
    if held is None or place.job not in held.jobs:
        return 1
    states = paths.read_state()["stages"]
    mine = [
        stage
        for stage, state in states.items()
        if state.get("status") == "queued" and state.get("job") == place.job
    ]
    if not mine and states.get("train", {}).get("status") == "complete":
        # A successor that was not needed; what comes after training waits for it all the same.
        lease.give_back(paths, place.job, all_jobs=False)
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
    lease.give_back(paths, place.job, all_jobs="_" not in place.job)
    return 1


def _close_lost(paths: RunPaths, attempt: Attempt, stage: Stage, part: str) -> None:
    """Close an attempt whose supervisors were killed."""
    lost = [str(r["host"]) for r in attempt.nodes().values() if "ended" not in r]
    reason = f"the supervisor on {', '.join(lost) or 'every node'} was killed"
    attempt.note(checkpoint_to=paths.checkpoint_step(), lost_hosts=lost)
    step = paths.stage_state(stage, part=part).get("step")
    attempt.close("lost", reason=reason, step=step)
    paths.update_state(stage, part=part, status="interrupted", reason=reason, exit_code=1)


def _try_again(paths: RunPaths, attempt: Attempt, place: Place, profile: Cluster) -> None:
    """Queue the job again, or say why not."""
    facts = attempt.facts()
    stage, part, reason = facts["stage"], facts["part"], facts["reason"] or facts["outcome"]
    refused = _refusal(paths, attempt, place)
    if refused:
        status, text = refused
        paths.update_state(stage, part=part, status=status, reason=text, exit_code=1)
        _give_up(paths, place, stage, part)
        return
    hosts = facts.get("lost_hosts") or attempt.silent_hosts(time.time())
    if len(hosts) == facts["nodes"]:
        # What strikes all nodes at once is not a node's fault.
        hosts = []
    suspects.remember(paths, hosts, reason=reason, hours=profile.suspect_hours)
    again = f"queued again: {reason}"
    if profile.requeue == "successor":
        paths.update_state(stage, part=part, status="queued", reason=again, hint="")
        lease.give_back(paths, place.job, all_jobs=False)
        return
    paths.update_state(stage, part=part, status="queued", reason=again, hint="")
    if slurm.fate(place.job, place.restart) == "requeued":
        # Slurm does so by itself where a node has failed.
        return
    if profile.requeue == "none" or not slurm.requeue(place.job):
        paths.update_state(
            stage,
            part=part,
            status="interrupted",
            reason=f"{reason}; the job could not be queued again from its node",
            hint=paths.command("resubmit"),
        )
        _give_up(paths, place, stage, part)
        return
    if nodes := suspects.to_leave_out(paths, profile, facts["nodes"]):
        slurm.exclude(place.job, nodes)


def _give_up(paths: RunPaths, place: Place, stage: Stage, part: str) -> None:
    """Let go of the run; a part of preprocess leaves that to the job after it."""
    if not part:
        paths.put_off(stage)
    lease.give_back(paths, place.job, all_jobs=not part)


def _refusal(paths: RunPaths, attempt: Attempt, place: Place) -> tuple[str, str] | None:
    """Return the status and the reason for not trying again; None when there is none."""
    facts = attempt.facts()
    if paths.stop.exists():
        return "stopped", "asked to stop"
    if slurm.fate(place.job, place.restart) == "cancelled":
        # Requeuing a job that scancel ends would bring it back.
        return "stopped", "cancelled in Slurm"
    past = attempts.history(paths, facts["stage"], facts["part"])
    if attempts.without_progress(past) >= NO_PROGRESS_LIMIT:
        return "failed", f"{facts['reason']} ({NO_PROGRESS_LIMIT} attempts without progress)"
    return None


def main() -> int:
    """Settle the run of this job or, in an array of runs, of this task."""
    parser = argparse.ArgumentParser(prog="python -m giblet_hpc.jobs.settle")
    parser.add_argument("runs", nargs="+", type=Path)
    folders = parser.parse_args().runs
    task = int(os.environ.get("SLURM_ARRAY_TASK_ID", "0"))
    paths = RunPaths(folders[task] if len(folders) > 1 else folders[0])
    restart = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    return settle(paths, Place("slurm", slurm.own_job_id(), restart))


if __name__ == "__main__":
    sys.exit(main())
