"""The supervisor of one node: starts a stage, watches it, asks it to stop, says how it ended."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from giblet_hpc.config.cluster import Cluster
from giblet_hpc.errors import ConfigError, DataError, GibletError, NodeError
from giblet_hpc.files import explain, write_json
from giblet_hpc.jobs import profiles
from giblet_hpc.jobs.node import evidence, image, start, triage
from giblet_hpc.jobs.node.processes import Child, PeakMemory
from giblet_hpc.jobs.node.scratch import local_folder
from giblet_hpc.jobs.node.watch import Watch
from giblet_hpc.jobs.record import attempts, lease, provenance
from giblet_hpc.jobs.record.attempts import Attempt, Outcome
from giblet_hpc.jobs.record.task import StageTask
from giblet_hpc.jobs.schedulers import registry
from giblet_hpc.jobs.schedulers.base import Place
from giblet_hpc.runs.paths import RunPaths, Stage
from giblet_hpc.trust import GROUP_UMASK, PRIVATE_UMASK, append, read_text

POLL_SECONDS = 0.2
PEER_SECONDS = 40.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
FINAL = ("complete", "failed", "stopped")


def run_stages(task: StageTask, place: Place, output: IO[str] | None = None) -> int:
    """Run a job's stages on this node; return 0 when all are complete.

    Parameters
    ----------
    task : StageTask
    place : Place
    output : file, optional
        Receives the stages' output instead of the attempt's log.
    """
    paths = RunPaths(Path(task.run_folder))
    profile = profiles.of_run(paths)
    os.umask(GROUP_UMASK if profile.group else PRIVATE_UMASK)
    held = lease.claim(paths, task.lease, place) if place.node == 0 else None
    queued = registry.of(place.scheduler).queues
    deadline = deadline_of(task, profile, registry.of(place.scheduler).end_time())
    try:
        with noting_signals() as asked:
            for stage in task.stages:
                outcome = _decided_before(paths, stage, profile) or Supervisor(
                    task, stage, paths=paths, place=place, profile=profile, asked=asked,
                    deadline=deadline, output=output,
                ).run()  # fmt: skip
                if outcome != "complete":
                    if not queued:
                        paths.unqueue_later_stages(stage)
                    return 1
    finally:
        if held is not None and not queued:
            lease.release(paths, held)
    return 0


def deadline_of(task: StageTask, profile: Cluster, end_time: float | None) -> float | None:
    """Return when the stages of a job are asked to stop, in seconds since the epoch; None: never.

    Where the scheduler does not say when the job ends, it began when this did, nearly.
    """
    minutes = task.resources.minutes
    if not minutes:
        return None
    return (end_time or time.time() + 60 * minutes) - profile.lead_seconds


def _decided_before(paths: RunPaths, stage: Stage, profile: Cluster) -> str:
    """Return how an earlier job of a chain has ended training; empty when it has not."""
    if stage != "train" or profile.requeue != "successor":
        return ""
    status = paths.stage_state(stage).get("status", "")
    return status if status in FINAL else ""


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
    task : StageTask
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
        task: StageTask,
        stage: Stage,
        *,
        paths: RunPaths,
        place: Place,
        profile: Cluster,
        asked: list[int],
        deadline: float | None,
        output: IO[str] | None,
    ) -> None:
        self._task, self._stage, self._paths, self._place = task, stage, paths, place
        self._profile, self._asked, self._deadline = profile, asked, deadline
        self._output = output
        self._stepped_in = ""
        self._code = -1
        self._peak_memory = 0

    def run(self) -> Outcome:
        """Run the stage to its end; return what became of it."""
        place = self._place
        # Reading a large image takes a while: before the others have begun to watch this node.
        used, refused = self._identify() if place.node == 0 else ("", None)
        attempt = self._begin(used) if place.node == 0 else attempts.join(self._paths, place)
        with local_folder() as local:
            watch = self._carry_out(attempt, local, refused)
        if place.node != 0:
            if place.host != place.head and attempts.is_silent(attempt.nodes()[0], time.time()):
                self._end_step()
            return "complete" if self._code == 0 else "crashed"
        return self._conclude(attempt, watch)

    def _carry_out(self, attempt: Attempt, local: Path, refused: GibletError | None) -> Watch:
        """Run the stage's processes on this node to their end."""
        place = self._place
        attempt.note_node(place.node, host=place.host, process=os.getpid(), started=time.time())
        watch = Watch(
            self._paths, self._stage, attempt, place=place, profile=self._profile, local=local
        )
        try:
            with self._log(attempt) as log:
                if refused is not None:
                    raise refused
                child = start.start_stage(
                    start.NodeShare(attempt, place, local), self._stage, self._task,
                    paths=self._paths, profile=self._profile, log=log,
                )  # fmt: skip
                self._code = self._follow(child, watch)
        except (GibletError, OSError) as error:
            self._note_failure(attempt, error)
        finally:
            attempt.note_node(
                place.node, ended=time.time(), code=self._code, stepped_in=self._stepped_in,
                ranks=watch.positions(), peak_memory=self._peak_memory,
            )  # fmt: skip
        return watch

    def _note_failure(self, attempt: Attempt, error: GibletError | OSError) -> None:
        """Record why a stage could not be started, as its ranks record what stops them."""
        rank = self._place.node * self._task.resources.ranks
        where = {"rank": rank, "host": self._place.host, "time": time.time()}
        facts: dict[str, object] = {"kind": "error", "hint": "", "exit_code": 1}
        error = explain(error) or error
        if isinstance(error, GibletError):
            # What is a node's fault is tried again: another may do.
            kind = "error" if isinstance(error, NodeError) else "mistake"
            facts = {"kind": kind, "hint": error.hint, "exit_code": error.exit_code,
                     "of_config": isinstance(error, ConfigError)}  # fmt: skip
        facts |= {"reason": str(error), **where}
        write_json(attempt.files.rank(rank), facts)

    @contextlib.contextmanager
    def _log(self, attempt: Attempt) -> Iterator[IO[str] | None]:
        if self._output is not None:
            yield None
            return
        with io.TextIOWrapper(append(attempt.log(self._place.node)), write_through=True) as log:
            yield log

    def _identify(self) -> tuple[str, GibletError | None]:
        """Return what identifies the image, or why nothing does."""
        try:
            return image.digest(self._profile, self._paths.image), None
        except GibletError as error:
            return "", error

    def _begin(self, used: str) -> Attempt:
        paths, stage, place = self._paths, self._stage, self._place
        before = paths.recorded_state(stage, part=self._task.part)
        attempt = attempts.begin(
            paths,
            place,
            stage,
            {
                "part": self._task.part,
                "ranks_per_node": self._task.resources.ranks,
                "nodes": place.nodes,
                "gpus": self._task.resources.gpus,
                "cpus": self._task.resources.cpus,
                "memory_gb": self._task.resources.memory_gb,
                "minutes": self._task.resources.minutes,
                "head": place.head,
                "checkpoint_from": paths.checkpoint_step(),
                "image": used,
                "queued": before.get("queued_at") if before.get("status") == "queued" else None,
                "job_logs": evidence.sizes_of_job_logs(paths, place.job),
            },
        )
        if not self._task.part:
            job = registry.of(place.scheduler).facts()
            provenance.record(paths, attempt, self._profile, image=used, job=job)
        paths.update_state(
            stage, part=self._task.part, status="running", phase="starting", reason="", hint="",
            evidence=(), host=place.host, attempt=attempt.number, job=place.job,
            heartbeat=time.time(), **{**self._task.resources.record(), "nodes": place.nodes},
        )  # fmt: skip
        return attempt

    def _follow(self, child: Child, watch: Watch) -> int:
        """Wait for the child's end, or bring it about; return its exit code."""
        memory = PeakMemory(child)
        try:
            while (code := child.code) is None:
                memory.look()
                late = self._deadline is not None and time.time() > self._deadline
                if self._asked or late:
                    watch.ask("walltime" if late else signal.Signals(self._asked[-1]).name)
                try:
                    condition = watch.look()
                except (OSError, DataError):
                    # A file system that stumbles is no reason to end ranks that may be fine.
                    condition = "fine"
                if condition == "hung" or (condition == "peer" and watch.hung):
                    watch.ask_for_trace()
                    child.dump_stacks([process for process, *_ in watch.ranks().values()])
                if condition != "fine":
                    self._stepped_in = condition
                    watch.remember_positions()
                    child.end()
                time.sleep(POLL_SECONDS)
        finally:
            self._peak_memory = memory.bytes
            child.kill()
        if self._asked:
            # Where a scheduler signals every process, the child may be gone before this was seen.
            watch.ask(signal.Signals(self._asked[-1]).name)
        return code if code is not None else -1

    def _conclude(self, attempt: Attempt, watch: Watch) -> Outcome:
        """Say how the attempt ended, in its record and in the run's state."""
        self._wait_for_peers(attempt)
        part, paths = self._task.part, self._paths
        progress = paths.read_progress(attempt.number)
        asked = watch.asked or attempt.stop.exists()
        disposition = self._disposition() if asked and not watch.user_stop else "runs"
        diagnosis = triage.diagnose(
            attempt, progress, asked=asked, disposition=disposition, by_user=watch.user_stop
        )
        why = watch.why or (read_text(attempt.stop).strip() if attempt.stop.exists() else "")
        attempt.note(
            checkpoint_to=paths.checkpoint_step(), step_from=progress.get("resumed_from"),
            why_asked=why, lost_hosts=attempt.unfinished_hosts(),
        )  # fmt: skip
        attempt.close(
            diagnosis.outcome, reason=diagnosis.reason, step=progress.get("step"),
            root=diagnosis.root, evidence=diagnosis.evidence, hopeless=diagnosis.hopeless,
            suspects=diagnosis.suspects,
        )  # fmt: skip
        if attempts.superseded(paths, attempt, self._place):
            # The state is the later attempt's to write.
            return diagnosis.outcome
        progress.pop("status", None)
        paths.update_state(
            self._stage, part=part, **{**progress, "status": self._status(diagnosis.outcome)},
            reason=diagnosis.reason, hint=diagnosis.hint, exit_code=diagnosis.exit_code,
            of_config=diagnosis.of_config, evidence=diagnosis.evidence,
        )  # fmt: skip
        if disposition == "script killed":
            self._submit_again()
        elif attempt.unfinished_hosts():
            self._end_step()
        return diagnosis.outcome

    def _end_step(self) -> None:
        """End the job's step, this process too, where a node is stuck that others wait for."""
        registry.of(self._place.scheduler).end_step(self._place.job)

    def _status(self, outcome: Outcome) -> str:
        """Return the stage's status after an outcome."""
        status = outcome if outcome in FINAL else "interrupted"
        if not registry.of(self._place.scheduler).queues and status == "interrupted":
            status = "stopped" if outcome == "interrupted" else "failed"
        return status

    def _disposition(self) -> str:
        """Return what the scheduler does with the job: a preempted one still runs."""
        place = self._place
        found = registry.of(place.scheduler).disposition(place.job, place.restart)
        return found if isinstance(found, str) else "runs"

    def _submit_again(self) -> None:
        """Submit what is left of the run: no script is there any more that would queue it again."""
        paths = self._paths
        held = lease.read(paths)
        if held is None or self._place.job not in held.jobs:
            return
        stages = [self._stage, *paths.queued_later_stages(self._stage)]
        lease.release(paths, held)
        command = [sys.executable, "-P", "-m", "giblet_hpc.cli", "resubmit", paths.name,
                   "--no-checks", "--runs", str(paths.root.parent)]  # fmt: skip
        command += [word for stage in stages for word in ("--only", stage)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            paths.update_state(
                self._stage, part=self._task.part, status="interrupted",
                reason=f"the job's script was killed, and it could not be queued again: "
                f"{done.stderr.strip()}",
                hint=paths.command("resubmit"),
            )  # fmt: skip

    def _wait_for_peers(self, attempt: Attempt) -> None:
        """Give the other nodes time to write their ends; end those that are silent."""
        end = time.monotonic() + PEER_SECONDS
        while time.monotonic() < end:
            records = attempt.nodes()
            if len(records) == self._place.nodes and all("ended" in r for r in records.values()):
                return
            if attempt.silent_hosts(time.time()):
                return
            time.sleep(POLL_SECONDS)
