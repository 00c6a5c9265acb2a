"""A look at a training's health after each validation, while it goes on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from giblet_hpc.config.run import RunConfig
from giblet_hpc.errors import ConfigError
from giblet_hpc.findings import Finding
from giblet_hpc.health import Health, Row
from giblet_hpc.runs.progress import Progress
from giblet_hpc.training.world import World

logger = logging.getLogger(__name__)


class HealthCheck:
    """Says in a run's progress when its training cannot succeed; stops it where it is asked to.

    Parameters
    ----------
    config : RunConfig
    progress : Progress
    world : World
    """

    def __init__(self, config: RunConfig, progress: Progress, world: World) -> None:
        self._config, self._progress, self._world = config, progress, world
        # None: what an earlier attempt, or the fold before, has said is still there.
        self._known: list[str] | None = None

    def __call__(self, rows: Sequence[Row], *, total_steps: int, pace: Mapping[str, float]) -> None:
        """Look at the figures so far, on rank 0; all ranks have to call.

        Raises
        ------
        ConfigError
            When the training cannot succeed, and the config says to stop then.
        """
        bad = self._look(rows, total_steps, pace) if self._world.is_main else []
        if not self._config.train.stop_when_unhealthy:
            return
        found = self._world.broadcast([[one.check, one.seen, one.fix] for one in bad])
        if found:
            check, seen, fix = found[0]
            raise ConfigError(f"this training cannot succeed: {check}: {seen}", hint=fix)

    def _look(
        self, rows: Sequence[Row], total_steps: int, pace: Mapping[str, float]
    ) -> list[Finding]:
        health = Health(
            self._config, rows, total_steps=total_steps,
            step_seconds=pace["step_seconds"], data_wait=pace["data_wait"],
        )  # fmt: skip
        bad = [one for one in health.findings() if one.level == "fail"]
        for one in bad:
            if one.check not in (self._known or ()):
                logger.warning("health: %s: %s. Remedy: %s", one.check, one.seen, one.fix)
        if (names := [one.check for one in bad]) != self._known:
            self._known = names
            self._progress.write(health=[f"{one.check}: {one.seen}" for one in bad])
        return bad
