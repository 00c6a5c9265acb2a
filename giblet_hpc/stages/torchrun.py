"""torchrun, which leaves stopping to its ranks and has no traceback where a rank has spoken."""

from __future__ import annotations

import logging
import signal
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from giblet_hpc.beacon import end_with_supervisor


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
    try:
        torchrun(sys.argv[1:])
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        sys.stderr.write(f"rank {rank} ended with exit code {failure.exitcode}\n")
        return 1
    except SignalException as error:
        sys.stderr.write(f"torchrun was stopped by {error.sigval.name}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
