"""How far a stage is, as the stage itself says it."""

from __future__ import annotations

import time
from typing import Any

from giblet_hpc.files import read_json, write_json
from giblet_hpc.runs.attempt_paths import AttemptPaths
from giblet_hpc.runs.environment import attempt_folder
from giblet_hpc.runs.paths import RunPaths, Stage

PROGRESS_SECONDS = 5.0


class Progress:
    """Writes how far a stage is, at most every few seconds; one process of a stage has one.

    Into the attempt's own file; without a supervisor there is no attempt, and this process alone
    writes the stage's record.

    Parameters
    ----------
    paths : RunPaths
        The run.
    stage : str
        The stage that makes progress.
    part : str
        The part of preprocess that does.
    """

    def __init__(self, paths: RunPaths, stage: Stage, *, part: str = "") -> None:
        self._paths, self._stage, self._part = paths, stage, part
        self._attempt = attempt_folder()
        self._fields: dict[str, Any] = {}
        if self._attempt is not None and AttemptPaths(self._attempt).progress.is_file():
            self._fields = read_json(AttemptPaths(self._attempt).progress)
        self._last = 0.0

    def note(self, **fields: Any) -> None:
        """Record ``fields`` when the last record is old enough."""
        self._fields.update(fields)
        if time.monotonic() - self._last >= PROGRESS_SECONDS:
            self.write()

    def write(self, **fields: Any) -> None:
        """Record ``fields`` now."""
        self._last = time.monotonic()
        self._fields.update(fields, heartbeat=time.time())
        if self._attempt is not None:
            write_json(AttemptPaths(self._attempt).progress, self._fields)
        else:
            self._paths.update_state(self._stage, part=self._part, **self._fields)
