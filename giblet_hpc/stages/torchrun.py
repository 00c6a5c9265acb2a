"""torchrun, which leaves stopping to its ranks and has no traceback where a rank has spoken."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.run import main as torchrun

from giblet_hpc.files import write_json
from giblet_hpc.runs.attempt_paths import AttemptPaths
from giblet_hpc.runs.beacon import end_with_supervisor
from giblet_hpc.runs.environment import FIRST_RANK, LOCAL, MEETING, NODE, attempt_folder, host

CLEANUP_SECONDS = 10.0
"""Less than torchrun waits before it kills the ranks that are left."""


def _leave_to_ranks(*_: object) -> None:
    """Take a signal without effect; unlike an ignored one, it is not ignored by children."""


def main() -> int:
    """Run torchrun with this process's arguments; return 1 when a rank failed.

    Where a scheduler signals every process of a job, the ranks stop at a step boundary, which may
    take a while. torchrun would kill them before; so it does not listen.
    """
    end_with_supervisor()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, _leave_to_ranks)
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    # What torchrun would listen on takes orders from everybody, and it unpickles what it is told:
    # each node has its own, which listens to nobody and keeps its state in a private folder. The
    # ranks find those of other nodes by themselves.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    try:
        with private_folder() as folder:
            os.environ[MEETING] = str(folder)
            torchrun([*rendezvous(folder), *sys.argv[1:]])
    except ChildFailedError as error:
        rank, code = record_failures(error.failures)
        sys.stderr.write(f"rank {rank} ended with exit code {code}\n")
        return 1
    except SignalException as error:
        # Ranks of other nodes may be waiting for this node's.
        record_end([])
        sys.stderr.write(f"torchrun was stopped by {error.sigval.name}\n")
        return 1
    return 0


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """Give the folder that the supervisor has made for this node, or another private one."""
    if LOCAL in os.environ:
        yield Path(os.environ[LOCAL])
        return
    with tempfile.TemporaryDirectory(prefix="giblet-") as folder:
        yield Path(folder)


def rendezvous(folder: Path) -> list[str]:
    """Return torchrun's options for a rendezvous with nobody; all it writes is in this folder."""
    return [
        "--nnodes=1",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint={folder / 'torchrun'}",
        "--rdzv-conf=store_type=file",
        "--rdzv-id=node",
        "--local-addr=localhost",
        # By default a folder that stays on the node.
        f"--log-dir={folder / 'torchelastic'}",
    ]


def record_failures(failures: Mapping[int, ProcessFailure]) -> tuple[int, int]:
    """Write down which ranks ended by themselves, and how; return the one that counts.

    torchrun lists those first that it saw ended, then those that it ended because of them. Of the
    first, a rank that was killed explains one that lost its connection, never the reverse.

    Parameters
    ----------
    failures : mapping of int to ProcessFailure
        By rank on this node, as `ChildFailedError` holds them.
    """
    first = int(os.environ.get(FIRST_RANK, "0"))
    began = next(iter(failures.values())).timestamp
    ended = [
        (first + rank, failure.exitcode)
        for rank, failure in failures.items()
        if failure.timestamp - began < CLEANUP_SECONDS
    ]
    record_end(ended)
    return next(((rank, code) for rank, code in ended if code < 0), ended[0])


def record_end(ended: Sequence[tuple[int, int]]) -> None:
    """Write down that this node's ranks have ended, and with which codes those that did first."""
    folder = attempt_folder()
    if folder is not None:
        facts = {
            "host": host(),
            "time": time.time(),
            "ended": [{"rank": rank, "exit_code": code} for rank, code in ended],
        }
        write_json(AttemptPaths(folder).agent(int(os.environ.get(NODE, "0"))), facts)


if __name__ == "__main__":
    sys.exit(main())
