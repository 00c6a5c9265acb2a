"""The processes of a stage on one node: starting them, reaching them all, ending them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from giblet_hpc.jobs.node import launch
from giblet_hpc.jobs.schedulers.local import process_state
from giblet_hpc.runs import beacon
from giblet_hpc.runs.environment import TOKEN

PR_SET_PDEATHSIG = 1
END_SIGNAL = getattr(signal, launch.END_SIGNAL)
TERM_SECONDS = 20.0
STACK_SECONDS = 2.0
KILL_SECONDS = 60.0
SAMPLE_SECONDS = 10.0


class Child:
    """A stage's process and all that it starts.

    Every descendant carries a token in its environment, so that it is found whatever session,
    process group or container it has gone to.

    Parameters
    ----------
    command : sequence of str
    environment : mapping
        Holds the token under the name `TOKEN`.
    token : str
        Names this execution on this node.
    output : file, optional
        Receives stdout and stderr; by default this process's stderr.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        token: str,
        output: IO[str] | None,
    ) -> None:
        self._token = token
        before = signal.pthread_sigmask(signal.SIG_BLOCK, beacon.BLOCKED_AT_START)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output or 2,
                stderr=subprocess.STDOUT if output else None,
                env=environment,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - single-threaded here
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @property
    def code(self) -> int | None:
        """The exit code; None while the process runs."""
        return self._process.poll()

    @property
    def process(self) -> int:
        """The id of the process that was started."""
        return self._process.pid

    def processes(self) -> list[int]:
        """Return the ids of all processes that belong to this execution."""
        return processes_with(self._token)

    def dump_stacks(self, ranks: Sequence[int]) -> None:
        """Have the processes of the ranks write their stacks to the log."""
        for process in ranks:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, beacon.STACK_SIGNAL)
        time.sleep(STACK_SECONDS)

    def end(self) -> None:
        """Ask the process to end, then kill whatever is left; return when nothing is."""
        if self._process.poll() is None:
            # torchrun ends its ranks; it takes no other signal for more than noise.
            self._process.send_signal(END_SIGNAL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(TERM_SECONDS)
        self.kill()

    def kill(self) -> None:
        """Kill everything; return when nothing is left, or nothing more can be done.

        A process that waits for a device that is gone cannot be killed.
        """
        end = time.monotonic() + KILL_SECONDS
        while (left := self.processes()) and time.monotonic() < end:
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            self._process.poll()
            time.sleep(0.05)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(TERM_SECONDS)


class PeakMemory:
    """The most memory that a child's processes have held together, by samples.

    What processes share counts once. Only what the kernel tells without a process's memory lock is
    read, as a rank that waits for a dead device may hold its own for ever.

    Parameters
    ----------
    child : Child
    """

    def __init__(self, child: Child) -> None:
        self._child = child
        self._began = self._last = time.monotonic()
        self.bytes = 0

    def look(self) -> None:
        """Take a sample, unless the last one is recent."""
        now = time.monotonic()
        if now - self._last < min(SAMPLE_SECONDS, 0.5 + (now - self._began) / 10):
            return
        self._last = now
        held = [_held(process) for process in _descendants(self._child.process)]
        shared = max((pages for _, pages in held), default=0)
        pages = sum(resident - pages for resident, pages in held) + shared
        self.bytes = max(self.bytes, pages * os.sysconf("SC_PAGESIZE"))


def _held(process: int) -> tuple[int, int]:
    """Return the pages of a process that are in memory, and those of them that others may share."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{process}/statm").read_text().split()
    except (OSError, ValueError):
        return 0, 0
    return int(resident), int(shared)


def _descendants(process: int) -> list[int]:
    """Return a process and all that it has started, and they in turn."""
    found = [process]
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in file.read_text().split():
                found += _descendants(int(child))
    return found


def _die_with_parent() -> None:
    """Ask the kernel to end this process when its parent dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, END_SIGNAL)


def processes_with(token: str) -> list[int]:
    """Return the ids of this user's processes that carry a token."""
    wanted = f"{TOKEN}={token}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            carried = wanted in (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if carried and process_state(int(folder.name)) not in ("Z", ""):
            found.append(int(folder.name))
    return found
