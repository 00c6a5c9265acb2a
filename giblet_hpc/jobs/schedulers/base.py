"""What the rest asks of a scheduler, and the records that go to and come from it.

A scheduler is an object of a class that follows `Scheduler`. It may not answer: that is an answer
of its own, `NO_ANSWER`, and never means yes or no.

Written for schedulers that differ: arrays may count from 1, dependencies may be on the end only
(what failed before is then looked up in the run's own records), requeue may be by exit status,
there may be no signal before the end (the supervisor has a clock of its own), and the list of nodes
may be a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Literal, Protocol

if TYPE_CHECKING:
    from giblet_hpc.config.cluster import Cluster

Wait = Literal["success", "end", "task"]
"""What a job waits for: that another succeeds, or that it ends; or each task of an array that the
task of its number in another array succeeds."""
Disposition = Literal["runs", "requeued", "cancelled", "out of time", "script killed"]
"""What a scheduler does with a job whose processes are being ended."""


Fault = Literal["preempt", "kill-node", "walltime"]
"""What a fire drill causes."""


class NoAnswer(Enum):
    """The type of `NO_ANSWER`."""

    NO_ANSWER = "no answer"


NO_ANSWER: Final = NoAnswer.NO_ANSWER
"""The scheduler did not answer: neither yes nor no."""


@dataclass(frozen=True)
class JobInfo:
    """What a scheduler says of a job."""

    state: str
    """In the scheduler's own word."""
    waits: bool = False
    """Whether it is still queued."""
    waiting_for: str = ""
    """Why it waits, in words."""
    unsatisfiable: bool = False
    """Whether the scheduler says that it can never start as it is."""
    start: str = ""
    """When it started or is expected to."""


@dataclass(frozen=True)
class Place:
    """Where a supervisor runs: one node of a job.

    Parameters
    ----------
    scheduler : str
        Its name.
    job : str
        The job's id; a process id where there is no scheduler.
    restart : int
        How often the scheduler has started the job again.
    node, nodes : int
        This node's number, and how many there are.
    head : str
        Name of node 0.
    host : str
        Name of this node.
    """

    scheduler: str
    job: str
    restart: int = 0
    node: int = 0
    nodes: int = 1
    head: str = "localhost"
    host: str = "localhost"

    @property
    def key(self) -> str:
        """What tells this execution of the job from all others."""
        return f"{self.scheduler}-{self.job}.{self.restart}"


class Work(Protocol):
    """What is queued: a callable that submitit pickles, with a folder of its own."""

    @property
    def run_folder(self) -> str:
        """Folder that the job belongs to."""

    @property
    def title(self) -> str:
        """What it does, for its name."""

    def __call__(self) -> int:
        """Do it, on each node."""


@dataclass(frozen=True)
class Order:
    """What is asked of a scheduler: a job, or an array with a task for each of several works.

    Parameters
    ----------
    works : sequence of Work
    nodes, cpus, gpus : int
        Nodes; cores and GPUs of each.
    memory_gb : float, optional
        Of each node. None: the site's default.
    minutes : int
        Walltime.
    partition : str, optional
    submissions : Path
        Folder for submitit's own files.
    exclude : sequence of str
        Nodes to leave out.
    after : sequence of (str, str)
        What to wait for, `success` or `end`, and of which job.
    epilogue : sequence of str
        Command that ends the job's script: a requeue, or letting go. Empty for none.
    """

    works: Sequence[Work]
    nodes: int
    cpus: int
    gpus: int
    memory_gb: float | None
    minutes: int
    partition: str | None
    submissions: Path
    exclude: Sequence[str] = ()
    after: Sequence[tuple[Wait, str]] = ()
    epilogue: Sequence[str] = ()


class Scheduler(Protocol):
    """A scheduler."""

    name: ClassVar[str]
    """In profiles and records."""
    title: ClassVar[str]
    """In sentences."""
    queues: ClassVar[bool]
    """Whether jobs wait in a queue, with walltimes and dependencies."""

    def installed(self) -> bool:
        """Whether this machine has its commands."""

    def submit(self, profile: Cluster, order: Order) -> list[str]:
        """Queue an order; return the id of each of its works.

        Raises
        ------
        JobError
            With what the scheduler says, when it refuses.
        """

    def script(self, profile: Cluster, order: Order) -> str:
        """Return the script that `submit` sends."""

    def group(self, job: str) -> str:
        """Return what a dependency on a job names: the whole array of an array's task."""

    def jobs(self, ids: Sequence[str], user: str) -> Mapping[str, JobInfo] | NoAnswer:
        """Return those of a user's jobs that wait or run; an array's id stands for its tasks."""

    def ended(self, job: str) -> JobInfo | NoAnswer | None:
        """Return how a job ended; None when that is not known."""

    def disposition(self, job: str, restart: int) -> Disposition | NoAnswer:
        """Return what is being done with a job that had been restarted so often when it began."""

    def requeue(self, job: str) -> bool:
        """Put a running job back into the queue; return whether that was accepted."""

    def exclude(self, job: str, nodes: Sequence[str]) -> bool:
        """Keep a queued job off some nodes, and off no others; return whether it was accepted."""

    def cancel(self, jobs: Sequence[str]) -> bool:
        """Cancel jobs; return whether that was accepted."""

    def end_step(self, job: str) -> None:
        """End what still runs of a job, on all its nodes, so that its script goes on."""

    def inject(
        self, fault: Fault, job: str, *, host: str, minutes: int, kill: Sequence[str]
    ) -> bool:
        """Cause a fault on a running job; return whether that was accepted.

        Parameters
        ----------
        fault : str
        job : str
        host : str
            The node to kill everything on.
        minutes : int
            The time limit to shorten the job to.
        kill : sequence of str
            The command that kills everything of the run on its node.
        """

    def usable_nodes(self, partition: str | None) -> int | NoAnswer:
        """Return how many nodes of a partition can run jobs."""

    def limits(self, partition: str | None) -> tuple[int, int] | NoAnswer:
        """Return the nodes that a partition has, and its longest walltime in minutes; 0: none."""

    def own_job(self) -> Place | None:
        """Return this process's place in a job of this scheduler; None outside of one."""

    def script_job(self) -> tuple[Place, int]:
        """Return the place of the job whose script this is, and its number in an array."""

    def end_time(self) -> float | None:
        """Return when this job's walltime ends, in seconds since the epoch, where that is known."""

    def facts(self) -> dict[str, str]:
        """Return what this job's environment says of it, for the record."""

    def submit_host(self) -> str:
        """Return the host that this job was submitted from; empty outside of one."""

    def problems(self, partition: str | None) -> list[tuple[str, str, str]]:
        """Look whether jobs for a partition are taken: level, what was seen, what to do."""

    def profile_text(self, name: str, partition: str | None, *, probe: bool) -> str:
        """Return a commented profile of what this cluster is like.

        Raises
        ------
        JobError
            When the scheduler does not answer, or has no such partition.
        """

    def cancel_command(self, jobs: Sequence[str]) -> str:
        """Return what to type to cancel jobs without this package."""
