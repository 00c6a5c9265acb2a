"""Submitting stages: on this machine or on Slurm, what is left of them, one submitter at a time."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import time as clock
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from giblet_hpc.config import RunConfig
from giblet_hpc.errors import ConfigError, DataError
from giblet_hpc.files import write_json, write_text
from giblet_hpc.jobs import cluster, image, lease, queueing, sharing, slurm
from giblet_hpc.jobs.cluster import Cluster
from giblet_hpc.jobs.launch import Geometry, default_ranks, stage_command, stage_environment
from giblet_hpc.jobs.size import Size, size_of
from giblet_hpc.jobs.stagejob import StageJob
from giblet_hpc.runs import STAGES, RunPaths, Stage
from giblet_hpc.subjects import preprocess_parts

LONGEST_MINUTES = 14 * 24 * 60


def stages_of(name: str) -> tuple[Stage, ...]:
    """Return the stages that `preprocess`, `train`, `evaluate` or `pipeline` stands for."""
    if name == "pipeline":
        return STAGES
    return tuple(stage for stage in STAGES if stage == name)


def remaining(
    paths: RunPaths, stages: Sequence[Stage], *, rebuild: bool = False
) -> tuple[Stage, ...]:
    """Return the stages that are not complete, and preprocess when it is to be made anew."""
    return tuple(
        stage
        for stage in stages
        if paths.stage_state(stage).get("status") != "complete"
        or (rebuild and stage == "preprocess")
    )


def check_order(paths: RunPaths, stages: Sequence[Stage]) -> None:
    """Check that what a stage needs is done or about to be done.

    Raises
    ------
    JobError
        When an earlier stage is not complete.
    """
    for earlier in STAGES[: STAGES.index(stages[0])]:
        paths.require_complete(earlier)


def submit(
    paths: RunPaths,
    stages: Sequence[Stage],
    *,
    profile: Cluster,
    size: Size,
    time: str | None = None,
    after: str = "",
    rebuild: bool = False,
) -> list[str]:
    """Start or queue what is left of some stages.

    Parameters
    ----------
    paths : RunPaths
    stages : sequence of str
    profile : Cluster
        Is kept in the run's folder.
    size : Size
        Of train and evaluate.
    time : str, optional
        Walltime instead of the profile's.
    after : str
        A Slurm job that has to succeed first.
    rebuild : bool
        Replace parts that were made with other settings.

    Returns
    -------
    list of str
        Job ids.

    Raises
    ------
    JobError
        When somebody else holds the run, or Slurm refuses.
    """
    image.check(profile)
    cluster.save(profile, paths.cluster)
    for stage in stages:
        if stage != "preprocess":
            paths.update_state(stage, ranks=size.ranks, nodes=size.nodes, gpus=size.gpus)
    if profile.group:
        os.umask(sharing.PRIVATE_UMASK)
        sharing.share(paths.root, paths.load_config().study.store, profile.group)
    if profile.scheduler == "local":
        devices = os.environ.get("CUDA_VISIBLE_DEVICES")
        job = StageJob(
            str(paths.root), tuple(stages), size.ranks, gpus=size.gpus, cuda_devices=devices,
            rebuild=rebuild,
        )  # fmt: skip
        return [submit_local(job)]
    steps = queueing.steps_of(
        paths, stages, profile=profile, size=size, parts=missing_parts(paths, rebuild=rebuild),
        time=time, rebuild=rebuild,
    )  # fmt: skip
    dependency = f"afterok:{after}" if after else ""
    return queueing.submit_steps(paths, steps, profile=profile, after=dependency)


def missing_parts(paths: RunPaths, *, rebuild: bool = False) -> list[str]:
    """Return the parts of preprocess that have no finished job yet."""
    every = preprocess_parts(paths.load_config())
    if rebuild:
        return every
    return [
        part
        for part in every
        if paths.stage_state("preprocess", part=part).get("status") != "complete"
    ]


def submit_local(job: StageJob) -> str:
    """Start a job in the background on this machine.

    Parameters
    ----------
    job : StageJob

    Returns
    -------
    str
        The job's id: the process id of submitit's controller.

    Raises
    ------
    JobError
        When somebody else holds the run.
    """
    from submitit import LocalExecutor

    paths = RunPaths(Path(job.run_folder))
    held = lease.take(paths, "local")
    executor = LocalExecutor(folder=paths.jobs)
    executor.update_parameters(timeout_min=LONGEST_MINUTES)
    for stage in job.stages:
        paths.update_state(stage, status="queued", job="", reason="", hint="", phase="")
    with _detached(paths.jobs / "controller.log"):
        submitted = executor.submit(replace(job, lease=held.token))
    lease.assign(paths, held, (str(submitted.job_id),))
    return str(submitted.job_id)


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
        with log.open("ab") as output, Path(os.devnull).open("rb") as nothing:
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


def dry_run(
    paths: RunPaths,
    stages: Sequence[Stage],
    *,
    profile: Cluster,
    size: Size,
    parts: Sequence[str] = (),
    time: str | None = None,
    after: str = "",
) -> str:
    """Return what a submission would run: the commands, or the sbatch scripts with them."""
    if not stages:
        return f"# run {paths.name}: nothing is left to do"
    if profile.scheduler == "local":
        return "\n".join(_commands(paths, profile, stage, Geometry(size.ranks)) for stage in stages)
    steps = queueing.steps_of(paths, stages, profile=profile, size=size, parts=parts, time=time)
    texts = []
    dependency = f"afterok:{after}" if after else ""
    for number, step in enumerate(steps, start=1):
        script = queueing.script(profile, step.order(dependency))
        stage = step.jobs[0].stages[0]
        what = ", ".join(filter(None, (job.part for job in step.jobs))) or stage
        texts.append(f"### job {number} of {len(steps)}: {stage} ({what})\n{script}")
        geometry = Geometry(
            step.size.ranks, nodes=step.size.nodes, head="HEAD", port=0, meeting="JOB.RESTART",
            host="HOST",
        )  # fmt: skip
        texts.append(
            f"# on each node:\n{_commands(paths, profile, stage, geometry, step.jobs[0].part)}\n"
        )
        following = steps[number].wait if number < len(steps) else ""
        dependency = f"{following}:JOB-{number}"
    if "preprocess" in stages and not parts:
        texts.append("# preprocess' array has a task for each part; the study's files are not here")
    texts.append(lead_sum(paths, profile))
    return "\n".join(texts)


def _commands(
    paths: RunPaths, profile: Cluster, stage: Stage, geometry: Geometry, part: str = ""
) -> str:
    settings = stage_environment(stage, ranks=geometry.ranks)
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in settings.items())
    if not profile.image:
        command = stage_command(stage, paths.root, geometry, part=part)
        return f"# {stage}\n{variables} \\\n  {shlex.join(command)}"
    inner = stage_command(stage, paths.root, geometry, python=image.PYTHON, part=part)
    return (
        f"# {stage}, in {profile.image} by {profile.runtime}\n{variables} \\\n  {shlex.join(inner)}"
    )


def lead_sum(paths: RunPaths, profile: Cluster) -> str:
    """Say how the time between the request to stop and the walltime adds up."""
    state = paths.stage_state("train")
    step, save = state.get("step_seconds"), state.get("save_seconds")
    said = f"# asked to stop {profile.lead_seconds} s before the walltime (lead_seconds)"
    if step is None or save is None:
        return f"{said}; needed: 60 s + a step + twice a checkpoint, not measured yet"
    needed = 60 + step + 2 * save
    verdict = "enough" if needed <= profile.lead_seconds else "TOO SHORT: raise it in the profile"
    return f"{said}; needed: 60 + {step:.1f} + 2 x {save:.1f} = {needed:.0f} s: {verdict}"


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
    """
    held = lease.holder(paths)
    if held is None:
        raise ConfigError(
            f"nothing of run {paths.name} is queued or running", hint=paths.command("status")
        )
    write_json(paths.stop, {"time": clock.time()})
    if held.scheduler != "slurm":
        return f"asked run {paths.name} to stop"
    found = slurm.queued(held.jobs) or {}
    waiting = [job for job, info in found.items() if info.state == "PENDING"]
    gone = bool(waiting) and slurm.cancel(waiting)
    if gone:
        for stage in STAGES:
            if paths.stage_state(stage).get("job") in waiting:
                paths.update_state(stage, status="stopped", reason="cancelled while waiting")
    if gone and len(waiting) == len(found):
        lease.release(paths, held)
    return f"asked run {paths.name} to stop; {len(waiting) if gone else 0} waiting jobs cancelled"


