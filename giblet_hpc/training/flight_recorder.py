"""What ranks were telling each other when they hang: torch's flight recorder, written on request.

A thread writes it: the one that trains waits for the others then.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from typing import Any

from torch._C import _distributed_c10d

from giblet_hpc.files import write_json
from giblet_hpc.runs import beacon
from giblet_hpc.runs.attempt_paths import AttemptPaths
from giblet_hpc.runs.environment import attempt_folder

logger = logging.getLogger(__name__)
LAST = 50
"""Collectives that are written, of those that torch remembers."""
POLL_SECONDS = 0.5


def answer(rank: int) -> None:
    """Write this rank's last collectives when its supervisor asks for them.

    Parameters
    ----------
    rank : int
        Global rank.
    """
    folder = attempt_folder()
    if folder is None:
        return
    file = AttemptPaths(folder).collectives(rank)

    def wait() -> None:
        while not beacon.asked_for_trace():
            time.sleep(POLL_SECONDS)
        try:
            write_json(file, {"rank": rank, "collectives": last_collectives()})
        except (OSError, RuntimeError, ValueError) as error:
            logger.warning("the flight recorder could not be written: %s", error)

    threading.Thread(target=wait, daemon=True).start()


def last_collectives() -> list[dict[str, Any]]:
    """Return the last collectives of this rank, the newest last: what, sizes, where they stand."""
    # With NCCL it has a name of its own.
    names = ("_dump_nccl_trace_json", "_dump_fr_trace_json")
    dump = next(getattr(_distributed_c10d, n) for n in names if hasattr(_distributed_c10d, n))
    entries = json.loads(dump())["entries"][-LAST:]
    kept = ("profiling_name", "state", "input_sizes", "input_dtypes", "process_group",
            "collective_seq_id", "time_created_ns")  # fmt: skip
    return [{name: entry[name] for name in kept if name in entry} for entry in entries]
