"""The supervisor of one node: starts a stage, watches it, asks it to stop, says how it ended."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from giblet_hpc.errors import DataError, GibletError
from giblet_hpc.files import write_json
from giblet_hpc.jobs import (
    attempts,
    cluster,
    image,
    lease,
    provenance,
    sharing,
    slurm,
    start,
    triage,
)
from giblet_hpc.jobs.attempts import Attempt, Outcome, Place
from giblet_hpc.jobs.child import Child
from giblet_hpc.jobs.cluster import Cluster
from giblet_hpc.jobs.launch import free_port
from giblet_hpc.jobs.stagejob import StageJob
from giblet_hpc.jobs.watch import Watch
from giblet_hpc.runs import RunPaths, Stage

POLL_SECONDS = 0.2
PEER_SECONDS = 60.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
SETTLED = ("complete", "failed", "stopped")


def run_stages(job: StageJob, place: Place, output: IO[str] | None = None) -> int:
    """Run a job's stages on this node; return 0 when all are complete.

    Parameters
    ----------
    job : StageJob
    place : Place
    output : file, optional
        Receives the stages' output instead of the attempt's log.
    """
    paths = RunPaths(Path(job.run_folder))
    profile = cluster.of_run(paths)
    if profile.group:
        os.umask(sharing.PRIVATE_UMASK)
    held = lease.claim(paths, job.lease, place) if place.node == 0 else None
    deadline = deadline_of(job, profile, os.environ)
    try:
        with noting_signals() as asked:
            for stage in job.stages:
                outcome = _settled_before(paths, stage, profile) or Supervisor(
                    job, stage, paths=paths, place=place, profile=profile, asked=asked,
                    deadline=deadline, output=output,
                ).run()  # fmt: skip
                if outcome != "complete":
                    if place.scheduler == "local":
                        paths.put_off(stage)
                    return 1
    finally:
        if held is not None and place.scheduler == "local":
            lease.release(paths, held)
    return 0


def deadline_of(job: StageJob, profile: Cluster, environment: Mapping[str, str]) -> float | None:
    """Return when the stages of a job are asked to stop, in seconds since the epoch; None: never.

    Newer versions of Slurm say when the job ends; else it began when this did, nearly.
    """
    if not job.minutes:
        return None
    end = environment.get("SLURM_JOB_END_TIME", "")
    return (float(end) if end else time.time() + 60 * job.minutes) - profile.lead_seconds


def _settled_before(paths: RunPaths, stage: Stage, profile: Cluster) -> str:
    """Return how an earlier job of a chain has settled training; empty when it has not."""
    if stage != "train" or profile.requeue != "successor":
        return ""
    status = paths.stage_state(stage).get("status", "")
    return status if status in SETTLED else ""


@contextlib.contextmanager
def noting_signals() -> Iterator[list[int]]:
    """Collect the signals that ask to stop; they may come more than once."""
    asked: list[int] = []
    before = {
        number: signal.signal(number, lambda got, _: asked.append(got))
        for number in SIGNALS
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Supervisor:
    """Runs one stage on one node.

    Parameters
    ----------
    job : StageJob
    stage : str
    paths : RunPaths
    place : Place
    profile : Cluster
    asked : list of int
        Signals that have arrived; grows while this works.
    deadline : float, optional
        Time, in seconds since the epoch, at which the stage is asked to stop.
    output : file, optional
        Receives the stage's output instead of the attempt's log.
    """

    def __init__(
        self,
        job: StageJob,
        stage: Stage,
        *,
        paths: RunPaths,
        place: Place,
        profile: Cluster,
        asked: list[int],
        deadline: float | None,
        output: IO[str] | None,
    ) -> None:
        self._job, self._stage, self._paths, self._place = job, stage, paths, place
        self._profile, self._asked, self._deadline = profile, asked, deadline
        self._output = output

    def run(self) -> Outcome:
        """Run the stage to its end; return what became of it."""
        place = self._place
        # Reading a large image takes a while: before the others have begun to watch this node.
        used, refused = self._identify() if place.node == 0 else ("", None)
        attempt = self._begin(used) if place.node == 0 else attempts.join(self._paths, place)
        local = Path(tempfile.mkdtemp(prefix="giblet-"))
        attempt.note_node(place.node, host=place.host, process=os.getpid(), started=time.time())
        watch = Watch(
            self._paths, self._stage, attempt, place=place, profile=self._profile, local=local
        )
        code = -1
        try:
            with self._log(attempt) as log:
                if refused is not None:
                    raise refused
                child = start.child(
                    start.Node(attempt, place, local), self._stage, self._job, paths=self._paths,
                    profile=self._profile, log=log,
                )  # fmt: skip
                code = self._follow(child, watch)
        except (GibletError, OSError) as error:
            self._note_failure(attempt, error)
        finally:
            attempt.note_node(place.node, ended=time.time(), code=code, ranks=watch.positions())
            shutil.rmtree(local, ignore_errors=True)
        if place.node != 0:
            return "complete" if code == 0 else "crashed"
        return self._settle(attempt, watch)

    def _note_failure(self, attempt: Attempt, error: GibletError | OSError) -> None:
        """Record why a stage could not be started, as its ranks record what stops them."""
        rank = self._place.node * self._job.ranks
        where = {"rank": rank, "host": self._place.host, "time": time.time()}
        facts: dict[str, object] = {"kind": "crash", "hint": "", "exit_code": 1}
        if isinstance(error, GibletError):
            facts = {"kind": "mistake", "hint": error.hint, "exit_code": error.exit_code}
        facts |= {"reason": str(error), **where}
        write_json(attempt.folder / f"rank-{rank}.json", facts)

    @contextlib.contextmanager
    def _log(self, attempt: Attempt) -> Iterator[IO[str] | None]:
        if self._output is not None:
            yield None
            return
        with attempt.log(self._place.node).open("a") as log:
            yield log

    def _identify(self) -> tuple[str, GibletError | None]:
        """Return what identifies the image, or why nothing does."""
        try:
            return image.digest(self._profile, self._paths.image), None
        except GibletError as error:
            return "", error

    def _begin(self, used: str) -> Attempt:
        paths, stage, place = self._paths, self._stage, self._place
        attempt = attempts.begin(
            paths,
            place,
            stage,
            {
                "part": self._job.part,
                "ranks_per_node": self._job.ranks,
                "nodes": place.nodes,
                "gpus": self._job.gpus,
                "head": place.head,
                "port": free_port() if place.nodes > 1 else 0,
                "checkpoint_from": paths.checkpoint_step(),
                "image": used,
            },
        )
        if not self._job.part:
            provenance.record(paths, attempt, self._profile, image=used)
        paths.update_state(
            stage, part=self._job.part, status="running", phase="starting", reason="", hint="",
            host=socket.gethostname(), attempt=attempt.number, job=place.job,
            ranks=self._job.ranks, nodes=place.nodes, gpus=self._job.gpus,
        )  # fmt: skip
        return attempt

    def _follow(self, child: Child, watch: Watch) -> int:
        """Wait for the child's end, or bring it about; return its exit code."""
        try:
            while (code := child.code) is None:
                late = self._deadline is not None and time.time() > self._deadline
                if self._asked or late:
                    watch.ask("walltime" if late else signal.Signals(self._asked[-1]).name)
                try:
                    verdict = watch.look()
                except (OSError, DataError):
                    # A file system that stumbles is no reason to end ranks that may be fine.
                    verdict = "fine"
                if verdict == "hung":
                    child.dump_stacks([process for process, *_ in watch.ranks().values()])
                if verdict != "fine":
                    watch.remember_positions()
                    child.end()
                time.sleep(POLL_SECONDS)
        finally:
            child.kill()
        if self._asked:
            # Where a scheduler signals every process, the child may be gone before this was seen.
            watch.ask(signal.Signals(self._asked[-1]).name)
        return code if code is not None else -1

    def _settle(self, attempt: Attempt, watch: Watch) -> Outcome:
        """Say how the attempt ended, in its record and in the run's state."""
        self._wait_for_peers(attempt)
        stage, part, paths = self._stage, self._job.part, self._paths
        state = dict(paths.stage_state(stage, part=part))
        by_user = watch.user_stop or (watch.why == "SIGTERM" and self._cancelled())
        verdict = triage.judge(attempt, state, stopped_by_user=by_user, asked=watch.asked)
        attempt.note(
            checkpoint_to=paths.checkpoint_step(), step_from=state.get("resumed_from"),
            why_asked=watch.why,
        )  # fmt: skip
        attempt.close(verdict.outcome, reason=verdict.reason, step=state.get("step"))
        if attempts.superseded(paths, attempt, self._place):
            # The state is the later attempt's to write.
            return verdict.outcome
        final = {"complete": "complete", "failed": "failed", "stopped": "stopped"}
        status = final.get(verdict.outcome, "interrupted")
        if self._place.scheduler == "local" and status == "interrupted":
            status = "stopped" if verdict.outcome == "interrupted" else "failed"
        if status == "complete":
            paths.update_state(stage, part=part, status=status, reason="", hint="")
        else:
            paths.update_state(
                stage, part=part, status=status, reason=verdict.reason, hint=verdict.hint,
                exit_code=verdict.exit_code,
            )  # fmt: skip
        return verdict.outcome

    def _cancelled(self) -> bool:
        """Return whether SIGTERM came from scancel: a job that makes way for another still runs."""
        place = self._place
        return place.scheduler == "slurm" and slurm.fate(place.job, place.restart) == "cancelled"

    def _wait_for_peers(self, attempt: Attempt) -> None:
        """Give the other nodes time to write their ends."""
        end = time.monotonic() + PEER_SECONDS
        while time.monotonic() < end:
            records = attempt.nodes()
            if len(records) == self._place.nodes and all("ended" in r for r in records.values()):
                return
            if attempt.silent_hosts(time.time()):
                return
            time.sleep(POLL_SECONDS)
