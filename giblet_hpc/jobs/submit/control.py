"""Stopping a run, taking it back to an earlier step, freeing it of nodes it excludes."""

from __future__ import annotations

import shutil
import time
import uuid

from giblet_hpc.errors import ConfigError, JobError
from giblet_hpc.files import TEMPORARY_MARK, write_json
from giblet_hpc.jobs.record import excluded, lease
from giblet_hpc.jobs.schedulers import registry
from giblet_hpc.runs import checkpoints
from giblet_hpc.runs.paths import STAGES, RunPaths


def cancel(paths: RunPaths) -> str:
    """Ask a run to stop at its next step boundary, with a checkpoint; waiting jobs just go.

    Returns
    -------
    str
        What was done, in words.

    Raises
    ------
    ConfigError
        When nothing of the run is queued or running.
    JobError
        When the scheduler does not answer. What starts after that ends at once all the same.
    """
    found = lease.standing(paths)
    held = found.lease
    if held is None or found.alive is False:
        raise ConfigError(
            f"nothing of run {paths.name} is queued or running", hint=paths.command("status")
        )
    write_json(paths.stop, {"time": time.time()})
    scheduler = registry.of(held.scheduler)
    if not scheduler.queues:
        return f"asked run {paths.name} to stop"
    waiting = [job for job, info in found.jobs.items() if info.waits]
    if (found.alive is None or not found.jobs) and held.jobs:
        raise JobError(
            f"run {paths.name} is asked to stop, but {scheduler.title} does not answer: jobs that "
            "wait could not be cancelled. They end at once when they start",
            hint=f"when it answers: {scheduler.cancel_command(held.jobs)}",
        )
    gone = bool(waiting) and scheduler.cancel(waiting)
    if gone:
        for stage in STAGES:
            if paths.stage_state(stage).get("job") in waiting:
                paths.update_state(stage, status="stopped", reason="cancelled while waiting")
    if gone and len(waiting) == len(found.jobs):
        lease.release(paths, held)
    count = len(waiting) if gone else 0
    jobs = "1 waiting job" if count == 1 else f"{count} waiting jobs"
    return f"asked run {paths.name} to stop; {jobs} cancelled"


def remove(paths: RunPaths) -> None:
    """Delete a run's folder; its features stay in the store, which other runs may read.

    Raises
    ------
    ConfigError
        When the run is queued or running, or nobody knows.
    """
    found = lease.standing(paths)
    lease.require_answer(paths, found)
    if found.taken:
        raise ConfigError(
            f"run {paths.name} is in use: {found.lease}", hint=paths.command("cancel")
        )
    # Under a name that no command takes for a run's: what is left of it after a kill is no run.
    aside = paths.root.with_name(f"{TEMPORARY_MARK}{uuid.uuid4().hex[:8]}")
    paths.root.rename(aside)
    shutil.rmtree(aside)


def size_of(paths: RunPaths) -> int:
    """Return the bytes in a run's folder."""
    return sum(path.lstat().st_size for path in paths.root.rglob("*") if not path.is_dir())


def go_back(paths: RunPaths, step: int) -> None:
    """Make a step's checkpoint the newest; later ones are moved aside, not deleted.

    Raises
    ------
    ConfigError
        When there is no such checkpoint, or the run is queued or running.
    """
    if (held := lease.holder(paths)) is not None:
        raise ConfigError(f"run {paths.name} is in use: {held}")
    checkpoints.rewind(paths.checkpoints(), step, paths.set_aside_folder)
    for stage in ("train", "evaluate"):
        if paths.stage_state(stage).get("status", "not started") != "not started":
            paths.update_state(stage, status="stopped", reason=f"taken back to step {step}")


def lift_exclusions(paths: RunPaths) -> list[str]:
    """Let waiting jobs that can never start, as too few nodes are left, have all nodes again.

    Returns
    -------
    list of str
        The jobs that were freed.
    """
    found = lease.standing(paths)
    stuck = [job for job, info in found.jobs.items() if info.unsatisfiable]
    if found.lease is None or not stuck or not excluded.known(paths):
        return []
    scheduler = registry.of(found.lease.scheduler)
    freed = [job for job in stuck if scheduler.exclude(job, ())]
    if freed:
        excluded.forget(paths)
    return freed
