"""The lease: who works on a run. One at a time; a dead holder's lease can be taken over.

lease.json is created by one process alone. When nobody can say whether its holder lives, because
the scheduler does not answer, the run is neither free nor taken over.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from giblet_hpc.errors import JobError
from giblet_hpc.files import (
    TEMPORARY_MARK,
    create_text,
    link_or_copy,
    read_json,
    write_json,
    write_text,
)
from giblet_hpc.jobs.schedulers import registry
from giblet_hpc.jobs.schedulers.base import JobInfo, NoAnswer, Place
from giblet_hpc.runs.paths import STAGES, RunPaths
from giblet_hpc.trust import read_text

SUBMITTING_SECONDS = 120.0
HEARTBEAT_SECONDS = 120.0
CLOCK_SECONDS = 300.0
"""By how much clocks of nodes may differ; a sign of life from later than that is none."""
READ_TRIES, READ_PAUSE = 10, 0.05


@dataclass(frozen=True)
class Lease:
    """Who holds a run."""

    user: str
    host: str
    scheduler: str
    jobs: tuple[str, ...]
    """Job ids; for the local scheduler one process id. Empty while submitting."""
    since: float
    token: str

    def __str__(self) -> str:
        """Name the holder in words."""
        what = "submitting" if not self.jobs else f"{self.scheduler} job {', '.join(self.jobs)}"
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.since))
        if self.since > time.time() + CLOCK_SECONDS:
            when += " (in the future: a clock is wrong, or somebody has written it)"
        return f"{what} of {self.user} on {self.host} since {when}"


@dataclass(frozen=True)
class Standing:
    """Whether somebody works on a run."""

    lease: Lease | None
    """What is written; None where there is no lease."""
    alive: bool | None
    """Whether its holder lives; None: the scheduler did not answer, and nothing else tells."""
    jobs: Mapping[str, JobInfo]
    """Those of its jobs that wait or run, as far as that is known."""

    @property
    def taken(self) -> bool:
        """Whether the run has to be left to its holder, who lives or may do."""
        return self.alive is not False


def read(paths: RunPaths) -> Lease | None:
    """Return the lease, whether its holder lives or not; jobs that have ended are left out."""
    for _ in range(READ_TRIES):
        try:
            text = read_text(paths.lease)
        except FileNotFoundError:
            return None
        try:
            facts = json.loads(text)
        except json.JSONDecodeError:
            # Without hard links the file is there before its text.
            time.sleep(READ_PAUSE)
            continue
        ended = _ended(paths, facts["token"])
        left = [job for job in facts["jobs"] if job not in ended]
        return Lease(**{**facts, "jobs": tuple(left or facts["jobs"])})
    return None


def standing(paths: RunPaths) -> Standing:
    """Return whether somebody works on a run, asking the scheduler of its jobs."""
    held = read(paths)
    if held is None:
        return Standing(None, False, {})
    if not held.jobs:
        return Standing(held, _within(SUBMITTING_SECONDS, held.since), {})
    scheduler = registry.of(held.scheduler)
    if not scheduler.queues and held.host != socket.gethostname():
        return Standing(held, True if _fresh(paths, held) else None, {})
    ended = _ended(paths, held.token)
    jobs = [job for job in held.jobs if job not in ended]
    found = scheduler.jobs(jobs, held.user)
    if isinstance(found, NoAnswer):
        return Standing(held, True if _fresh(paths, held) else None, {})
    return Standing(held, bool(found), found)


def holder(paths: RunPaths) -> Lease | None:
    """Return the lease of a holder that lives, or may do; None when the run is free."""
    found = standing(paths)
    return found.lease if found.taken else None


def require_answer(paths: RunPaths, found: Standing) -> None:
    """Check that it is known whether a run is free.

    Raises
    ------
    JobError
        When its scheduler does not answer: nothing may be queued a second time.
    """
    if found.alive is None and found.lease is not None:
        held = found.lease
        raise JobError(
            f"{silence(held)}: whether {held} still waits or runs is not known",
            hint="ask again when it does; nothing was queued. If those jobs are gone for good, "
            f"remove {paths.lease}",
        )


def silence(held: Lease) -> str:
    """Say why nothing is known of a holder."""
    scheduler = registry.of(held.scheduler)
    if not scheduler.queues:
        return f"host {held.host} does not answer"
    if held.user != getpass.getuser():
        return f"{scheduler.title} does not answer, or does not show you jobs of {held.user}"
    return f"{scheduler.title} does not answer"


def _fresh(paths: RunPaths, lease: Lease) -> bool:
    """Judge a holder that cannot be asked by how old the run's last sign of life is."""
    beats = [paths.stage_state(stage).get("heartbeat", 0.0) for stage in STAGES]
    beats += [state.get("heartbeat", 0.0) for state in paths.parts().values()]
    return any(_within(HEARTBEAT_SECONDS, beat) for beat in (lease.since, *beats))


