"""What a run still needs, as a graph of jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from giblet_hpc.config.cluster import Cluster
from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import DataError
from giblet_hpc.jobs.record.resources import (
    Resources,
    for_parallel,
    for_preprocess,
    is_queued,
    spread,
)
from giblet_hpc.jobs.record.task import StageTask
from giblet_hpc.jobs.schedulers.base import Wait
from giblet_hpc.runs.paths import STAGES, RunPaths, Stage
from giblet_hpc.subjects import PreprocessPart, preprocess_parts

PARALLEL: tuple[Stage, ...] = ("train", "evaluate")


@dataclass(frozen=True)
class PlannedJob:
    """A job, or an array with a task for each of several works.

    Parameters
    ----------
    tasks : tuple of StageTask
    resources : Resources
        Of each.
    after : tuple of (str, int)
        What it waits for, `success` or `end`, and of which job of the plan.
    """

    tasks: tuple[StageTask, ...]
    resources: Resources
    after: tuple[tuple[Wait, int], ...] = ()


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
        if _needed(paths, stage)
        and (
            paths.stage_state(stage).get("status") != "complete"
            or (rebuild and stage == "preprocess")
        )
    )


def _needed(paths: RunPaths, stage: Stage) -> bool:
    """Whether a run has use for a stage: nothing is trained where no network is asked for."""
    return stage != "train" or paths.load_config().evaluate.network


def require_order(paths: RunPaths, stages: Sequence[Stage]) -> None:
    """Check that what a stage needs is done or about to be done.

    Raises
    ------
    JobError
        When an earlier stage is not complete.
    """
    for earlier in STAGES[: STAGES.index(stages[0])]:
        if _needed(paths, earlier):
            paths.require_complete(earlier)


def missing_parts(paths: RunPaths, *, rebuild: bool = False) -> list[PreprocessPart]:
    """Return the parts of preprocess that have no finished job yet."""
    every = preprocess_parts(paths.load_config())
    if rebuild:
        return every
    return [
        part
        for part in every
        if paths.stage_state("preprocess", part=part.name).get("status") != "complete"
    ]


def planned_parts(config: RunConfig) -> list[PreprocessPart]:
    """Return the parts of preprocess that a config asks for; none where its files are elsewhere."""
    try:
        return preprocess_parts(config)
    except DataError:
        return []


def plan(
    paths: RunPaths,
    stages: Sequence[Stage],
    *,
    profile: Cluster,
    size: Resources,
    parts: Sequence[PreprocessPart] = (),
    time: str | None = None,
    rebuild: bool = False,
) -> tuple[PlannedJob, ...]:
    """Return the jobs that carry out some stages of a run.

    One machine runs them all in one job. Where jobs are queued, each stage has its own.

    Parameters
    ----------
    paths : RunPaths
    stages : sequence of str
    profile : Cluster
    size : Resources
        How train and evaluate are spread.
    parts : sequence of PreprocessPart
        Parts of preprocess to make.
    time : str, optional
        Walltime instead of the profile's.
    rebuild : bool
        Replace arrays that were made with other settings.
    """
    base = StageTask(str(paths.root), (), size, rebuild=rebuild)
    if not is_queued(profile):
        return (PlannedJob((replace(base, stages=tuple(stages)),), size),) if stages else ()
    jobs: list[PlannedJob] = []
    for stage in stages:
        if stage == "preprocess":
            jobs += _preprocess(base, profile, parts, time)
            continue
        resources = for_parallel(profile, stage, size, time=time)
        task = replace(base, stages=(stage,), resources=resources)
        after: tuple[tuple[Wait, int], ...] = (("success", len(jobs) - 1),) if jobs else ()
        jobs.append(PlannedJob((task,), resources, after))
        if profile.requeue == "successor" and stage == "train":
            for _ in range(profile.successors):
                jobs.append(PlannedJob((task,), resources, (("end", len(jobs) - 1),)))
    return tuple(jobs)


def _preprocess(
    base: StageTask, profile: Cluster, parts: Sequence[PreprocessPart], time: str | None
) -> list[PlannedJob]:
    """Return the jobs of preprocess.

    The store's layout; then, side by side, an array with a task for each part, apart for those
    that use a GPU; then the end, which also makes what a failed task has left out.
    """
    plain = for_preprocess(profile, wants_gpu=False, time=time)
    one = replace(base, stages=("preprocess",), resources=plain)
    jobs = [PlannedJob((replace(one, part="plan"),), plain)]
    groups: dict[Resources, list[str]] = {}
    for part in parts:
        resources = for_preprocess(profile, wants_gpu=part.wants_gpu, time=time)
        groups.setdefault(resources, []).append(part.name)
    for resources, names in groups.items():
        tasks = tuple(replace(one, part=name, resources=resources, rebuild=False) for name in names)
        jobs.append(PlannedJob(tasks, resources, (("success", 0),)))
    arrays = range(1, len(jobs))
    after: tuple[tuple[Wait, int], ...] = tuple(("end", number) for number in arrays)
    end = replace(one, rebuild=False)
    return [*jobs, PlannedJob((end,), plain, after or (("success", 0),))]


def size_again(paths: RunPaths, profile: Cluster, *, moved: bool) -> Resources:
    """Return how to spread a run's parallel stages once more.

    Parameters
    ----------
    paths : RunPaths
    profile : Cluster
    moved : bool
        Whether the run goes to another cluster than before: as many processes as it had, spread
        as its nodes can hold them. Where nobody said how many, the profile's default.
    """
    states = [paths.stage_state(stage) for stage in PARALLEL]
    state = next((state for state in states if "ranks" in state), None)
    world = None
    if state is not None:
        last = Resources(state["ranks"], state.get("nodes", 1), state.get("gpus", 0))
        if not moved:
            return last
        world = last.world
    on_gpus = bool(profile.gpus_per_node)
    return spread(
        profile, gpus=world if on_gpus else None, ranks=None if on_gpus else world, nodes=None
    )
