"""Why an attempt ended, in a sentence, and what to do about it."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from giblet_hpc.causes import search
from giblet_hpc.jobs.node import evidence
from giblet_hpc.jobs.node.evidence import Seen
from giblet_hpc.jobs.record import attempts
from giblet_hpc.jobs.record.attempts import Attempt, Outcome
from giblet_hpc.printable import printable
from giblet_hpc.trust import read_text

SHOWN = 3
"""Lines of evidence that are kept."""
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
    root: str = ""
    """Name of the cause: attempts that end by the same one share a budget."""
    evidence: tuple[str, ...] = ()
    """Files and lines that tell it."""
    hopeless: bool = False
    """Whether another attempt cannot end otherwise."""
    suspects: tuple[str, ...] = ()
    """Hosts that are at fault."""


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
        return Diagnosis("hung", _hang_reason(attempt), HUNG_HINT, 1, root="hang")
    if asked:
        reason = read_text(attempt.stop).strip() if attempt.stop.exists() else ""
        if disposition == "script killed":
            return Diagnosis("lost", KILLED_SCRIPT, MORE_MEMORY, 1, root="script-killed")
        stopped = by_user or (reason == "SIGTERM" and disposition == "cancelled")
        return Diagnosis("stopped" if stopped else "interrupted", reason)
    return _crash(attempt, failures)


def _crash(attempt: Attempt, failures: Sequence[Mapping[str, Any]]) -> Diagnosis:
    """Find the cause: what ended first by itself, before what only followed from that."""
    seen = evidence.gather(attempt)
    roots = [one for one in seen if one.match.cause.role == "root"]
    own = [failure for failure in failures if not _follows(failure["reason"])]
    killed = _killed(attempt)
    lost = ", ".join(attempt.unfinished_hosts())
    if own:
        found = _of_rank(own[0])
        known = search.matches(own[0]["reason"])
        # A rank's exception counts, unless a log names what lies behind it.
        if not known or not roots or known[0].rank[:2] <= roots[0].match.rank[:2]:
            return replace(found, evidence=_lines(attempt, own[0], seen, found.root))
    if roots:
        cause, where = roots[0].match.cause, f"no word from node {lost}" if lost else ""
        what = f"{cause.reason} ({where})" if where else cause.reason
        if killed is not None and not where:
            what = f"{cause.reason}: {killed.reason}"
        return Diagnosis(
            "lost" if lost else "crashed", what, cause.remedy, 1, root=cause.name,
            evidence=tuple(map(str, _supporting(seen))),
            suspects=(roots[0].host,) if cause.of_node and roots[0].host else (),
        )  # fmt: skip
    if killed is not None:
        return replace(killed, evidence=tuple(map(str, _supporting(seen))))
    if lost:
        reason = f"no word from node {lost}: its supervisor was killed"
        return Diagnosis("lost", reason, "", 1, root="supervisor-killed")
    return _least(attempt, failures, seen)


def _least(attempt: Attempt, failures: Sequence[Mapping[str, Any]], seen: Sequence[Seen]
           ) -> Diagnosis:  # fmt: skip
    """Say what there is where nothing names a cause."""
    if failures:
        return replace(_of_rank(failures[0]), evidence=tuple(map(str, seen[:SHOWN])))
    if seen:
        cause = seen[0].match.cause
        lines = tuple(map(str, seen[:SHOWN]))
        return Diagnosis("crashed", cause.reason, cause.remedy, 1, root=cause.name, evidence=lines)
    codes = [record.get("code") for record in attempt.nodes().values() if record.get("code")]
    ended = f"the process ended with exit code {codes[0]}" if codes else "the process ended early"
    return Diagnosis("crashed", ended, "", 1, root=attempts.root_of_text(ended))


def _supporting(seen: Sequence[Seen]) -> list[Seen]:
    """Return the lines that tell the cause: the first root's, and those that confirm it."""
    roots = [one for one in seen if one.match.cause.role == "root"][:1]
    return [*roots, *(one for one in seen if one.match.cause.role == "confirmation")][:SHOWN]


def _lines(
    attempt: Attempt, failure: Mapping[str, Any], seen: Sequence[Seen], root: str
) -> tuple[str, ...]:
    """Return where a rank has said why it failed, and what confirms it."""
    file = attempt.files.rank(failure["rank"]).relative_to(attempt.folder.parent.parent)
    said = printable(str(failure["reason"])).partition("\n")[0][: evidence.LONGEST]
    others = [one for one in seen if one.match.cause.name == root]
    others += [one for one in seen if one.match.cause.role == "confirmation"]
    return (f"{file}: {said}", *map(str, others[: SHOWN - 1]))


def _follows(reason: str) -> bool:
    """Whether a message only says that another rank is gone."""
    roles = {match.cause.role for match in search.matches(reason)}
    return "cascade" in roles and "root" not in roles


def _of_rank(failure: Mapping[str, Any]) -> Diagnosis:
    """Return what a rank has said of its failure."""
    where = f"rank {failure['rank']} on {failure['host']}"
    cause = search.explain(failure["reason"])
    root = cause.name if cause else attempts.root_of_text(failure["reason"])
    if failure["hint"] or cause is None:
        said = f"{where}: {failure['reason']}"
        return Diagnosis("crashed", said, failure["hint"], 1, root=root)
    return Diagnosis(
        "crashed", f"{cause.reason} ({where})", cause.remedy, 1, root=root,
        # A line of a log may be a warning; a rank's own exception is not.
        hopeless=cause.role == "root" and cause.attempts == 1,
        suspects=(failure["host"],) if cause.of_node else (),
    )  # fmt: skip


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
    said = f"{what} was killed by signal {name}"
    return Diagnosis("crashed", said, hint, 1, root=f"signal-{number}")


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
