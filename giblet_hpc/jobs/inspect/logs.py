"""A run's log: the output of its attempts."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from giblet_hpc.errors import ConfigError
from giblet_hpc.jobs.record import lease
from giblet_hpc.jobs.record.attempts import Attempt, all_attempts
from giblet_hpc.jobs.schedulers import registry
from giblet_hpc.printable import printable
from giblet_hpc.runs.paths import RunPaths

LOOK_SECONDS = 1.0
PIECE_BYTES = 2**20
ASK_SECONDS = 20.0
"""Between questions to the scheduler."""


@dataclass(frozen=True)
class Which:
    """Which attempts' logs are meant; by default all.

    Parameters
    ----------
    stage, part : str
    number : int, optional
        Of the attempt.
    """

    stage: str = ""
    part: str = ""
    number: int | None = None

    def attempts(self, paths: RunPaths) -> list[Attempt]:
        """Return them, oldest first."""
        return [
            attempt
            for attempt in all_attempts(paths)
            if self.number in (None, attempt.number)
            and self.stage in ("", attempt.facts().get("stage"))
            and self.part in ("", attempt.facts().get("part"))
        ]

    def __str__(self) -> str:
        number = f"attempt {self.number}" if self.number is not None else ""
        return " ".join(filter(None, (self.stage, self.part, number)))


ANY = Which()


def log_files(paths: RunPaths, node: int = 0, which: Which = ANY) -> list[Path]:
    """Return a node's log files of attempts, oldest first."""
    files = [attempt.log(node) for attempt in which.attempts(paths)]
    return [file for file in files if file.is_file()]


def latest_log(paths: RunPaths, node: int = 0, which: Which = ANY) -> Path:
    """Return a node's newest log file.

    Raises
    ------
    ConfigError
        When nothing of that kind has run yet.
    """
    files = log_files(paths, node, which)
    if not files:
        if str(which) and log_files(paths, node):
            every = [attempt.facts() for attempt in all_attempts(paths)]
            known = dict.fromkeys(f"{f.get('stage')} {f.get('part', '')}".strip() for f in every)
            raise ConfigError(
                f"run {paths.name} has no log of {which}; there are {len(every)} attempts, of "
                f"{', '.join(known)}"
            )
        last = which.attempts(paths)[-1:]
        others = [str(n) for attempt in last for n in attempt.nodes() if attempt.log(n).is_file()]
        if others:
            raise ConfigError(
                f"run {paths.name} has no log of node {node}; there are: {', '.join(others)}"
            )
        raise ConfigError(f"run {paths.name} has no log yet", hint=paths.command("status"))
    return files[-1]


class Reader:
    """Reads a log bit by bit, also one of many gigabytes, and one that still grows.

    Bytes that are no UTF-8, which NCCL may write, are shown as such; so is what controls a
    terminal.

    Parameters
    ----------
    file : Path
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._position = 0
        # Keeps half a character until its other half is written.
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def read(self, *, final: bool = False) -> Iterator[str]:
        """Yield what is new, in pieces; ``final`` also half a character."""
        with self._file.open("rb") as handle:
            handle.seek(self._position)
            while piece := handle.read(PIECE_BYTES):
                self._position += len(piece)
                yield printable(self._decoder.decode(piece))
        if final:
            yield printable(self._decoder.decode(b"", final=True))


def read_log(file: Path) -> Iterator[str]:
    """Yield a log's text in pieces."""
    return Reader(file).read(final=True)


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
    readers: dict[Path, Reader] = {}
    while True:
        last_look = ended()
        for file in log_files(paths, node):
            if file in known:
                continue
            yield from readers.setdefault(file, Reader(file)).read(final=last_look)
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
