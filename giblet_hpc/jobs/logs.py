"""A run's log: the output of its attempts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from giblet_hpc.errors import ConfigError
from giblet_hpc.runs import RunPaths


def log_files(paths: RunPaths) -> list[Path]:
    """Return the log files of all attempts, oldest first."""
    folders = [p for p in paths.attempts.glob("[0-9]*") if p.name.isdigit()]
    return [
        file
        for folder in sorted(folders, key=lambda p: int(p.name))
        for file in sorted(folder.glob("node-*.log"))
    ]


def latest_log(paths: RunPaths) -> Path:
    """Return the newest log file.

    Raises
    ------
    ConfigError
        When nothing has run yet.
    """
    files = log_files(paths)
    if not files:
        raise ConfigError(f"run {paths.name} has no log yet", hint="has it been submitted?")
    return files[-1]


def follow(
    paths: RunPaths, *, known: set[Path], ended: Callable[[], bool], seconds: float = 0.3
) -> Iterator[str]:
    """Yield text as it is written to logs that are not in ``known``, until the job has ended.

    Parameters
    ----------
    paths : RunPaths
    known : set of Path
        Logs of earlier attempts, to be left out.
    ended : callable
        Whether the job is over.
    seconds : float
        Between looks.
    """
    positions: dict[Path, int] = {}
    while True:
        last_look = ended()
        for file in log_files(paths):
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
