"""Whether a batch can be shared by so many ranks."""

from __future__ import annotations

from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import ConfigError

SMALLEST_DENSE_BATCH = 8
"""TRs that BatchNorm sees at a time, of all ranks together: with fewer it keeps only signs."""


def ranks_of_a_team(config: RunConfig, local: int) -> int:
    """Return how many ranks compute the same windows together: 1 but in tensor mode.

    Parameters
    ----------
    config : RunConfig
    local : int
        Ranks of a node.

    Raises
    ------
    ConfigError
        When a node's ranks are not divided evenly.
    """
    if config.model.parallel != "tensor":
        return 1
    team = config.model.tensor_ranks or local
    if local % team:
        raise ConfigError(
            f"model.tensor_ranks ({team}) must divide the {local} ranks of a node",
            hint="leave it out, for all ranks of a node",
        )
    return team


def require_shared_batch(config: RunConfig, ranks: int) -> None:
    """Check that a step's windows can be divided among the ranks.

    Parameters
    ----------
    config : RunConfig
    ranks : int
        Those that see different windows.

    Raises
    ------
    ConfigError
        When they cannot, or when too few are left for the dense model's BatchNorm.
    """
    options = config.train
    parts = ranks * options.accumulation
    if options.batch_windows % parts:
        nearest = max(1, round(options.batch_windows / parts)) * parts
        raise ConfigError(
            f"train.batch_windows ({options.batch_windows}) must be a multiple of ranks x "
            f"accumulation ({ranks} x {options.accumulation})",
            hint=f"--set train.batch_windows={nearest}, or another number of ranks",
        )
    each = options.batch_windows // options.accumulation
    batch_norm = config.model.kind == "dense" and config.model.norm == "batch"
    if batch_norm and each < SMALLEST_DENSE_BATCH:
        smallest = -(-SMALLEST_DENSE_BATCH // ranks) * parts
        raise ConfigError(
            f"the dense model's BatchNorm would see {each} TRs at a time; with so few it keeps "
            f"only signs. It needs at least {SMALLEST_DENSE_BATCH}",
            hint=f"--set train.batch_windows={smallest}, or --set model.norm=layer",
        )