def _within(seconds: float, when: float) -> bool:
    """Return whether something was within the last seconds, as far as clocks agree."""
    return -CLOCK_SECONDS < time.time() - when < seconds


def take(paths: RunPaths, scheduler: str, jobs: tuple[str, ...] = ()) -> Lease:
    """Take the lease of a run; a wish to stop that was left over from before is void.

    Raises
    ------
    JobError
        When somebody else holds it, and lives.
    """
    mine = Lease(
        getpass.getuser(), socket.gethostname(), scheduler, jobs, time.time(), uuid.uuid4().hex
    )
    while not create_text(paths.lease, json.dumps(asdict(mine), indent=1) + "\n"):
        found = standing(paths)
        if found.lease is None:
            continue
        require_answer(paths, found)
        if found.alive:
            raise JobError(f"run {paths.name} is in use: {found.lease}",
                           hint=paths.command("status"))  # fmt: skip
        _remove(paths, found.lease)
    paths.stop.unlink(missing_ok=True)
    return mine


def claim(paths: RunPaths, token: str, place: Place) -> Lease:
    """Return the lease that a submission took for this job, or take it now.

    Raises
    ------
    JobError
        When another job holds it.
    """
    held = read(paths)
    if held is not None and held.token == token and (not held.jobs or place.job in held.jobs
                                                      or place.scheduler == "local"):  # fmt: skip
        return held
    return take(paths, place.scheduler, (place.job,))


def release(paths: RunPaths, lease: Lease) -> None:
    """End a lease, and with it a wish to stop, which has been heard."""
    paths.stop.unlink(missing_ok=True)
    _remove(paths, lease)
    for file in paths.ended_jobs.glob(f"{lease.token}.*"):
        file.unlink(missing_ok=True)


def _remove(paths: RunPaths, lease: Lease) -> None:
    """Remove just this lease: should another have been made meanwhile, it is put back."""
    file = paths.lease
    aside = file.with_name(f"{TEMPORARY_MARK}{uuid.uuid4().hex[:8]}-{file.name}")
    with contextlib.suppress(FileNotFoundError):
        file.rename(aside)
        if read_json(aside)["token"] != lease.token:
            link_or_copy(aside, file)
        aside.unlink()


def assign(paths: RunPaths, lease: Lease, jobs: tuple[str, ...]) -> None:
    """Write down which jobs a lease is for."""
    write_json(paths.lease, asdict(replace(lease, jobs=jobs)))


def return_share(paths: RunPaths, job: str, *, all_jobs: bool) -> None:
    """End a job's share in the lease; with ``all_jobs`` or for the last job, the lease itself.

    Jobs of an array end at the same moment, so each says so in a file of its own.
    """
    held = read(paths)
    if held is None or job not in held.jobs:
        return
    if not all_jobs:
        paths.ended_jobs.mkdir(exist_ok=True)
        write_text(paths.ended_jobs / f"{held.token}.{job}", "")
    if all_jobs or _ended(paths, held.token) >= set(held.jobs):
        release(paths, held)


def _ended(paths: RunPaths, token: str) -> set[str]:
    """Return those of a lease's jobs that have ended their share."""
    files = paths.ended_jobs.glob(f"{token}.*")
    return {file.name.partition(".")[2] for file in files}
