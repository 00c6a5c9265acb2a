"""The learning rate and the seeds as functions of the step alone."""

from __future__ import annotations

import math

from giblet_hpc.config.train import Train


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
