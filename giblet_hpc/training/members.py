"""The networks of a fold that differ in their seed alone; their predictions are averaged."""

from __future__ import annotations

from dataclasses import dataclass

from giblet_hpc.config.run import RunConfig
from giblet_hpc.splits import Fold


@dataclass(frozen=True)
class Member:
    """One of a fold's networks.

    Parameters
    ----------
    config : RunConfig
        With its own seed.
    fold : Fold
        With a name of its own, under which its checkpoints and figures are kept; the first has the
        fold's.
    """

    config: RunConfig
    fold: Fold


def members(config: RunConfig, fold: Fold) -> list[Member]:
    """Return a fold's networks: ``train.seeds`` of them, with seeds from ``train.seed`` on."""
    found = [Member(config, fold)]
    for number in range(1, config.train.seeds):
        train = config.train.model_copy(update={"seed": config.train.seed + number})
        name = "+".join(filter(None, [fold.name, f"seed-{number + 1}"]))
        found.append(Member(config.model_copy(update={"train": train}), fold._replace(name=name)))
    return found
