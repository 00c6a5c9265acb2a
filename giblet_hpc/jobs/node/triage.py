"""Why an attempt ended, in a sentence, and what to do about it."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from giblet_hpc import causes
from giblet_hpc.jobs.record.attempts import Attempt, Outcome
from giblet_hpc.trust import read_text

TAIL_BYTES = 20000
NOT_STARTED = -1
"""A node's code when its stage could not be started."""
KILLED_SCRIPT = "the job's script was killed on its first node"
HUNG_HINT = (
    "the ranks' stacks are in the log, their last collectives in the attempt's "
    "collectives-rank-*.json"
)
MORE_MEMORY = (
    "the kernel does so where memory is short: raise memory_gb_per_node in the cluster profile"
)


@dataclass(frozen=True)
class Diagnosis:
    """How an attempt ended."""

    outcome: Outcome
    reason: str = ""
    hint: str = ""
    exit_code: int = 0
    of_config: bool = False
    """Whether the run's config has to be mended."""


def diagnose(
    attempt: Attempt,
    progress: Mapping[str, Any],
    *,
    asked: bool,
    disposition: str = "runs",
    by_user: bool = False,
) -> Diagnosis:
    """Return how an attempt ended.

    Parameters
    ----------
    attempt : Attempt
        With the records that its nodes and ranks left.
    progress : mapping
        What rank 0 has said last.
    asked : bool
        Whether it was asked to stop.
    disposition : str
        What the scheduler does with the job.
    by_user : bool
        Whether a person asked it to stop.
    """
    if progress.get("status") == "complete":
        return Diagnosis("complete")
    failures = attempt.failures()
    mistake = next((failure for failure in failures if failure["kind"] == "mistake"), None)
    if mistake is not None:
        return Diagnosis(
            "failed", mistake["reason"], mistake["hint"], mistake["exit_code"],
            mistake.get("of_config", False),
        )  # fmt: skip
    if attempt.hung.exists():
        return Diagnosis("hung", _hang_reason(attempt), HUNG_HINT, 1)
    if asked:
        reason = read_text(attempt.stop).strip() if attempt.stop.exists() else ""
        if disposition == "script killed":
            return Diagnosis("lost", KILLED_SCRIPT, MORE_MEMORY, 1)
        stopped = by_user or (reason == "SIGTERM" and disposition == "cancelled")
        return Diagnosis("stopped" if stopped else "interrupted", reason)
    return _crash(attempt, failures)


def _crash(attempt: Attempt, failures: Sequence[Mapping[str, Any]]) -> Diagnosis:
    """Find the cause: what ended first by itself, before what only followed from that."""
    own = [failure for failure in failures if not _follows(failure["reason"])]
    if own:
        return _of_rank(own[0])
    if (killed := _killed(attempt)) is not None:
        return killed
    if lost := attempt.unfinished_hosts():
        names = ", ".join(lost)
        return Diagnosis("lost", f"no word from node {names}: its supervisor was killed", "", 1)
    tail = "\n".join(tail_of(attempt.log(node)) for node in sorted(attempt.nodes()))
    cause = causes.explain(tail)
    if cause is not None and not cause.follows:
        return Diagnosis("crashed", cause.reason, cause.remedy, 1)
    if failures:
        return _of_rank(failures[0])
    if cause is not None:
        return Diagnosis("crashed", cause.reason, cause.remedy, 1)
    codes = [record.get("code") for record in attempt.nodes().values() if record.get("code")]
    ended = f"the process ended with exit code {codes[0]}" if codes else "the process ended early"
    return Diagnosis("crashed", ended, "", 1)


def _follows(reason: str) -> bool:
    """Whether a message only says that another rank is gone."""
    cause = causes.explain(reason)
    return bool(cause and cause.follows) or "DistBackendError" in reason


def _of_rank(failure: Mapping[str, Any]) -> Diagnosis:
    """Return what a rank has said of its failure."""
    where = f"rank {failure['rank']} on {failure['host']}"
    cause = causes.explain(failure["reason"])
    if failure["hint"] or cause is None:
        return Diagnosis("crashed", f"{where}: {failure['reason']}", failure["hint"], 1)
    return Diagnosis("crashed", f"{cause.reason} ({where})", cause.remedy, 1)


def _killed(attempt: Attempt) -> Diagnosis | None:
    """Name the rank, or the process above the ranks, that a signal ended.

    What a supervisor ended itself, as another node was gone, is no cause.
    """
    records = attempt.nodes().values()
    followed = {record["host"] for record in records if record.get("stepped_in")}
    for agent in attempt.agents():
        for ended in agent["ended"]:
            if ended["exit_code"] < 0 and agent["host"] not in followed:
                what = f"rank {ended['rank']} on {agent['host']}"
                return _by_signal(what, -ended["exit_code"])
    ended_alone = [r for r in records if "ended" in r and r["host"] not in followed]
    for record in sorted(ended_alone, key=lambda record: record["ended"]):
        if record["code"] < 0 and record["code"] != NOT_STARTED:
            return _by_signal(f"the stage's first process on {record['host']}", -record["code"])
    return None


def _by_signal(what: str, number: int) -> Diagnosis:
    try:
        name = f"{number} ({signal.Signals(number).name})"
    except ValueError:
        name = str(number)
    hint = MORE_MEMORY if number == signal.SIGKILL else ""
    return Diagnosis("crashed", f"{what} was killed by signal {name}", hint, 1)


def _hang_reason(attempt: Attempt) -> str:
    """Name the ranks that the others waited for: those that stand still or are behind."""
    ranks = [rank for record in attempt.nodes().values() for rank in record.get("ranks", ())]
    what = read_text(attempt.hung).strip()
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
