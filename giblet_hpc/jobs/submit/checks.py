"""What cannot work is refused before it waits in a queue."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from giblet_hpc.config.batch import ranks_of_a_team, require_shared_batch
from giblet_hpc.config.cluster import Cluster
from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import ConfigError, DataError, JobError
from giblet_hpc.files import read_json
from giblet_hpc.jobs.record.resources import Resources, for_parallel, is_queued, walltime
from giblet_hpc.jobs.schedulers import registry
from giblet_hpc.jobs.schedulers.base import NoAnswer
from giblet_hpc.plans import study_size
from giblet_hpc.plans.hardware import GIB, LINKS, Place, gpu_of
from giblet_hpc.plans.study_size import StudySize
from giblet_hpc.runs.paths import RunPaths, Stage


def require_possible(
    config: RunConfig,
    stages: Sequence[Stage],
    *,
    profile: Cluster,
    size: Resources,
) -> None:
    """Check what a config asks of a place, as far as that can be told beforehand.

    Parameters
    ----------
    config : RunConfig
    stages : sequence of str
        Those that are about to be submitted.
    profile : Cluster
    size : Resources
        How training is spread.

    Raises
    ------
    ConfigError
        When the batch cannot be divided among the ranks.
    DataError
        When trained weights are not there.
    """
    if "train" in stages and config.model.parallel != "auto":
        require_shared_batch(config, size.world // ranks_of_a_team(config, size.ranks))
    if "preprocess" in stages and not profile.image:
        weights_are_there(config)


def require_sound_files(config: RunConfig, *, hint: str = "") -> None:
    """Check a study's files by their headers, where this Python can read them and sees them.

    Parameters
    ----------
    config : RunConfig
    hint : str
        What else to do about several problems.

    Raises
    ------
    DataError
        That names all that is wrong.
    """
    if not can_plan() or not config.study.root.is_dir():
        return
    from giblet_hpc.problems import require_sound

    require_sound(config, hint=hint)


def require_room(profile: Cluster, size: Resources, *, time: str | None) -> None:
    """Check that a job can ever start: a partition's nodes, and its longest walltime.

    Parameters
    ----------
    profile : Cluster
    size : Resources
        How training is spread.
    time : str, optional
        Walltime instead of the profile's.

    Raises
    ------
    ConfigError
        When the partition has fewer nodes, or a shorter limit. A scheduler that does not answer
        raises nothing.
    """
    if not is_queued(profile):
        return
    found = registry.of(profile.scheduler).limits(profile.partition)
    if isinstance(found, NoAnswer):
        return
    nodes, minutes = found
    where = f"partition {profile.partition}" if profile.partition else "the default partition"
    if size.nodes > nodes:
        raise ConfigError(
            f"{size.nodes} nodes: {where} has {nodes}", hint="fewer --gpus, or another --partition"
        )
    if minutes and walltime(profile, time) > minutes:
        asked = time or profile.time
        raise ConfigError(
            f"a walltime of {asked}: {where} ends jobs after {minutes / 60:g} h",
            hint="a shorter --time: runs go on by themselves in the next job; or another "
            "--partition",
        )


def require_fitting(
    config: RunConfig, profile: Cluster, size: Resources, *, stored: RunPaths | None
) -> None:
    """Check that GPUs and nodes hold the network, where the profile says what they are.

    Parameters
    ----------
    config : RunConfig
    profile : Cluster
    size : Resources
        How training is spread.
    stored : RunPaths, optional
        A run whose preprocess has made what training reads; without one sizes are assumed.

    Raises
    ------
    JobError
        When they do not.
    """
    place = place_of(profile, size)
    if place is not None and can_plan():
        gpus_fit(config, size_of(config, stored), place, most=profile.gpus_per_node)


def weights_are_there(config: RunConfig) -> None:
    """Check that trained weights are in their folder, or in the cache of the hub."""
    for name, section in config.features.sections.items():
        weights = section.weights
        if not weights or Path(weights).is_dir() or _in_cache(weights):
            continue
        raise DataError(
            f"features.{name}: weights not found on this machine: {weights}",
            hint=f"on a machine with internet: hf download {weights}; or name a folder; the jobs "
            "themselves never go online",
        )


def _in_cache(name: str) -> bool:
    """Whether the hub's cache holds a model of a name."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    return (cache / f"models--{name.replace('/', '--')}").is_dir()


def can_plan() -> bool:
    """Whether this Python has torch, which that of a login node need not have."""
    return importlib.util.find_spec("torch") is not None


def place_of(profile: Cluster, size: Resources) -> Place | None:
    """Return the GPUs that training gets; None where there are none, or of an unknown kind."""
    if not size.gpus or not (profile.gpu_memory_gb or profile.gpu_type):
        return None
    memory = for_parallel(profile, "train", size).memory_gb
    try:
        gpu = gpu_of(profile.gpu_type, profile.gpu_memory_gb)
    except ConfigError:
        return None
    links = LINKS[profile.gpu_link], LINKS[profile.node_link]
    return Place(gpu, size.gpus, size.nodes, *links, memory)


def size_of(config: RunConfig, paths: RunPaths | None) -> StudySize:
    """Return how large a study is: from its store, where preprocess is done."""
    if paths is not None and paths.inputs.is_file():
        return study_size.of_store(config, read_json(paths.inputs))
    # It brings torch, which takes a second.
    from giblet_hpc.training.expected_size import expected_size

    return expected_size(config)


def gpus_fit(config: RunConfig, study: StudySize, place: Place, *, most: int) -> None:
    """Check that the GPUs hold the network in its parallel mode.

    Parameters
    ----------
    config : RunConfig
    study : StudySize
    place : Place
    most : int
        GPUs of a whole node.

    Raises
    ------
    JobError
        With the nearest mode or number of GPUs that does.
    """
    # It brings torch, which takes a second.
    from giblet_hpc.training import planner

    found = planner.estimates(config, study, place)
    best, mode = planner.choose(found), planner.used_mode(config, place)
    chosen = best if mode == "auto" else found[mode]
    if chosen is not None and not chosen.obstacle:
        return
    why = chosen.obstacle if chosen is not None else found["ddp"].obstacle
    if best is not None:
        hint = f"--set model.parallel={best.mode} fits: {best.gpu_bytes / GIB:.1f} GiB a GPU"
    elif (larger := planner.fitting_place(config, study, place, most=most)) is not None:
        where, fitting = larger
        hint = f"--gpus {where.ranks} --set model.parallel={fitting.mode} fits: "
        hint += f"{fitting.gpu_bytes / GIB:.1f} GiB a GPU"
    else:
        hint = "GPUs with more memory, a narrower network (model.width), or fewer frames"
    if study.assumed:
        known = ", ".join(f"{what} {value:,}" for what, value in study.assumed.items())
        hint += f"; assumed, as preprocess has not run: {known}. --no-checks submits all the same"
    named = place.gpu.name
    raise JobError(f"training does not fit {place.ranks} x {named}, {mode}: {why}", hint=hint)
