"""TensorBoard under a path that its owner alone knows: python -m giblet_hpc.jobs.inspect.curves."""

from __future__ import annotations

import os
import signal
import sys

from tensorboard import program

from giblet_hpc.jobs.inspect.tensorboard import PREFIX


def main() -> int:
    """Serve until a signal comes.

    TensorBoard's own program would also write where it listens, with the path, into a file that
    everybody can read.
    """
    ends = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    server = program.TensorBoard()
    server.configure(argv=[sys.argv[0], *sys.argv[1:], f"--path_prefix={os.environ[PREFIX]}"])
    server.launch()
    signal.sigwait(ends)
    return 0


if __name__ == "__main__":
    sys.exit(main())
