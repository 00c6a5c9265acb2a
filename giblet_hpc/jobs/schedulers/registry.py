"""The schedulers that there are, by name."""

from __future__ import annotations

from importlib import import_module

from giblet_hpc.jobs.schedulers.base import Place, Scheduler

BUILT_IN = {
    "slurm": "giblet_hpc.jobs.schedulers.slurm:Slurm",
    "local": "giblet_hpc.jobs.schedulers.local:Local",
}
"""Each scheduler's class, imported when it is asked for. `local` is this machine."""


def of(name: str) -> Scheduler:
    """Return a scheduler."""
    module, _, attribute = BUILT_IN[name].partition(":")
    scheduler: Scheduler = getattr(import_module(module), attribute)()
    return scheduler


def installed() -> Scheduler | None:
    """Return the scheduler with a queue that this machine has; None where it has none."""
    return next((s for s in map(of, BUILT_IN) if s.queues and s.installed()), None)


def surrounding() -> Scheduler | None:
    """Return the scheduler of the job that this process is part of; None outside of one."""
    for name in BUILT_IN:
        scheduler = of(name)
        if scheduler.queues and scheduler.own_job() is not None:
            return scheduler
    return None


def of_script() -> Scheduler:
    """Return the scheduler of the job whose script this process ends."""
    for name in BUILT_IN:
        scheduler = of(name)
        if scheduler.queues and scheduler.script_job()[0].job:
            return scheduler
    return of("local")


def here() -> Place:
    """Return this process's place: in its job, or on this machine alone."""
    scheduler = surrounding() or of("local")
    place = scheduler.own_job()
    assert place is not None
    return place
