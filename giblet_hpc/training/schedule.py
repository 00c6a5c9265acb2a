"""The learning rate and the seeds as functions of the step alone."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from giblet_hpc.config.batch import require_shared_batch
from giblet_hpc.config.run import RunConfig
from giblet_hpc.config.train import Train
from giblet_hpc.errors import ConfigError
from giblet_hpc.splits import Block
from giblet_hpc.training.windows import epoch_windows

logger = logging.getLogger(__name__)
FEW_STEPS = 200
"""Below which a training is said to be short."""


def steps_per_epoch(config: RunConfig, blocks: Sequence[Block], *, ranks: int) -> int:
    """Return how many steps an epoch has.

    Parameters
    ----------
    config : RunConfig
    blocks : sequence of Block
        The training TRs.
    ranks : int
        Those that see different windows.

    Raises
    ------
    ConfigError
        When a batch cannot be filled, or not be shared.
    """
    options = config.train
    require_shared_batch(config, ranks)
    windows = len(epoch_windows(blocks, options.window_trs, seed=0, epoch=0))
    if windows < options.batch_windows:
        raise ConfigError(
            f"the training TRs hold {windows} windows of {options.window_trs} TRs; a batch "
            f"needs {options.batch_windows}",
            hint="lower train.batch_windows or train.window_trs",
        )
    count = windows // options.batch_windows
    if (total := count * options.epochs) < FEW_STEPS:
        logger.warning(
            "this training has %d steps in all (%d epochs of %d): networks seldom learn in so few. "
            "More: train.epochs, or a lower train.batch_windows or train.window_trs",
            total, options.epochs, count,
        )  # fmt: skip
    return count


def learning_rate(step: int, *, options: Train, steps_per_epoch: int) -> float:
    """Return the learning rate of an optimizer step, counted from 0.

    Linear warm-up, then a cosine to ``min_lr``, or a division by 10 at each third of what
    remains, or a constant.
    """
    warmup = options.warmup_epochs * steps_per_epoch
    if step < warmup:
        return options.lr * (step + 1) / max(1.0, warmup)
    total = options.epochs * steps_per_epoch
    done = min(1.0, (step - warmup) / max(1.0, total - warmup))
    if options.schedule == "cosine":
        low = min(options.min_lr, options.lr)
        return low + (options.lr - low) * 0.5 * (1 + math.cos(math.pi * done))
    if options.schedule == "step":
        return options.lr * 0.1 ** min(2, math.floor(3 * done))
    return options.lr


def mixed_seed(*numbers: int) -> int:
    """Return a seed that differs for each tuple of numbers."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % (2**63)
    return seed
