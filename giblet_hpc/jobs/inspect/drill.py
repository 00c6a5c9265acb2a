"""Fire drills: cause a fault on a live run, and report what it cost."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from giblet_hpc.errors import JobError
from giblet_hpc.jobs import profiles
from giblet_hpc.jobs.record import attempts, lease
from giblet_hpc.jobs.record.attempts import Attempt
from giblet_hpc.jobs.schedulers import registry, sealed
from giblet_hpc.jobs.schedulers.base import Fault
from giblet_hpc.runs.environment import TOKEN
from giblet_hpc.runs.paths import RunPaths

FAULTS: tuple[Fault, ...] = ("preempt", "kill-node", "walltime")
POLL_SECONDS = 1.0
SPARE_SECONDS = 15.0


@dataclass(frozen=True)
class Cost:
    """What a fault cost."""

    fault: str
    outcome: str
    """How the hit attempt ended."""
    step_before: int
    """Last step that was made before the end."""
    step_after: int
    """Step that the next attempt began from."""
    seconds: float
    """From the fault to the first step of the next attempt."""

    @property
    def steps_lost(self) -> int:
        """Steps that were made twice."""
        return max(0, self.step_before - self.step_after)


def inject_fault(paths: RunPaths, fault: Fault) -> Attempt:
    """Cause a fault on the attempt that is running now.

    `preempt` sends what a preempted job is sent; `walltime` shortens the job's time limit to
    a little more than the profile's lead; `kill-node` kills everything of the run on its last node.

    Raises
    ------
    JobError
        When no training of the run is under way on a cluster, or the scheduler refuses.
    """
    held = lease.holder(paths)
    state = {"status": "", **paths.stage_state("train")}
    if held is None or not registry.of(held.scheduler).queues or state["status"] != "running":
        raise JobError(
            f"run {paths.name} is not training on a cluster now",
            hint=paths.command("status"),
        )
    attempt = attempts.all_attempts(paths)[-1]
    job = str(state["job"])
    host = attempt.nodes()[max(attempt.nodes())]["host"]
    limit = _short_limit(attempt, profiles.of_run(paths).lead_seconds)
    kill = [sys.executable, "-P", "-m", "giblet_hpc.jobs.inspect.drill",
            str(paths.root.absolute())]  # fmt: skip
    if not registry.of(held.scheduler).inject(fault, job, host=host, minutes=limit, kill=kill):
        raise JobError(f"the scheduler did not carry out the drill {fault} on job {job}")
    return attempt


def _short_limit(attempt: Attempt, lead_seconds: int) -> int:
    """Return a time limit in whole minutes that leaves the lead, and a little more."""
    seconds = time.time() - attempt.facts()["started"] + lead_seconds + SPARE_SECONDS
    return math.ceil(seconds / 60)


def observe(
    paths: RunPaths, hit: Attempt, fault: str, *, timeout: float, tell: Callable[[str], None]
) -> Cost:
    """Wait until the run goes on, and say what was lost.

    Raises
    ------
    JobError
        When it does not go on in time.
    """
    start = time.monotonic()
    told = ""
    while time.monotonic() - start < timeout:
        facts = hit.facts()
        if "ended" in facts and told != facts["outcome"]:
            told = facts["outcome"]
            tell(f"attempt {hit.number} ended: {told} ({facts['reason']})")
        later = [a for a in attempts.history(paths, "train") if a.number > hit.number]
        state = paths.stage_state("train")
        began = state.get("resumed_from") if later else None
        again = (
            later
            and state.get("attempt") == later[0].number
            and paths.read_progress(later[0].number).get("resumed_from") is not None
        )
        if began is not None and again:
            return Cost(
                fault, facts.get("outcome", "killed"), facts.get("step_to") or began, began,
                time.monotonic() - start,
            )  # fmt: skip
        if "ended" in facts and state.get("status") in ("complete", "failed", "stopped"):
            raise JobError(
                f"run {paths.name} is {state['status']}: it ended before the fault could cost it "
                "anything, or because of it",
                hint=paths.command("status"),
            )
        time.sleep(POLL_SECONDS)
    raise JobError(
        f"run {paths.name} did not go on within {timeout:.0f} s after the drill",
        hint=paths.command("status"),
    )


def as_facts(cost: Cost) -> dict[str, Any]:
    """Return a cost as plain values."""
    return {**asdict(cost), "steps_lost": cost.steps_lost}


def kill_here(run_folder: str) -> None:
    """Kill every process of a run on this node, supervisors first."""
    wanted = run_folder.encode()
    mine = os.getpid()
    for folder in Path("/proc").glob("[0-9]*"):
        number = int(folder.name)
        try:
            arguments = (folder / "cmdline").read_bytes()
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        # The folder itself, or a file in it: not that of a run whose name only begins alike.
        ours = any(a == wanted or a.startswith(wanted + b"/") for a in arguments.split(b"\0"))
        supervisor = sealed.MODULE.encode() in arguments and ours
        rank = TOKEN.encode() in environment and ours
        if number != mine and (supervisor or rank):
            os.kill(number, signal.SIGKILL)


if __name__ == "__main__":
    kill_here(sys.argv[1])
