"""Which parallel mode a training uses: the config's, or with `auto` the fastest that fits."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch

from giblet_hpc.config.batch import ranks_of_a_team
from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import ConfigError
from giblet_hpc.plans import study_size
from giblet_hpc.plans.hardware import GIB, LINKS, Gpu, Place, gpu_of
from giblet_hpc.runs.paths import RunPaths
from giblet_hpc.training.predictor import uses_bf16
from giblet_hpc.training.strategy import DataParallel, Strategy
from giblet_hpc.training.tensor_parallel import TensorParallel
from giblet_hpc.training.world import World

logger = logging.getLogger(__name__)
CPU_GIGABYTES, CPU_TFLOPS = 20.0, 0.1
"""Of a CPU rank: its memory's bandwidth in GB/s, and its arithmetic."""


def with_settled_mode(
    config: RunConfig, paths: RunPaths, inputs: dict[str, Any], world: World
) -> RunConfig:
    """Return the config with a mode in the place of `auto`; the same on all ranks.

    Raises
    ------
    ConfigError
        When no mode fits.
    """
    if config.model.parallel != "auto":
        return config
    # It traces the network, which a settled mode does not need.
    from giblet_hpc.training import planner

    mode = None
    if world.is_main:
        found = planner.estimates(config, study_size.of_store(config, inputs), place_of(world))
        best = planner.choose(found)
        mode = best.mode if best is not None else None
        obstacles = "; ".join(f"{e.mode}: {e.obstacle}" for e in found.values())
        logger.info("model.parallel auto: %s", mode or obstacles)
    mode = world.broadcast(mode)
    if mode is None:
        raise ConfigError(
            "model.parallel auto: no mode fits",
            hint=f"{paths.command('plan')} says what each takes, and on how many GPUs one fits",
        )
    return planner.with_mode(config, mode)


def place_of(world: World) -> Place:
    """Return what this job's ranks run on."""
    nodes = world.size // world.local_size
    if world.device.type == "cuda":
        found = torch.cuda.get_device_properties(world.device)
        gpu = gpu_of(found.name, found.total_memory / GIB)
    else:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
        gpu = Gpu("CPU", memory / world.local_size, CPU_GIGABYTES, CPU_TFLOPS)
    return Place(gpu, world.local_size, nodes, LINKS["pcie"], LINKS["infiniband"])


def strategy_of(config: RunConfig, world: World) -> Strategy:
    """Return the parallel mode of a config; a rank that is alone has nothing to share."""
    if config.model.parallel == "fsdp" and world.size > 1:
        # It takes a second to import, which others need not wait for.
        from giblet_hpc.training.fully_sharded import FullySharded

        return FullySharded(world, bf16=uses_bf16(config, world.device))
    team = ranks_of_a_team(config, world.local_size)
    return TensorParallel(world, team) if team > 1 else DataParallel(world)
