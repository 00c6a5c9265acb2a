"""A run's log: the output of its attempts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from giblet_hpc.errors import ConfigError
from giblet_hpc.jobs import cluster
from giblet_hpc.jobs.attempts import all_attempts
from giblet_hpc.runs import RunPaths

LOOK_SECONDS = {"local": 0.5, "slurm": 5.0}
"""Between looks, of which each may ask Slurm's controller."""


def log_files(paths: RunPaths, node: int = 0) -> list[Path]:
    """Return a node's log files of all attempts, oldest first."""
    files = [attempt.log(node) for attempt in all_attempts(paths)]
    return [file for file in files if file.is_file()]


def latest_log(paths: RunPaths, node: int = 0) -> Path:
    """Return a node's newest log file.

    Raises
    ------
    ConfigError
        When nothing has run yet.
    """
    files = log_files(paths, node)
    if not files:
        last = all_attempts(paths)[-1:]
        others = [str(n) for attempt in last for n in attempt.nodes() if attempt.log(n).is_file()]
        if others:
            raise ConfigError(
                f"run {paths.name} has no log of node {node}; there are: {', '.join(others)}"
            )
        raise ConfigError(f"run {paths.name} has no log yet", hint=paths.command("status"))
    return files[-1]


def follow(
    paths: RunPaths,
    *,
    known: set[Path],
    ended: Callable[[], bool],
    node: int = 0,
) -> Iterator[str]:
    """Yield text as it is written to logs that are not in ``known``, until the job has ended.

    Parameters
    ----------
    paths : RunPaths
    known : set of Path
        Logs of earlier attempts, to be left out.
    ended : callable
        Whether the job is over.
    node : int
        Which node's logs.
    """
    seconds = LOOK_SECONDS[cluster.of_run(paths).scheduler]
    positions: dict[Path, int] = {}
    while True:
        last_look = ended()
        for file in log_files(paths, node):
            if file in known:
                continue
            with file.open() as handle:
                handle.seek(positions.get(file, 0))
                text = handle.read()
                positions[file] = handle.tell()
            if text:
                yield text
        if last_look:
            return
        time.sleep(seconds)
