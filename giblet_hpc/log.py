"""One logging setup and one progress display, both on stderr."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 10.0


def setup(rank: int = 0) -> None:
    """Send the package's log to stderr; ranks other than 0 report warnings only.

    Parameters
    ----------
    rank : int
        Global rank of this process.
    """
    prefix = "" if rank == 0 else f"[rank {rank}] "
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"%(asctime)s {prefix}%(message)s", datefmt="%H:%M:%S"))
    logger = logging.getLogger("giblet_hpc")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)


def progress(items: Iterable[Item], *, label: str, total: int) -> Iterator[Item]:
    """Yield ``items``, showing how far along they are.

    A bar on a terminal; on a pipe or in a job's log, a plain line every ten seconds.

    Parameters
    ----------
    items : iterable
        What to go through.
    label : str
        What is being done.
    total : int
        How many items there are.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(items, description=label, total=total, console=Console(stderr=True))
        return
    logger = logging.getLogger("giblet_hpc.progress")
    last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last > SECONDS_BETWEEN_LINES and done < total:
            last = now
            logger.info("%s: %d of %d", label, done, total)
    logger.info("%s: %d done", label, total)
