"""What a run's training was seen to use."""

from __future__ import annotations

from dataclasses import dataclass

from giblet_hpc.jobs.record import attempts
from giblet_hpc.plans.hardware import GIB
from giblet_hpc.runs import figures
from giblet_hpc.runs.paths import RunPaths


@dataclass(frozen=True)
class Measured:
    """Memory in training.

    Parameters
    ----------
    gpu_bytes : float
        The most that a GPU held; 0 where none was watched.
    node_bytes : float
        The most that a node's processes held together; 0 before the first attempt's end.
    asked_gib : float, optional
        What the job asked for on each node.
    """

    gpu_bytes: float = 0.0
    node_bytes: float = 0.0
    asked_gib: float | None = None


def of_training(paths: RunPaths) -> Measured:
    """Return what training's attempts so far have used, at most."""
    rows = [row for file in figures.files(paths).values() for row in figures.rows(file)]
    own = attempts.history(paths, "train")
    nodes = [record.get("peak_memory", 0) for one in own for record in one.nodes().values()]
    asked = [one.facts().get("memory_gb") for one in own]
    return Measured(
        GIB * max((row.get("peak_gib_allocated", 0.0) for row in rows), default=0.0),
        max(nodes, default=0),
        next((value for value in reversed(asked) if value), None),
    )