def default_size(profile: Cluster) -> int:
    """Return the processes of a stage when nobody says how many."""
    return default_ranks() if profile.scheduler == "local" else profile.gpus_per_node or 1


def planned_parts(config: RunConfig) -> list[str]:
    """Return the parts of preprocess that a config asks for; none where its files are elsewhere."""
    try:
        return preprocess_parts(config)
    except DataError:
        return []


def size_again(paths: RunPaths, profile: Cluster, *, moved: bool) -> Size:
    """Return how to spread a run's parallel stages once more.

    Parameters
    ----------
    paths : RunPaths
    profile : Cluster
    moved : bool
        Whether the run goes to another cluster than before: as many processes as it had, spread
        as its nodes can hold them. Where nobody said how many, the profile's default.
    """
    states = [paths.stage_state(stage) for stage in ("train", "evaluate")]
    state = next((state for state in states if "ranks" in state), None)
    world = None
    if state is not None:
        last = Size(state["ranks"], state.get("nodes", 1), state.get("gpus", 0))
        if not moved:
            return last
        world = last.world
    on_gpus = bool(profile.gpus_per_node)
    return size_of(
        profile, gpus=world if on_gpus else None, ranks=None if on_gpus else world, nodes=None,
        default=default_size(profile),
    )  # fmt: skip


