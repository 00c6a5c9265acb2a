"""The lease: who works on a run. One at a time; a dead holder's lease can be taken over.

lease.json is made by linking a finished file to its name, which only one process can do, on local
and on network file systems alike.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import socket
import time
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from giblet_hpc.errors import DataError, JobError
from giblet_hpc.files import TEMPORARY_MARK, read_json, write_json
from giblet_hpc.jobs import slurm
from giblet_hpc.jobs.attempts import Place
from giblet_hpc.jobs.child import state_of
from giblet_hpc.runs import RunPaths

SUBMITTING_SECONDS = 120.0
HEARTBEAT_SECONDS = 900.0


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
        return f"{what} of {self.user} on {self.host} since {when}"


def file_of(paths: RunPaths) -> Path:
    """Return the name of a run's lease."""
    return paths.root / "lease.json"


def read(paths: RunPaths) -> Lease | None:
    """Return the lease as written, whether its holder lives or not."""
    try:
        facts = read_json(file_of(paths))
    except DataError:
        return None
    return Lease(**{**facts, "jobs": tuple(facts["jobs"])})


def holder(paths: RunPaths) -> Lease | None:
    """Return the lease of a live holder; None when the run is free."""
    lease = read(paths)
    return lease if lease is not None and _alive(paths, lease) else None


def _alive(paths: RunPaths, lease: Lease) -> bool:
    if not lease.jobs:
        return time.time() - lease.since < SUBMITTING_SECONDS
    if lease.scheduler == "slurm":
        found = slurm.queued(lease.jobs)
        return bool(found) if found is not None else _fresh(paths, lease)
    if lease.host != socket.gethostname():
        return _fresh(paths, lease)
    return process_alive(int(lease.jobs[0]))


def _fresh(paths: RunPaths, lease: Lease) -> bool:
    """Judge a holder that cannot be asked by how old the run's last sign of life is."""
    beats = [state.get("heartbeat", 0.0) for state in paths.read_state()["stages"].values()]
    return time.time() - max([lease.since, *beats]) < HEARTBEAT_SECONDS


def process_alive(process: int) -> bool:
    """Return whether a process of this machine exists and has not ended."""
    return state_of(process) not in ("", "Z")


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
    while not _link(paths, mine):
        held = read(paths)
        if held is None:
            continue
        if _alive(paths, held):
            raise JobError(f"run {paths.name} is taken: {held}", hint=paths.command("status"))
        _remove(paths, held)
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


def _link(paths: RunPaths, lease: Lease) -> bool:
    file = file_of(paths)
    temporary = file.with_name(f"{TEMPORARY_MARK}{lease.token[:8]}-{file.name}")
    temporary.write_text(json.dumps(asdict(lease), indent=1) + "\n")
    try:
        os.link(temporary, file)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


def _remove(paths: RunPaths, lease: Lease) -> None:
    """Remove just this lease: should another have been made meanwhile, it is put back."""
    file = file_of(paths)
    aside = file.with_name(f"{TEMPORARY_MARK}{uuid.uuid4().hex[:8]}-{file.name}")
    with contextlib.suppress(FileNotFoundError):
        file.rename(aside)
        if read_json(aside)["token"] != lease.token:
            with contextlib.suppress(FileExistsError):
                os.link(aside, file)
        aside.unlink()


def assign(paths: RunPaths, lease: Lease, jobs: tuple[str, ...]) -> None:
    """Write down which jobs a lease is for."""
    write_json(file_of(paths), asdict(replace(lease, jobs=jobs)))


def give_back(paths: RunPaths, job: str, *, all_jobs: bool) -> None:
    """End a job's share in the lease; with ``all_jobs`` or for the last job, the lease itself."""
    lease = read(paths)
    if lease is None or job not in lease.jobs:
        return
    left = tuple(other for other in lease.jobs if other != job)
    if all_jobs or not left:
        release(paths, lease)
    else:
        assign(paths, lease, left)
