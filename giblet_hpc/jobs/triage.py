"""Why an attempt ended, in a sentence, and what to do about it."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from giblet_hpc import nccl
from giblet_hpc.jobs.attempts import Attempt, Outcome

TAIL_BYTES = 20000
KNOWN = [
    (
        r"CUDA out of memory|torch\.OutOfMemoryError|CUBLAS_STATUS_ALLOC_FAILED",
        "out of GPU memory",
        "halve train.batch_windows and double train.accumulation, or use more GPUs",
    ),
    (
        r"oom[-_]kill|Out Of Memory|MemoryError|Cannot allocate memory",
        "out of memory on the node",
        "raise memory_gb_per_node in the cluster profile, or use fewer ranks a node",
    ),
    (
        r"Watchdog caught collective operation timeout|ncclSystemError|ncclRemoteError|NCCL error",
        "a collective operation of NCCL failed or timed out",
        "often a lost rank or a bad link; a second attempt elsewhere tells",
    ),
    (
        r"Timed out waiting \d+ms for (recv|send) operation|Connection closed by peer"
        r"|Connection reset by peer|gloo.*(timed out|Timeout)",
        "a rank lost its connection to another (gloo)",
        "look for the rank that ended first in the other nodes' logs",
    ),
    (
        r"mount source .* doesn't exist|failed to mount|no such file or directory.*bind",
        "a folder could not be bound into the container",
        "correct the paths under `binds` in the cluster profile",
    ),
    (
        r"RendezvousTimeoutError|RendezvousConnectionError",
        "the nodes did not find each other",
        "can the nodes reach each other by name? `giblet-hpc doctor` tries it",
    ),
]
SECONDARY = re.compile(r"Connection (closed|reset) by peer|DistBackendError|Broken pipe")


@dataclass(frozen=True)
class Verdict:
    """How an attempt ended."""

    outcome: Outcome
    reason: str = ""
    hint: str = ""
    exit_code: int = 0


def judge(
    attempt: Attempt, state: Mapping[str, Any], *, stopped_by_user: bool, asked: bool
) -> Verdict:
    """Return how an attempt ended.

    Parameters
    ----------
    attempt : Attempt
        With the records that its nodes and ranks left.
    state : mapping
        The stage's state.
    stopped_by_user : bool
        Whether a person asked it to stop.
    asked : bool
        Whether it was asked to stop at all.
    """
    if state.get("status") == "complete":
        return Verdict("complete")
    failures = attempt.failures()
    mistake = next((failure for failure in failures if failure["kind"] == "mistake"), None)
    if mistake is not None:
        return Verdict("failed", mistake["reason"], mistake["hint"], mistake["exit_code"])
    if attempt.hung.exists():
        return Verdict("hung", _hang_reason(attempt), "the ranks' stacks are in the log", 1)
    if asked:
        reason = attempt.stop.read_text().strip() if attempt.stop.exists() else ""
        return Verdict("stopped" if stopped_by_user else "interrupted", reason)
    silent = attempt.silent_hosts(time.time())
    if silent:
        return Verdict("lost", f"no word from node {', '.join(silent)}", "", 1)
    return _crash(attempt, failures)


def _crash(attempt: Attempt, failures: list[dict[str, Any]]) -> Verdict:
    tail = "\n".join(tail_of(attempt.log(node)) for node in sorted(attempt.nodes()))
    first = next((f for f in failures if not SECONDARY.search(f["reason"])), None)
    if first is None:
        first = next(iter(failures), None)
    if first is not None and first["hint"]:
        reason = f"rank {first['rank']} on {first['host']}: {first['reason']}"
        return Verdict("crashed", reason, first["hint"], 1)
    cause = nccl.explain(first["reason"] if first else tail)
    known = [(cause.pattern, cause.reason, cause.remedy)] if cause else []
    for pattern, reason, hint in [*known, *KNOWN]:
        if re.search(pattern, first["reason"] if first else tail):
            where = f" (rank {first['rank']} on {first['host']})" if first else ""
            return Verdict("crashed", reason + where, hint, 1)
    if first is not None:
        reason = f"rank {first['rank']} on {first['host']}: {first['reason']}"
        return Verdict("crashed", reason, "", 1)
    killed = re.search(r"rank (\d+) ended with exit code -(\d+)", tail)
    if killed:
        return Verdict("crashed", f"rank {killed[1]} was killed by signal {killed[2]}", "", 1)
    codes = [record.get("code") for record in attempt.nodes().values() if record.get("code")]
    ended = f"the process ended with exit code {codes[0]}" if codes else "the process ended early"
    return Verdict("crashed", ended, "", 1)


def _hang_reason(attempt: Attempt) -> str:
    """Name the ranks that the others waited for: those that stand still or are behind."""
    ranks = [rank for record in attempt.nodes().values() for rank in record.get("ranks", ())]
    what = attempt.hung.read_text().strip()
    stopped = [rank for rank in ranks if rank["state"] in ("T", "t", "D", "")]
    if not stopped and ranks:
        order = {"begin": 0, "backward": 1, "agree": 2}
        least = min((rank["step"], order.get(rank["place"], 0)) for rank in ranks)
        behind = [r for r in ranks if (r["step"], order.get(r["place"], 0)) == least]
        stopped = behind if len(behind) < len(ranks) else []
    names = ", ".join(f"rank {rank['rank']} (at {rank['place']})" for rank in stopped)
    return f"{what}; waiting for {names}" if names else what


def tail_of(file: Path) -> str:
    """Return the end of a log."""
    try:
        with file.open("rb") as handle:
            handle.seek(max(0, file.stat().st_size - TAIL_BYTES))
            return handle.read().decode(errors="replace")
    except OSError:
        return ""
