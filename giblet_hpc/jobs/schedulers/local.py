"""This machine, without a queue: a job is a process of submitit's, in the background."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from giblet_hpc.jobs.schedulers.base import Disposition, Fault, JobInfo, Order, Place
from giblet_hpc.jobs.schedulers.sealed import sealed
from giblet_hpc.trust import append

if TYPE_CHECKING:
    from giblet_hpc.config.cluster import Cluster

LONGEST_MINUTES = 14 * 24 * 60


def process_state(process: int) -> str:
    """Return the kernel's letter for a process's state; empty when it is gone."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[0]


class Local:
    """Processes of this machine."""

    name: ClassVar[str] = "local"
    title: ClassVar[str] = "this machine"
    queues: ClassVar[bool] = False

    def installed(self) -> bool:
        """Return True."""
        return True

    def submit(self, profile: Cluster, order: Order) -> list[str]:
        """Start a job in the background; its id is that of submitit's controller."""
        from submitit import LocalExecutor

        del profile
        executor = sealed(LocalExecutor)(folder=order.submissions)
        executor.update_parameters(timeout_min=LONGEST_MINUTES)
        with _detached(order.submissions / "controller.log"):
            started = [executor.submit(work) for work in order.works]
        return [str(job.job_id) for job in started]

    def script(self, profile: Cluster, order: Order) -> str:
        """Return nothing: no script is written."""
        del profile, order
        return ""

    def group(self, job: str) -> str:
        """Return the job."""
        return job

    def jobs(self, ids: Sequence[str], user: str) -> Mapping[str, JobInfo]:
        """Return those of the processes that exist and have not ended."""
        del user
        return {job: JobInfo("running") for job in ids if process_state(int(job)) not in ("", "Z")}

    def ended(self, job: str) -> None:
        """Return None: nothing is known of processes that have ended."""
        del job

    def disposition(self, job: str, restart: int) -> Disposition:
        """Return `runs`: whoever ends a process here, ends it for good."""
        del job, restart
        return "runs"

    def requeue(self, job: str) -> bool:
        """Return False: there is no queue."""
        del job
        return False

    def exclude(self, job: str, nodes: Sequence[str]) -> bool:
        """Return False: there is one node."""
        del job, nodes
        return False

    def cancel(self, jobs: Sequence[str]) -> bool:
        """Return False: nothing waits here, and what runs is asked by the run's STOP file."""
        del jobs
        return False

    def end_step(self, job: str) -> None:
        """Do nothing: there are no other nodes."""
        del job

    def inject(
        self, fault: Fault, job: str, *, host: str, minutes: int, kill: Sequence[str]
    ) -> bool:
        """Return False: drills are for clusters."""
        del fault, job, host, minutes, kill
        return False

    def usable_nodes(self, partition: str | None) -> int:
        """Return one."""
        del partition
        return 1

    def limits(self, partition: str | None) -> tuple[int, int]:
        """Return one node, without an end."""
        del partition
        return 1, 0

    def own_job(self) -> Place:
        """Return this process's place: the only node."""
        host = socket.gethostname()
        return Place(self.name, str(os.getpid()), host=host, head=host)

    def script_job(self) -> tuple[Place, int]:
        """Return this process's place."""
        return self.own_job(), 0

    def end_time(self) -> None:
        """Return None: nothing ends here by itself."""

    def facts(self) -> dict[str, str]:
        """Return nothing: there is no job."""
        return {}

    def submit_host(self) -> str:
        """Return nothing: there is no job."""
        return ""

    def problems(self, partition: str | None) -> list[tuple[str, str, str]]:
        """Return nothing: nobody has to take a job."""
        del partition
        return []

    def profile_text(self, name: str, partition: str | None, *, probe: bool) -> str:
        """Return the profile that needs no file."""
        del partition, probe
        return f"name: {name}\nscheduler: {self.name}\n"

    def cancel_command(self, jobs: Sequence[str]) -> str:
        """Return the command that ends processes."""
        return f"kill {' '.join(jobs)}"


@contextlib.contextmanager
def _detached(log: Path) -> Iterator[None]:
    """Start processes that neither hold this one's terminal nor die with it.

    submitit's controller inherits standard streams and signal handling. Left alone it would keep
    a pipe open that somebody reads from, and end with Ctrl-C or the terminal.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in (0, 1, 2)]
    handlers = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGHUP)}
    try:
        with append(log) as output, Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            yield
    finally:
        for number, descriptor in enumerate(kept):
            os.dup2(descriptor, number)
            os.close(descriptor)
        for number, handler in handlers.items():
            signal.signal(number, handler)
