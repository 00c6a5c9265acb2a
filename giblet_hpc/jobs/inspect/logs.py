"""A run's log: the output of its attempts."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from giblet_hpc.errors import ConfigError
from giblet_hpc.jobs.record import lease
from giblet_hpc.jobs.record.attempts import all_attempts
from giblet_hpc.jobs.schedulers import registry
from giblet_hpc.runs.paths import RunPaths

LOOK_SECONDS = 1.0
ASK_SECONDS = 20.0
"""Between questions to the scheduler."""


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


def read_log(file: Path) -> str:
    """Return a log's text; bytes that are no UTF-8, which NCCL may write, are shown as such."""
    return file.read_bytes().decode("utf-8", "backslashreplace")


def follow(
    paths: RunPaths, *, known: set[Path], ended: Callable[[], bool], node: int = 0
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
    decoders: dict[Path, Any] = {}
    positions: dict[Path, int] = {}
    while True:
        last_look = ended()
        for file in log_files(paths, node):
            if file in known:
                continue
            # Keeps half a character until its other half is written.
            decoder = decoders.setdefault(
                file, codecs.getincrementaldecoder("utf-8")("backslashreplace")
            )
            with file.open("rb") as handle:
                handle.seek(positions.get(file, 0))
                text = decoder.decode(handle.read())
                positions[file] = handle.tell()
            if text:
                yield text
        if last_look:
            return
        time.sleep(LOOK_SECONDS)


class Ended:
    """Whether nobody works on a run any more; the scheduler is asked now and then at most.

    Parameters
    ----------
    paths : RunPaths
    """

    def __init__(self, paths: RunPaths) -> None:
        self._paths = paths
        self._last = 0.0

    def __call__(self) -> bool:
        """Return True when the lease is gone, or its holder is."""
        held = lease.read(self._paths)
        if held is None:
            return True
        queues = registry.of(held.scheduler).queues
        if queues and time.monotonic() - self._last < ASK_SECONDS:
            return False
        self._last = time.monotonic()
        return lease.standing(self._paths).alive is False
