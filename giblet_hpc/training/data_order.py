"""Where in the data's order a step is, which moves on when training has to go back."""

from __future__ import annotations

import logging
from pathlib import Path

from giblet_hpc.errors import JobError
from giblet_hpc.files import read_json, write_json
from giblet_hpc.runs import checkpoints
from giblet_hpc.training.world import World

logger = logging.getLogger(__name__)
MAX_GOING_BACK = 2
"""How often training goes back before it gives up."""


class NotFiniteError(Exception):
    """Gradients have not been finite for too many steps in a row."""


class DataOrder:
    """By how many steps the data are ahead of the weights.

    Parameters
    ----------
    folder : Path
        Folder of a fold's checkpoints; what is known of earlier attempts lies beside them.
    world : World
        All ranks take part in every call.
    """

    def __init__(self, folder: Path, world: World) -> None:
        self._folder, self._world = folder, world
        self._file = folder / "data-order.json"
        self.shift = 0
        self._times = 0

    def read(self) -> None:
        """Take over what earlier attempts have written down."""
        known = self._world.is_main and self._file.is_file()
        facts = self._world.broadcast(read_json(self._file) if known else {})
        self.shift, self._times = facts.get("shift", 0), facts.get("times", 0)

    def go_back(self, step: int, first_bad: int, *, aside: Path) -> None:
        """Make the last checkpoint before the bad steps the newest, and move the data on.

        Parameters
        ----------
        step : int
            The last of the bad steps, as steps are counted from 0.
        first_bad : int
        aside : Path
            Receives the checkpoints of later steps.

        Raises
        ------
        JobError
            When there is none, or training has gone back too often.
        """
        good = self._world.broadcast(self._good(first_bad) if self._world.is_main else None)
        if good is None or self._times >= MAX_GOING_BACK:
            raise JobError(
                f"steps {first_bad} to {step} had gradients that are not finite"
                + (f", after going back {self._times} times" if self._times else ""),
                hint="lower train.lr, or set train.precision to fp32",
            )
        self.shift += step + 1 - good
        self._times += 1
        if self._world.is_main:
            write_json(self._file, {"shift": self.shift, "times": self._times})
            checkpoints.rewind(self._folder, good, aside)
            logger.warning(
                "steps %d to %d had gradients that are not finite: back to step %d, with the "
                "data after those of step %d", first_bad, step, good, step,
            )  # fmt: skip
        self._world.wait()

    def _good(self, first_bad: int) -> int | None:
        """Return the step of the newest valid checkpoint that no bad step comes before."""
        for path in reversed(checkpoints.committed(self._folder)):
            if checkpoints.step_of(path) <= first_bad and checkpoints.is_valid(path):
                return checkpoints.step_of(path)
        return None
