"""What a training would start with: the loss's components, and the steps there are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from giblet_hpc.config.batch import SMALLEST_DENSE_BATCH
from giblet_hpc.config.run import RunConfig
from giblet_hpc.findings import Finding
from giblet_hpc.splits import Fold
from giblet_hpc.training.windows import epoch_windows


def steps(
    config: RunConfig, folds: Sequence[Fold], *, subjects: int, ranks: int, step_seconds: float
) -> Iterator[Finding]:
    """Judge how many steps there are, the warm-up's share of them, and the batch.

    Parameters
    ----------
    config : RunConfig
    folds : sequence of Fold
    subjects : int
    ranks : int
        That training would have.
    step_seconds : float
        Of a step; 0 where it is not known.
    """
    options = config.train
    windows = len(epoch_windows(folds[0].train, options.window_trs, seed=0, epoch=0))
    each = windows // options.batch_windows
    total = each * options.epochs
    warm = options.warmup_epochs * each
    hours = warm * step_seconds / 3600
    seen = (
        f"{windows} windows of {options.window_trs} TRs, {each} steps an epoch, "
        f"{total} in all; warm-up {warm:.0f} ({100 * warm / max(1, total):.0f} %)"
    )
    if step_seconds:
        seen += (
            f", {hours:.2g} of {total * step_seconds / 3600:.2g} h at {step_seconds:.2g} s a step"
        )
    if not each:
        yield Finding("steps", "fail", f"{seen}: a batch needs {options.batch_windows}",
                      f"--set train.batch_windows={max(1, windows // 8)}")  # fmt: skip
    elif total < config.health.fewest_steps:
        epochs = math.ceil(config.health.fewest_steps / each)
        yield Finding("steps", "warn", f"{seen}: networks seldom learn in so few",
                      f"--set train.epochs={epochs}")  # fmt: skip
    elif options.warmup_epochs / options.epochs > config.health.warmup_share:
        yield Finding("steps", "warn", f"{seen}: the rate is not up for long",
                      f"--set train.warmup_epochs={options.epochs / 20:g}")  # fmt: skip
    elif hours > config.health.warmup_hours:
        enough = options.warmup_epochs * config.health.warmup_hours / hours
        yield Finding("steps", "warn", f"{seen}: the warm-up alone takes {hours:.3g} h",
                      f"--set train.warmup_epochs={enough:.2g}")  # fmt: skip
    else:
        yield Finding("steps", "ok", seen)
    yield from _mode(config, subjects)
    alone = options.batch_windows // (ranks * options.accumulation)
    dense = config.model.kind == "dense" and config.model.norm == "batch"
    together = alone * ranks
    if dense and together < SMALLEST_DENSE_BATCH:
        yield Finding(
            "batch", "fail", f"BatchNorm would see {together} TRs at a time: signs alone",
            f"--set train.batch_windows={SMALLEST_DENSE_BATCH}, or --set model.norm=layer",
        )  # fmt: skip


def _mode(config: RunConfig, subjects: int) -> Iterator[Finding]:
    """Judge whether the network can tell subjects apart that it is to predict."""
    if config.bold.mode == "cross_subject" or subjects < 2:
        return
    if config.model.kind == "dense":
        yield Finding(
            "mode", "warn",
            f"the dense network makes one prediction, and {subjects} subjects are to be predicted "
            "by it", "--set bold.mode=cross_subject predicts their mean; --set model.kind=temporal "
            "tells them apart",
        )  # fmt: skip


def scales(config: RunConfig, losses: Mapping[str, float]) -> Finding:
    """Judge the share that each component of the loss has at the start."""
    total = sum(losses.values()) or 1.0
    shares = {name: value / total for name, value in losses.items()}
    largest = max(shares, key=shares.__getitem__)
    seen = ", ".join(f"{name} {100 * share:.3g} %" for name, share in shares.items())
    seen = f"loss.normalise {config.loss.normalise}: {seen}"
    if len(shares) > 1 and shares[largest] > config.health.largest_share:
        return Finding(
            "scales", "fail", f"{seen}: {largest} outweighs all others",
            "loss.normalise: variance, or a lower weight of it",
        )  # fmt: skip
    return Finding("scales", "ok", seen)
