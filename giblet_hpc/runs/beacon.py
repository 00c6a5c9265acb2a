"""What a stage and its supervisor tell each other on one node, and that one ends with the other."""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
import time
from pathlib import Path

from giblet_hpc.runs.environment import LOCAL, SUPERVISOR

STOP, TRACE = "stop", "trace"
WATCH_SECONDS = 2.0
STACK_SIGNAL = signal.SIGUSR1
BLOCKED_AT_START = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
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
        folder = os.environ.get(LOCAL)
        self._file = -1
        if folder:
            name = Path(folder) / f"rank-{rank}"
            self._file = os.open(name, os.O_WRONLY | os.O_CREAT, 0o600)

    def show(self, step: int, place: str) -> None:
        """Write a step and a place in it; a few microseconds."""
        if self._file >= 0:
            os.pwrite(self._file, f"{os.getpid()} {step} {place:<12}\n".encode(), 0)


def dump_stacks_on_signal() -> None:
    """Write all threads' stacks to stderr on SIGUSR1."""
    faulthandler.register(STACK_SIGNAL, all_threads=True, chain=False)


def unblock_signals() -> None:
    """Let the signals in that were blocked at the start; call it when handlers are there."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, BLOCKED_AT_START)


def end_with_supervisor() -> None:
    """Have this process killed when its supervisor is gone.

    The kernel does so for a child; but in a container this may be the child of an engine that knows
    nothing of the supervisor. Where its process cannot be seen, nothing is done.
    """
    status = Path("/proc") / os.environ.get(SUPERVISOR, "none") / "stat"
    began = _start_time(status)
    if not began:
        return

    def watch() -> None:
        while _start_time(status) == began:
            time.sleep(WATCH_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def ask_to_stop(folder: Path) -> None:
    """Ask the ranks of this node, and by them all ranks, to stop at the next step boundary."""
    (folder / STOP).touch()


def asked_to_stop() -> bool:
    """Return whether this node's supervisor asks its ranks to stop."""
    folder = os.environ.get(LOCAL)
    return folder is not None and (Path(folder) / STOP).exists()


def ask_for_trace(folder: Path) -> None:
    """Ask the ranks of this node to write down their last collectives."""
    (folder / TRACE).touch()


def asked_for_trace() -> bool:
    """Return whether this node's supervisor asks for this rank's last collectives."""
    folder = os.environ.get(LOCAL)
    return folder is not None and (Path(folder) / TRACE).exists()


def _start_time(status: Path) -> str:
    """Return when a process began, from its stat file; empty when it is gone."""
    try:
        fields = status.read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def read(folder: Path) -> dict[int, tuple[int, int, str]]:
    """Return each rank's process id, step and place."""
    found = {}
    for file in folder.glob("rank-*"):
        words = file.read_text().split()
        if len(words) == 3:
            found[int(file.name.removeprefix("rank-"))] = (int(words[0]), int(words[1]), words[2])
    return found
