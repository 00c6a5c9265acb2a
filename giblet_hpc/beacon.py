"""What a rank shows its supervisor on the same node: how far it is, and its stack when asked."""

from __future__ import annotations

import faulthandler
import os
import signal
from pathlib import Path

FOLDER = "GIBLET_LOCAL"
STACK_SIGNAL = signal.SIGUSR1
SHIELDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
"""Signals that a stage's processes start with blocked.

Some schedulers signal every process of a job. What has no handler yet, or is the file system of a
container image, would end at once, before a checkpoint is made."""


class Beacon:
    """Writes a rank's position into a small file on the node's own disk.

    Without a supervisor there is no such folder, and nothing is written.

    Parameters
    ----------
    rank : int
        Global rank.
    """

    def __init__(self, rank: int) -> None:
        folder = os.environ.get(FOLDER)
        self._file = -1
        if folder:
            name = Path(folder) / f"rank-{rank}"
            self._file = os.open(name, os.O_WRONLY | os.O_CREAT, 0o600)

    def show(self, step: int, place: str) -> None:
        """Write a step and a place in it; a few microseconds."""
        if self._file >= 0:
            os.pwrite(self._file, f"{os.getpid()} {step} {place:<12}\n".encode(), 0)


def give_stacks_when_asked() -> None:
    """Write all threads' stacks to stderr on SIGUSR1."""
    faulthandler.register(STACK_SIGNAL, all_threads=True, chain=False)


def take_signals() -> None:
    """Let the signals in that were held back at the start; call it when handlers are there."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SHIELDED)


def read(folder: Path) -> dict[int, tuple[int, int, str]]:
    """Return each rank's process id, step and place."""
    found = {}
    for file in folder.glob("rank-*"):
        words = file.read_text().split()
        if len(words) == 3:
            found[int(file.name.removeprefix("rank-"))] = (int(words[0]), int(words[1]), words[2])
    return found
