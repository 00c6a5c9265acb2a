"""torchrun, without its traceback where a rank has already said what is wrong."""

from __future__ import annotations

import logging
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun


def main() -> int:
    """Run torchrun with this process's arguments; return 1 when a rank failed."""
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