def go_back(paths: RunPaths, step: int) -> None:
    """Make a step's checkpoint the newest; later ones are moved aside, not deleted.

    Raises
    ------
    ConfigError
        When there is no such checkpoint, or the run is queued or running.
    """
    if (held := lease.holder(paths)) is not None:
        raise ConfigError(f"run {paths.name} is in use: {held}")
    folders = sorted(paths.checkpoints().glob("**/step-*"))
    chosen = [folder for folder in folders if int(folder.name.rpartition("-")[2]) == step]
    if not chosen:
        steps = ", ".join(f"{folder.parent.name} {int(folder.name.rpartition('-')[2])}"
                          for folder in folders)  # fmt: skip
        raise ConfigError(
            f"run {paths.name} has no checkpoint of step {step}; there are: {steps or 'none'}",
            hint="give --from one of these, or none to go on from the last",
        )
    stamp = clock.strftime("%Y%m%d-%H%M%S")
    for kept in chosen:
        for folder in kept.parent.glob("step-*"):
            if folder.name > kept.name:
                aside = paths.root / "set-aside" / stamp / kept.parent.name
                aside.mkdir(parents=True, exist_ok=True)
                folder.rename(aside / folder.name)
        write_text(kept.parent / "latest", kept.name)
    for stage in ("train", "evaluate"):
        if paths.stage_state(stage).get("status", "not started") != "not started":
            paths.update_state(stage, status="stopped", reason=f"taken back to step {step}")


def submit_sweep(
    runs: Sequence[RunPaths], *, profile: Cluster, size: Size, time: str | None
) -> list[tuple[RunPaths, str]]:
    """Queue the training of several runs as one job array.

    Runs that are complete, queued or running already are left alone.

    Returns
    -------
    list of (RunPaths, str)
        Each run that was queued, with its job id.

    Raises
    ------
    JobError
        When Slurm refuses.
    """
    todo = [run for run in runs if remaining(run, ("train",)) and lease.holder(run) is None]
    if not todo:
        return []
    for run in todo:
        cluster.save(profile, run.cluster)
    return queueing.submit_runs(todo, profile=profile, size=size, time=time)
