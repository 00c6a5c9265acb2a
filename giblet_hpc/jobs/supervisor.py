"""The supervisor of one node: starts a stage, watches it, asks it to stop, says how it ended."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from giblet_hpc import beacon
from giblet_hpc.errors import DataError, GibletError
from giblet_hpc.files import write_json
from giblet_hpc.jobs import (
    attempts,
    cluster,
    fabric,
    image,
    lease,
    provenance,
    sharing,
    slurm,
    triage,
)
from giblet_hpc.jobs.attempts import Attempt, Outcome, Place
from giblet_hpc.jobs.child import TOKEN, Child
from giblet_hpc.jobs.cluster import Cluster
from giblet_hpc.jobs.launch import Geometry, stage_command, stage_environment
from giblet_hpc.jobs.watch import Watch
from giblet_hpc.runs import ATTEMPT, GPUS, IMAGE, STAGES, RunPaths, Stage

POLL_SECONDS = 0.2
PEER_SECONDS = 60.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)


@dataclass(frozen=True)
class StageJob:
    """What a scheduler runs on each node: a run's stages, until one does not finish.

    Holds plain values only, so that it can be pickled without importing anything heavy.

    Parameters
    ----------
    run_folder : str
    stages : tuple of str
    ranks : int
        Processes of train and evaluate on each node.
    nodes : int
    part : str
        For preprocess: the one part to make.
    rebuild : bool
        For preprocess: replace parts made with other settings.
    lease : str
        Token of the lease that the submission took.
    minutes : int
        Walltime of the job; 0 for no end.
    gpus : int
        GPUs asked for on each node.
    """

    run_folder: str
    stages: tuple[Stage, ...]
    ranks: int
    nodes: int = 1
    part: str = ""
    rebuild: bool = False
    lease: str = ""
    minutes: int = 0
    gpus: int = 0
    cuda_devices: str | None = None
    """The submitter's CUDA_VISIBLE_DEVICES, which submitit's local executor replaces."""

    def __call__(self) -> int:
        """Run the stages; return 0 when all are complete.

        Raises
        ------
        SystemExit
            With code 1, in a Slurm job whose stages are not complete: jobs that depend on it must
            not start.
        """
        place = attempts.here()
        if place.scheduler == "local":
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            if self.cuda_devices is not None:
                os.environ["CUDA_VISIBLE_DEVICES"] = self.cuda_devices
        code = run_stages(self, place)
        if code and place.scheduler == "slurm":
            raise SystemExit(code)
        return code


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
    deadline = time.time() + 60 * job.minutes - profile.lead_seconds if job.minutes else None
    try:
        with noting_signals() as asked:
            for stage in job.stages:
                status = paths.stage_state(stage, part=job.part).get("status")
                if stage == "train" and profile.requeue == "successor":
                    # One of a chain of jobs, whose earlier ones may have settled the matter.
                    if status == "complete":
                        continue
                    if status in ("failed", "stopped"):
                        return 1
                supervisor = Supervisor(
                    job, stage, paths=paths, place=place, profile=profile, asked=asked,
                    deadline=deadline, output=output,
                )  # fmt: skip
                if supervisor.run() != "complete":
                    if place.scheduler == "local":
                        put_off(paths, stage)
                    return 1
    finally:
        if held is not None and place.scheduler == "local":
            lease.release(paths, held)
    return 0


def put_off(paths: RunPaths, stage: Stage) -> None:
    """Say of the stages after a stage that they will not start."""
    for later in STAGES[STAGES.index(stage) + 1 :]:
        if paths.stage_state(later).get("status") == "queued":
            paths.update_state(later, status="not started", job="")


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
        attempt = self._begin() if place.node == 0 else attempts.join(self._paths, place)
        local = Path(tempfile.mkdtemp(prefix="giblet-"))
        attempt.note_node(place.node, host=place.host, process=os.getpid(), started=time.time())
        watch = Watch(
            self._paths, self._stage, attempt, place=place, profile=self._profile, local=local
        )
        code = -1
        try:
            with self._log(attempt) as log:
                code = self._follow(self._start(attempt, local, log), watch)
        except GibletError as error:
            self._note_mistake(attempt, error)
        finally:
            attempt.note_node(place.node, ended=time.time(), code=code, ranks=watch.positions())
            shutil.rmtree(local, ignore_errors=True)
        if place.node != 0:
            return "complete" if code == 0 else "crashed"
        return self._settle(attempt, watch)

    def _note_mistake(self, attempt: Attempt, error: GibletError) -> None:
        """Record why a stage could not be started, as its ranks record what stops them."""
        rank = self._place.node * self._job.ranks
        facts = {
            "kind": "mistake", "reason": str(error), "hint": error.hint,
            "exit_code": error.exit_code, "rank": rank, "host": self._place.host,
            "time": time.time(),
        }  # fmt: skip
        write_json(attempt.folder / f"rank-{rank}.json", facts)

    @contextlib.contextmanager
    def _log(self, attempt: Attempt) -> Iterator[IO[str] | None]:
        if self._output is not None:
            yield None
            return
        with attempt.log(self._place.node).open("a") as log:
            yield log

    def _begin(self) -> Attempt:
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
                "image": image.digest(self._profile, paths.image),
            },
        )
        if not self._job.part:
            used = attempt.facts()["image"]
            provenance.record(paths, attempt, self._profile, image=used)
        paths.update_state(
            stage, part=self._job.part, status="running", phase="starting", reason="", hint="",
            host=socket.gethostname(), attempt=attempt.number, job=place.job,
            ranks=self._job.ranks, nodes=place.nodes, gpus=self._job.gpus,
        )  # fmt: skip
        return attempt

    def _start(self, attempt: Attempt, local: Path, log: IO[str] | None) -> Child:
        facts, place, job = attempt.facts(), self._place, self._job
        geometry = Geometry(
            job.ranks,
            nodes=place.nodes,
            node=place.node,
            head=facts["head"] if place.nodes > 1 else "localhost",
            port=facts["port"],
            meeting=place.key,
            host=place.host,
        )
        token = hashlib.sha256(f"{attempt.folder}|{place}".encode()).hexdigest()[:24]
        settings = {
            **stage_environment(self._stage, ranks=job.ranks),
            **self._fabric(attempt, log),
            **self._profile.environment,
        }
        settings = {name: os.environ.get(name, value) for name, value in settings.items()}
        settings |= {
            ATTEMPT: str(attempt.folder), beacon.FOLDER: str(local), TOKEN: token,
            IMAGE: facts["image"], GPUS: str(job.gpus),
        }  # fmt: skip
        command, more = self._inside(geometry, local, settings)
        attempt.note_node(place.node, command=command)
        environment = {**os.environ, **settings, **more}
        return Child(command, environment, token=token, output=log)

    def _fabric(self, attempt: Attempt, log: IO[str] | None) -> dict[str, str]:
        """Return what this node's network needs to have set; say why in the log."""
        if self._profile.fabric == "none" or self._stage == "preprocess":
            return {}
        gpus = self._job.gpus or len(list(Path("/dev").glob("nvidia[0-9]*")))
        found = fabric.detect()
        chosen = fabric.choose(found, nodes=self._place.nodes, gpus=gpus)
        attempt.note_node(
            self._place.node, network=found.network, settings={s.name: s.value for s in chosen}
        )
        if log is not None and chosen:
            log.write("\n".join(fabric.told(chosen, os.environ)) + "\n")
            log.flush()
        return {setting.name: setting.value for setting in chosen}

    def _inside(
        self, geometry: Geometry, local: Path, settings: Mapping[str, str]
    ) -> tuple[list[str], dict[str, str]]:
        """Return the stage's command, in the profile's image where it has one."""
        job, paths, profile = self._job, self._paths, self._profile
        make = partial(
            stage_command, self._stage, paths.root, geometry, part=job.part, rebuild=job.rebuild
        )
        if not profile.image:
            return make(), {}
        return image.command(
            profile,
            make(python=image.PYTHON),
            binds=image.folders_of(paths, paths.load_config()),
            local=local,
            workdir=paths.root,
            settings=settings,
        )

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


def free_port() -> int:
    """Return a port that is free on this node now, outside the range that systems hand out."""
    start = int(hashlib.sha256(f"{time.time()}{os.getpid()}".encode()).hexdigest()[:6], 16)
    for offset in range(1000):
        port = 10000 + (start + offset) % 20000
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    raise AssertionError("a thousand ports in a row are taken")
